"""Small pictures of the photographs of a data source, by which copies are told, and which the feature cache keeps.

A picture is 64 x 64 pixels, whatever the shape of the photograph, so that a quarter turn keeps it a square: its
luminance, and the two colour differences of each 4 x 4 of its pixels. It takes 9 kB of the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..bits import Positions
from ..data import Source
from ..data.feature_cache import PRESENT, UNREADABLE, CachedRows, FeatureCache
from ..errors import HashretError, warn
from ..files import StrPath

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

SIDE = 64  # pixels
_POOL = 4  # pixels a side that share their colour
_CHROMA = SIDE // _POOL
_KIND, _FORMAT = "pictures of luminance and colour", "float16"  # what the key of the cache says


class Pictures(NamedTuple):
    """Small pictures: ``grey`` (n, 64, 64), luminance from 0 to 255, and ``colour`` (n, 2, 16, 16), Cb and Cr."""

    grey: Floats
    colour: Floats


class PictureReader:
    """The pictures of the photographs of a source that can be read.

    Attributes:
        source_rows: the rows of these photographs in the source, (n,); pictures are numbered as these are.
    """

    def __init__(self, source_rows: Positions, cached: CachedRows) -> None:
        self.source_rows, self._cached = source_rows, cached

    def __len__(self) -> int:
        return len(self.source_rows)

    def __call__(self, items: npt.ArrayLike) -> Pictures:
        """Return the pictures of items, which number ``source_rows``, (m,)."""
        kept = self._cached[self.source_rows[np.asarray(items, np.int64)]].astype(np.float32)
        return Pictures(kept[:, :SIDE], kept[:, SIDE:].reshape(-1, 2, _CHROMA, _CHROMA))


def read_pictures(source: Source, cache: StrPath | None = None, workers: int | None = None) -> PictureReader:
    """Read the pictures of a source from the feature cache, once those of new and changed photographs are in it.

    Args:
        cache: folder of feature caches, None for the usual one.
        workers: decoding processes, see `hashret.data.batches.batches`.

    Raises:
        HashretError: none of the photographs can be read, or the cache cannot be used.
    """
    pictures = FeatureCache(cache, source, _KIND, SIDE, _FORMAT)
    state = pictures.state()
    if (state != PRESENT).any():
        state = pictures.fill(_compute(), workers, what="reading photographs")
    rows, missing = np.flatnonzero(state == PRESENT), np.flatnonzero(state == UNREADABLE)
    if not len(rows):
        raise HashretError(f"none of the photographs of {source.spec} can be read, as {source.reference(0)}")
    if len(missing):
        example = source.reference(int(missing[0]))
        warn(f"{len(missing):,} photographs cannot be read and are left out, as {example}")
    return PictureReader(rows, pictures.open())


def _compute() -> Callable[[npt.NDArray[np.uint8]], torch.Tensor]:
    """Return what turns photographs (n, 3, 64, 64) into what the cache keeps of them, (n, 72, 64)."""
    import torch  # 1.6 s, which nothing pays where all pictures are in the cache

    def compute(images: npt.NDArray[np.uint8]) -> torch.Tensor:
        red, green, blue = images.astype(np.float32).transpose(1, 0, 2, 3)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue  # Rec. ITU-R BT.601, as in JPEG
        colour = np.stack([0.564 * (blue - grey), 0.713 * (red - grey)], 1)
        pooled = colour.reshape(len(images), 2, _CHROMA, _POOL, _CHROMA, _POOL).mean((3, 5))
        return torch.from_numpy(np.concatenate([grey, pooled.reshape(len(images), -1, SIDE)], 1))

    return compute
