"""Small pictures of indexed photographs, of which those asked for last are kept."""

from __future__ import annotations

import io
from collections import OrderedDict
from threading import Lock

from ..data.images import open_rgb
from ..data.references import status

SIZES = (96, 160, 256, 512, 1024)
_KEPT_BYTES = 64 * 2**20  # some 5,000 pictures of 256 pixels a side, or 500 of 1024
_ENTRY_BYTES = 1000  # that an entry takes beside its picture, roughly
_Key = tuple[str, int, int, int]  # path, size, and the two by which a change of the file shows


class KeptPictures:
    """The pictures that were asked for last, as many as ``most_bytes`` hold; ``bytes`` counts what they take."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._pictures: OrderedDict[_Key, bytes] = OrderedDict()  # the one asked for last stands last
        self._lock = Lock()

    def get(self, key: _Key) -> bytes | None:
        """Return a picture, None where it is not kept."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def add(self, key: _Key, picture: bytes) -> None:
        """Keep a picture, and let go of those that nobody asked for longest."""
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = picture
                self.bytes += len(picture) + _ENTRY_BYTES
            while self.bytes > self.most_bytes:
                _, oldest = self._pictures.popitem(last=False)
                self.bytes -= len(oldest) + _ENTRY_BYTES


_kept = KeptPictures(_KEPT_BYTES)


def kept_thumbnail(path: str, size: int) -> bytes | None:
    """Return what `thumbnail` does where that needs no decoding, else None.

    Raises:
        OSError: the file cannot be looked at.
    """
    return _kept.get((path, size, *status(path)))


def thumbnail(path: str, size: int) -> bytes:
    """Return a photograph as WebP without its metadata, at most ``size`` pixels a side.

    Raises:
        UnreadableImage: the file is gone, or no image.
        OSError: the file cannot be looked at.
    """
    key = (path, size, *status(path))
    kept = _kept.get(key)
    if kept is not None:
        return kept
    picture = open_rgb(path, at_least=size)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    _kept.add(key, buffer.getvalue())
    return buffer.getvalue()
