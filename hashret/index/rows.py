"""Arrays that are read by the rows asked for, rather than made in memory as a whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from .distinct import CodeTable


class Rows(Protocol):
    """What can be read by rows: a numpy array, a memory map, or one of the classes here."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


class ConcatRows:
    """Arrays of equal width, mostly memory maps, one after the other: ``concat[rows]`` copies those rows alone."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays, self.offsets = arrays, [0, *accumulate(map(len, arrays))]
        self.dtype = np.result_type(*arrays)
        self.shape: tuple[int, ...] = (self.offsets[-1], *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, (int, np.integer)):
            row = int(rows) + len(self) * (rows < 0)
            number = bisect_right(self.offsets, row, hi=len(self.arrays)) - 1
            return self.arrays[number][row - self.offsets[number]]
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"there are {len(self)} rows, and one of those that are asked for is not among them")
        out = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for array, offset in zip(self.arrays, self.offsets, strict=False):
            inside = (rows >= offset) & (rows < offset + len(array))
            out[inside] = array[rows[inside] - offset]
        return out

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self.arrays).astype(dtype or self.dtype, copy=False)


def concatenated(arrays: Sequence[NDArray[Any]]) -> Any:
    """Return several arrays as one to read rows of; a single one as it is."""
    return arrays[0] if len(arrays) == 1 else ConcatRows(arrays)


class ItemCodes:
    """The code of each item of a `hashret.index.distinct.CodeTable`, looked up where it is asked for."""

    def __init__(self, table: CodeTable) -> None:
        self.table, self.shape, self.dtype = table, (table.count, table.codes.shape[1]), table.codes.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Any) -> Any:
        return self.table.codes[self.table.rows_of(items)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self.table.by_item().astype(dtype or self.dtype, copy=False)
