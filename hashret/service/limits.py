"""Limits that keep a stranger's request from harming: bytes, seconds, host names, and what a page may load.

Starlette's own limit of bytes answers in plain text and knows no deadline, so `BodyLimit` stands here.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page needs only its own script, style and pictures; blob: and data: are the upload's preview and its map.
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
BODY_SECONDS = 60  # for a body to arrive


class TooLarge(HTTPException):
    """A request body beyond the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the request is too large: more than {limit:,} bytes", {"connection": "close"})


class TooSlow(HTTPException):
    """A request body that did not arrive in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(408, f"the request did not arrive within {seconds:g} seconds", {"connection": "close"})


class BodyLimit:
    """ASGI middleware that raises TooLarge for a body of more than ``limit`` bytes, and TooSlow for one that has not
    arrived after ``seconds``.

    The length that a request declares counts at once; the bytes that arrive are counted as well, because a request may
    declare none.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float = BODY_SECONDS) -> None:
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        received, end = 0, asyncio.get_running_loop().time() + self.seconds
        arrived = False

        async def limited() -> Message:
            nonlocal received, arrived
            try:
                async with asyncio.timeout_at(None if arrived else end):
                    message = await receive()
            except TimeoutError:
                raise TooSlow(self.seconds) from None
            received += len(message.get("body", b""))
            if received > self.limit or (declared.isdigit() and int(declared) > self.limit):
                raise TooLarge(self.limit)
            if not message.get("more_body"):
                arrived = True  # the next message is the end of the connection, whenever that comes
            return message

        await self.app(scope, limited, send)


class EndsQuietly:
    """ASGI middleware that answers 503, without a traceback in the log, where the service ends amid a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            with suppress(Exception):  # where an answer had begun
                await JSONResponse({"error": "the service ends"}, 503)(scope, receive, send)


class OwnPages:
    """ASGI middleware that refuses requests which a browser sends for a page of another origin.

    Such a page may link to this service's page, but may neither send anything here nor load anything from here.
    Programs, whose requests name no page, are answered.

    A page whose own name its owner lets point to this machine (DNS rebinding) is of no other origin to a browser, which
    names it in the Host header. So only those names are answered to that are this service's. Numeric addresses and
    ``localhost`` always are, since nobody can let these point elsewhere.

    Args:
        hosts: further names that the service answers to; "*" for any.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        names = {_plain(host) for host in hosts}
        self.app, self.hosts = app, None if "*" in names else names | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self.app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (refused := self._refused(headers.get("host", ""))) is not None:
                app = JSONResponse({"error": refused}, 400)
            elif _is_foreign(scope["method"], headers):
                text = "a page of another origin asks; a proxy in between must pass on the Host header"
                app = JSONResponse({"error": text}, 403)
        await app(scope, receive, send)

    def _refused(self, host: str) -> str | None:
        """Return why a Host header is not answered to, None where it is."""
        name = _name_of(host)
        if self.hosts is None or name in self.hosts or _is_address(name):
            return None
        if not name:
            return "the request does not say which host it is to"
        return f"this service does not answer to the name {name}; start it with --allow-host {name}"


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port; "" where there is none."""
    try:
        return _plain(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


def _plain(name: str) -> str:
    """Return a host name without what names the same host: capitals, and the dot of the root at its end."""
    return name.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    """Whether a host is a numeric address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_foreign(method: str, headers: Headers) -> bool:
    """Whether a browser says that a page of another origin asks.

    Browsers send Sec-Fetch-Site, which no page can set, to services on this machine or behind https. Without it the
    origin is compared with the host that was asked.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not (opened and method in ("GET", "HEAD"))
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and (not host or origin.partition("://")[2].lower() != host.lower())


class SafeHeaders:
    """ASGI middleware that adds the headers by which a browser loads and runs nothing from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, safe if scope["type"] == "http" else send)


class HeadAsGet:
    """ASGI middleware that answers HEAD as GET without the body, which FastAPI's routes do not do by themselves."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bodiless(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self.app(as_get, receive, bodiless)
        finally:
            if "route" in as_get:  # by which requests are counted
                scope["route"] = as_get["route"]
