"""The service's routes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .. import __version__
from ..data.images import UnreadableImage
from ..engines import EngineError
from ..errors import HashretError
from . import schema, uploads
from .answers import answer, code_of, since
from .batching import Batcher, Busy
from .limits import BodyLimit, SafeHeaders
from .live import LiveIndex
from .metrics import CountRequests, Metrics
from .thumbnails import SIZES, thumbnail
from .uploads import Refused

STATIC = Path(__file__).parent / "static"
MAX_K, MAX_CANDIDATES, MAX_SAMPLE = 1000, 100_000, 100
_DECODING = 2  # uploads decoded at a time, each of up to max_pixels
_FORM = {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}, "required": ["photo"]}
_PHOTO = {
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}, "multipart/form-data": {"schema": _FORM}}
}
_PROBLEMS = {
    status: {"model": schema.Problem, "description": text}
    for status, text in {
        404: "no such photograph",
        413: "too many bytes or pixels",
        415: "not an image",
        422: "a parameter is wrong",
        503: "too many photographs wait, or the engine that holds the index is away; try again",
    }.items()
}


def problems(*statuses):
    """What a route may refuse with, for the OpenAPI description."""
    return {status: _PROBLEMS[status] for status in statuses}


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
    candidates: Annotated[int, Query(ge=1, le=MAX_CANDIDATES, description="nearest codes that are re-ranked")] = 1000
    label: Annotated[str | None, Query(description="search among this class only")] = None
    rerank_by: Annotated[
        Literal["values", "directions", "asymmetric", "none"], Query(description="what the re-rank compares")
    ] = "values"


def the_service(request: Request) -> Service:
    return request.app.state.service


Shared = Annotated[Service, Depends(the_service)]
Parameters = Annotated[Wanted, Depends()]


def create_app(
    index, model, device="auto", *, values=None, hosts=("*",), max_upload=20 * 2**20, max_pixels=50_000_000, batch=32
):
    """The service as an ASGI application.

    Args:
        index, model, device, values: see `hashret.service.live.LiveIndex`.
        hosts: names that the service answers to, against DNS rebinding; "*" for all.
        max_upload: bytes of a request.
        max_pixels: of a photograph.
        batch: photographs encoded together, at most.

    Raises:
        HashretError: the index cannot be opened, or was built by another encoder.
    """
    metrics = Metrics()
    live = LiveIndex(index, model, device, values)
    batcher = Batcher(batch, on_batch=metrics.batches.observe)
    app = FastAPI(
        title="hashret",
        version=__version__,
        description="Photographs like this one, by learned binary codes.",
        docs_url=None,  # both load their script from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[
            Middleware(CountRequests, metrics=metrics, clock=time.perf_counter),
            Middleware(SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(BodyLimit, limit=max_upload),
        ],
    )
    app.state.service = Service(live, batcher, metrics, max_upload, max_pixels)
    _add_routes(app)
    _add_problems(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@contextlib.asynccontextmanager
async def _lifespan(app):
    service = app.state.service
    watching = asyncio.create_task(_watch(service.live))
    yield
    watching.cancel()
    await run_in_threadpool(service.batcher.close)


async def _watch(live):
    while True:
        await asyncio.sleep(live.watch_seconds)
        await run_in_threadpool(live.refresh)


def _add_routes(app):
    @app.get("/", include_in_schema=False)
    async def page():
        return FileResponse(STATIC / "page.html", headers={"cache-control": "no-cache"})

    @app.get("/api/about")
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

    @app.post("/api/query", responses=problems(413, 415, 422, 503), openapi_extra={"requestBody": _PHOTO})
    async def query_by_photograph(request: Request, service: Shared, wanted: Parameters) -> schema.Answer:
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
        return await _search(service, snapshot, encoded.values, wanted, name=upload.name, milliseconds=milliseconds)

    @app.post("/api/query/values", responses=problems(422, 503))
    async def query_by_values(body: schema.Values, service: Shared, wanted: Parameters) -> schema.Answer:
        """The same for a photograph that was encoded before, by the values of that answer's query."""
        snapshot = service.live.current
        values = np.asarray(body.values, np.float32)
        if values.shape != (snapshot.index.bits,) or not ((values >= 0) & (values <= 1)).all():
            raise Refused(422, f"values are {snapshot.index.bits} numbers from 0 to 1")
        return await _search(service, snapshot, values, wanted)

    @app.get("/api/items/{id}/query", responses=problems(404, 422, 503))
    async def query_by_item(id: int, service: Shared, wanted: Parameters) -> schema.Answer:
        """The photographs most like an indexed one, itself among them."""
        snapshot = service.live.current
        row, found = await run_in_threadpool(_found, snapshot.index, id)
        values = await run_in_threadpool(snapshot.index.value, row)
        named = {"id": id, "label": found.label, "name": os.path.basename(found.path)}
        return await _search(service, snapshot, values, wanted, code=found.code, **named)

    @app.get("/api/items/{id}", responses=problems(404, 503))
    async def item(id: int, service: Shared) -> schema.Item:
        """An indexed photograph."""
        _, found = await run_in_threadpool(_found, service.live.current.index, id)
        return _item(found)

    @app.get("/api/items", responses=problems(422, 503))
    async def items(
        service: Shared, n: Annotated[int, Query(ge=1, le=MAX_SAMPLE)] = 12, seed: Annotated[int, Query(ge=0)] = 0
    ) -> list[schema.Item]:
        """Some indexed photographs, drawn by the seed."""
        index = service.live.current.index
        drawn = await run_in_threadpool(lambda: index.items(index.sample(n, seed), codes=True))
        return [_item(found) for found in drawn]

    @app.get(
        "/api/items/{id}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/webp": {}}}, **problems(404, 422, 503)},
    )
    async def picture(id: int, service: Shared, size: int = 256):
        """A small picture of an indexed photograph."""
        if size not in SIZES:
            raise Refused(422, f"size is one of {', '.join(map(str, SIZES))}")
        _, found = await run_in_threadpool(_found, service.live.current.index, id)
        try:
            data = await run_in_threadpool(thumbnail, found.path, size)
        except (UnreadableImage, OSError):
            raise Refused(404, f"the file of photograph {id} is gone, or no longer an image") from None
        return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=300"})

    @app.get("/healthz")
    async def health(service: Shared) -> schema.Health:
        """Whether the service can answer."""
        index, problem = service.live.current.index, service.live.problem
        status = "stale" if problem else "ok"
        return schema.Health(status=status, problem=problem, generation=index.meta["generation"], count=len(index))

    @app.get("/metrics", include_in_schema=False)
    async def metrics(service: Shared):
        figures, live = service.metrics, service.live
        figures.items.set(len(live.current.index))
        figures.generation.set(live.current.index.meta["generation"])
        figures.reloads.set(live.reloads)
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


def _item(found):
    return schema.Item(
        id=found.id, path=found.path, label=found.label, code=found.code.tobytes().hex(),
        there=os.path.isfile(found.path),
    )  # fmt: skip


def _add_problems(app):
    """Every refusal is one line of JSON."""

    def problem(status, text, headers=None):
        return JSONResponse({"error": text}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_, error):
        return problem(error.status, error.reason, error.headers)

    @app.exception_handler(HashretError)
    async def mistaken(_, error):
        return problem(422, str(error))

    @app.exception_handler(EngineError)
    async def away(_, error):
        return problem(503, str(error), {"retry-after": "5"})

    @app.exception_handler(Busy)
    async def busy(*_):
        return problem(503, "too many photographs wait to be encoded; try again", {"retry-after": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_, error):
        first = error.errors()[0]
        return problem(422, f"{'.'.join(map(str, first['loc'][1:])) or 'the request'}: {first['msg'].lower()}")

    @app.exception_handler(HTTPException)
    async def plain(_, error):
        return problem(error.status_code, str(error.detail).lower(), error.headers)
