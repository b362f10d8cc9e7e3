"""Small pictures of indexed photographs."""

from __future__ import annotations

import io
from functools import lru_cache

from ..data.images import open_rgb
from ..data.references import status

SIZES = (96, 160, 256, 512, 1024)
_KEPT = 2048  # pictures, of some 10 kB each


def thumbnail(path: str, size: int) -> bytes:
    """Return a photograph as WebP without its metadata, at most ``size`` pixels a side.

    Raises:
        UnreadableImage: the file is gone, or no image.
        OSError: the file cannot be looked at.
    """
    return _made(path, size, *status(path))


@lru_cache(_KEPT)
def _made(path: str, size: int, *_changes: int) -> bytes:
    picture = open_rgb(path, at_least=size)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
