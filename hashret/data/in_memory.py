"""Photographs that are no files: Pillow images, arrays of pixels and open files, which programs have at hand."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import HashretError
from ..files import StrPath

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_FORMS = "a path, a Pillow image, an array of pixels or a file that is open for reading bytes"


@dataclass(frozen=True, eq=False)
class Held:
    """A photograph in memory.

    Attributes:
        name: what messages and answers call it: the name of its file where it has one, else "photograph 1".
        content: a Pillow image, or the bytes of a file.
    """

    name: str
    content: Picture | io.BytesIO

    def __str__(self) -> str:
        return self.name


if TYPE_CHECKING:
    Photo = StrPath | IO[bytes] | Picture | npt.NDArray[np.uint8] | Held
else:
    Photo = Any  # Pillow is imported by what decodes photographs alone


def photographs(photos: Photo | Iterable[Photo]) -> list[str | Held]:
    """Return photographs as `hashret.data.read_image` takes them, of what a caller has: one of them, or several.

    Args:
        photos: paths; Pillow images; arrays uint8 (height, width, 3), RGB, or (height, width), grey, or with alpha
            (height, width, 4), and (n, height, width, 3) for several; files that are open for reading bytes, which are
            read from their beginning.

    Raises:
        HashretError: it is none of these.
    """
    one = isinstance(photos, str | bytes | os.PathLike | Held) or _is_open(photos) or _is_picture(photos)
    if isinstance(photos, np.ndarray):
        one = photos.ndim != 4
    if not one and not isinstance(photos, Iterable):
        raise HashretError(f"a photograph is {_FORMS}, not {_kind(photos)}")
    each: Iterable[Any] = [photos] if one else photos  # type: ignore[assignment]
    return [_photograph(photo, number) for number, photo in enumerate(each, 1)]


def refuse_in_memory(photos: object) -> None:
    """Raise HashretError where photographs that shards or an index would name by their files have none."""
    several = photos if isinstance(photos, Sequence) and not isinstance(photos, str) else [photos]
    if any(isinstance(photo, Held | bytes) or _is_open(photo) or _is_picture(photo) for photo in several):
        raise HashretError(
            "shards and indexes name photographs by their files, and this one is in memory",
            hint="save it to a file, and name that",
        )


def picture_of(array: npt.NDArray[Any]) -> Picture:
    """Return an array of pixels as a Pillow image. Raises HashretError where its shape or type is no photograph's."""
    from PIL import Image

    several = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    if array.dtype != np.uint8 or not (several or array.ndim == 2) or not array.size:
        shape = "x".join(map(str, array.shape)) or "no"
        raise HashretError(
            f"an array of {array.dtype}, {shape}, is no photograph: that is uint8, height x width x 3 or height x width"
        )
    return Image.fromarray(array[..., 0] if several and array.shape[-1] == 1 else array)


def _photograph(photo: Any, number: int) -> str | Held:
    if isinstance(photo, Held):
        return photo
    if isinstance(photo, str | os.PathLike):
        return os.fsdecode(photo)
    name = f"photograph {number}"
    if isinstance(photo, np.ndarray):
        return Held(name, picture_of(photo))
    if _is_picture(photo):
        return Held(_named(getattr(photo, "filename", None)) or name, photo)
    if _is_open(photo):
        content = photo if isinstance(photo, io.BytesIO) else io.BytesIO(_content(photo))
        return Held(_named(getattr(photo, "name", None)) or name, content)
    hint = "wrap it in io.BytesIO" if isinstance(photo, bytes | bytearray) else None
    raise HashretError(f"a photograph is {_FORMS}, not {_kind(photo)}", hint=hint)


def _content(file: Any) -> bytes:
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise HashretError(f"cannot read the open file of a photograph: {error}") from None
    if not isinstance(content, bytes):
        raise HashretError(
            f"the file of a photograph gives {_kind(content)}, not bytes", hint="open it in binary, with mode 'rb'"
        )
    return content


def _is_open(photo: object) -> bool:
    """Return whether it is an open file, and no source of vectors, which can be read as well."""
    return hasattr(photo, "read") and not hasattr(photo, "reference")


def _is_picture(photo: object) -> bool:
    # Nobody has an image of Pillow's before that is imported, which another thread may be at.
    image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return image is not None and isinstance(photo, image)


def _named(name: object) -> str:
    """Return the path that an image or a file says it is from, "" where that is none, as the number of a descriptor."""
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
