"""A photograph out of a request's body."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from starlette.concurrency import run_in_threadpool

from ..data.images import UnreadableImage, read_image
from .limits import TooLarge

_NAME = 120  # characters kept of a file name


class Refused(Exception):
    """A request that gets no answer: HTTP ``status``, and a ``reason`` of one line."""

    def __init__(self, status, reason, headers=None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass(frozen=True)
class Upload:
    """``data``, and the ``name`` of the file, "" where it has none."""

    data: bytes
    name: str


async def receive(request, limit):
    """The photograph of a request, the body itself or the part ``photo`` of a form: -> `Upload`. Raises Refused."""
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return await _from_form(request)
        return Upload(await request.body(), "")
    except TooLarge:
        raise Refused(413, f"the photograph is too large: more than {limit:,} bytes", {"connection": "close"}) from None


async def _from_form(request):
    async with request.form(max_files=1, max_fields=10) as form:
        photo = form.get("photo")
        if photo is None or isinstance(photo, str):
            raise Refused(422, "the form has no file named photo")
        return Upload(await photo.read(), clean_name(photo.filename))


def clean_name(name):
    """The last part of a file name as a browser may send it, printable and short."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:_NAME]


async def decode(upload, size, max_pixels, slots):
    """Pixels of an upload: -> uint8 (3, size, size), at most as many at a time as ``slots`` has. Raises Refused."""
    if not upload.data:
        raise Refused(422, "the request holds no photograph")
    async with slots:
        try:
            return await run_in_threadpool(read_image, io.BytesIO(upload.data), size, max_pixels)
        except UnreadableImage as error:
            status = 413 if str(error).startswith("too large") else 415
            raise Refused(status, f"cannot read the photograph: {error}") from None
