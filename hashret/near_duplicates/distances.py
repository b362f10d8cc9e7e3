"""The distance that tells a copy from another photograph of the same code: of a few pixels, or of what an encoder says.

Distances are Euclidean. Those of 8 x 8 pixels are root mean squares in grey levels of 255, so that they mean the same
for any encoder, as do those of features and directions, which are of unit length.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bits import Positions
from ..data.images import UnreadableImage, open_rgb, resized
from ..data.pages import sample_pages
from ..errors import HashretError
from ..files import StrPath
from ..index import Index
from ..index.rerank import directions
from ..progress import Progress
from .near_pairs import Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

Pages = tuple[int, Vectors | None]  # number of frames or pages of a file, and `PAGES` of them as "pixels"

PAGES = 16  # frames of an animation, or pages of a scan, that are compared
DISTANCES = {"pixels": 6.0, "features": 0.1, "directions": 0.2, "values": 0.3}  # up to which two are duplicates
BY = (*DISTANCES, "codes")  # what may be compared
_SIDE = 8
_UNIT = np.sqrt(3 * _SIDE**2)
_AT_ONCE = 256
# 62 photographs, blurred ones among them, were shrunk and enlarged in many ways and saved as JPEG or not. No original
# came below both _CLOSER and _ENLARGED; most enlarged ones did, if saved as JPEG at quality 85 or more.
_CLOSER, _ENLARGED, _EXACT = 0.75, 3.0, 0.01
_MOST_PIXELS = 100_000_000


def check_by(by: str) -> str:
    """Return ``by``, or raise HashretError unless it is one of `BY`."""
    if by not in BY:
        raise HashretError(f"duplicates are found by {', '.join(BY)}, not by {by}")
    return by


def vectors(index: Index, positions: Positions, by: str) -> Vectors | None:
    """Return what the distance of photographs at positions in an index (n,) is of: (n, d), or None by "codes".

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
        return _thumbnails([index.path(position) for position in positions])
    kept, vectors = ("features", index.fc_features) if by == "features" else ("values", index.hash_outputs)
    if vectors is None:
        advice = {"features": "encode its photographs with --features", "values": "build it without --no-values"}
        raise HashretError(f"this index keeps no {kept}", hint=f"{advice[kept]}, or take --by pixels")
    x: Vectors = np.asarray(vectors[positions], np.float32)
    if by == "features":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    return directions(x) if by == "directions" else x


def pages(path: StrPath) -> Pages:
    """Return the number of frames of an animation or pages of a scan, and `PAGES` of them as "pixels", (m, d).

    The first and the last frame are among them. None stands in their place where the file has one frame, or they
    cannot all be read.

    Raises:
        UnreadableImage: the file is no image.
    """
    count, images = sample_pages(path, PAGES)
    return count, np.stack([_shrunk(image) for image in images]) / np.float32(_UNIT) if images else None


def same_pages(one: Pages, other: Pages, distance: float = DISTANCES["pixels"]) -> bool:
    """Whether two files have as many frames or pages as each other, each within a distance of its counterpart."""
    (count, x), (other_count, y) = one, other
    if count != other_count or count == 1:
        return count == other_count
    return x is not None and y is not None and float(np.linalg.norm(x - y, axis=1).max()) <= distance


def is_enlarged(large_path: StrPath, small_path: StrPath) -> bool:
    """Whether a photograph shows no more than a smaller one, because it was enlarged from that.

    The larger one is compared with the smaller one enlarged, and the smaller one with the larger one shrunk, in the
    usual ways of either. What was enlarged follows from the smaller photograph, up to rounding and JPEG. What was
    shrunk follows from the larger one, and always more closely, however blurred that is. In doubt, as where the
    photograph was sharpened since, the answer is False.
    """
    from PIL import Image

    try:
        large, small = (open_rgb(path, max_pixels=_MOST_PIXELS).convert("L") for path in (large_path, small_path))
    except UnreadableImage:
        return False
    ways = Image.Resampling
    enlarged = (small.resize(large.size, way) for way in (ways.NEAREST, ways.BILINEAR, ways.BICUBIC, ways.LANCZOS))
    shrunk = (large.resize(small.size, way) for way in (ways.BOX, ways.BILINEAR, ways.BICUBIC, ways.LANCZOS))
    up, down = min(_rms(large, image) for image in enlarged), min(_rms(small, image) for image in shrunk)
    return up < _EXACT or (up < _ENLARGED and up < _CLOSER * down)


def _rms(one: Image, other: Image) -> float:
    """Return the root mean square of the difference of two grey images, in grey levels."""
    difference = np.asarray(one, np.float32) - np.asarray(other, np.float32)
    return float(np.sqrt(np.mean(np.square(difference, out=difference))))


def _thumbnails(paths: Sequence[str]) -> Vectors:
    x = np.full((len(paths), 3 * _SIDE**2), np.nan, np.float32)
    progress = Progress("reading photographs", len(paths), "photographs")
    # `open_rgb` uses `catch_warnings` in the threads: without the one here, the filters of the last thread would stay.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            block = paths[start : start + _AT_ONCE]
            for number, pixels in enumerate(pool.map(_thumbnail, block), start):
                x[number] = pixels
            progress.add(len(block))
    progress.close()
    return x / np.float32(_UNIT)


def _thumbnail(path: str) -> npt.NDArray[np.float32] | float:
    try:
        return _shrunk(open_rgb(path, at_least=2 * _SIDE))
    except UnreadableImage:
        return np.nan


def _shrunk(image: Image) -> npt.NDArray[np.float32]:
    from PIL import Image

    return np.asarray(resized(image, (_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
