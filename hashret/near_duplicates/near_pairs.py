"""All pairs of photographs within a radius in bits and a Euclidean distance, exactly.

Learned codes crowd: thousands of photographs of a class may share one. So the photographs of each code are sorted along
the axis in which photographs of one code differ most. Two photographs within a distance are within it along every axis:
of each pair of codes within the radius, only photographs within reach along that axis are looked at, then those within
the distance along eight axes, and of these the distance itself is computed. No list of all pairs is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from ..bits import Codes, Positions
from ..index.distinct import group
from ..progress import Progress
from .code_pairs import expand_ranges, pairs_within

Vectors = npt.NDArray[np.float32]  # what Euclidean distances are of, (n, d)
Pairs = tuple[Positions, Positions, npt.NDArray[np.float32]]  # I, J and their Euclidean distances, (p,) each

_AXES, _SAMPLE, _TURNS = 8, 2**13, 4
_SLACK = 1e-3  # of the distance, beyond any rounding
_PHOTOS_AT_ONCE = 2**17


def near_pairs(codes: Codes, radius: int, x: Vectors, distance: float) -> Iterator[Pairs]:
    """Yield the pairs within ``radius`` bits whose rows of ``x`` are within ``distance``: I, J and their distances.

    I < J, and each pair comes once, in no particular order. The Euclidean distances are those that faiss computes.

    Args:
        codes: packed codes (n, w), which may be equal.
        x: what the distance is of, (n, d), contiguous.
    """
    if len(codes) < 2:
        return
    photos = _SortedPhotos(by_code(codes, radius), x, distance)
    for left, first, end in photos.windows(radius):
        for number, right in expand_ranges(first, end):
            I, J = left[number], right
            inside = photos.may_be_near(I, J)
            I, J = photos.items[I[inside]], photos.items[J[inside]]
            D = euclidean(x, I, J)
            near = distance >= D
            I, J = I[near], J[near]
            yield np.minimum(I, J), np.maximum(I, J), D[near]


def euclidean(x: Vectors, I: Positions, J: Positions) -> npt.NDArray[np.float32]:
    """Return the Euclidean distances (p,) of pairs of rows of ``x``, which I and J (p,) number."""
    I, J = np.ascontiguousarray(I, np.int64), np.ascontiguousarray(J, np.int64)
    squared = np.empty(len(I), np.float32)
    if len(I):
        vectors, i, j, out = (faiss.swig_ptr(array) for array in (x, I, J, squared))
        faiss.pairwise_indexed_L2sqr(x.shape[1], len(I), vectors, i, vectors, j, out)
    distances: npt.NDArray[np.float32] = np.sqrt(squared)
    return distances


class CodeGroups(NamedTuple):
    """Distinct packed codes (m, w); those of code c are the items ``items[starts[c]:starts[c + 1]]``."""

    codes: Codes
    starts: Positions
    items: Positions


class _SortedPhotos:
    """Photographs sorted by code and, within a code, along the first axis.

    Attributes:
        items: numbers of the photographs in that order, (n,).
    """

    def __init__(self, groups: CodeGroups, x: Vectors, distance: float) -> None:
        self.codes, self.starts = groups.codes, groups.starts
        self.sizes = np.diff(groups.starts)
        code = np.repeat(np.arange(len(self.sizes)), self.sizes)
        along = _project(x, _axes(x, groups.items, code))[groups.items]
        order = np.lexsort((along[:, 0], code))
        self.items, self.axes = groups.items[order].astype(np.int64), along[order]
        self.first_axis = self.axes[:, 0].astype(np.float64)
        rounding = 1e-6 * float(np.abs(self.axes).max(initial=0))
        self.reach = distance * (1 + _SLACK) + rounding
        low, high = self.first_axis.min(initial=0), self.first_axis.max(initial=0)
        self.first_axis -= low
        self.span = high - low + 3 * self.reach + 1e-30  # so that windows end with their code
        self.keys = code * self.span + self.first_axis

    def windows(self, radius: int) -> Iterator[tuple[Positions, Positions, Positions]]:
        """Yield positions in the order, and the first and the end of the positions within reach of each, (p,) each."""
        n = len(self.items)
        progress = Progress("comparing photographs of a code", n, "photographs")
        for start in range(0, n, _PHOTOS_AT_ONCE):
            left = np.arange(start, min(start + _PHOTOS_AT_ONCE, n))
            yield left, left + 1, np.searchsorted(self.keys, self.keys[left] + self.reach, "right")
            progress.add(len(left))
        progress.close()
        for a, b, _ in pairs_within(self.codes, radius):
            smaller = self.sizes[a] <= self.sizes[b]
            a, b = np.where(smaller, a, b), np.where(smaller, b, a)
            for pair, left in expand_ranges(self.starts[a], self.starts[a + 1]):
                key = b[pair] * self.span + self.first_axis[left]
                first = np.searchsorted(self.keys, key - self.reach, "left")
                yield left, first, np.searchsorted(self.keys, key + self.reach, "right")

    def may_be_near(self, I: Positions, J: Positions) -> npt.NDArray[np.bool_]:
        """Whether the photographs at two positions in the order are within reach along the axes together, (p,)."""
        apart = self.axes[I] - self.axes[J]
        near: npt.NDArray[np.bool_] = np.einsum("pa,pa->p", apart, apart) <= self.reach**2
        return near


def _axes(x: Vectors, items: Positions, code: Positions) -> npt.NDArray[np.float64]:
    """Return orthonormal axes (d, a) along which photographs of one code differ most, approximately."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(len(items))[:_SAMPLE])
    rows = x[items[sample]].astype(np.float64)
    number = np.unique(code[sample], return_inverse=True)[1]
    count = np.bincount(number)
    mean = np.zeros((len(count), x.shape[1]))
    np.add.at(mean, number, rows)
    mean /= count[:, None]
    mean[count == 1] = rows.mean(axis=0)
    rows -= mean[number]
    axes = rng.normal(size=(x.shape[1], min(_AXES, x.shape[1])))
    for _ in range(_TURNS):  # orthogonal iteration; any orthonormal axes give the same pairs
        axes = np.linalg.qr(rows.T @ (rows @ axes) + 1e-12 * axes)[0]
    return axes


def _project(x: Vectors, axes: npt.NDArray[np.float64], block: int = 2**14) -> npt.NDArray[np.float32]:
    """Return the coordinates of rows of x along axes, (n, a)."""
    starts = range(0, len(x), block)
    return np.concatenate([(x[start : start + block] @ axes).astype(np.float32) for start in starts])


def with_neighbours(codes: Codes, radius: int) -> npt.NDArray[np.bool_]:
    """Whether each of packed codes (n, w) has another within a radius, (n,)."""
    if not len(codes):
        return np.zeros(0, bool)
    groups = by_code(codes, radius)
    sizes = np.diff(groups.starts)
    near = sizes > 1
    for I, J, _ in pairs_within(groups.codes, radius):
        near[I] = near[J] = True
    has_neighbour = np.empty(len(codes), bool)
    has_neighbour[groups.items] = np.repeat(near, sizes)
    return has_neighbour


def by_code(codes: Codes, radius: int) -> CodeGroups:
    """Group items by distinct code; all under one code where no two differ in more bits than the radius."""
    varying = np.bitwise_or.reduce(codes) ^ np.bitwise_and.reduce(codes)
    table = group(np.zeros_like(codes) if np.bitwise_count(varying).sum() <= radius else codes, grouped=True)
    starts, items = table.lists()
    return CodeGroups(table.codes, starts, items)  # type: ignore[arg-type]  # int32 numbers do as well
