"""What tells a copy from another photograph of the same code: the photographs as a few pixels, or what an encoder says.

Distances are Euclidean. Of 8 x 8 pixels they are root mean squares in grey levels of 255, so that they mean the same
for any encoder, as they do for features and directions, which are of unit length.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..data.images import UnreadableImage, open_rgb, resized
from ..data.pages import sample_pages
from ..errors import HashretError
from ..index.rerank import directions
from ..progress import Progress

PAGES = 16  # frames of an animation, or pages of a scan, that are compared
DISTANCES = {"pixels": 6.0, "features": 0.1, "directions": 0.2, "values": 0.3, "codes": None}  # two are alike up to
_SIDE = 8
_UNIT = np.sqrt(3 * _SIDE**2)
_AT_ONCE = 256
# Of 62 photographs, shrunk and enlarged in many ways and saved as JPEG or not, no original came below both _CLOSER and
# _ENLARGED, blurred ones as sharp ones; most of the enlarged ones did, saved as JPEG of quality 85 or more.
_CLOSER, _ENLARGED, _EXACT = 0.75, 3.0, 0.01
_MOST_PIXELS = 100_000_000


def check_by(by):
    """Return ``by``, or raise HashretError unless it is one of `DISTANCES`."""
    if by not in DISTANCES:
        raise HashretError(f"duplicates are found by {', '.join(DISTANCES)}, not by {by}")
    return by


def vectors(index, rows, by):
    """What the distance of photographs is of: rows of an index (n,) -> float32 (n, d), or None by "codes".

    Args:
        by: "pixels": red, green and blue of the photograph shrunk to 8 x 8, NaN where its file cannot be read;
            "features", "directions" or "values" that the index keeps, as in `hashret.index.rerank`, the features
            scaled to unit length; "codes": nothing.

    Raises:
        HashretError: the index does not keep them.
    """
    if check_by(by) == "codes":
        return None
    if by == "pixels":
        return _thumbnails([index.path(row) for row in rows])
    kept = "features" if by == "features" else "values"
    column = "fc_features" if by == "features" else "hash_outputs"
    parts = [getattr(segment, column) for segment in index.segments]
    if any(part is None for part in parts):
        advice = {"features": "encode its photographs with --features", "values": "build it without --no-values"}
        raise HashretError(f"this index keeps no {kept}; {advice[kept]}, or take --by pixels")
    pieces = zip(parts, index.offsets[:-1], index.offsets[1:], strict=True)
    x = np.concatenate([part[rows[(rows >= start) & (rows < end)] - start] for part, start, end in pieces])
    if by == "features":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    return directions(x) if by == "directions" else x


def pages(path):
    """The frames of an animation or the pages of a scan, by `PAGES` of them, the first and the last among them.

    Returns how many there are, and, where these are several that can be read, those as "pixels", float32 (m, d), else
    None. Raises UnreadableImage where the file is no image.
    """
    count, some = sample_pages(path, PAGES)
    return count, np.stack([_shrunk(page) for page in some]) / np.float32(_UNIT) if some else None


def same_pages(one, other, distance=DISTANCES["pixels"]):
    """Whether two files have as many frames or pages, see `pages`, of which each is within a distance of its own."""
    (count, x), (others, y) = one, other
    if count != others or count == 1:
        return count == others
    return x is not None and y is not None and float(np.linalg.norm(x - y, axis=1).max()) <= distance


def is_enlarged(large, small):
    """Whether a photograph shows no more than another that is smaller: it was enlarged from it. Paths -> bool.

    It is compared with the smaller one enlarged, and the smaller one with it shrunk, in the usual ways of either. What
    was enlarged follows from the smaller one, up to rounding and JPEG; what was shrunk follows from the larger one, and
    always more closely, however blurred that is. In doubt, as where it was sharpened since: False.
    """
    from PIL import Image

    try:
        large, small = (open_rgb(path, max_pixels=_MOST_PIXELS).convert("L") for path in (large, small))
    except UnreadableImage:
        return False
    ways = Image.Resampling
    enlarged = (small.resize(large.size, way) for way in (ways.NEAREST, ways.BILINEAR, ways.BICUBIC, ways.LANCZOS))
    shrunk = (large.resize(small.size, way) for way in (ways.BOX, ways.BILINEAR, ways.BICUBIC, ways.LANCZOS))
    up, down = min(_rms(large, image) for image in enlarged), min(_rms(small, image) for image in shrunk)
    return up < _EXACT or (up < _ENLARGED and up < _CLOSER * down)


def _rms(one, other):
    """Root mean square of the difference of two grey images, in grey levels."""
    difference = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    return float(np.sqrt(np.mean(np.square(difference, out=difference))))


def _thumbnails(paths):
    x = np.full((len(paths), 3 * _SIDE**2), np.nan, np.float32)
    progress = Progress("reading photographs", len(paths), "photographs")
    # The threads' own `catch_warnings`, in `open_rgb`, would leave the filters of whichever ends last.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            for row, pixels in enumerate(pool.map(_thumbnail, some), start):
                x[row] = pixels
            progress.add(len(some))
    progress.close()
    return x / np.float32(_UNIT)


def _thumbnail(path):
    try:
        return _shrunk(open_rgb(path, at_least=2 * _SIDE))
    except UnreadableImage:
        return np.nan


def _shrunk(image):
    from PIL import Image

    return np.asarray(resized(image, (_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
