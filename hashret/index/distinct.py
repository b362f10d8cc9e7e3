"""Distinct codes: learned codes repeat, so each is kept once, with the list of the items that have it.

Codes stay in the order of first appearance. The k nearest distinct codes, by (distance, row), then hold the k nearest
items: of codes at one distance, one that first appears later than k others cannot be among the k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import HashretError
from .arrays import ascends

WORTH = 0.5  # share of distinct codes up to which a table of them pays
_FEW = 4096  # items that faiss searches faster than a table is looked up
_GIVE_UP_AFTER, _GIVE_UP_SHARE = 2**18, 0.95
_CHUNK = 2**20
_PAIRS_AT_ONCE = 2**22


@dataclass
class CodeTable:
    """Codes uint8 (m, w) and their items: those of code c are ``items[starts[c]:starts[c + 1]]``, ascending.

    Where codes are not grouped, ``starts`` and ``items`` are None, and a code's row is its item. ``numbers`` int32 (n,)
    is the row of each item's code; None to make it when it is needed. Items are below ``end``; None where there are so
    many.

    The arrays may be mapped files that nobody has read yet. What is taken from them is looked at as it is taken: where
    the lists of two codes cannot be, or an item is none of n, that is a HashretError, and never a place in memory.
    """

    codes: np.ndarray
    starts: np.ndarray | None = None
    items: np.ndarray | None = None
    numbers: np.ndarray | None = None
    end: int | None = None

    def __post_init__(self):
        self.codes = np.asarray(self.codes)  # of a memory map, each row that is taken would be made one, at some cost
        self.starts, self.items, self.numbers = (
            None if array is None else np.asarray(array) for array in (self.starts, self.items, self.numbers)
        )
        if self.end is None:
            self.end = self.count

    @property
    def count(self):
        """How many items there are."""
        return len(self.codes) if self.items is None else len(self.items)

    @property
    def grouped(self):
        """Whether each distinct code is kept once."""
        return self.items is not None

    def by_item(self):
        """The code of each item: -> uint8 (n, w)."""
        return self.codes[self.numbers_of(slice(None))] if self.grouped else self.codes

    def numbers_of(self, items):
        """The rows of the codes of some items, where codes are grouped: -> int32 of the shape of ``items``."""
        if self.numbers is None:
            self.check()
            self.numbers = np.empty(self.count, np.int32)
            self.numbers[self.items] = np.repeat(np.arange(len(self.codes), dtype=np.int32), np.diff(self.starts))
        return _within(self.numbers[items], len(self.codes), "numbers.npy")

    def check(self):
        """Raise HashretError unless all of ``starts`` and ``items`` can be; reads them whole."""
        if self.grouped:
            last = len(self.items)
            if self.starts[0] or self.starts[-1] != last or not ascends(self.starts, 0, last, strictly=True):
                raise damaged_table("starts.npy")
            for start in range(0, last, _CHUNK):
                _within(self.items[start : start + _CHUNK], self.end, "items.npy")

    def sizes(self, codes):
        """How many items each of some codes has."""
        if not self.grouped:
            return np.ones(codes.shape, np.int64)
        begin, end = self.starts[codes], self.starts[codes + 1]
        if not ((begin >= 0) & (begin < end) & (end <= len(self.items))).all():
            raise damaged_table("starts.npy")
        return end - begin

    def share(self, k):
        """How many of the nearest codes hold the k nearest items, often enough: queries lie where items are."""
        return max(16, 2 * k * len(self.codes) // self.count)

    def items_of(self, codes, sizes):
        """The first ``sizes`` items of each of some codes, one list after the other: (c,), (c,) -> (sum of sizes,)."""
        begin = self.starts[codes] - (np.cumsum(sizes) - sizes)
        return _within(self.items[np.repeat(begin, sizes) + np.arange(sizes.sum())], self.end, "items.npy")

    def subset(self, mask):
        """The table of the items of a mask, bool (n,), by their old numbers."""
        if not self.grouped:
            items = np.flatnonzero(mask).astype(np.int32)
            return CodeTable(np.ascontiguousarray(self.codes[items]), np.arange(len(items) + 1), items, end=self.end)
        self.check()
        keep = mask[self.items]
        ends = np.concatenate([[0], np.cumsum(keep)])[self.starts]
        codes = np.flatnonzero(np.diff(ends))
        items, sizes = self.items[keep], np.diff(ends)[codes]
        first = items[ends[codes]] if len(codes) else codes
        order = np.argsort(first)  # by first appearance, anew
        starts = np.concatenate([[0], np.cumsum(sizes[order])])
        places = np.repeat(ends[codes][order] - starts[:-1], sizes[order]) + np.arange(len(items))
        return CodeTable(np.ascontiguousarray(self.codes[codes[order]]), starts, items[places], end=self.end)


class Grouping:
    """Groups codes as they come, a block at a time; of an item, four bytes stay in memory while codes repeat.

    Args:
        grouped: True or False, or None to decide by the codes.
    """

    def __init__(self, grouped=None):
        self.grouped, self.count = grouped, 0
        self.numbers = []  # of the code of each item, in blocks
        self.keys, self.key_numbers = None, np.empty(0, np.int32)  # of the distinct codes, sorted
        self.blocks = []  # the codes as they came, where they are not grouped

    def add(self, codes):
        """Append codes uint8 (n, w), w the same each time."""
        for start in range(0, len(codes), _CHUNK):
            self._add(np.ascontiguousarray(codes[start : start + _CHUNK]))

    def _add(self, codes):
        self.count += len(codes)
        if self.grouped is False:
            self.blocks.append(codes)
            return
        keys, first, inverse = np.unique(as_keys(codes), return_index=True, return_inverse=True)
        if self.keys is None:
            self.keys = keys[:0]
        place = np.searchsorted(self.keys, keys)
        old = np.zeros(len(keys), bool)
        inside = place < len(self.keys)
        old[inside] = self.keys[place[inside]] == keys[inside]
        number = np.empty(len(keys), np.int32)
        number[old] = self.key_numbers[place[old]]
        new = np.flatnonzero(~old)
        number[new[np.argsort(first[new])]] = len(self.keys) + np.arange(len(new))
        self.numbers.append(number[inverse])
        self.keys = np.insert(self.keys, place[new], keys[new])
        self.key_numbers = np.insert(self.key_numbers, place[new], number[new])
        if self.grouped is None and self.count >= _GIVE_UP_AFTER and len(self.keys) > _GIVE_UP_SHARE * self.count:
            self._give_up()

    def _give_up(self):
        codes = self._distinct()
        self.blocks = [codes[number] for number in self.numbers]
        self.grouped, self.numbers, self.keys = False, [], None

    def _distinct(self):
        """The distinct codes by number, uint8 (m, w)."""
        codes = np.empty_like(self.keys)
        codes[self.key_numbers] = self.keys
        return codes.view(np.uint8).reshape(len(codes), codes.itemsize)

    def decide(self):
        """Decide whether codes are grouped, if that is open: -> the decision. None can be added afterwards."""
        if self.grouped is None:
            self.grouped = self.count >= _FEW and len(self.keys) <= WORTH * self.count
        if not self.grouped and self.numbers:
            self._give_up()
        return self.grouped

    def table(self):
        """All codes as a `CodeTable`."""
        if not self.decide() or not self.count:
            codes = np.concatenate(self.blocks) if self.blocks else np.zeros((0, 1), np.uint8)
            self.blocks = []
            return CodeTable(codes)
        starts = np.zeros(len(self.keys) + 1, np.int64)
        for numbers in self.numbers:
            starts[1:] += np.bincount(numbers, minlength=len(self.keys))
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
        return CodeTable(self._distinct(), starts, items)


def group(codes, grouped=None):
    """Codes uint8 (n, w) -> `CodeTable`; ``grouped`` as in `Grouping`."""
    grouping = Grouping(grouped)
    grouping.add(codes)
    return grouping.table()


def damaged_table(name):
    """The error of a table whose lists of items cannot be."""
    return HashretError(f"the index is damaged: {name} is not as it was written; build it again")


def _within(numbers, end, name):
    """Return numbers from 0 to ``end`` - 1, which come from a file; HashretError where others are among them."""
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < end):
        raise damaged_table(name)
    return numbers


def as_keys(codes):
    """Codes as one value each, equal where the codes are: uint8 (n, w) -> (n,)."""
    width = codes.shape[1]
    kind = {4: np.uint32, 8: np.uint64}.get(width, f"S{width}")
    return np.ascontiguousarray(codes).view(kind).ravel()


def in_order(D, rows):
    """Codes by (distance, row), each query's: D, rows (nq, c) -> the same, int32 and int64."""
    keys = D.astype(np.int64) << 32 | rows
    keys.sort(axis=1)
    return (keys >> 32).astype(np.int32), keys & 0xFFFFFFFF


def expand_one(D, rows, table, k):
    """The same for one query, without much ado: D, rows (c,) -> D, I (k,), or None where c codes do not hold k items.

    The last distance counts only where the codes of it are all there, which c distinct codes of the table are.
    """
    starts, items, whole = table.starts, table.items, len(rows) == len(table.codes)
    last, parts, distances, left, at = len(items), [], [], k, 0
    while left:
        if at == len(rows):
            if whole:  # all codes together have fewer items than there are
                raise damaged_table("starts.npy")
            return None
        end = int(np.searchsorted(D, D[at], "right"))
        if end == len(rows) and not whole and end - at < left:
            return None  # others at this distance may have been cut off
        found = []
        for row in rows[at:end].tolist():
            start, stop = int(starts[row]), int(starts[row + 1])
            if not 0 <= start < stop <= last:
                raise damaged_table("starts.npy")
            found.append(items[start : min(stop, start + left)])
        found = found[0] if len(found) == 1 else np.sort(np.concatenate(found))[:left]
        parts.append(found)
        distances.append(np.full(len(found), D[at], np.int32))
        left, at = left - len(found), end
    return np.concatenate(distances), _within(np.concatenate(parts).astype(np.int64), table.end, "items.npy")


def expand(D, rows, table, k):
    """Nearest codes -> nearest items: D, rows (nq, c), nearest first, holding k items -> D int32, I int64 (nq, k)."""
    if not table.grouped:
        return D[:, :k], rows[:, :k]
    sizes = np.minimum(table.sizes(rows), k)
    before = np.cumsum(sizes, axis=1) - sizes
    fresh = np.ones(D.shape, bool)
    fresh[:, 1:] = D[:, 1:] != D[:, :-1]
    nearer = np.maximum.accumulate(np.where(fresh, before, 0), axis=1)  # items at a smaller distance
    sizes[nearer >= k] = 0
    totals = sizes.sum(axis=1)
    if totals.min(initial=k) < k:
        raise damaged_table("starts.npy")
    out_D, out_I = np.empty((len(D), k), np.int32), np.empty((len(D), k), np.int64)
    start = 0
    while start < len(D):
        stop = start + max(1, int(np.searchsorted(np.cumsum(totals[start:]), _PAIRS_AT_ONCE)))
        some = slice(start, stop)
        size = sizes[some].ravel()
        item = table.items_of(rows[some].ravel(), size)
        query = np.repeat(np.arange(len(totals[some])), totals[some])
        key = (query.astype(np.int64) << 41) | (np.repeat(D[some].ravel(), size).astype(np.int64) << 32) | item
        key.sort()
        firsts = np.cumsum(totals[some]) - totals[some]
        key = key[firsts[:, None] + np.arange(k)]
        out_D[some], out_I[some] = (key >> 32) & 0x1FF, key & 0xFFFFFFFF
        start = stop
    return out_D, out_I
