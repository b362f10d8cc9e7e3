"""Small pictures of indexed photographs."""

from __future__ import annotations

import io
import os
import stat
from functools import lru_cache

from ..data.images import open_rgb

SIZES = (96, 160, 256, 512, 1024)
_KEPT = 2048  # pictures, of some 10 kB each


def thumbnail(path: str, size: int) -> bytes:
    """Return a photograph as WebP without its metadata, at most ``size`` pixels a side.

    Raises:
        UnreadableImage: the file is gone, or no image.
        OSError: there is no file, or it cannot be looked at.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise OSError("not a file")
    return _made(path, size, found.st_mtime_ns, found.st_size)


@lru_cache(_KEPT)
def _made(path: str, size: int, *_changes: int) -> bytes:
    picture = open_rgb(path, at_least=size)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
