"""Arrays that are read as one by the rows that are asked for, rather than made in memory as a whole."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np


class Joined:
    """Arrays of equal width, memory maps mostly, one after the other: ``joined[rows]`` copies those rows alone."""

    def __init__(self, parts):
        self.parts, self.offsets = parts, [0, *accumulate(map(len, parts))]
        self.dtype, self.shape = np.result_type(*parts), (self.offsets[-1], *parts[0].shape[1:])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, (int, np.integer)):
            row = int(rows) + len(self) * (rows < 0)
            part = bisect_right(self.offsets, row, hi=len(self.parts)) - 1
            return self.parts[part][row - self.offsets[part]]
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        out = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for part, offset in zip(self.parts, self.offsets, strict=False):
            inside = (rows >= offset) & (rows < offset + len(part))
            out[inside] = part[rows[inside] - offset]
        return out

    def __array__(self, dtype=None, copy=None):
        return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)


def joined(parts):
    """Several arrays as one to read rows of; a single one as it is."""
    return parts[0] if len(parts) == 1 else Joined(parts)


class ItemCodes:
    """The code of each item of a `hashret.index.distinct.CodeTable`, looked up where it is asked for."""

    def __init__(self, table):
        self.table, self.shape, self.dtype = table, (table.count, table.codes.shape[1]), table.codes.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, items):
        return self.table.codes[self.table.numbers_of(items)]

    def __array__(self, dtype=None, copy=None):
        return self.table.by_item().astype(dtype or self.dtype, copy=False)
