"""One photograph from disk to pixels: decoded, turned upright, in RGB, resized to a square."""

from __future__ import annotations

import os
import warnings

import numpy as np

from .formats import formats, plugin_formats

MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb


class UnreadableImage(Exception):
    """A file that cannot be turned into pixels; the message is the reason, for `skipped.jsonl`."""


def read_image(file, size, max_pixels=MAX_PIXELS):
    """Read one image, from a path or a `BytesIO`: -> uint8 (3, size, size), RGB.

    EXIF rotation is applied, transparency is laid over white, 16-bit is scaled down to 8, of an animation the
    first frame is taken, and the whole picture is squeezed into the square (bilinear, antialiased).

    Raises:
        UnreadableImage: with a one-line reason: missing, empty, truncated, too large, not an image.
    """
    rgb = open_rgb(file, size, max_pixels)
    from PIL import Image

    square = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def open_rgb(file, at_least=None, max_pixels=MAX_PIXELS):
    """Open an image, a path or a `BytesIO`, as an upright RGB Pillow image; a JPEG may be decoded at reduced
    scale, but not below twice ``at_least`` pixels a side. Raises UnreadableImage.
    """
    from PIL import Image, ImageOps

    try:
        if _is_empty(file):
            raise UnreadableImage("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of much that it reads well
            with _opened(file) as image:
                if image.width * image.height > max_pixels:
                    raise UnreadableImage(f"too large: {image.width}x{image.height} pixels, limit {max_pixels}")
                if at_least:
                    image.draft(None, (2 * at_least, 2 * at_least))
                return _to_rgb(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("not an image, or of an unknown format") from error
    except FileNotFoundError as error:
        raise UnreadableImage("no such file") from error
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's plugins raise errors of many types on damaged files
        raise UnreadableImage(f"damaged: {type(error).__name__}: {error}") from error


def _opened(file):
    """`PIL.Image.open` of the formats that hashret reads; plugins are loaded for a file that needs one."""
    from PIL import Image

    try:
        return Image.open(file, formats=formats())
    except Image.UnidentifiedImageError:
        if not plugin_formats():
            raise
        if hasattr(file, "seek"):
            file.seek(0)
        return Image.open(file, formats=plugin_formats())


def _is_empty(file):
    return (file.getbuffer().nbytes if hasattr(file, "getbuffer") else os.path.getsize(file)) == 0


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # 16 and 32 bits a pixel, which convert("RGB") would clip
        grey = np.asarray(image).astype(np.float64)
        if grey.max(initial=0) > 255:
            grey /= 257  # 65535 -> 255
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
