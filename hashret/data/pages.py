"""The frames of an animation and the pages of a scan, of which everything else reads the first alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .images import open_image, upright_rgb, with_reasons
from .references import Readable

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Formats whose further pictures belong to what is shown; those of MPO and HEIF are previews and depths of a photograph.
_FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "JXL")
_NEW_SUBFILE_TYPE, _PREVIEW_OR_MASK = 254, 1 | 4  # TIFF 6.0, section 8: a page that repeats another, smaller
_MOST_PAGES = 10_000
_MOST_PIXELS = 2**30  # that are decoded to get to the last frame


def sample_pages(file: Readable, most: int) -> tuple[int, list[Picture] | None]:
    """Look at an image's frames or pages: -> how many there are, and some of them, a list of RGB Pillow images.

    At most ``most`` are decoded, at equal distances, the first and the last among them. The list is empty where there
    is one alone, and None where there are too many to get to the last in seconds, or one cannot be read.

    Raises:
        UnreadableImage: not an image.
    """
    return with_reasons(file, None, lambda file, limit: _sample(file, limit, most))


def _sample(file: Readable, limit: int, most: int) -> tuple[int, list[Picture] | None]:
    with open_image(file, limit) as image:
        numbers = _page_numbers(image)
        if len(numbers) == 1:
            return 1, []
        skipped = image.width * image.height * (1 if image.format == "TIFF" else numbers[-1])
        if len(numbers) > _MOST_PAGES or skipped > _MOST_PIXELS:
            return len(numbers), None
        pages: list[Picture] = []
        try:
            for chosen in np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int)):
                image.seek(numbers[chosen])
                pages.append(upright_rgb(image, partial(_open_page, file, numbers[chosen])))
        except Exception:  # Pillow's plugins raise errors of many types on damaged files
            return len(numbers), None
        return len(numbers), pages


def _open_page(file: Readable, number: int) -> Picture:
    """Return a page, opened anew; a file in memory is copied, since the first opening of it reads on."""
    image = open_image(io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file)
    image.seek(number)
    return image


def _page_numbers(image: Any) -> Sequence[int]:
    """Return the numbers by which Pillow finds the frames or pages of an opened image."""
    count = getattr(image, "n_frames", 1) if image.format in _FORMATS else 1
    if image.format != "TIFF" or count > _MOST_PAGES:
        return range(count)
    numbers = []
    for number in range(count):
        image.seek(number)
        if not number or not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & _PREVIEW_OR_MASK:
            numbers.append(number)
    image.seek(0)
    return numbers
