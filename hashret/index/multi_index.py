"""Exact search in less than one scan of the codes: tables over substrings of the code (multi-index hashing).

Source: Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing", TPAMI 2014. The
idea, in five steps.

1.  *Tables.* A code is cut into substrings of about 16 bits. For each substring a table sorts the codes by its value,
    so that all codes with one value, a *bucket*, lie side by side. Beside each code's number stand the bits that
    follow the substring, cyclically: of codes up to 48 bits these are the whole rest, in 4 bytes.
2.  *Order of the buckets.* Buckets are read by the number of bits in which their value differs from the query's: all
    tables at radius 0, then all tables at radius 1, and so on. After table j at radius r every code within
    ``tables * r + j`` bits of the query has been seen. A code that was not seen differs in at least r + 1 bits in each
    of the tables up to j, and in at least r bits in the others (the pigeonhole principle).
3.  *No code twice.* Table j at radius r is the first to meet a code exactly if the code's substrings before j differ in
    more than r bits, and those after j in at least r. So no set of codes that were met is needed.
4.  *The limit.* It is the largest distance that can still enter the answer, and only falls. The search ends when every
    code within the limit has been seen. A bucket is read twice: first for its smallest distance, which the compiler
    makes as wide as the processor's instructions are, and only where that is within the limit code by code.
5.  *The budget.* How many codes the buckets of a radius hold is known before one of them is read. Where reading them
    would cost more than the scan (`hashret.index.scan`), the search gives up, and the scan answers the query. So it
    does where too many codes of more than 64 further bits have to be looked up whole.

Nothing is approximate: distances, items and their order are those of faiss `IndexBinaryFlat`.

The tables may be mapped files that nobody has read. Ends of buckets, numbers of codes and lists of items are compared
with the sizes of the arrays before they are used, so that no place outside the arrays is ever read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..bits import Codes, Distances, Positions
from .distinct import CodeTable, damaged_table
from .keys import split_keys
from .scan import _compiled, _expand, _fixed, _inlined, _list_length, _together
from .substrings import BUCKET_NS, CODE_NS, LOOKUP_NS, SHORT_REST, Layout, Tables

Int = Any  # whole numbers of numba,
Flag = Any  # and its truth values
Numbers = NDArray[np.int64]
_AHEAD = 6  # buckets by which the processor is told what will be read
_DIGIT, _FEW_KEYS = 9, 96  # bits of a digit by which keys are sorted, and how many keys are not worth that
_CODES_AT_ONCE = 2**25  # of a table in memory while it is built
_OVER_BUDGET, _NO_ROOM, _DAMAGED = -1, -2, -3


@intrinsic  # type: ignore[untyped-decorator]
def _popcount(typing_context: Any, word: Any) -> Any:
    """Return the number of one bits of a word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    """Ask the processor to bring one place of an array into its caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(builder.gep(made.data, [arguments[1]]), byte)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [pointer, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_inlined
def _bits_at(code: Codes, bits: Int, first: Int, length: Int) -> np.uint64:
    """Return ``length`` <= 64 bits of a packed code, uint8 (w,), cyclically from bit ``first`` on."""
    value, place, missing = np.uint64(0), first, length
    while missing > 0:
        if place >= bits:
            place -= bits
        taken = min(8 - (place & 7), missing, bits - place)
        byte = np.uint64(code[place >> 3]) >> np.uint64(8 - (place & 7) - taken)
        value = (value << np.uint64(taken)) | (byte & ((np.uint64(1) << np.uint64(taken)) - np.uint64(1)))
        place += taken
        missing -= taken
    return value


@_inlined
def _rotated(code: Codes, bits: Int, first: Int) -> np.uint64:
    """Return a packed code of at most 64 bits so turned that bit ``first`` is the highest of the result."""
    value, width = np.uint64(0), (bits + 7) >> 3
    for byte in range(width):
        value |= np.uint64(code[byte]) << np.uint64(56 - 8 * byte)
    value = value >> np.uint64(64 - bits) << np.uint64(64 - bits)
    return (value << np.uint64(first)) | (value >> np.uint64(bits - first)) if first else value


@_compiled
def _count_buckets(codes: Codes, bits: Int, offset: Int, length: Int, starts: NDArray[np.uint32]) -> None:
    """Count the codes of each bucket of a table: codes uint8 (m, w) -> where each begins, starts (2^length + 1,)."""
    starts[:] = 0
    for number in range(len(codes)):
        if bits <= 64:
            bucket = np.int64(_rotated(codes[number], bits, offset) >> np.uint64(64 - length))
        else:
            bucket = np.int64(_bits_at(codes[number], bits, offset, length))
        starts[bucket + 1] += np.uint32(1)
    for number in range(1, len(starts)):
        starts[number] += starts[number - 1]


@_compiled
def _fill_buckets(
    codes: Codes, bits: Int, offset: Int, length: Int, places: NDArray[np.uint32], first: Int, last: Int,
    numbers: NDArray[np.uint32], rest: NDArray[Any], rest_length: Int,
) -> None:  # fmt: skip
    """Put the codes of the buckets from ``first`` to ``last`` side by side; ``places`` is where each begins in them.

    Codes of up to 64 bits are taken as one word, which is several times as fast as byte by byte.
    """
    for number in range(len(codes)):
        if bits <= 64:
            word = _rotated(codes[number], bits, offset)
            bucket = np.int64(word >> np.uint64(64 - length))
            further = (word << np.uint64(length)) >> np.uint64(64 - rest_length) if rest_length else np.uint64(0)
        else:
            bucket = np.int64(_bits_at(codes[number], bits, offset, length))
            further = _bits_at(codes[number], bits, offset + length, rest_length)
        if first <= bucket < last:
            place = places[bucket - first]
            places[bucket - first] = place + np.uint32(1)
            numbers[place] = number
            rest[place] = further


class Buckets(NamedTuple):
    """The codes of some buckets of a table, one bucket after the other.

    ``numbers`` uint32 (n,) are those of the codes, ``rest`` uint32 or uint64 (n,) the bits that follow the substring.
    ``first`` says whether these buckets are the first of the table.
    """

    numbers: NDArray[np.uint32]
    rest: NDArray[Any]
    first: bool


def build_table(codes: Codes, layout: Layout, number: int) -> Iterator[tuple[NDArray[np.uint32], Buckets]]:
    """Build one table, some buckets at a time, so that only these are in memory.

    Args:
        codes: uint8 (m, w), which may be a mapped file.
        layout: of the codes.
        number: of the substring.

    Yields:
        Where each bucket of the table begins, uint32, as many as the longest substring has, and the next buckets.
    """
    offset, length = int(layout.offsets[number]), int(layout.lengths[number])
    rest_length, codes = min(layout.rest, layout.bits - length), _fixed(codes)
    kind = np.uint32 if layout.rest == SHORT_REST else np.uint64
    missing = (1 << int(layout.lengths.max())) - (1 << length)
    starts = np.empty((1 << length) + 1, np.uint32)
    _count_buckets(codes, layout.bits, offset, length, starts)
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, int(starts[first]) + _CODES_AT_ONCE, "right")) - 1)
        begins = starts[first : last + 1] - starts[first]
        numbers, rest = np.empty(begins[-1], np.uint32), np.empty(begins[-1], kind)
        _fill_buckets(codes, layout.bits, offset, length, begins[:-1].copy(), first, last, numbers, rest, rest_length)
        yield np.pad(starts, (0, missing), "edge"), Buckets(numbers, rest, not first)
        first = last


@cache
def _flips(longest: int) -> tuple[NDArray[np.uint32], Numbers]:
    """Return all ways to flip bits of a substring, few first, and the first place of each number of flipped bits."""
    flips = np.arange(1 << longest, dtype=np.uint32)
    radius = np.bitwise_count(flips)
    order = np.argsort(radius, kind="stable")
    return _fixed(flips[order]), _fixed(np.searchsorted(radius[order], np.arange(longest + 2)).astype(np.int64))


@_compiled
def _sort(keys: NDArray[np.uint64], count: Int, spare: NDArray[np.uint64], number_bits: Int) -> None:
    """Sort the first keys, distance << 32 | number, numbers of so many bits, digit by digit.

    ``spare`` (room,) is to work with. A comparison sort took most of a query's time for 1,000 answers.
    """
    if count <= _FEW_KEYS:
        keys[:count] = np.sort(keys[:count])
        return
    begins = np.empty(1 << _DIGIT, np.int64)
    digit_mask = np.uint64((1 << _DIGIT) - 1)
    own, other, digits = keys, spare, -(-number_bits // _DIGIT) + 1
    for place in range(digits):
        shift = 32 if place == digits - 1 else place * _DIGIT  # the last digit is the distance
        begins[:] = 0
        for at in range(count):
            begins[np.int64((own[at] >> np.uint64(shift)) & digit_mask)] += 1
        begins[:] = np.cumsum(begins) - begins
        for at in range(count):
            digit = np.int64((own[at] >> np.uint64(shift)) & digit_mask)
            other[begins[digit]] = own[at]
            begins[digit] += 1
        own, other = other, own
    if digits % 2:
        keys[:count] = spare[:count]


@_compiled
def _drop_beyond(keys: NDArray[np.uint64], count: Int, limit: Int) -> Int:
    """Drop the codes that are farther away than the limit; -> how many are left."""
    kept = np.int64(0)
    for at in range(count):
        key = keys[at]
        keys[kept] = key
        kept += np.int64(np.int64(key >> np.uint64(32)) <= limit)
    return kept


@_compiled
def _keep_nearest(
    keys: NDArray[np.uint64], count: Int, k: Int, number_bits: Int, item_starts: Numbers, last_item: Int,
    size: Numbers, spare: NDArray[np.uint64],
) -> Int:  # fmt: skip
    """Sort the codes that were found and keep the k nearest; -> how many are kept, and their items by distance."""
    _sort(keys, count, spare, number_bits)
    kept = min(count, k)
    size[:] = 0
    for at in range(kept):
        number = np.int64(keys[at] & np.uint64(0xFFFFFFFF))
        size[np.int64(keys[at] >> np.uint64(32))] += (
            _list_length(item_starts, number, last_item) if len(item_starts) else 1
        )
    return kept


@_compiled
def _find(
    codes: Codes, bits: Int, whole: Flag, offsets: Numbers, lengths: Numbers, masks: NDArray[np.uint64],
    starts: NDArray[np.uint32], numbers: NDArray[np.uint32], rest: NDArray[Any], flips: NDArray[np.uint32],
    radii: Numbers, renumbered: NDArray[np.int32], item_starts: Numbers, last_item: Int, query: Codes, k: Int,
    farthest: Int, bucket_ns: Any, code_ns: Any, budget: Any, keys: NDArray[np.uint64], size: Numbers,
    spare: NDArray[np.uint64], costs: NDArray[np.float64],
) -> Int:  # fmt: skip
    """Find the codes of one query that may hold its k nearest items, and none beyond ``farthest`` bits.

    codes uint8 (m, w); starts (tables, buckets + 1), numbers and rest (tables, m); renumbered int32 (m,), the number of
    each code among those that may be found, negative for the others, or empty; item_starts (codes + 1,) of the codes as
    they are renumbered, or empty where each has one item; keys (room,), room > k: distance << 32 | number, ascending;
    size (bits + 2,) and spare (room,), to work with; costs (1,), set to the nanoseconds that the buckets were to take.
    Returns how many were found, or why that cannot be said.
    """
    tables, room, width = len(offsets), len(keys), len(query)
    number_bits = np.int64(1)
    while np.int64(len(codes)) >> number_bits:
        number_bits += 1
    mine = np.empty(tables, np.uint64)
    differing = np.empty(width, np.uint8)
    for j in range(tables):
        mine[j] = _bits_at(query, bits, offsets[j], lengths[j])
    size[:] = 0
    count, limit, nearer, spent = np.int64(0), np.int64(farthest), np.int64(0), 0.0
    for radius in range(lengths.max() + 1):
        cost = 0.0
        for j in range(tables):
            if radius <= lengths[j] and tables * radius + j <= limit:
                full = np.int64(1) << lengths[j]
                for f in range(radii[radius], radii[radius + 1]):
                    if np.int64(flips[f]) < full:
                        bucket = np.int64(np.uint32(mine[j]) ^ flips[f])
                        cost += bucket_ns + code_ns * max(0.0, float(starts[j, bucket + 1]) - float(starts[j, bucket]))
        if spent + cost > budget:
            return _OVER_BUDGET
        spent += cost
        for j in range(tables):
            if radius <= lengths[j]:
                sub, full = np.uint32(mine[j]), np.int64(1) << lengths[j]
                own_starts, own_rest, own_numbers = starts[j], rest[j], numbers[j]
                m = np.int64(len(own_numbers))
                rest_length = min(8 * rest.itemsize, bits - lengths[j])
                own = rest.dtype.type(_bits_at(query, bits, offsets[j] + lengths[j], rest_length))
                for f in range(radii[radius], radii[radius + 1]):
                    if np.int64(flips[f]) >= full:
                        continue
                    if f + _AHEAD < radii[radius + 1] and np.int64(flips[f + _AHEAD]) < full:
                        later = np.int64(sub ^ flips[f + _AHEAD])
                        place = np.int64(own_starts[later])
                        while place < min(np.int64(own_starts[later + 1]), m):
                            _prefetch(own_rest, place)
                            place += 64 // own_rest.itemsize
                    if spent > budget:
                        return _OVER_BUDGET
                    bucket = np.int64(sub ^ flips[f])
                    begin, end = np.int64(own_starts[bucket]), np.int64(own_starts[bucket + 1])
                    if end > m:
                        return _DAMAGED
                    least = rest.dtype.type(8 * rest.itemsize)
                    for at in range(np.uint64(begin), np.uint64(end)):
                        least = min(least, _popcount(own_rest[at] ^ own))
                    if np.int64(least) + radius > limit:
                        continue
                    for at in range(begin, end):
                        differs = np.uint64(own_rest[at] ^ own)
                        distance = np.int64(_popcount(differs)) + radius
                        if distance > limit:
                            continue
                        number = np.int64(own_numbers[at])
                        if number >= m:
                            return _DAMAGED
                        if not whole:
                            spent += LOOKUP_NS
                            distance = np.int64(0)
                            for byte in range(width):
                                differing[byte] = codes[number, byte] ^ query[byte]
                                distance += np.int64(_popcount(differing[byte]))
                            if distance > limit:
                                continue
                        first = True
                        for i in range(tables):
                            if i != j:
                                if whole:
                                    other = np.int64(_popcount(differs & masks[j, i]))
                                else:
                                    other = np.int64(_popcount(_bits_at(differing, bits, offsets[i], lengths[i])))
                                if other < radius or (i < j and other == radius):
                                    first = False
                                    break
                        if not first:
                            continue
                        if len(renumbered):
                            number = np.int64(renumbered[number])
                            if number < 0:
                                continue
                        items = np.int64(1)
                        if len(item_starts):
                            items = _list_length(item_starts, number, last_item)
                            if not items:
                                return _DAMAGED
                        if count == room:
                            count = _drop_beyond(keys, count, limit)
                            if 2 * count > room:
                                count = _keep_nearest(keys, count, k, number_bits, item_starts, last_item, size, spare)
                            if count == room:
                                return _NO_ROOM
                        keys[count] = np.uint64(distance) << np.uint64(32) | np.uint64(number)
                        count += 1
                        size[distance] += items
                        if distance < limit:
                            nearer += items
                        while nearer >= k:
                            limit -= 1
                            nearer -= size[limit]
            if tables * radius + j >= limit:
                count = _drop_beyond(keys, count, limit)
                _sort(keys, count, spare, number_bits)
                costs[0] = spent
                return count
    costs[0] = spent
    count = _drop_beyond(keys, count, limit)
    _sort(keys, count, spare, number_bits)
    return count


@_compiled
def _search(
    codes: Codes, bits: Int, whole: Flag, offsets: Numbers, lengths: Numbers, masks: NDArray[np.uint64],
    starts: NDArray[np.uint32], numbers: NDArray[np.uint32], rest: NDArray[Any], flips: NDArray[np.uint32],
    radii: Numbers, renumbered: NDArray[np.int32], item_starts: Numbers, items: NDArray[np.int32], item_end: Int,
    queries: Codes, bucket_ns: Any, code_ns: Any, budget: Any, D: Distances, I: Positions, costs: NDArray[np.float64],
) -> Flag:  # fmt: skip
    """Answer queries uint8 (nq, w) within the budget: D int32, I int64 (nq, k), and costs (nq,), -1 of the others.

    Returns False where the tables, or the lists of items, cannot be those of the codes.
    """
    k, levels = I.shape[1], bits + 1
    keys = np.empty(max(4 * k, 1024), np.uint64)
    spare = np.empty(len(keys), np.uint64)
    rows = np.empty(len(keys), np.int32)
    size, begin = np.empty(levels + 1, np.int64), np.empty(levels, np.int64)
    room = len(keys) if len(item_starts) else 0
    heap_item, heap_place, heap_end = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    for q in range(len(queries)):
        found = _find(
            codes, bits, whole, offsets, lengths, masks, starts, numbers, rest, flips, radii, renumbered, item_starts,
            len(items), queries[q], k, bits, bucket_ns, code_ns, budget, keys, size, spare,
            costs[q : q + 1],
        )  # fmt: skip
        if found == _DAMAGED:
            return False
        if found < 0:
            costs[q] = -1.0
            continue
        size[:] = 0
        for at in range(found):
            size[np.int64(keys[at] >> np.uint64(32))] += 1
            rows[at] = np.int32(keys[at] & np.uint64(0xFFFFFFFF))
        begin[:] = np.cumsum(size[:levels]) - size[:levels]
        if not _expand(
            rows, begin, size[:levels], item_starts, items, item_end, D[q], I[q], heap_item, heap_place, heap_end
        ):
            return False
    return True


class MultiIndex:
    """The search by tables over the substrings of distinct codes.

    Args:
        tables: of the codes.
        lists: the items of the codes, as the tables renumber them.
    """

    def __init__(self, tables: Tables, lists: CodeTable) -> None:
        layout, renumbered = tables.layout, tables.renumbered
        self.layout, self.lists = layout, lists
        self._arrays = (
            _fixed(tables.codes), layout.bits, layout.whole, _fixed(layout.offsets), _fixed(layout.lengths),
            _fixed(layout.masks()), _fixed(tables.starts), _fixed(tables.numbers), _fixed(tables.rest),
            *_flips(int(layout.lengths.max())),
            _fixed(np.empty(0, np.int32) if renumbered is None else renumbered),
            _fixed(np.empty(0, np.int64) if lists.starts is None else lists.starts),
        )  # fmt: skip
        self._items = _fixed(np.empty(0, np.int32) if lists.items is None else lists.items)
        self._costs = BUCKET_NS, CODE_NS[layout.rest]

    def search(
        self, xq: Codes, k: int, budget: float, threads: int = 1
    ) -> tuple[Distances, Positions, NDArray[np.float64]]:
        """Find the k nearest items of those queries whose buckets take no more than ``budget`` nanoseconds each.

        Args:
            xq: uint8 (nq, w), packed.
            k: at most the number of items.

        Returns:
            D int32 and I int64 (nq, k), and float64 (nq,), the nanoseconds of one thread that the buckets of each query
            were to take: -1 for queries that were not answered, whose rows hold anything.

        Raises:
            HashretError: the tables, or the lists of items, are not those of the codes.
        """
        nq, xq = len(xq), _fixed(np.ascontiguousarray(xq))
        D, I, costs = np.empty((nq, k), np.int32), np.empty((nq, k), np.int64), np.empty(nq)

        def answer(first: int, last: int) -> None:
            part = slice(first, last)
            if not _search(
                *self._arrays, self._items, self.lists.item_end, xq[part], *self._costs, float(budget), D[part],
                I[part], costs[part],
            ):  # fmt: skip
                raise damaged_table("a table of substrings")

        ends = np.linspace(0, nq, min(threads, nq) + 1, dtype=int).tolist()
        if len(ends) == 2:
            answer(0, nq)
        else:
            _together(answer, ends[:-1], ends[1:])
        return D, I, costs

    def within(self, query: Codes, radius: int, budget: float) -> tuple[Distances, NDArray[np.int64]] | None:
        """Find the codes within a radius of one query, uint8 (w,): distances int32 and numbers int64, ascending.

        None where that costs more than the budget in nanoseconds.
        """
        room, size = 4096, np.empty(self.layout.bits + 2, np.int64)
        everything = 2**62
        while True:
            keys = np.empty(room, np.uint64)
            found = _find(
                *self._arrays, len(self._items), _fixed(np.ascontiguousarray(query)), everything,
                min(radius, self.layout.bits), *self._costs, float(budget), keys, size, np.empty_like(keys),
                np.empty(1),
            )  # fmt: skip
            if found == _DAMAGED:
                raise damaged_table("a table of substrings")
            if found == _OVER_BUDGET:
                return None
            if found >= 0:
                distances, numbers = split_keys(keys[:found].astype(np.int64))
                return distances.astype(np.int32), numbers
            room *= 8


def make_tables(codes: Codes, bits: int, layout: Layout | None = None) -> Tables:
    """Return the tables of codes uint8 (m, w) in memory; ``layout`` None for that of `Layout.for_codes`."""
    layout = layout or Layout.for_codes(bits, len(codes))
    starts, numbers, rest = [], [], []
    for number in range(len(layout.offsets)):
        pieces = list(build_table(codes, layout, number))
        starts.append(pieces[0][0])
        numbers.append(np.concatenate([piece.numbers for _, piece in pieces]))
        rest.append(np.concatenate([piece.rest for _, piece in pieces]))
    return Tables(codes, layout, np.stack(starts), np.stack(numbers), np.stack(rest))


def compile_tables(bits: int) -> None:
    """Compile building and searching tables of codes of so many bits, or load what an earlier process compiled."""
    codes = np.zeros((1, -(-bits // 8)), np.uint8)
    MultiIndex(make_tables(codes, bits), CodeTable(codes)).search(codes, 1, float("inf"))
