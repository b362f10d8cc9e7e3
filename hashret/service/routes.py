"""The routes of the service."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path as Folder
from typing import Annotated, Literal
from urllib.parse import parse_qsl

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from .. import __version__
from ..data.images import UnreadableImage, read_image
from ..engines import EngineError
from ..errors import HashretError
from . import schema, uploads
from .answers import answer, code_of, since
from .batching import Batcher
from .live import LiveIndex
from .maps import maps
from .prometheus import Metrics
from .thumbnails import SIZES, thumbnail
from .uploads import Refused

STATIC = Folder(__file__).parent / "static"
MAX_K, MAX_CANDIDATES, MAX_SAMPLE = 1000, 100_000, 100
_DECODING = 2  # uploads decoded at a time, each of up to max_pixels
_FORM = {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}, "required": ["photo"]}
_PHOTO = {
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}, "multipart/form-data": {"schema": _FORM}}
}
_PROBLEMS = {
    status: {"model": schema.Problem, "description": text}
    for status, text in {
        400: "not an HTTP request that can be read, or to another host's name",
        403: "a browser asks for a page of another origin",
        404: "no such photograph",
        408: "the body did not arrive in time",
        413: "too many bytes or pixels",
        415: "not an image",
        422: "a parameter is wrong",
        500: "the service failed",
        503: "too many photographs wait, or the index is away: try again; or the index is damaged",
    }.items()
}


def problems(*statuses):
    """What a route may refuse with, for the OpenAPI description; some is common to all."""
    return {status: _PROBLEMS[status] for status in sorted({400, 403, 500, 503, *statuses})}


@dataclass
class Service:
    """What the routes share."""

    live: LiveIndex
    batcher: Batcher
    metrics: Metrics
    max_upload: int
    max_pixels: int
    decoding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DECODING))


@dataclass(frozen=True)
class Wanted:
    """Parameters of a search."""

    k: Annotated[int, Query(ge=1, le=MAX_K, description="answers")] = 20
    candidates: Annotated[
        int | None,
        Query(
            ge=1,
            le=MAX_CANDIDATES,
            description="nearest codes that are re-ranked; default: 1,000, and all that tie with the k-th nearest",
        ),
    ] = None
    label: Annotated[str | None, Query(description="search among this class only")] = None
    rerank_by: Annotated[
        Literal["values", "directions", "asymmetric", "none"], Query(description="what the re-rank compares")
    ] = "values"


def the_service(request: Request) -> Service:
    return request.app.state.service


Id = Annotated[int, Path(ge=0, le=2**63 - 1)]
Shared = Annotated[Service, Depends(the_service)]


def with_exact_label(request: Request, wanted: Annotated[Wanted, Depends()]) -> Wanted:
    """`Wanted`, its label by the bytes of the address: a class may have a name that is not UTF-8."""
    exact = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), errors="surrogateescape"))
    return replace(wanted, label=exact.get("label"))


Parameters = Annotated[Wanted, Depends(with_exact_label)]


router = APIRouter()


@router.get("/", include_in_schema=False)
async def page():
    return FileResponse(STATIC / "page.html", headers={"cache-control": "no-cache"})


@router.get("/api/about", responses=problems())
async def about(service: Shared) -> schema.About:
    """The index that is served, and the limits of a request."""
    snapshot = service.live.current
    meta, encoder = snapshot.index.meta, snapshot.encoder
    known = encoder and {name: encoder.meta.get(name) for name in ("method", "image_size", "attention")}
    return schema.About(
        count=len(snapshot.index), bits=snapshot.index.bits, classes=meta["classes"], encoder=known,
        values=snapshot.index.has_values, generation=meta["generation"], max_upload_bytes=service.max_upload,
        max_pixels=service.max_pixels, max_k=MAX_K, max_candidates=MAX_CANDIDATES, version=__version__,
    )  # fmt: skip


@router.post("/api/query", responses=problems(408, 413, 415, 422), openapi_extra={"requestBody": _PHOTO})
async def query_by_photograph(
    request: Request, service: Shared, wanted: Parameters, with_maps: Annotated[bool, Query(alias="maps")] = False
) -> schema.Answer:
    """The photographs most like an upload: an image as the request's body, or as the field `photo` of a form."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model: search by an indexed photograph")
    upload = await uploads.receive(request, service.max_upload)
    started = time.perf_counter()
    pixels = await uploads.decode(upload, snapshot.encoder.image_size, service.max_pixels, service.decoding)
    milliseconds = {"decode": since(started)}
    started = time.perf_counter()
    encoded = await service.batcher.encode(snapshot.encoder, pixels)
    milliseconds["encode"] = since(started)
    found = await _search(service, snapshot, encoded.values, wanted, name=upload.name, milliseconds=milliseconds)
    if with_maps:
        found.query.maps = await run_in_threadpool(maps, snapshot.encoder, encoded.features)
    return found


@router.post("/api/query/values", responses=problems(408, 413, 422))
async def query_by_values(body: schema.Values, service: Shared, wanted: Parameters) -> schema.Answer:
    """The same for a photograph that was encoded before, by the values of that answer's query."""
    snapshot = service.live.current
    values = np.asarray(body.values, np.float32)
    if values.shape != (snapshot.index.bits,) or not ((values >= 0) & (values <= 1)).all():
        raise Refused(422, f"values are {snapshot.index.bits} numbers from 0 to 1")
    return await _search(service, snapshot, values, wanted)


@router.get("/api/items/{id}/query", responses=problems(404, 422))
async def query_by_item(id: Id, service: Shared, wanted: Parameters) -> schema.Answer:
    """The photographs most like an indexed one, itself among them."""
    snapshot = service.live.current
    row, found = await run_in_threadpool(_found, snapshot.index, id)
    values = await run_in_threadpool(snapshot.index.value, row)
    named = {"id": id, "label": found.label, "name": os.path.basename(found.path)}
    return await _search(service, snapshot, values, wanted, code=found.code, **named)


@router.get("/api/items/{id}", responses=problems(404, 422))
async def item(id: Id, service: Shared) -> schema.Item:
    """An indexed photograph."""
    _, found = await run_in_threadpool(_found, service.live.current.index, id)
    return _item(found)


@router.get("/api/items", responses=problems(422))
async def items(
    service: Shared, n: Annotated[int, Query(ge=1, le=MAX_SAMPLE)] = 12, seed: Annotated[int, Query(ge=0)] = 0
) -> list[schema.Item]:
    """Some indexed photographs, drawn by the seed."""
    index = service.live.current.index
    drawn = await run_in_threadpool(lambda: index.items(index.sample(n, seed), codes=True))
    return [_item(found) for found in drawn]


@router.get(
    "/api/items/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, **problems(404, 422)},
)
async def picture(id: Id, service: Shared, size: int = 256):
    """A small picture of an indexed photograph."""
    if size not in SIZES:
        raise Refused(422, f"size is one of {', '.join(map(str, SIZES))}")
    _, found = await run_in_threadpool(_found, service.live.current.index, id)
    try:
        data = await run_in_threadpool(thumbnail, found.path, size)
    except (UnreadableImage, OSError):
        raise _gone(id) from None
    return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=300"})


@router.get("/api/items/{id}/maps", responses=problems(404, 422))
async def item_maps(id: Id, service: Shared) -> schema.Maps:
    """Where the code of an indexed photograph comes from; it is read and encoded again."""
    snapshot = service.live.current
    if snapshot.encoder is None:
        raise Refused(422, "this service was started without a model, so it has no maps")
    _, found = await run_in_threadpool(_found, snapshot.index, id)
    try:
        pixels = await run_in_threadpool(read_image, found.path, snapshot.encoder.image_size)
    except UnreadableImage:
        raise _gone(id) from None
    encoded = await service.batcher.encode(snapshot.encoder, pixels)
    return await run_in_threadpool(maps, snapshot.encoder, encoded.features)


@router.get("/healthz", responses=problems())
async def health(service: Shared) -> schema.Health:
    """Whether the service answers, and from the newest index: `status` and `problem` say what keeps it from that.

    The HTTP status is 200 in either case: the index that is served goes on answering, and starting again would lose it.
    """
    index, problem = service.live.current.index, service.live.problem
    status = "damaged" if index.damage else "stale" if problem else "ok"
    return schema.Health(
        status=status, problem=problem, generation=index.meta["generation"], count=len(index), checked=index.checked
    )


@router.get("/metrics", include_in_schema=False)
async def metrics(service: Shared):
    figures, live = service.metrics, service.live
    figures.items.set(len(live.current.index))
    figures.generation.set(live.current.index.meta["generation"])
    figures.reloads.set(live.reloads)
    figures.stale.set(live.problem is not None)
    figures.failures.set(live.failures)
    figures.waiting.set(len(service.batcher.jobs))
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)


async def _search(service, snapshot, values, wanted, code=None, **query):
    if values is not None and code is None:
        code = code_of(values)
    if wanted.rerank_by == "none" or (wanted.rerank_by != "asymmetric" and not snapshot.index.has_values):
        values = None
    found = await run_in_threadpool(answer, snapshot, code, values, wanted, **query)
    service.metrics.query(found.query.milliseconds)
    return found


def _found(index, id):
    """`hashret.index.Database.find`, where nothing found is HTTP's 404."""
    try:
        return index.find(id)
    except EngineError:
        raise
    except HashretError as error:
        raise Refused(404, str(error)) from None


def _gone(id):
    return Refused(404, f"the file of photograph {id} is gone, or no longer an image")


def _item(found):
    return schema.Item(
        id=found.id, path=found.path, label=found.label, labels=list(found.labels), code=found.code.tobytes().hex(),
        there=os.path.isfile(found.path),
    )  # fmt: skip
