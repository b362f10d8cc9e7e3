"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request

from .. import __version__
from ..engines import EngineError
from ..errors import DamagedIndex, HashretError
from ..files import StrPath
from ..names import shown, to_json
from .batching import Batcher, Busy
from .limits import BODY_SECONDS, SAFE_HEADERS, BodyLimit, EndsQuietly, HeadAsGet, OwnPages, SafeHeaders
from .live import LiveIndex
from .prometheus import CountRequests, Metrics
from .routes import STATIC, Service, router
from .uploads import Refused

_log = logging.getLogger("hashret.service")


class NamesResponse(JSONResponse):
    """JSON whose names may hold any bytes, as `hashret.names` has them."""

    def render(self, content: Any) -> bytes:
        text: str = to_json(content, separators=(",", ":"))
        return text.encode("ascii")


def create_app(
    index: StrPath,
    model: StrPath | None,
    device: str = "auto",
    *,
    values: StrPath | None = None,
    hosts: Iterable[str] = ("*",),
    max_upload: int = 20 * 2**20,
    max_pixels: int = 50_000_000,
    batch: int = 32,
    body_seconds: float = BODY_SECONDS,
    show_paths: bool = False,
) -> FastAPI:
    """Return the application.

    Args:
        index, model, device, values: see `hashret.service.live.LiveIndex`.
        hosts: names that the service answers to beside ``localhost`` and numeric addresses, against DNS rebinding; "*"
            for any.
        max_upload: most bytes of a request.
        max_pixels: most pixels of a photograph.
        batch: most photographs encoded together.
        body_seconds: time for the body of a request to arrive.
        show_paths: tell visitors whole paths, and not those from the folder of photographs on.

    Raises:
        HashretError: the index cannot be opened, or was built by another encoder.
    """
    metrics = Metrics()
    live = LiveIndex(index, model, device, values, show_paths=show_paths)
    batcher = Batcher(batch, on_batch=metrics.batches.observe)
    app = FastAPI(
        title="hashret",
        version=__version__,
        description="Photographs like this one, by learned binary codes.",
        docs_url=None,  # both load their script from elsewhere
        redoc_url=None,
        default_response_class=NamesResponse,
        lifespan=_lifespan,
        middleware=[
            Middleware(CountRequests, metrics=metrics, clock=time.perf_counter),
            Middleware(SafeHeaders),
            Middleware(EndsQuietly),
            Middleware(OwnPages, hosts=hosts),
            Middleware(BodyLimit, limit=max_upload, seconds=body_seconds),
            Middleware(HeadAsGet),
        ],
    )
    app.state.service = Service(live, batcher, metrics, max_upload, max_pixels)
    app.include_router(router)
    _add_problems(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    watching = asyncio.create_task(_watch(service.live))
    yield
    watching.cancel()
    await run_in_threadpool(service.batcher.close)


async def _watch(live: LiveIndex) -> None:
    while True:
        await asyncio.sleep(live.watch_seconds)
        await run_in_threadpool(live.refresh)


def _add_problems(app: FastAPI) -> None:
    """Answer every refusal with one line of JSON."""

    def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> NamesResponse:
        return NamesResponse({"error": shown(text)}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> NamesResponse:
        return problem(error.status, error.reason, error.headers)

    @app.exception_handler(HashretError)
    async def mistaken(_: Request, error: HashretError) -> NamesResponse:
        return problem(422, error.message)  # the hint is for who started the service

    @app.exception_handler(DamagedIndex)
    async def damaged(_: Request, error: DamagedIndex) -> NamesResponse:
        return problem(503, str(error))

    @app.exception_handler(EngineError)
    async def away(_: Request, error: EngineError) -> NamesResponse:
        service: Service = app.state.service
        _log.warning("%s", shown(f"note: {error}"))
        return problem(503, service.live.for_visitors(str(error)), {"retry-after": "5"})

    @app.exception_handler(Busy)
    async def busy(*_: object) -> NamesResponse:
        return problem(503, "too many photographs wait to be encoded; try again", {"retry-after": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> NamesResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"][1:] if "[" not in str(part)]  # that names a type, "list[float]"
        return problem(422, f"{'.'.join(place) or 'the request'}: {first['msg'].lower()}")

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> NamesResponse:
        return problem(error.status_code, str(error.detail).lower(), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def cut_off(*_: object) -> NamesResponse:
        return problem(400, "the request was cut off")  # which nobody reads, but is counted

    @app.exception_handler(Exception)
    async def failed(*_: object) -> NamesResponse:
        return problem(500, "the service failed; its log says more", SAFE_HEADERS)
