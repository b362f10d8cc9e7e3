"""What keeps a stranger's request from harming: limits of bytes and seconds, of hosts, and of what a page may load."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

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

    def __init__(self, limit):
        super().__init__(413, f"the request is too large: more than {limit:,} bytes", {"connection": "close"})


class TooSlow(HTTPException):
    """A request body that did not arrive in time."""

    def __init__(self, seconds):
        super().__init__(408, f"the request did not arrive within {seconds:g} seconds", {"connection": "close"})


class BodyLimit:
    """ASGI middleware: raises TooLarge as soon as a body is, or says it is, longer than ``limit`` bytes, and TooSlow
    where it is not there after so many ``seconds``.

    Counting what is received covers bodies that do not say how long they are.
    """

    def __init__(self, app, limit, seconds=BODY_SECONDS):
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        received, end = 0, asyncio.get_running_loop().time() + self.seconds

        async def limited():
            nonlocal received, end
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise TooSlow(self.seconds) from None
            received += len(message.get("body", b""))
            if received > self.limit or (declared.isdigit() and int(declared) > self.limit):
                raise TooLarge(self.limit)
            if not message.get("more_body"):
                end = None  # what follows is the end of the connection, whenever that comes
            return message

        await self.app(scope, limited, send)


class EndsQuietly:
    """ASGI middleware: what is given up because the service ends gets HTTP's 503, and no traceback in the log."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            with suppress(Exception):  # where an answer had begun
                await JSONResponse({"error": "the service ends"}, 503)(scope, receive, send)


class OwnPages:
    """ASGI middleware: refuses what a browser sends for a page of somebody else.

    A page from elsewhere may open this service's page in its place, and nothing more: it may neither send anything nor
    load anything from here. Programs, which say nothing of pages, are answered.

    Args:
        hosts: names that the service answers to, against DNS rebinding; "*" for all.
    """

    def __init__(self, app, hosts):
        self.app, self.hosts = app, None if "*" in hosts else {host.lower() for host in hosts}

    async def __call__(self, scope, receive, send):
        app = self.app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self.hosts is not None and _name_of(headers.get("host", "")) not in self.hosts:
                app = JSONResponse({"error": "this service does not answer to that host name"}, 400)
            elif _is_foreign(scope["method"], headers):
                text = "a page of another origin asks; a proxy in between must pass on the Host header"
                app = JSONResponse({"error": text}, 403)
        await app(scope, receive, send)


def _name_of(host):
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_foreign(method, headers):
    """Whether a browser says that it asks for a page of another origin.

    Sec-Fetch-Site, which no page can set, comes from browsers where the service is at this machine or behind https;
    elsewhere the origin is compared with the host that was asked.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not (opened and method in ("GET", "HEAD"))
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and (not host or origin.partition("://")[2].lower() != host.lower())


class SafeHeaders:
    """ASGI middleware: adds the headers that keep a browser from loading or running anything else."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def safe(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, safe if scope["type"] == "http" else send)


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET without the body, which FastAPI's routes do not do by themselves."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def bodiless(message):
            await send(message | {"body": b""} if message["type"] == "http.response.body" else message)

        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self.app(scope | {"method": "GET"} if is_head else scope, receive, bodiless if is_head else send)
