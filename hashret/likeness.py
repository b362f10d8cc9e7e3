"""What tells a copy from another photograph of the same code: the photographs as a few pixels, or what an encoder says.

Distances are Euclidean. Of 8 x 8 pixels they are root mean squares in grey levels of 255, so that they mean the same
for any encoder, as they do for features and directions, which are of unit length.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .data.images import UnreadableImage, open_rgb
from .errors import HashretError
from .index.rerank import directions
from .progress import Progress

DISTANCES = {"pixels": 6.0, "features": 0.1, "directions": 0.2, "values": 0.3, "codes": None}  # two are alike up to
_SIDE = 8
_AT_ONCE = 256


def check_by(by):
    """Return ``by``, or raise HashretError unless it is one of `DISTANCES`."""
    if by not in DISTANCES:
        raise HashretError(f"duplicates are found by {', '.join(DISTANCES)}, not by {by}")
    return by


def vectors(index, rows, by, quiet=True):
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
        return _thumbnails([index.path(row) for row in rows], quiet)
    kept = "features" if by == "features" else "values"
    parts = [getattr(segment, kept) for segment in index.segments]
    if any(part is None for part in parts):
        advice = {"features": "encode its photographs with --features", "values": "build it without --no-values"}
        raise HashretError(f"this index keeps no {kept}; {advice[kept]}, or take --by pixels")
    pieces = zip(parts, index.offsets[:-1], index.offsets[1:], strict=True)
    x = np.concatenate([part[rows[(rows >= start) & (rows < end)] - start] for part, start, end in pieces])
    if by == "features":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    return directions(x) if by == "directions" else x


def _thumbnails(paths, quiet):
    x = np.full((len(paths), 3 * _SIDE**2), np.nan, np.float32)
    progress = Progress("reading photographs", len(paths), "photographs", quiet=quiet)
    # The threads' own `catch_warnings`, in `open_rgb`, would leave the filters of whichever ends last.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            for row, pixels in enumerate(pool.map(_thumbnail, some), start):
                x[row] = pixels
            progress.add(len(some))
    progress.close()
    return x / np.float32(np.sqrt(x.shape[1]))


def _thumbnail(path):
    from PIL import Image

    try:
        small = open_rgb(path, at_least=2 * _SIDE).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    except UnreadableImage:
        return np.nan
    return np.asarray(small, np.float32).ravel()
