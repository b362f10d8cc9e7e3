"""The photograph in the body of a request: received within the limits, and decoded."""

from __future__ import annotations

import io
from asyncio import Semaphore
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ..data.images import TooLargeImage, UnreadableImage, read_image
from ..models.encoder import Encoder
from .limits import TooLarge

_NAME = 120  # characters kept of a file name


class Refused(Exception):
    """A request that gets no answer: HTTP ``status``, and a ``reason`` of one line."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass(frozen=True)
class Upload:
    """The bytes of an uploaded file, and its ``name``, "" where it has none."""

    data: bytes
    name: str


async def receive(request: Request, limit: int) -> Upload:
    """Return the photograph of a request, which is the body itself or the part ``photo`` of a form.

    Raises:
        Refused: the body has more than ``limit`` bytes, or the form has no such part.
    """
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return await _from_form(request)
        return Upload(await request.body(), "")
    except TooLarge:
        raise Refused(413, f"the photograph is too large: more than {limit:,} bytes", {"connection": "close"}) from None


async def _from_form(request: Request) -> Upload:
    async with request.form(max_files=1, max_fields=10) as form:
        photo = form.get("photo")
        if photo is None or isinstance(photo, str):
            raise Refused(422, "the form has no file named photo")
        return Upload(await photo.read(), clean_name(photo.filename))


def clean_name(name: str | None) -> str:
    """Return the last part of a file name that a browser sent, printable and short."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:_NAME]


async def decode(upload: Upload, encoder: Encoder, max_pixels: int, slots: Semaphore) -> npt.NDArray[np.uint8]:
    """Return the pixels of an upload, (3, s, s), as an encoder wants them; ``slots`` bounds how many are decoded at a
    time.

    Raises:
        Refused: there are no bytes, too many pixels, or no image.
    """
    if not upload.data:
        raise Refused(422, "the request holds no photograph")
    async with slots:
        try:
            file = io.BytesIO(upload.data)
            return await run_in_threadpool(read_image, file, encoder.image_size, max_pixels, resize=encoder.resize)
        except UnreadableImage as error:
            status = 413 if isinstance(error, TooLargeImage) else 415
            raise Refused(status, f"cannot read the photograph: {error}") from None
