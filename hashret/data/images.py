"""One photograph from disk to pixels: decoded, turned upright, in RGB, resized to a square."""

from __future__ import annotations

import os
import warnings

import numpy as np

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)
MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb


class UnreadableImage(Exception):
    """A file that cannot be turned into pixels; the message is the reason, for `skipped.jsonl`."""


def read_image(path, size):
    """Read one image file: -> uint8 (3, size, size), RGB.

    EXIF rotation is applied, transparency is laid over white, 16-bit is scaled down to 8, of an animation the
    first frame is taken, and the whole picture is squeezed into the square (bilinear, antialiased).

    Raises:
        UnreadableImage: with a one-line reason: missing, empty, truncated, too large, not an image.
    """
    rgb = open_rgb(path, at_least=size)
    from PIL import Image

    square = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def open_rgb(path, at_least=None):
    """Open an image file as an upright RGB Pillow image; a JPEG may be decoded at reduced scale, but not
    below twice ``at_least`` pixels a side. Raises UnreadableImage.
    """
    from PIL import Image, ImageOps

    try:
        if os.path.getsize(path) == 0:
            raise UnreadableImage("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of much that it reads well
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(f"too large: {image.width}x{image.height} pixels, limit {MAX_PIXELS}")
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


def is_image_name(name):
    """Whether a file name ends like an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
