"""All pairs of photographs within a radius in bits and a Euclidean distance, exactly.

Learned codes crowd: thousands of photographs of a class may share one. So those of each code lie sorted along the axis
in which photographs of one code differ most. Two within a distance are within it along every axis: of each pair of
codes within the radius, only photographs in reach along that axis are looked at, then those within the distance along
eight axes, and of these the distance itself is computed. No list of all pairs is ever held.
"""

from __future__ import annotations

import faiss
import numpy as np

from ..index.distinct import group
from ..progress import Progress
from .code_pairs import expand_ranges, pairs_within

_AXES, _SAMPLE, _TURNS = 8, 2**13, 4
_SLACK = 1e-3  # of the distance, beyond any rounding
_ROWS_AT_ONCE = 2**17


def near_pairs(codes, radius, x, distance):
    """Pairs within ``radius`` bits whose rows of ``x`` are within ``distance``: yields I, J int64, float32, (p,) each.

    I < J, each pair once, in no particular order, with its Euclidean distance as faiss computes it.

    Args:
        codes: packed, uint8 (n, w), equal ones among them.
        x: what the distance is of, float32 (n, d), contiguous.
    """
    if len(codes) < 2:
        return
    places = _Places(by_code(codes, radius), x, distance)
    for left, first, last in places.windows(radius):
        for row, right in expand_ranges(first, last):
            I, J = left[row], right
            inside = places.may_be_near(I, J)
            I, J = places.items[I[inside]], places.items[J[inside]]
            D = euclidean(x, I, J)
            near = distance >= D
            I, J = I[near], J[near]
            yield np.minimum(I, J), np.maximum(I, J), D[near]


def euclidean(x, I, J):
    """Euclidean distances of pairs of rows: x float32 (n, d), I, J (p,) -> float32 (p,)."""
    I, J = np.ascontiguousarray(I, np.int64), np.ascontiguousarray(J, np.int64)
    squared = np.empty(len(I), np.float32)
    if len(I):
        at, i, j, out = (faiss.swig_ptr(array) for array in (x, I, J, squared))
        faiss.pairwise_indexed_L2sqr(x.shape[1], len(I), at, i, at, j, out)
    return np.sqrt(squared)


class _Places:
    """Photographs by code and, within a code, along the first axis; a place is a position in that order."""

    def __init__(self, table, x, distance):
        self.table, self.starts = table, table.starts
        self.sizes = np.diff(table.starts)
        code = np.repeat(np.arange(len(self.sizes)), self.sizes)
        along = _project(x, _axes(x, table.items, code))[table.items]
        order = np.lexsort((along[:, 0], code))
        self.items, self.axes = table.items[order].astype(np.int64), along[order]
        self.first_axis = self.axes[:, 0].astype(np.float64)
        rounding = 1e-6 * float(np.abs(self.axes).max(initial=0))
        self.reach = distance * (1 + _SLACK) + rounding
        low, high = self.first_axis.min(initial=0), self.first_axis.max(initial=0)
        self.first_axis -= low
        self.span = high - low + 3 * self.reach + 1e-30  # so that windows end with their code
        self.keys = code * self.span + self.first_axis

    def windows(self, radius):
        """Places and what is in reach of each: yields places, first, end, int64 (p,)."""
        n = len(self.items)
        progress = Progress("comparing photographs of a code", n, "photographs")
        for start in range(0, n, _ROWS_AT_ONCE):
            left = np.arange(start, min(start + _ROWS_AT_ONCE, n))
            yield left, left + 1, np.searchsorted(self.keys, self.keys[left] + self.reach, "right")
            progress.add(len(left))
        progress.close()
        for a, b, _ in pairs_within(self.table.codes, radius):
            smaller = self.sizes[a] <= self.sizes[b]
            a, b = np.where(smaller, a, b), np.where(smaller, b, a)
            for pair, left in expand_ranges(self.starts[a], self.starts[a + 1]):
                at = b[pair] * self.span + self.first_axis[left]
                first = np.searchsorted(self.keys, at - self.reach, "left")
                yield left, first, np.searchsorted(self.keys, at + self.reach, "right")

    def may_be_near(self, I, J):
        """Whether places are within reach along the axes together: -> bool (p,)."""
        apart = self.axes[I] - self.axes[J]
        return np.einsum("pa,pa->p", apart, apart) <= self.reach**2


def _axes(x, items, code):
    """Orthonormal axes, (d, a), along which photographs of one code differ most, about."""
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


def _project(x, axes, block=2**14):
    """Rows of x along axes: -> float32 (n, a)."""
    starts = range(0, len(x), block)
    return np.concatenate([(x[start : start + block] @ axes).astype(np.float32) for start in starts])


def with_neighbours(codes, radius):
    """Which items have another within a radius: packed uint8 (n, w) -> bool (n,)."""
    if not len(codes):
        return np.zeros(0, bool)
    table = by_code(codes, radius)
    sizes = np.diff(table.starts)
    near = sizes > 1
    for I, J, _ in pairs_within(table.codes, radius):
        near[I] = near[J] = True
    found = np.empty(len(codes), bool)
    found[table.items] = np.repeat(near, sizes)
    return found


def by_code(codes, radius):
    """Items by distinct code; all under one where no two differ in more bits than the radius."""
    varying = np.bitwise_or.reduce(codes) ^ np.bitwise_and.reduce(codes)
    return group(np.zeros_like(codes) if np.bitwise_count(varying).sum() <= radius else codes, grouped=True)
