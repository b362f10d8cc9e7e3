"""Vectors that others made: what of their numbers hashret can use, and what two of them are compared by.

Whatever type they come in, they are computed with in float32, in which the squares of float16 do not overflow, and
their lengths in float64, in which those of float32 do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import HashretError

Vectors = npt.NDArray[np.float32]  # (n, width)

METRICS = ("cosine", "euclidean")
STORED_TYPES = ("<f4", "<f2", "|i1", "|u1")  # in which hashret keeps vectors
_UNIT = 5e-3  # by which a length of one may be off: float16 rounds each number by 5e-4 of it


def common_type(types: Iterable[npt.DTypeLike]) -> np.dtype[Any]:
    """Return the one of `STORED_TYPES` that has the numbers of several of them: that of all, or a wider one."""
    common = np.result_type(*types)
    return common if common.str in STORED_TYPES else np.dtype(np.float32)


def as_float32(numbers: npt.ArrayLike) -> Vectors:
    """Return vectors (n, width), or one as (1, width), of any type of numbers as float32; infinity where it is less.

    Raises:
        HashretError: it is no array of numbers of one or two dimensions.
    """
    array = np.asarray(numbers)
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.shape[-1]:
        raise HashretError(f"vectors are numbers, (n, width), and not {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):
        return np.atleast_2d(np.ascontiguousarray(array, np.float32))


def unusable(vectors: Vectors) -> Iterator[tuple[int, str]]:
    """Yield the number of each row that cannot be compared with any other, and why."""
    for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
        yield row, "holds NaN" if np.isnan(vectors[row]).any() else "holds infinity, or more than float32 can hold"


def lengths(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the Euclidean length of each vector: (..., width) -> (...)."""
    wide = np.asarray(vectors, np.float64)
    squared: npt.NDArray[np.float64] = np.einsum("...d,...d->...", wide, wide)
    return np.sqrt(squared)


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    """Return vectors (..., width) scaled to unit length, float32; those of zeros alone, without direction, stay so."""
    length = lengths(vectors)[..., None]
    wide = np.asarray(vectors, np.float64)
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0).astype(np.float32)


def are_unit(vectors: npt.NDArray[Any]) -> bool:
    """Whether all vectors, but those of zeros alone, have unit length; also where there are none."""
    length = lengths(vectors)
    return bool((np.abs(length[length > 0] - 1) < _UNIT).all())


def scaled(vectors: Vectors, metric: str) -> Vectors:
    """Return what is compared by its Euclidean distance under one of `METRICS`."""
    return unit(vectors) if metric == "cosine" else vectors


def check_metric(metric: str) -> str:
    """Return ``metric``, or raise HashretError unless it is one of `METRICS`."""
    if metric not in METRICS:
        raise HashretError(f"vectors are compared by {' or '.join(METRICS)}, not {metric}")
    return metric
