"""What keeps a stranger's request from harming: limits of bytes, of hosts, and of what a page may load."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

# The page needs only its own script, style and pictures; blob: and data: are the upload's preview and its map.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class TooLarge(Exception):
    """A request body beyond the limit."""


class BodyLimit:
    """ASGI middleware: raises TooLarge as soon as a body is, or says it is, longer than ``limit`` bytes.

    Counting what is received covers bodies that do not say how long they are.
    """

    def __init__(self, app, limit):
        self.app, self.limit = app, limit

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        received = 0

        async def limited():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit or (declared.isdigit() and int(declared) > self.limit):
                raise TooLarge
            return message

        await self.app(scope, limited, send)


class SafeHeaders:
    """ASGI middleware: adds the headers that keep a browser from loading or running anything else."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def safe(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, safe if scope["type"] == "http" else send)
