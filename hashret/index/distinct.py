"""Distinct codes: learned codes repeat, so each is kept once, with the list of the items that have it.

Codes stay in the order of first appearance. The k nearest distinct codes, by (distance, row), then hold the k nearest
items: of codes at one distance, one that first appears later than k others cannot be among the k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bits import Codes, Distances, Positions
from ..errors import HashretError
from .arrays import ascends
from .blocks import PAIRS_AT_ONCE, ROWS_AT_ONCE
from .keys import MOST_QUERIES, make_query_keys, split_query_keys

WORTH = 0.5  # fraction of distinct codes up to which a table of them pays
_FEW = 4096  # items that faiss searches faster than a table is looked up
_GIVE_UP_AFTER, _GIVE_UP_FRACTION = 2**18, 0.95
_GROUPED_AT_ONCE = 2**20  # codes: each block is merged into all distinct codes so far, so few large ones are faster


@dataclass
class CodeTable:
    """Distinct codes and their items.

    The arrays may be mapped files that nobody has read yet. What is taken from them is checked as it is taken: lists
    that cannot be, and items that are none of n, are a HashretError and never a place in memory.

    Attributes:
        codes: uint8 (m, w).
        starts, items: int64 (m + 1,) and int32 (n,): the items of code c are ``items[starts[c]:starts[c + 1]]``,
            ascending. None where codes are not grouped, and the row of a code is its item.
        numbers: int32 (n,), the number of each item's code, counted from 0; None to make it when it is needed.
        end: all items are below it; None where there are so many.
    """

    codes: Codes
    starts: NDArray[np.int64] | None = None
    items: NDArray[np.int32] | None = None
    numbers: NDArray[np.int32] | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        # Each row that is taken of a memory map would become one, at some cost; of an array it does not.
        self.codes = np.asarray(self.codes)
        self.starts = None if self.starts is None else np.asarray(self.starts)
        self.items = None if self.items is None else np.asarray(self.items)
        self.numbers = None if self.numbers is None else np.asarray(self.numbers)
        self.item_end = self.count if self.end is None else self.end

    @property
    def count(self) -> int:
        """How many items there are."""
        return len(self.codes) if self.items is None else len(self.items)

    @property
    def grouped(self) -> bool:
        """Whether each distinct code is kept once."""
        return self.items is not None

    def lists(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return ``starts`` and ``items`` of a grouped table."""
        assert self.starts is not None
        assert self.items is not None
        return self.starts, self.items

    def by_item(self) -> Codes:
        """Return the code of each item, uint8 (n, w)."""
        return self.codes[self.rows_of(slice(None))] if self.grouped else self.codes

    def rows_of(self, items: Any) -> NDArray[np.int32]:
        """Return the rows of the codes of some items of a grouped table: int32 of the shape of ``items``."""
        if self.numbers is None:
            self.check()
            starts, all_items = self.lists()
            self.numbers = np.empty(self.count, np.int32)
            self.numbers[all_items] = np.repeat(np.arange(len(self.codes), dtype=np.int32), np.diff(starts))
        return _within(self.numbers[items], len(self.codes), "numbers.npy")

    def check(self) -> None:
        """Raise HashretError unless all of ``starts`` and ``items`` can be; reads them whole."""
        if self.grouped:
            starts, items = self.lists()
            last = len(items)
            if starts[0] or starts[-1] != last or not ascends(starts, 0, last, strictly=True):
                raise damaged_table("starts.npy")
            for start in range(0, last, ROWS_AT_ONCE):
                _within(items[start : start + ROWS_AT_ONCE], self.item_end, "items.npy")

    def sizes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many items each of some codes has."""
        if not self.grouped:
            return np.ones(numbers.shape, np.int64)
        starts, items = self.lists()
        begin, end = starts[numbers], starts[numbers + 1]
        if not ((begin >= 0) & (begin < end) & (end <= len(items))).all():
            raise damaged_table("starts.npy")
        return end - begin

    def codes_to_fetch(self, k: int) -> int:
        """Return how many of the nearest codes usually hold the k nearest items: queries lie where items are."""
        return max(16, 2 * k * len(self.codes) // self.count)

    def items_of(self, numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the first ``sizes`` items of each of some codes, one list after the other: (c,), (c,) -> (sum,)."""
        starts, items = self.lists()
        begin = starts[numbers] - (np.cumsum(sizes) - sizes)
        return _within(items[np.repeat(begin, sizes) + np.arange(sizes.sum())], self.item_end, "items.npy")

    def subset(self, mask: NDArray[np.bool_]) -> tuple[CodeTable, NDArray[np.integer[Any]]]:
        """Return the table of the items of a mask, bool (n,), by their old numbers, and the old number of each code."""
        if not self.grouped:
            kept = np.flatnonzero(mask).astype(np.int32)
            codes = np.ascontiguousarray(self.codes[kept])
            return CodeTable(codes, np.arange(len(kept) + 1), kept, end=self.item_end), kept
        self.check()
        old_starts, old_items = self.lists()
        keep = mask[old_items]
        ends = np.concatenate([[0], np.cumsum(keep)])[old_starts]
        rows = np.flatnonzero(np.diff(ends))
        items, sizes = old_items[keep], np.diff(ends)[rows]
        first = items[ends[rows]] if len(rows) else rows
        order = np.argsort(first)  # by first appearance, anew
        starts = np.concatenate([[0], np.cumsum(sizes[order])])
        sources = np.repeat(ends[rows][order] - starts[:-1], sizes[order]) + np.arange(len(items))
        rows = rows[order]
        return CodeTable(np.ascontiguousarray(self.codes[rows]), starts, items[sources], end=self.item_end), rows


class Grouping:
    """Groups codes as they come, a block at a time; of an item, four bytes stay in memory while codes repeat.

    Args:
        grouped: True or False, or None to decide by the codes.
    """

    def __init__(self, grouped: bool | None = None) -> None:
        self.grouped, self.count = grouped, 0
        self.numbers: list[NDArray[np.int32]] = []  # of the code of each item, in blocks
        self.keys: NDArray[Any] | None = None  # of the distinct codes, sorted
        self.key_numbers = np.empty(0, np.int32)
        self.blocks: list[Codes] = []  # the codes as they came, where they are not grouped

    def add(self, codes: Codes) -> None:
        """Append codes uint8 (n, w), w the same each time."""
        for start in range(0, len(codes), _GROUPED_AT_ONCE):
            self._add(np.ascontiguousarray(codes[start : start + _GROUPED_AT_ONCE]))

    def _add(self, codes: Codes) -> None:
        self.count += len(codes)
        if self.grouped is False:
            self.blocks.append(codes)
            return
        keys, first, inverse = np.unique(as_keys(codes), return_index=True, return_inverse=True)
        known = keys[:0] if self.keys is None else self.keys
        position = np.searchsorted(known, keys)
        old = np.zeros(len(keys), bool)
        inside = position < len(known)
        old[inside] = known[position[inside]] == keys[inside]
        number = np.empty(len(keys), np.int32)
        number[old] = self.key_numbers[position[old]]
        new = np.flatnonzero(~old)
        number[new[np.argsort(first[new])]] = len(known) + np.arange(len(new))
        self.numbers.append(number[inverse])
        self.keys = np.insert(known, position[new], keys[new])
        self.key_numbers = np.insert(self.key_numbers, position[new], number[new])
        if self.grouped is None and self.count >= _GIVE_UP_AFTER and len(self.keys) > _GIVE_UP_FRACTION * self.count:
            self._give_up()

    def _give_up(self) -> None:
        codes = self._distinct()
        self.blocks = [codes[number] for number in self.numbers]
        self.grouped, self.numbers, self.keys = False, [], None

    def _distinct(self) -> Codes:
        """Return the distinct codes by number, uint8 (m, w)."""
        assert self.keys is not None
        codes = np.empty_like(self.keys)
        codes[self.key_numbers] = self.keys
        return codes.view(np.uint8).reshape(len(codes), codes.itemsize)

    def decide(self) -> bool:
        """Decide whether codes are grouped, if that is open; none can be added afterwards."""
        if self.grouped is None:
            distinct = 0 if self.keys is None else len(self.keys)
            self.grouped = self.count >= _FEW and distinct <= WORTH * self.count
        if not self.grouped and self.numbers:
            self._give_up()
        return self.grouped

    def table(self) -> CodeTable:
        """Return all codes as a `CodeTable`."""
        if not self.decide() or not self.count:
            ungrouped = np.concatenate(self.blocks) if self.blocks else np.zeros((0, 1), np.uint8)
            self.blocks = []
            return CodeTable(ungrouped)
        codes = self._distinct()
        starts = np.zeros(len(codes) + 1, np.int64)
        for numbers in self.numbers:
            starts[1:] += np.bincount(numbers, minlength=len(codes))
        np.cumsum(starts, out=starts)
        items, first, filled = np.empty(self.count, np.int32), 0, starts[:-1].copy()
        for numbers in self.numbers:  # place the items of a block behind those of the blocks before
            order = np.argsort(numbers, kind="stable")
            ordered = numbers[order]
            run = np.flatnonzero(np.diff(ordered, prepend=-1))
            sizes = np.diff(run, append=len(ordered))
            items[filled[ordered] + np.arange(len(ordered)) - np.repeat(run, sizes)] = first + order
            filled[ordered[run]] += sizes
            first += len(numbers)
        return CodeTable(codes, starts, items)


def group(codes: Codes, grouped: bool | None = None) -> CodeTable:
    """Return the `CodeTable` of codes uint8 (n, w); ``grouped`` as in `Grouping`."""
    grouping = Grouping(grouped)
    grouping.add(codes)
    return grouping.table()


def damaged_table(name: str) -> HashretError:
    """Return the error of a table whose lists of items cannot be."""
    return HashretError(f"the index is damaged: {name} is not as it was written; build it again")


def _within(numbers: NDArray[Any], end: int, name: str) -> NDArray[Any]:
    """Return numbers from 0 to ``end`` - 1, which come from a file; HashretError where others are among them."""
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < end):
        raise damaged_table(name)
    return numbers


def as_keys(codes: Codes) -> NDArray[Any]:
    """Return codes as one value each, equal where the codes are: uint8 (n, w) -> (n,)."""
    width = codes.shape[1]
    kind: Any = {4: np.uint32, 8: np.uint64}.get(width, f"S{width}")
    keys: NDArray[Any] = np.ascontiguousarray(codes).view(kind).ravel()
    return keys


def expand_one(
    D: Distances, numbers: NDArray[np.int64], table: CodeTable, k: int
) -> tuple[Distances, Positions] | None:
    """Find the k nearest items among the nearest codes of one query: `expand` without its cost for many queries.

    Codes at the largest distance count only if none of them was cut off. That is certain only when all codes of the
    table were returned.

    Returns:
        Distances and items (k,), by (distance, item), or None where these codes may not hold the k nearest items.
    """
    starts, items = table.lists()
    complete, last = len(numbers) == len(table.codes), len(items)
    lists, distances, missing, at = [], [], k, 0
    while missing:
        if at == len(numbers):
            if complete:  # all codes together have fewer items than there are
                raise damaged_table("starts.npy")
            return None
        end = int(np.searchsorted(D, D[at], "right"))
        if end == len(numbers) and not complete and end - at < missing:
            return None  # others at this distance may have been cut off
        tied = []
        for row in numbers[at:end].tolist():
            start, stop = int(starts[row]), int(starts[row + 1])
            if not 0 <= start < stop <= last:
                raise damaged_table("starts.npy")
            tied.append(items[start : min(stop, start + missing)])
        nearest = tied[0] if len(tied) == 1 else np.sort(np.concatenate(tied))[:missing]
        lists.append(nearest)
        distances.append(np.full(len(nearest), D[at], np.int32))
        missing, at = missing - len(nearest), end
    return np.concatenate(distances), _within(np.concatenate(lists).astype(np.int64), table.item_end, "items.npy")


def expand(D: Distances, numbers: NDArray[np.int64], table: CodeTable, k: int) -> tuple[Distances, Positions]:
    """Turn nearest codes into nearest items.

    Args:
        D, numbers: (nq, c) of the nearest codes, nearest first, which hold the k nearest items.
        table: `CodeTable` that the numbers are of.
        k: items a query.

    Returns:
        Distances int32 and items int64 (nq, k), by (distance, item).
    """
    if not table.grouped:
        return D[:, :k], numbers[:, :k]
    sizes = np.minimum(table.sizes(numbers), k)
    before = np.cumsum(sizes, axis=1) - sizes
    fresh = np.ones(D.shape, bool)
    fresh[:, 1:] = D[:, 1:] != D[:, :-1]
    nearer = np.maximum.accumulate(np.where(fresh, before, 0), axis=1)  # items at a smaller distance
    sizes[nearer >= k] = 0
    totals = sizes.sum(axis=1)
    if totals.min(initial=k) < k:
        raise damaged_table("starts.npy")
    distances, positions = np.empty((len(D), k), np.int32), np.empty((len(D), k), np.int64)
    start = 0
    while start < len(D):
        pairs = np.cumsum(totals[start : start + MOST_QUERIES])
        stop = start + max(1, int(np.searchsorted(pairs, PAIRS_AT_ONCE)))
        block = slice(start, stop)
        size = sizes[block].ravel()
        item = table.items_of(numbers[block].ravel(), size).astype(np.int64)
        query = np.repeat(np.arange(len(totals[block])), totals[block])
        keys = make_query_keys(query, np.repeat(D[block].ravel(), size).astype(np.int64), item)
        keys.sort()
        firsts = np.cumsum(totals[block]) - totals[block]
        distances[block], positions[block] = split_query_keys(keys[firsts[:, None] + np.arange(k)])
        start = stop
    return distances, positions
