"""One photograph from disk to pixels: decoded, turned upright, in RGB, resized to a square.

docs/pictures.md tells users how a file becomes pixels, and what is refused.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import HashretError
from .containers import jpeg_xl_size, unread_kind, without_extras
from .formats import formats, has_plugin, is_image_name, missing_plugin, plugin_formats, reason_passed_over
from .in_memory import Held, Photo, photographs
from .pixels import to_rgb
from .references import Readable, open_reference

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.Image import Resampling, Transpose

T = TypeVar("T")

__all__ = ["UnreadableImage", "fit", "image_size", "is_image_name", "open_rgb", "read_image", "reason_passed_over"]

MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb
MAX_SIDE = 1_000_000  # pixels; resizing needs 16 bytes for each
MAX_PIXELS_VARIABLE = "HASHRET_MAX_PIXELS"  # megapixels; in the environment, so that decoding processes have it, too
PADDING = (124, 116, 104)  # the mean colour of ImageNet, which the normalisation of most backbones turns to zero
_SMALL = 2**24  # pixels that are resized in any order
_NO_MEMORY, _NO_FILE = "too large for the memory that is free", "no such file"  # reasons beside the content


class UnreadableImage(Exception):
    """A file that cannot be turned into pixels; the message is the reason, for `skipped.jsonl`."""


class TooLargeImage(UnreadableImage):
    """An image with more pixels than the limit, or with too long a side."""


def max_pixels() -> int:
    """Return the pixels that an image may have: `MAX_PIXELS`, or what the variable HASHRET_MAX_PIXELS says.

    Raises:
        HashretError: the variable is not a number of megapixels.
    """
    megapixels = os.environ.get(MAX_PIXELS_VARIABLE)
    if not megapixels:
        return MAX_PIXELS
    if not megapixels.isdecimal() or not int(megapixels):
        raise HashretError(f"{MAX_PIXELS_VARIABLE} is a whole number of megapixels, not {megapixels!r}")
    return int(megapixels) * 10**6


def may_be_read_now(reason: str) -> bool:
    """Whether a photograph that could not be read, with the reason of an `UnreadableImage`, may be so with the same
    content: by another limit of pixels, a plugin that is installed since, more memory, or a disk that answers again.
    """
    if sizes := re.match(r"too large: (\d+)x(\d+) pixels, limit \d+;", reason):
        return int(sizes[1]) * int(sizes[2]) <= max_pixels()
    if (plugin := missing_plugin(reason)) is not None:
        return has_plugin(plugin)
    return reason in (_NO_MEMORY, _NO_FILE) or reason in map(os.strerror, errno.errorcode)


def read_image(
    file: Photo, size: int, max_pixels: int | None = None, *, resize: str = "squeeze"
) -> npt.NDArray[np.uint8]:
    """Read one photograph: -> uint8 (3, size, size), RGB.

    EXIF rotation is applied, transparency is laid over white (over black where the picture is white itself), deep
    pixels are scaled to 8 bits, and of an animation the first frame is taken. The picture becomes a square by bilinear,
    antialiased resizing.

    Args:
        file: reference, see `hashret.data.references`, or what else `hashret.data.in_memory.photographs` takes.
        size: pixels a side of the square.
        max_pixels: pixels the image may have; None for `max_pixels()`.
        resize: "squeeze" makes both sides that long; "crop" the shorter one, and takes the middle; "pad" the longer
            one, and fills the rest evenly with `PADDING`.

    Raises:
        UnreadableImage: with a one-line reason: missing, empty, truncated, too large, not an image.
    """
    from PIL import Image, ImageOps

    image = open_rgb(file, size, max_pixels)
    if resize == "crop":
        image = image.crop(middle(image.size))
    shape = fit(image.size, size) if resize == "pad" else (size, size)
    square = resized(image, shape, Image.Resampling.BILINEAR)
    if resize == "pad":
        square = ImageOps.pad(square, (size, size), color=PADDING)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def open_rgb(file: Photo, at_least: int | None = None, max_pixels: int | None = None) -> Picture:
    """Open an image as an upright RGB Pillow image.

    Args:
        file: as of `read_image`.
        at_least: decode a JPEG at reduced scale, but not below twice this number of pixels a side.
        max_pixels: pixels the image may have; None for `max_pixels()`.

    Raises:
        UnreadableImage: with a one-line reason.
    """
    [photo] = photographs([file])
    content = photo.content if isinstance(photo, Held) else photo
    if not isinstance(content, str | BytesIO):
        return _rgb_in_memory(content, max_pixels)
    return with_reasons(content, max_pixels, lambda file, limit: _decoded(file, at_least, limit))


def _rgb_in_memory(image: Picture, limit: int | None) -> Picture:
    """Return an image of the caller's, which stays as it is, as an upright RGB one."""
    _check_size(image.size, max_pixels() if limit is None else limit)
    try:
        rgb, turn = to_rgb(image.copy(), lambda: image), _turn(image)
        return rgb if turn is None else rgb.transpose(turn)
    except Exception as error:  # an image is decoded when its pixels are first asked for, and its file may be closed
        raise UnreadableImage(f"damaged or closed: {' '.join(str(error).split()) or type(error).__name__}") from error


def upright_rgb(image: Picture, again: Callable[[], Picture]) -> Picture:
    """Return the frame or page of an image of `open_image` as an upright RGB image; for ``again`` see `to_rgb`."""
    rgb, turn = to_rgb(image, again), _turn(image)
    if turn is None:
        return rgb
    turned = rgb.transpose(turn)
    turned.info = rgb.info
    return turned


def image_size(file: Readable, max_pixels: int | None = None) -> tuple[int, int]:
    """Return width and height of an image in pixels, as stored, without decoding it. Raises UnreadableImage."""

    def size(file: Readable, limit: int) -> tuple[int, int]:
        with open_image(file, limit) as image:
            return image.size

    return with_reasons(file, max_pixels, size)


def resized(image: Picture, size: tuple[int, int], resample: Resampling) -> Picture:
    """Resize as Pillow does, an image that is much longer than it is wide in the order that needs less memory.

    Pillow resizes the rows first: of 10 x 1,000,000 pixels to 224 x 224 it would make 224 x 1,000,000 in between.
    """
    between = size[0] * image.height
    if between > _SMALL and between > 2 * image.width * image.height:
        image = image.resize((image.width, size[1]), resample)
    return image.resize(size, resample)


def middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box of the square in the middle of a picture: left, top, right, bottom."""
    side, (width, height) = min(size), size
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of the same shape as ``size``, the longer one ``side``, neither less than 1."""
    width, height = size
    if width >= height:
        return side, max(1, round(height / width * side))
    return max(1, round(width / height * side)), side


def with_reasons(file: Readable, limit: int | None, read: Callable[[Readable, int], T]) -> T:
    """Open a reference and call ``read(file, limit)``, if it fails also with the pixels alone, see `without_extras`.

    Whatever it raises becomes an UnreadableImage of one line.
    """
    from PIL import Image, UnidentifiedImageError

    limit = max_pixels() if limit is None else limit
    try:
        file = open_reference(file)
        if _is_empty(file):
            raise UnreadableImage("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of much that it reads well
            return _read_whole(file, limit, read)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeImage(f"too large: {error}") from error
    except MemoryError as error:
        raise UnreadableImage(_NO_MEMORY) from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(unread_kind(file) or "not an image, or of an unknown format") from error
    except FileNotFoundError as error:
        raise UnreadableImage(_NO_FILE) from error
    except OSError as error:
        raise UnreadableImage(error.strerror or " ".join(str(error).split())) from error
    except Exception as error:  # Pillow's plugins raise errors of many types on damaged files
        line = " ".join(str(error).split())
        raise UnreadableImage(f"damaged: {type(error).__name__}: {line}") from error


def _read_whole(file: Readable, limit: int, read: Callable[[Readable, int], T]) -> T:
    """Read a file, and if that fails, read its pixels alone: texts and profiles may be what is damaged."""
    from PIL import Image

    try:
        return read(file, limit)
    except (UnreadableImage, Image.DecompressionBombError, MemoryError, FileNotFoundError):
        raise
    except Exception as error:
        first = error
    for pixels in without_extras(file):
        try:
            return read(pixels, limit)
        except TooLargeImage:
            raise
        except Exception:  # the file's own error says more
            continue
    raise first


def _decoded(file: Readable, at_least: int | None, limit: int) -> Picture:
    with open_image(file, limit) as image:
        if at_least:
            image.draft(None, (2 * at_least, 2 * at_least))
        return upright_rgb(image, lambda: open_image(file, limit))


def open_image(file: Readable, limit: int | None = None) -> Picture:
    """Open an image of a format that hashret reads, as Pillow does; plugins are loaded for a file that needs one.

    Raises:
        TooLargeImage: before any pixel is decoded.
    """
    from PIL import Image, UnidentifiedImageError

    limit = max_pixels() if limit is None else limit
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = -(-limit // 2)  # the user asked for more than Pillow would open
    if isinstance(file, BytesIO):
        file.seek(0)
    try:
        image = Image.open(file, formats=formats())
    except UnidentifiedImageError:
        if not plugin_formats():
            raise
        if size := jpeg_xl_size(file):
            _check_size(size, limit)
        if isinstance(file, BytesIO):
            file.seek(0)
        image = Image.open(file, formats=plugin_formats())
    try:
        _check_size(image.size, limit)
    except UnreadableImage:
        image.close()
        raise
    return image


def _check_size(size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width * height > limit:
        raise TooLargeImage(
            f"too large: {width}x{height} pixels, limit {limit}; "
            f"--max-pixels {math.ceil(width * height / 10**6)} (megapixels) would read it"
        )
    if max(size) > MAX_SIDE:
        raise TooLargeImage(f"too large: {width}x{height} pixels, limit {MAX_SIDE} a side")


def _is_empty(file: Readable) -> bool:
    if isinstance(file, BytesIO):
        return file.getbuffer().nbytes == 0
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise UnreadableImage("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device")
    return status.st_size == 0


def _turn(image: Picture) -> Transpose | None:
    """Return how an image must be turned to stand upright, as Pillow's `Transpose`; None where it does already."""
    from PIL import Image

    if image.format == "JXL" and not getattr(image, "jpeg", False):  # turned by its decoder, unless a JPEG is within
        return None
    try:
        orientation = image.getexif().get(0x0112) or 1
    except Exception:  # damaged metadata, of as many kinds as there are readers; the pixels are whole
        return None
    turns = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    if orientation not in range(2, 9):
        return None
    return Image.Transpose[turns[orientation - 2]]
