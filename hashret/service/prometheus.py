"""The figures that the service counts, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """The figures of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "hashret", "registry": self.registry}
        self.requests = Counter("requests", "requests answered", ["route", "method", "status"], **options)
        self.seconds = Histogram("request_seconds", "time to answer", ["route"], buckets=_SECONDS, **options)
        self.stages = Histogram("stage_seconds", "time of a stage of a query", ["stage"], buckets=_SECONDS, **options)
        self.batches = Histogram("batch_size", "photographs encoded as one batch", buckets=_BATCHES, **options)
        self.waiting = Gauge("waiting_photographs", "photographs that wait to be encoded", **options)
        self.items = Gauge("index_items", "photographs in the index", **options)
        self.generation = Gauge("index_generation", "generation of the index", **options)
        self.stale = Gauge(
            "index_stale", "1 where a newer index could not be taken up, or the engine is away", **options
        )
        self.failures = Gauge("index_failures", "newer indexes that could not be taken up, each try counted", **options)
        self.reloads = Gauge("index_reloads", "newer indexes taken up since the start", **options)

    def query(self, milliseconds: Mapping[str, float]) -> None:
        """Count the time that each stage of a query took."""
        for stage, value in milliseconds.items():
            self.stages.labels(stage).observe(value / 1000)


class CountRequests:
    """ASGI middleware that counts each request under the pattern of its route.

    Prometheus keeps a series for each name, so neither ids nor methods that HTTP does not know get one of their own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.app, self.metrics, self.clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = self.clock(), "500"

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(route, method, status).inc()
            self.metrics.seconds.labels(route).observe(self.clock() - started)
