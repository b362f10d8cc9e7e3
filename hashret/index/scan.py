"""The compiled scan: exact nearest codes at the speed of memory, by numba (the extra ``hashret[fast]``).

The idea, in four steps.

1.  *Bit planes.* A block of 1,024 codes is kept by bit: 16 words hold the first bit of each code, the next 16 the
    second, and so on (`hashret.index.planes`). XOR with a query's bit, all ones or all zeros, leaves the bits that
    differ. They are added up for 64 codes at a time by carry-save adders, five logical operations for three bits
    (Harley & Seal, in Warren, *Hacker's Delight*, 5-1), which the compiler turns into the widest instructions of the
    processor: no popcount is needed, and 12 bits cost a quarter of 48.
2.  *A bound a query.* Distances are small integers, so what is found lies in one bucket a distance, in the order of
    the scan. ``limit`` is the largest distance that can still enter the answer: nearer than it there are not yet k
    items, and up to it not yet k codes. It only falls.
3.  *A mask a block.* The sums are compared with the limit while they are bit planes, too. Codes within it, rare ones
    soon, are then taken one by one. A block stays in the fastest cache for all queries of a tile.
4.  *Items.* Codes are distinct, each with the ascending list of its items. A bucket's lists are merged until k items
    are out, so ties come in the order of items, as faiss has them.

Nothing is approximate: distances, items and their order are those of faiss `IndexBinaryFlat`.

Planes, starts and items may be mapped files that nobody has read. Planes only give bits, whatever they hold. The list
of a code is compared with the number of items before it is used, and an answer's items before they are given out: where
they cannot be, the search ends and says so, and no place outside the arrays is ever read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..bits import Codes, Distances, Positions
from .distinct import damaged_table
from .planes import BLOCK, WORDS, bit_planes

F = TypeVar("F", bound=Callable[..., Any])
Words = NDArray[np.uint64]  # 64 codes in each, by bit
Numbers = NDArray[np.int64]
Items = NDArray[np.int32]
Int = Any  # whole numbers of numba,
Flag = Any  # and its truth values
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}
_PLANE = np.uint64(WORDS)
_LEVELS = 9  # bits of a distance up to 256
_NARROW = 6  # bits of a distance up to 63
_CARRY, _MASK = _LEVELS, _LEVELS + 1  # rows of the scratch beside the sums
_TILE = 16  # queries that share a block while it is in the cache
_BUCKET_ENTRIES = 2**22  # of a tile; where k asks for more, distances are counted first
_PAIRS_A_THREAD = 2**21  # code comparisons worth a thread


def _compiled(function: F) -> F:
    """Compile a function by numba when it is first called: a decorator."""
    return njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def _inlined(function: F) -> F:
    """Compile a function into those that call it: a decorator."""
    return njit(inline="always", **_OPTIONS)(function)  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Return the number of zero bits below the lowest one of a word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return word(word), generate


@_inlined
def _add(a: np.uint64, b: np.uint64, c: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Carry-save adder: three bits -> their sum's low and high bit, 64 at a time."""
    either = a ^ b
    return either ^ c, (a & b) | (either & c)


@_compiled
def _add_planes(block: Words, flip: Words, first: np.uint64, sums: Words) -> None:
    """Add eight planes of a block from ``first`` on, XORed with the query's bits, to its sums.

    Unsigned indices tell the compiler that none is negative; otherwise it does not vectorise.
    """
    f0, f1, f2, f3 = flip[first], flip[first + np.uint64(1)], flip[first + np.uint64(2)], flip[first + np.uint64(3)]
    first += np.uint64(4)
    f4, f5, f6, f7 = flip[first], flip[first + np.uint64(1)], flip[first + np.uint64(2)], flip[first + np.uint64(3)]
    p0 = (first - np.uint64(4)) * _PLANE
    p1, p2, p3, p4 = p0 + _PLANE, p0 + np.uint64(2) * _PLANE, p0 + np.uint64(3) * _PLANE, p0 + np.uint64(4) * _PLANE
    p5, p6, p7 = p4 + _PLANE, p4 + np.uint64(2) * _PLANE, p4 + np.uint64(3) * _PLANE
    s1, s2, s3 = _PLANE, np.uint64(2) * _PLANE, np.uint64(3) * _PLANE
    s4, s5, s9 = np.uint64(4) * _PLANE, np.uint64(5) * _PLANE, np.uint64(_CARRY) * _PLANE
    for w in range(_PLANE):
        ones, two_a = _add(sums[w], block[p0 + w] ^ f0, block[p1 + w] ^ f1)
        ones, two_b = _add(ones, block[p2 + w] ^ f2, block[p3 + w] ^ f3)
        twos, four_a = _add(sums[s1 + w], two_a, two_b)
        ones, two_a = _add(ones, block[p4 + w] ^ f4, block[p5 + w] ^ f5)
        sums[w], two_b = _add(ones, block[p6 + w] ^ f6, block[p7 + w] ^ f7)
        sums[s1 + w], four_b = _add(twos, two_a, two_b)
        sums[s2 + w], carry = _add(sums[s2 + w], four_a, four_b)
        level = sums[s3 + w]
        sums[s3 + w] = level ^ carry
        carry &= level
        level = sums[s4 + w]
        sums[s4 + w] = level ^ carry
        carry &= level
        level = sums[s5 + w]
        sums[s5 + w] = level ^ carry
        sums[s9 + w] = level & carry


@_compiled
def _carry_on(sums: Words) -> None:
    """Add what left the six lowest levels to the three others; for codes of 64 bits and more."""
    for w in range(WORDS):
        carry = sums[_CARRY * WORDS + w]
        level = sums[6 * WORDS + w]
        sums[6 * WORDS + w] = level ^ carry
        carry &= level
        level = sums[7 * WORDS + w]
        sums[7 * WORDS + w] = level ^ carry
        sums[8 * WORDS + w] ^= level & carry


@_compiled
def _sum_block(block: Words, flip: Words, sums: Words) -> None:
    """Distances of a block's codes to one query, as bit planes in ``sums``."""
    sums[:] = 0
    for byte in range(len(flip) // 8):
        _add_planes(block, flip, np.uint64(8 * byte), sums)
        if len(flip) > 2**_NARROW - 8:
            _carry_on(sums)


@_inlined
def _compare(level: np.uint64, bit: np.uint64, less: np.uint64, same: np.uint64) -> tuple[np.uint64, np.uint64]:
    """One step of comparing bit planes with a number, from its highest bit down."""
    return less | (same & bit & ~level), same & ~(level ^ bit)


@_compiled
def _mask_within(sums: Words, limit: Int) -> Flag:
    """Mark the codes whose distance is at most ``limit`` in the mask; -> whether there is one."""
    bit = np.empty(_LEVELS, np.uint64)
    for level in range(_LEVELS):
        bit[level] = ~np.uint64(0) if (limit >> level) & 1 else np.uint64(0)
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = bit[0], bit[1], bit[2], bit[3], bit[4], bit[5], bit[6], bit[7], bit[8]
    any_within = np.uint64(0)
    for w in range(WORDS):
        less, same = _compare(sums[8 * WORDS + w], b8, np.uint64(0), ~np.uint64(0))
        less, same = _compare(sums[7 * WORDS + w], b7, less, same)
        less, same = _compare(sums[6 * WORDS + w], b6, less, same)
        less, same = _compare(sums[5 * WORDS + w], b5, less, same)
        less, same = _compare(sums[4 * WORDS + w], b4, less, same)
        less, same = _compare(sums[3 * WORDS + w], b3, less, same)
        less, same = _compare(sums[2 * WORDS + w], b2, less, same)
        less, same = _compare(sums[WORDS + w], b1, less, same)
        less, same = _compare(sums[w], b0, less, same)
        less |= same
        sums[_MASK * WORDS + w] = less
        any_within |= less
    return any_within != 0


@_compiled
def _trim_mask(sums: Words, codes: Int) -> None:
    """Take slots beyond the number of codes out of the mask."""
    for w in range(codes >> 6, WORDS):
        sums[_MASK * WORDS + w] &= (
            (np.uint64(1) << np.uint64(codes - 64 * w)) - np.uint64(1) if codes > 64 * w else np.uint64(0)
        )


@_compiled
def _distance(sums: Words, slot: Int) -> Int:
    word, shift = slot >> 6, np.uint64(slot & 63)
    distance = np.int64(0)
    for level in range(_LEVELS):
        distance |= np.int64((sums[level * WORDS + word] >> shift) & np.uint64(1)) << level
    return distance


@_inlined
def _list_length(starts: Numbers, row: Int, last_item: Int) -> Int:
    """How many items a code has; 0 where its list does not lie within the items."""
    start, end = starts[row], starts[row + 1]
    length = end - start
    # 0 <= start < end <= last_item, by the signs of four numbers at once: every found code takes this way.
    return length if (start | end | (length - 1) | (last_item - end)) >= 0 else 0


@_compiled
def _take(
    sums: Words, base: Int, k: Int, starts: Numbers, last_item: Int, rows: Items, begin: Numbers, size: Numbers,
    weight: Numbers, bound: Numbers,
) -> None:  # fmt: skip
    """Put the codes of the mask into the buckets of a query, and lower its bound.

    bound (4,): the limit, the items nearer than the limit, the codes within it, and whether the list of a code does not
    lie within the ``last_item`` items, which ends the search.
    """
    for w in range(WORDS):
        word = sums[_MASK * WORDS + w]
        while word:
            slot = 64 * w + np.int64(_trailing_zeros(word))
            word &= word - np.uint64(1)
            distance = _distance(sums, slot)
            if distance > bound[0]:
                continue
            row = base + slot
            items = 1
            if len(starts):
                items = _list_length(starts, row, last_item)
                if not items:
                    bound[0], bound[3] = -1, 1
                    return
            rows[begin[distance] + size[distance]] = row
            size[distance] += 1
            weight[distance] += items
            bound[2] += 1
            if distance < bound[0]:
                bound[1] += items
            while bound[0] >= 0 and (bound[2] >= k or bound[1] >= k):
                bound[2] -= size[bound[0]]
                bound[0] -= 1
                if bound[0] >= 0:
                    bound[1] -= weight[bound[0]]


@_compiled
def _scan(
    planes: Words, m: Int, flips: Words, k: Int, starts: Numbers, last_item: Int, first: Int, last: Int, rows: Items,
    begin: Numbers, size: Numbers, weight: Numbers, bound: Numbers, sums: Words,
) -> None:  # fmt: skip
    """Fill the buckets of a tile of queries from blocks ``first`` to ``last``.

    flips (t, bits); rows: the buckets' codes, that of query q and distance d from begin[q, d] on; size (t, levels)
    codes in it, weight (t, levels) their items; bound (t, 4), see `_take`.
    """
    length = planes.shape[1] * WORDS
    before = np.empty(WORDS, np.uint64)
    for number in range(first, last):
        block = planes[number].reshape(length)
        base = number * BLOCK
        for q in range(len(flips)):
            if bound[q, 0] < 0:
                continue
            _sum_block(block, flips[q], sums)
            if number > first:
                if _mask_within(sums, bound[q, 0]):
                    if m - base < BLOCK:
                        _trim_mask(sums, m - base)
                    _take(sums, base, k, starts, last_item, rows, begin[q], size[q], weight[q], bound[q])
                continue
            before[:] = 0
            distance = np.int64(0)
            while distance <= bound[q, 0]:  # the first block from near to far, until it bounds the search
                if _mask_within(sums, distance):
                    if m - base < BLOCK:
                        _trim_mask(sums, m - base)
                    for w in range(WORDS):
                        word = sums[_MASK * WORDS + w]
                        sums[_MASK * WORDS + w] = word & ~before[w]
                        before[w] = word
                    _take(sums, base, k, starts, last_item, rows, begin[q], size[q], weight[q], bound[q])
                distance += 1


@_compiled
def _distances(planes: Words, m: Int, flip: Words, first: Int, last: Int, out: NDArray[np.int16], sums: Words) -> None:
    """Distances of all codes of some blocks to one query: out int16 (codes,)."""
    length = planes.shape[1] * WORDS
    for number in range(first, last):
        _sum_block(planes[number].reshape(length), flip, sums)
        base = number * BLOCK
        for slot in range(min(BLOCK, m - base)):
            out[base - first * BLOCK + slot] = _distance(sums, slot)


@_compiled
def _merge(
    rows: Items, starts: Numbers, items: Items, D: Distances, I: Positions, distance: Int, out: Int,
    heap_item: Numbers, heap_at: Numbers, heap_end: Numbers,
) -> Int:  # fmt: skip
    """Append the items of codes ``rows``, ascending, to D and I from ``out`` on; -> how many are there then.

    A heap of the lists that are begun, each with its cursor in ``items``. Codes come in the order of their first items,
    so the next list is begun when its first item is the least.
    """
    k, heap, following = len(I), 0, 0
    while out < k and (heap or following < len(rows)):
        if following < len(rows) and (not heap or items[starts[rows[following]]] < heap_item[0]):
            cursor, end = starts[rows[following]], starts[rows[following] + 1]
            following += 1
            I[out] = items[cursor]
            if cursor + 1 < end:  # sift up
                at, item = heap, items[cursor + 1]
                heap += 1
                while at and heap_item[(at - 1) // 2] > item:
                    parent = (at - 1) // 2
                    heap_item[at], heap_at[at] = heap_item[parent], heap_at[parent]
                    heap_end[at] = heap_end[parent]
                    at = parent
                heap_item[at], heap_at[at], heap_end[at] = item, cursor + 1, end
        else:
            I[out] = heap_item[0]
            cursor, end = heap_at[0] + 1, heap_end[0]
            if cursor == end:
                heap -= 1
                item, cursor, end = heap_item[heap], heap_at[heap], heap_end[heap]
            else:
                item = items[cursor]
            at = 0
            while True:  # sift down
                child = 2 * at + 1
                if child >= heap:
                    break
                if child + 1 < heap and heap_item[child + 1] < heap_item[child]:
                    child += 1
                if heap_item[child] >= item:
                    break
                heap_item[at], heap_at[at], heap_end[at] = heap_item[child], heap_at[child], heap_end[child]
                at = child
            heap_item[at], heap_at[at], heap_end[at] = item, cursor, end
        D[out] = distance
        out += 1
    return out


@_compiled
def _expand(
    rows: Items, begin: Numbers, size: Numbers, starts: Numbers, items: Items, item_end: Int, D: Distances,
    I: Positions, heap_item: Numbers, heap_at: Numbers, heap_end: Numbers,
) -> Flag:  # fmt: skip
    """Buckets of one query -> its answer, D and I (k,); -> whether that can be one."""
    out, k = 0, len(I)
    for distance in range(len(size)):
        if out == k:
            break
        bucket = rows[begin[distance] : begin[distance] + size[distance]]
        if not len(starts):
            for row in bucket[: k - out]:
                D[out], I[out] = distance, row
                out += 1
        elif len(bucket) == 1:
            start = starts[bucket[0]]
            for cursor in range(start, min(starts[bucket[0] + 1], start + k - out)):
                D[out], I[out] = distance, items[cursor]
                out += 1
        elif len(bucket):
            out = _merge(bucket, starts, items, D, I, distance, out, heap_item, heap_at, heap_end)
    wrong, last = np.int64(0), np.int64(-1)  # below 0 as soon as one of the numbers is; so the compiler vectorises it
    if len(starts):
        for at in range(np.uint64(out)):
            item = I[at]
            key = np.int64(D[at]) << 32 | item
            wrong |= item | (item_end - 1 - item) | (key - last - 1)  # items from 0 to the end, by (distance, item)
            last = key
    return out == k and wrong >= 0


@_compiled
def _search_many_answers(
    planes: Words, m: Int, flips: Words, starts: Numbers, items: Items, item_end: Int, first: Int, last: Int,
    levels: Int, D: Distances, I: Positions,
) -> Flag:  # fmt: skip
    """`_search` for a k whose buckets would be too large: count the codes at each distance, then place them."""
    k, last_item = I.shape[1], len(items)
    sums = np.empty((_MASK + 1) * WORDS, np.uint64)
    codes = min(last * BLOCK, m) - first * BLOCK
    distance = np.empty(codes, np.int16)
    for q in range(len(flips)):
        _distances(planes, m, flips[q], first, last, distance, sums)
        size, weight = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
        for at in range(codes):
            row = first * BLOCK + at
            items_here = _list_length(starts, row, last_item) if len(starts) else 1
            if not items_here:
                return False
            size[distance[at]] += 1
            weight[distance[at]] += items_here
        limit, items_within = np.int64(-1), np.int64(0)
        while items_within < k:
            limit += 1
            if limit == levels:
                return False
            items_within += weight[limit]
        begin = np.cumsum(size) - size
        rows = np.empty(begin[limit] + size[limit], np.int32)
        size[:] = 0
        for at in range(codes):
            if distance[at] <= limit:
                rows[begin[distance[at]] + size[distance[at]]] = first * BLOCK + at
                size[distance[at]] += 1
        room = len(rows) if len(starts) else 0
        heap_item, heap_at, heap_end = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
        if not _expand(rows, begin, size, starts, items, item_end, D[q], I[q], heap_item, heap_at, heap_end):
            return False
    return True


@_compiled
def _search(
    planes: Words, m: Int, queries: Codes, starts: Numbers, items: Items, item_end: Int, first: Int, last: Int,
    D: Distances, I: Positions,
) -> Flag:  # fmt: skip
    """The k nearest items among the codes of blocks ``first`` to ``last``, which hold at least k.

    planes uint64 (blocks, bits, 16), m codes in all, queries uint8 (nq, bits / 8), starts int64 (m + 1,) and items
    int32, or both empty where a code's row is its item; items are below ``item_end`` -> D int32, I int64 (nq, k).
    Returns False where starts or items cannot be those of the codes.
    """
    k, bits = I.shape[1], planes.shape[1]
    levels = bits + 1
    flips = np.empty((len(queries), bits), np.uint64)
    for q in range(len(queries)):
        for bit in range(bits):
            one = (queries[q, bit >> 3] >> (7 - (bit & 7))) & 1
            flips[q, bit] = ~np.uint64(0) if one else np.uint64(0)
    room = min(k, m)
    if levels * room > _BUCKET_ENTRIES:
        return _search_many_answers(planes, m, flips, starts, items, item_end, first, last, levels, D, I)
    sums = np.empty((_MASK + 1) * WORDS, np.uint64)
    heap_item, heap_at, heap_end = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    tile = max(1, min(_TILE, len(flips), _BUCKET_ENTRIES // (levels * room)))
    rows = np.empty(tile * levels * room, np.int32)
    begin = np.arange(0, tile * levels * room, room).reshape(tile, levels)
    size, weight = np.empty((tile, levels), np.int64), np.empty((tile, levels), np.int64)
    bound = np.empty((tile, 4), np.int64)
    for start in range(0, len(flips), tile):
        tile_flips = flips[start : start + tile]
        size[:] = 0
        weight[:] = 0
        bound[:] = 0
        bound[:, 0] = levels - 1
        _scan(planes, m, tile_flips, k, starts, len(items), first, last, rows, begin, size, weight, bound, sums)
        for q in range(len(tile_flips)):
            answer = D[start + q], I[start + q]
            if bound[q, 3] or not _expand(
                rows, begin[q], size[q], starts, items, item_end, answer[0], answer[1], heap_item, heap_at, heap_end
            ):
                return False
    return True


class Scan:
    """The compiled scan over distinct codes.

    Args:
        planes: see `hashret.index.planes`; a memory map will do.
        m: how many codes.
        starts, items: int64 (m + 1,) and int32 (n,), the items of code c being ``items[starts[c]:starts[c + 1]]``,
            ascending; codes in the order of their first items. None where a code's row is its item.
        item_end: items are below it; None where there are so many.
    """

    def __init__(
        self,
        planes: Words,
        m: int,
        starts: Numbers | None = None,
        items: Items | None = None,
        item_end: int | None = None,
    ) -> None:
        self.planes, self.m = _fixed(planes), m
        self.starts = _fixed(np.empty(0, np.int64) if starts is None else starts)
        self.items = _fixed(np.empty(0, np.int32) if items is None else items)
        self.item_end = len(self.items) if item_end is None else item_end

    def search(self, xq: Codes, k: int, threads: int = 1) -> tuple[Distances, Positions]:
        """Find the k nearest items, k at most their number: packed uint8 (nq, w) -> D int32, I int64 (nq, k).

        Raises:
            HashretError: starts or items are not those of the codes.
        """
        nq = len(xq)
        D, I = np.empty((nq, k), np.int32), np.empty((nq, k), np.int64)
        if not nq:
            return D, I
        xq = _fixed(np.ascontiguousarray(xq))
        threads = min(threads, -(-nq * self.m // _PAIRS_A_THREAD))
        if threads == 1:
            self._search(xq, 0, len(self.planes), D, I)
        elif nq >= threads:
            ends = np.linspace(0, nq, threads + 1, dtype=int)
            _together(
                lambda lo, hi: self._search(xq[lo:hi], 0, len(self.planes), D[lo:hi], I[lo:hi]), ends[:-1], ends[1:]
            )
        else:
            self._search_by_blocks(xq, threads, D, I)
        return D, I

    def _search_by_blocks(self, xq: Codes, threads: int, D: Distances, I: Positions) -> None:
        """Answer few queries: each thread searches a run of blocks."""
        k = I.shape[1]
        while threads > 1 and self.m // threads - BLOCK < k:  # each run must hold k codes
            threads -= 1
        ends = np.linspace(0, len(self.planes), threads + 1, dtype=int)
        nearest = [(np.empty_like(D), np.empty_like(I)) for _ in range(threads)]
        _together(lambda lo, hi, out: self._search(xq, lo, hi, *out), ends[:-1], ends[1:], nearest)
        distances = np.concatenate([D for D, _ in nearest], axis=1)
        items = np.concatenate([I for _, I in nearest], axis=1)
        order = np.lexsort((items, distances), axis=1)[:, :k]
        D[:], I[:] = np.take_along_axis(distances, order, 1), np.take_along_axis(items, order, 1)

    def _search(self, xq: Codes, first: int, last: int, D: Distances, I: Positions) -> None:
        if not _search(self.planes, self.m, xq, self.starts, self.items, self.item_end, first, last, D, I):
            raise damaged_table("starts.npy or items.npy")


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written: memory maps are such, and one kind of array is one compilation."""
    view = np.asarray(array)[...]
    view.flags.writeable = False
    return view


def _together(function: Callable[..., None], *arguments: Iterable[Any]) -> None:
    """Call a function in threads, once for each of its lists of arguments."""
    list(_threads().map(function, *arguments))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="hashret-scan")


def compile_scan() -> None:
    """Compile the scan, or load what an earlier process compiled: seconds the first time on a machine, then 0.3."""
    codes = np.zeros((1, 1), np.uint8)
    Scan(bit_planes(codes), 1).search(codes, 1)
