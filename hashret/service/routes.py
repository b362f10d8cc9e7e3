"""The routes of the service."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path as Folder
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from .. import __version__
from ..bits import Codes, HashOutputs
from ..data.images import UnreadableImage, read_image
from ..data.references import is_there, open_reference
from ..engines import EngineError
from ..errors import HashretError
from ..index.database import Item
from ..index.rerank import AUTO, DEFAULT, OF_FEATURES
from ..rendering.pages import environment
from ..similar import LEVELS, level_in_words
from ..vectors import Vectors, as_float32
from ..words import known_words, knows_texts, names_in, text_outputs, word_outputs
from . import schema, uploads
from .answers import answer, code_of, since, union
from .batching import Batcher
from .live import LiveIndex, Snapshot
from .maps import maps
from .prometheus import Metrics
from .schema import MAX_CANDIDATES, MAX_K, SearchParameters
from .thumbnails import SIZES, kept_thumbnail, thumbnail
from .uploads import Refused

STATIC = Folder(__file__).parent / "static"
MAX_SAMPLE, MAX_TEXT = 100, 1000
_DECODING = 2  # uploads decoded at a time, each of up to max_pixels
_READING = 4  # indexed photographs decoded at a time, each of up to `hashret.data.images.max_pixels`
_FORM = {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}, "required": ["photo"]}
_PHOTO = {
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}, "multipart/form-data": {"schema": _FORM}}
}
_PROBLEMS: dict[int, dict[str, Any]] = {
    status: {"model": schema.Problem, "description": text}
    for status, text in {
        400: "not an HTTP request that can be read, or to another host's name",
        403: "a browser asks for a page of another origin",
        404: "no such photograph",
        409: "another photograph has that id now, as the index was built again",
        408: "the body did not arrive in time",
        413: "too many bytes or pixels",
        415: "not an image",
        422: "a parameter is wrong",
        500: "the service failed",
        503: "too many photographs wait, or the index is away: try again; or the index is damaged",
    }.items()
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of a route for the OpenAPI description: these and the ones that all routes have."""
    return {status: _PROBLEMS[status] for status in sorted({400, 403, 422, 500, 503, *statuses})}


@dataclass
class Service:
    """What all routes need: the index, the encoder's queue, the figures and the limits."""

    live: LiveIndex
    batcher: Batcher
    metrics: Metrics
    max_upload: int
    max_pixels: int
    decoding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DECODING))
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READING))


async def the_service(request: Request) -> Service:  # as FastAPI gives a plain function to another thread
    """Return the `Service` of the application."""
    service: Service = request.app.state.service
    return service


Id = Annotated[int, Path(ge=0, le=2**63 - 1)]
Shared = Annotated[Service, Depends(the_service)]
Digest = Annotated[
    str | None, Query(description="`digest` of the photograph: another one that has its id by now is refused")
]


async def with_exact_label(request: Request, **given: Any) -> SearchParameters:
    """Return the parameters with labels by the bytes of the address: a class may have a name that is not UTF-8."""
    labels = [value for name, value in exact_parameters(request) if name == "label" and value]
    return SearchParameters(**given | {"label": labels or None})


# FastAPI takes parameters as the signature has them.
_request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
_searched = inspect.signature(SearchParameters, eval_str=True).parameters.values()
vars(with_exact_label)["__signature__"] = inspect.Signature([_request, *_searched])


def exact_parameters(request: Request) -> list[tuple[str, str]]:
    """Return names and values of the address's parameters, whatever their bytes."""
    text = request.scope["query_string"].decode("latin-1")
    return parse_qsl(text, keep_blank_values=True, errors="surrogateescape")


Parameters = Annotated[SearchParameters, Depends(with_exact_label)]


async def refuse_ignored_parameters(request: Request) -> None:
    """Refuse what would be ignored: a parameter that the route's description does not name, and a second value."""
    about_route = request.app.openapi()["paths"].get(request.scope["route"].path, {}).get(request.method.lower())
    if about_route is None:  # a page, or /metrics
        return
    known = {one["name"]: one["schema"] for one in about_route.get("parameters", []) if one["in"] == "query"}
    seen = set()
    for name, _ in exact_parameters(request):
        if name not in known:
            there = f"; there are {', '.join(known)}" if known else ", nor any other"
            raise Refused(422, f"there is no parameter {name!r} here{there}")
        if name in seen and not _is_list(known[name]):
            raise Refused(422, f"the parameter {name} has one value, and is named twice")
        seen.add(name)


def _is_list(described: dict[str, Any]) -> bool:
    """Whether a parameter takes several values, by its JSON schema."""
    return any(kind.get("type") == "array" for kind in (described, *described.get("anyOf", [])))


router = APIRouter(dependencies=[Depends(refuse_ignored_parameters)])


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """Serve the page itself."""
    levels = [(word, level_in_words(word), percent) for word, percent in LEVELS.items()]
    text = environment().get_template("service.html").render(title="hashret", levels=levels)
    return HTMLResponse(text, headers={"cache-control": "no-cache"})


@router.get("/api/about", responses=problems())
async def about(service: Shared) -> schema.About:
    """The index that is served, and the limits of a request."""
    snapshot = service.live.current
    meta, encoder = snapshot.index.meta, snapshot.encoder
    names = ("method", "image_size", "attention")
    known = {n: encoder.meta.get(n) for n in names} | {"vector_width": encoder.vector_width} if encoder else None
    return schema.About(
        count=len(snapshot.index), bits=snapshot.index.bits, classes=meta["classes"], encoder=known,
        words=known_words(encoder) if encoder else [], text=encoder is not None and knows_texts(encoder),
        values=snapshot.index.has_hash_outputs, generation=meta["generation"], max_upload_bytes=service.max_upload,
        max_pixels=service.max_pixels, max_k=MAX_K,
        max_candidates=min(MAX_CANDIDATES, snapshot.index.most or MAX_CANDIDATES), version=__version__,
    )  # fmt: skip


@router.post("/api/query", responses=problems(408, 413, 415), openapi_extra={"requestBody": _PHOTO})
async def query_by_photograph(
    request: Request, service: Shared, parameters: Parameters, with_maps: Annotated[bool, Query(alias="maps")] = False
) -> schema.Answer:
    """The photographs most like an upload: an image as the request's body, or as the field `photo` of a form."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model: search by an indexed photograph")
    if snapshot.encoder.vector_width:
        raise Refused(422, "this index is of vectors: search by one at /api/query/vector")
    upload = await uploads.receive(request, service.max_upload)
    started = time.perf_counter()
    pixels = await uploads.decode(upload, snapshot.encoder, service.max_pixels, service.decoding)
    milliseconds = {"decode": since(started)}
    started = time.perf_counter()
    encoded = await service.batcher.encode(snapshot.encoder, pixels)
    milliseconds["encode"] = since(started)
    answered = await _search(
        service, snapshot, encoded.hash_outputs, parameters, name=upload.name, milliseconds=milliseconds
    )
    if with_maps:
        answered.query.maps = await run_in_threadpool(maps, snapshot.encoder, encoded.feature_map)
    return answered


@router.post("/api/query/values", responses=problems(408, 413))
async def query_by_values(
    body: schema.Values,
    service: Shared,
    parameters: Parameters,
    together: Annotated[
        Literal["mean", "union"],
        Query(description="how several photographs are one query: by their mean; union: what is near to any of them"),
    ] = "mean",
) -> schema.Answer:
    """The same for photographs that were encoded before, one or several, by the values of their answers' queries."""
    snapshot = service.live.current
    bits = snapshot.index.bits
    rows = [row if isinstance(row, list) else [row] for row in body.values]
    same = len({len(row) for row in rows}) == 1
    values = np.atleast_2d(np.asarray(body.values if same else [], np.float32))
    if values.shape[1] != bits or not ((values >= 0) & (values <= 1)).all():
        raise Refused(422, f"values are {bits} numbers from 0 to 1, or a list of such for each photograph")
    if together == "mean" or len(values) == 1:
        return await _search(service, snapshot, values.mean(axis=0), parameters)
    return union([await _search(service, snapshot, row, parameters) for row in values], parameters.k)


@router.post("/api/query/vector", responses=problems(408, 413))
async def query_by_vector(body: schema.Vector, service: Shared, parameters: Parameters) -> schema.Answer:
    """The nearest to a vector, where the index is of vectors."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model: search by an indexed vector")
    vector = as_float32(body.vector)
    started = time.perf_counter()
    [hash_outputs] = await run_in_threadpool(snapshot.encoder.encode, vector)
    if not np.isfinite(hash_outputs).all():
        raise Refused(422, "the vector is too long: its hash outputs are beyond float32")
    milliseconds = {"encode": since(started)}
    return await _search(service, snapshot, hash_outputs, parameters, vector=vector[0], milliseconds=milliseconds)


@router.get("/api/query/words", responses=problems())
async def query_by_words(
    request: Request,
    service: Shared,
    parameters: Parameters,
    words: Annotated[list[str], Query(description="names of classes, with commas between: photographs of all of them")],
) -> schema.Answer:
    """The photographs of what words name of the classes that the encoder has learned."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model: search by an indexed photograph")
    exact = [value for name, value in exact_parameters(request) if name == "words"]  # as of a label
    names = names_in(exact[0] if len(exact) == 1 else exact, snapshot.encoder)
    hash_outputs = await run_in_threadpool(word_outputs, names, snapshot.encoder)
    if parameters.rerank_by == AUTO:
        parameters = replace(parameters, rerank_by=snapshot.index.rerank_choice_in_words())
    return await _search(service, snapshot, hash_outputs, parameters, name=", ".join(names))


@router.get("/api/query/text", responses=problems())
async def query_by_text(
    service: Shared,
    parameters: Parameters,
    text: Annotated[str, Query(min_length=1, max_length=MAX_TEXT, description="what photographs should show")],
) -> schema.Answer:
    """The photographs of what a text says, where the encoder takes texts."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model: search by an indexed photograph")
    started = time.perf_counter()
    hash_outputs, features = await run_in_threadpool(text_outputs, [text], snapshot.encoder)
    milliseconds = {"encode": since(started)}
    vector = None if features is None else features[0]
    if parameters.rerank_by == AUTO:
        parameters = replace(parameters, rerank_by=snapshot.index.rerank_choice_in_texts())
    return await _search(
        service, snapshot, hash_outputs[0], parameters, name=text, vector=vector, milliseconds=milliseconds
    )


@router.get("/api/items/{id}/query", responses=problems(404, 409))
async def query_by_item(id: Id, service: Shared, parameters: Parameters, digest: Digest = None) -> schema.Answer:
    """The photographs most like an indexed one, itself among them."""
    snapshot = service.live.current
    row, found = await run_in_threadpool(_found, snapshot, id, digest)
    values = await run_in_threadpool(snapshot.index.hash_outputs_at, row)
    vector = await run_in_threadpool(snapshot.index.fc_features_at, row)
    named = {
        "id": id, "label": found.label, "name": os.path.basename(found.path), "digest": snapshot.digest(found),
    }  # fmt: skip
    code = found.code if values is None else None  # what is kept may have spread thresholds, as no query has
    return await _search(service, snapshot, values, parameters, code=code, vector=vector, **named)


@router.get("/api/items/{id}", responses=problems(404, 409))
async def item(id: Id, service: Shared, digest: Digest = None) -> schema.Item:
    """An indexed photograph."""
    snapshot = service.live.current
    _, found = await run_in_threadpool(_found, snapshot, id, digest)
    return _item(snapshot, found)


@router.get("/api/items", responses=problems())
async def items(
    service: Shared, n: Annotated[int, Query(ge=1, le=MAX_SAMPLE)] = 12, seed: Annotated[int, Query(ge=0)] = 0
) -> list[schema.Item]:
    """Some indexed photographs, drawn by the seed."""
    snapshot = service.live.current
    index = snapshot.index
    drawn = await run_in_threadpool(lambda: index.items(index.sample(n, seed).tolist(), codes=True))
    return [_item(snapshot, found) for found in drawn]


@router.get(
    "/api/items/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, **problems(404, 409)},
)
async def picture(id: Id, service: Shared, size: int = 256, digest: Digest = None) -> Response:
    """A small picture of an indexed photograph."""
    if size not in SIZES:
        raise Refused(422, f"size is one of {', '.join(map(str, SIZES))}")
    _, found = await run_in_threadpool(_found, service.live.current, id, digest)
    data = await _small_picture(service, found, size)
    kept = "max-age=300" if digest else "no-cache"  # without it, the address may be another photograph's by then
    return Response(data, media_type="image/webp", headers={"cache-control": f"private, {kept}"})


@router.get(
    "/api/items/{id}/file",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **problems(404, 409)},
)
async def download(id: Id, service: Shared, digest: Digest = None) -> Response:
    """The file of an indexed photograph as it is, to keep."""
    _, found = await run_in_threadpool(_found, service.live.current, id, digest)
    name = quote(os.fsencode(os.path.basename(found.path)))
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}", "cache-control": "private, no-cache"}
    await _small_picture(service, found, min(SIZES))  # no other file that has come in its place
    try:
        opened = await run_in_threadpool(open_reference, found.path)
    except (UnreadableImage, OSError):
        raise _gone(id) from None
    if isinstance(opened, io.BytesIO):
        return Response(opened.getvalue(), media_type="application/octet-stream", headers=headers)
    return FileResponse(opened, media_type="application/octet-stream", headers=headers)


@router.get("/api/items/{id}/maps", responses=problems(404, 409))
async def item_maps(id: Id, service: Shared, digest: Digest = None) -> schema.Maps:
    """Where the code of an indexed photograph comes from; it is read and encoded again."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model, so it has no maps")
    if snapshot.encoder.vector_width:
        raise Refused(422, "vectors have no maps")
    _, found = await run_in_threadpool(_found, snapshot, id, digest)
    size, resize = snapshot.encoder.image_size, snapshot.encoder.resize
    try:
        async with service.reading:
            pixels = await run_in_threadpool(read_image, found.path, size, resize=resize)
    except UnreadableImage:
        raise _gone(id) from None
    encoded = await service.batcher.encode(snapshot.encoder, pixels)
    return await run_in_threadpool(maps, snapshot.encoder, encoded.feature_map)


@router.get("/healthz", responses=problems())
async def health(service: Shared) -> schema.Health:
    """Whether the service answers, and from the newest index: `status` and `problem` say what keeps it from that.

    The HTTP status is 200 in either case: the index that is served goes on answering, and starting again would lose it.
    """
    index, problem = service.live.current.index, service.live.problem
    problem = problem and service.live.for_visitors(problem)
    status = "damaged" if index.damage else "stale" if problem else "ok"
    return schema.Health(
        status=status, problem=problem, generation=index.meta["generation"], count=len(index), checked=index.checked
    )


@router.get("/metrics", include_in_schema=False)
async def metrics(service: Shared) -> Response:
    """Return the figures for Prometheus."""
    figures, live = service.metrics, service.live
    figures.items.set(len(live.current.index))
    figures.generation.set(live.current.index.meta["generation"])
    figures.reloads.set(live.reloads)
    figures.stale.set(live.problem is not None)
    figures.failures.set(live.failures)
    figures.waiting.set(len(service.batcher.jobs))
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)


async def _search(
    service: Service,
    snapshot: Snapshot,
    hash_outputs: HashOutputs | None,
    parameters: SearchParameters,
    code: Codes | None = None,
    vector: Vectors | None = None,
    **query: Any,
) -> schema.Answer:
    """Search by the hash outputs of a query and its vector, if there is one, or by its code alone.

    The code is that of the hash outputs, unless one is given. The code alone counts where the index keeps nothing that
    the others could be compared with.
    """
    if code is None:
        assert hash_outputs is not None
        code = code_of(hash_outputs)
    choice, compared = snapshot.index.rerank_choice(parameters.rerank_by), hash_outputs
    if choice in OF_FEATURES and vector is None and parameters.rerank_by == AUTO:
        choice = DEFAULT
    if choice in OF_FEATURES:
        if vector is None or not snapshot.index.has_fc_features:
            raise Refused(422, f"there are no vectors to re-rank by {choice}")
        compared = vector
    elif choice == "none" or (choice != "asymmetric" and not snapshot.index.has_hash_outputs):
        compared = None
    rerank = None if compared is None else (choice, compared[None])
    answered = await run_in_threadpool(answer, snapshot, code, hash_outputs, parameters, rerank, **query)
    service.metrics.query(answered.query.milliseconds)
    return answered


def _found(snapshot: Snapshot, id: int, digest: str | None) -> tuple[Any, Item]:
    """Return what `hashret.index.Database.find` does.

    Raises:
        Refused: it finds nothing (404), or a photograph of another digest than the one that is given (409).
    """
    try:
        row, found = snapshot.index.find(id)
    except EngineError:
        raise
    except HashretError as error:
        raise Refused(404, error.message) from None
    if digest is not None and digest != snapshot.digest(found):
        raise Refused(409, f"the index was built again, and photograph {id} is another one now: search again")
    return row, found


async def _small_picture(service: Service, found: Item, size: int) -> bytes:
    """Return a thumbnail. Few of those that are not kept are made at a time, as a photograph may be large.

    Raises:
        Refused: the file is gone, or no longer an image.
    """
    try:
        kept = await run_in_threadpool(kept_thumbnail, found.path, size)
        if kept is not None:
            return kept
        async with service.reading:
            return await run_in_threadpool(thumbnail, found.path, size)
    except (UnreadableImage, OSError):
        raise _gone(found.id) from None


def _gone(id: int) -> Refused:
    return Refused(404, f"the file of photograph {id} is gone, or no longer an image")


def _item(snapshot: Snapshot, found: Item) -> schema.Item:
    assert found.code is not None
    return schema.Item(
        id=found.id, path=snapshot.path_for_visitors(found.path), label=found.label, labels=list(found.labels),
        code=found.code.tobytes().hex(), there=is_there(found.path), digest=snapshot.digest(found),
    )  # fmt: skip
