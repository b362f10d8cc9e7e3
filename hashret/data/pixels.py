"""Any Pillow image to 8-bit RGB: deep pixels, transparency, colour spaces. docs/pictures.md says how, for users.

Large pictures are converted in strips, so that beside the picture and its RGB copy, of four bytes a pixel each, little
memory is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from .containers import jpeg_2000_bits, significant_bits
from .levels import Declared, Levels, Values

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

T = TypeVar("T")
Opened = Any  # an image as Pillow opens it, of a class for its format, with attributes such as tag_v2

_STRIP = 2**20  # pixels converted at a time
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_DARK = 64  # where the high bytes of 16 bits are below this, 14 bits may be meant
_LOW_BYTES = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # byte orders of Pillow's raw modes
_NATIVE = {
    "I;16BS": "I;16NS",
    "I;32B": "I;32N",
    "I;32BS": "I;32NS",
    "F;32BF": "F;32NF",
    "F;64F": "F;64NF",
    "F;64BF": "F;64NF",
}
# A ground is seen through transparency, and what is nearly white would vanish on white.
_NEARLY_WHITE = 224
_WHITE_FRACTION = 0.75
_TRANSPARENT_FRACTION = 0.01


def to_rgb(image: Opened, again: Callable[[], Opened]) -> Picture:
    """Return a Pillow image, opened but not loaded, as a new RGB image, not turned.

    Args:
        image: the image; its metadata are looked at.
        again: opens the same image another time; called where Pillow gives only half of the bits.
    """
    declared = _declared(image)
    if image.format == "TIFF":
        _mend_layouts(image)
    raw_mode = _raw_mode(image)
    image.load()
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    if image.mode in _DEEP or (image.mode == "L" and declared.limits):
        image = _deep_grey(image, declared)
    elif ";16" in raw_mode and image.mode in ("RGB", "RGBA"):
        image = _deep_colour(image, declared, again)
    rgb = _over_ground(image) if _has_alpha(image) else _by_strips(image, lambda strip: strip.convert("RGB"))
    rgb.info = {"icc_profile": profile} if profile else {}
    return rgb


def strips(image: Picture) -> Iterator[tuple[int, Picture]]:
    """Yield where each strip of an image begins, and the strip; the whole image where it is small."""
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Picture, convert: Callable[[Picture], Picture], mode: str = "RGB") -> Picture:
    """Return a new image of what ``convert`` makes of each strip."""
    from PIL import Image

    whole: Picture | None = None
    for top, strip in strips(image):
        converted = convert(strip)
        if converted.size == image.size:
            return converted
        whole = whole or Image.new(mode, image.size)
        whole.paste(converted, (0, top))
    assert whole is not None
    return whole


def _raw_mode(image: Opened) -> str:
    """Return what Pillow calls the layout of the file's pixels, "" where it does not say."""
    tile = getattr(image, "tile", None)  # none where it is decoded
    arguments = tile[0].args if tile else ""
    first = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return first if isinstance(first, str) else ""


def _declared(image: Opened) -> Declared:
    """Return what the file says of its values, see `Declared`."""
    if image.format == "TIFF":
        return _declared_by_tiff(image.tag_v2)
    if image.format == "JPEG2000":  # scaled to 16 bits by Pillow, unless it has them
        return Declared(None if _with_stream(image, jpeg_2000_bits) == 16 else 2**16 - 1)
    if image.format == "PPM":  # scaled to 16 bits by Pillow, unless they fill it anyway
        arguments = image.tile[0].args if image.tile else ()
        scaled = isinstance(arguments, tuple) and len(arguments) == 2 and arguments[1] != 2**16 - 1
        return Declared(2**16 - 1 if scaled else None)
    if image.format == "PNG" and ";16" in _raw_mode(image):
        bits = _with_stream(image, significant_bits)
        return Declared(2**bits - 1 if bits else None)
    return Declared()


def _with_stream(image: Opened, read: Callable[[IO[bytes]], T]) -> T:
    """Return what ``read`` finds in the image's file, which is then where it was."""
    position = image.fp.tell()
    result = read(image.fp)
    image.fp.seek(position)
    return result


def _declared_by_tiff(tags: Any) -> Declared:
    def number(tag: int, default: Any = None) -> Any:
        value = tags.get(tag, default)
        value = value[0] if isinstance(value, tuple) and value else value
        try:
            return default if value is None else float(value)
        except (TypeError, ValueError):
            return default

    bits, kind = int(number(258, 1)), number(339, 1)
    limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == 2 else None
    white, black = number(341), number(340)  # SMaxSampleValue, SMinSampleValue
    if kind != 3:  # MaxSampleValue and MinSampleValue are short numbers
        white, black = white or number(281), black or number(280)
    if white is not None and not (black or 0) < white < np.inf:
        white = None
    if 8 < bits < 16:
        white = white or 2**bits - 1
    if kind != 3 and white in (2**bits - 1, 2 ** (bits - 1) - 1) and bits >= 16:  # of the type, not of the picture
        white = None
    missing = None
    with suppress(ValueError):
        missing = float(str(tags.get(42113, "")).strip("\0 "))  # GDAL_NODATA
    return Declared(white, black or 0, limits, missing, number(262, 1) == 0)


def _mend_layouts(image: Opened) -> None:
    """Correct what Pillow expects of a TIFF's values.

    It reads uncompressed planes of 16 bits a value as if they had 8, and expects compressed values of big-endian files
    in that order, while libtiff gives them in this machine's.
    """
    planes = image.tag_v2.get(284) == 2 and 16 in image.tag_v2.get(258, ())
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    for number, tile in enumerate(image.tile):
        layout = tile.args[0]
        if planes and layout in ("R", "G", "B", "A"):
            layout = f"{layout};16{order}"
        elif tile.codec_name == "libtiff":
            layout = _NATIVE.get(layout, layout)
        image.tile[number] = tile._replace(args=(layout, *tile.args[1:]))


def _array(strip: Picture, declared: Declared) -> Values:
    values = np.asarray(strip)
    if declared.limits and values.dtype == np.uint8:
        return values.view(np.int8)
    if strip.mode == "I" and not declared.limits:
        return values.view(np.uint32)
    return values


def _deep_grey(image: Opened, declared: Declared) -> Picture:
    """Return grey values beyond 8 bits as "L", or "LA" where one of them is transparent."""
    from PIL import Image

    levels = Levels(declared)
    for _, strip in strips(image):
        levels.see(_array(strip, declared))
    grey = _by_strips(image, lambda strip: Image.fromarray(levels.to_bytes(_array(strip, declared))), "L")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = _by_strips(image, lambda strip: Image.fromarray(np.uint8(255) * (np.asarray(strip) != clear)), "L")
        return Image.merge("LA", (grey, opaque))
    return grey


def _deep_colour(high: Opened, declared: Declared, again: Callable[[], Opened]) -> Opened:
    """Return colours of 16 bits, of which Pillow gives the ``high`` bytes: all are dark where 12 bits are meant."""
    from PIL import Image

    clear = high.info.get("transparency")
    if max(most for _, most in high.getextrema()[:3]) >= _DARK:
        if isinstance(clear, tuple):
            high.info["transparency"] = tuple(value >> 8 for value in clear)
        return high
    low = _low_bytes(again)
    colour, alpha = Levels(declared), Levels(Declared())
    if low is None:  # the high bytes alone look as if they had been scaled up
        colour.factors = alpha.factors = set()

    def values(top: int, strip: Picture) -> Values:
        below = np.asarray(low.crop((0, top, low.width, top + strip.height)), np.uint16) if low else 0
        return np.asarray(strip, np.uint16) * 256 + below

    for top, strip in strips(high):
        deep = values(top, strip)
        colour.see(deep[..., :3])
        alpha.see(deep[..., 3:])
    made = Image.new(high.mode, high.size)
    for top, strip in strips(high):
        deep = values(top, strip)
        bands = colour.to_bytes(deep[..., :3]), alpha.to_bytes(deep[..., 3:])
        made.paste(Image.fromarray(np.concatenate(bands, axis=2)), (0, top))
    if isinstance(clear, tuple):
        made.info["transparency"] = tuple(colour.to_bytes(np.array(clear)).tolist())
    return made


def _low_bytes(again: Callable[[], Opened]) -> Opened:
    """Return the low bytes of a picture of 16 bits a value, as an image; None where Pillow cannot give them."""
    from PIL import Image

    with again() as image:
        if image.format == "TIFF":
            if image.tag_v2.get(284) == 2 and image.tile[0].codec_name == "libtiff":
                return None
            _mend_layouts(image)
        grey = _raw_mode(image) == "LA;16B"
        for number, tile in enumerate(image.tile):
            mode = tile.args if isinstance(tile.args, str) else tile.args[0]
            mode = "RGBA" if grey else mode[:-1] + _LOW_BYTES.get(mode[-1], "")
            args = mode if isinstance(tile.args, str) else (mode, *tile.args[1:])
            image.tile[number] = tile._replace(args=args)
        try:
            image.load()
        except (ValueError, OSError):  # no such layout
            return None
        if grey:  # grey and alpha, two bytes each, were read as four bands
            _, grey, _, alpha = image.split()
            return Image.merge("RGBA", (grey, grey, grey, alpha))
        return image


def _has_alpha(image: Opened) -> bool:
    if image.mode in ("RGBA", "LA"):
        return bool(image.getextrema()[-1][0] < 255)
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def _over_ground(image: Picture) -> Picture:
    """Lay an image with transparency over white, or over black where nearly all of it is white itself."""
    from PIL import Image, ImageChops

    seen = white = 0
    for _, strip in strips(image):
        red, green, blue, alpha = strip.convert("RGBA").split()
        least = ImageChops.darker(ImageChops.darker(red, green), blue)
        nearly = least.point([0] * _NEARLY_WHITE + [255] * (256 - _NEARLY_WHITE))
        seen += _sum(alpha)
        white += _sum(ImageChops.darker(nearly, alpha))
    clear = 1 - seen / (255 * image.width * image.height)
    dark = clear > _TRANSPARENT_FRACTION and white > _WHITE_FRACTION * seen

    def laid(strip: Picture) -> Picture:
        rgba = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "black" if dark else "white"), rgba).convert("RGB")

    return _by_strips(image, laid)


def _sum(band: Picture) -> int:
    return sum(level * count for level, count in enumerate(band.histogram()))
