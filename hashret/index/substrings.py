"""Codes cut into substrings, for the search by tables: see `hashret.index.multi_index` for what they are good for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bits import Codes

Numbers = NDArray[np.int64]
PAYS_FROM = 2**18  # distinct codes from which on tables are written; the scan reads fewer in less than 0.1 ms
SHORTEST, LONGEST = 8, 18  # bits of a substring; of longer ones the buckets alone fill the caches
SHORT_REST, LONG_REST = 32, 64  # bits that stand beside a code's number
# Nanoseconds of one core, measured on a server of 2024 with AVX-512 whose memory others used, too; only their ratios
# matter, and those to what the scan costs (`hashret.index.hamming`).
BUCKET_NS = 30.0  # a bucket: two reads of memory that are hardly ever in a cache
CODE_NS = {SHORT_REST: 0.6, LONG_REST: 1.5}  # a code of a bucket, by the bits beside its number
LOOKUP_NS = 15.0  # a code whose bits are not all beside its number, looked up among the codes
ANSWER_NS = 120.0  # an answer and the codes read in vain before the k nearest are known, beyond what it costs the scan
_EXPECTED_K = 100  # the answers a query for which the number of tables is chosen


@dataclass(frozen=True)
class Layout:
    """How codes are cut into substrings.

    Attributes:
        bits: length of the codes.
        offsets, lengths: first bit and number of bits of each substring, int64 (tables,).
    """

    bits: int
    offsets: Numbers
    lengths: Numbers

    @classmethod
    def of(cls, bits: int, tables: int) -> Layout:
        """Return the layout of ``tables`` substrings, as equal in length as can be."""
        ends = np.arange(tables + 1) * bits // tables
        return cls(bits, ends[:-1].astype(np.int64), np.diff(ends).astype(np.int64))

    @classmethod
    def for_codes(cls, bits: int, count: int) -> Layout:
        """Return the layout that finds the nearest 100 of so many codes fastest, were they uniform.

        Where 32 bits can be all that is left of a code, they are: 64 would take half as much space again.
        """
        fewest, most = -(-bits // LONGEST), max(1, bits // SHORTEST)
        layouts = [cls.of(bits, tables) for tables in range(fewest, most + 1)]
        layouts = [layout for layout in layouts if layout.rest == SHORT_REST and layout.whole] or layouts
        return min(layouts, key=lambda layout: expected_cost(bits, len(layout.offsets), count))

    @property
    def rest(self) -> int:
        """Bits that stand beside a code's number: 32, or 64 where these are more than half of what is left."""
        return SHORT_REST if self.bits - int(self.lengths.min()) <= SHORT_REST else LONG_REST

    @property
    def whole(self) -> bool:
        """Whether substring and rest are the whole code."""
        return self.bits - int(self.lengths.min()) <= self.rest

    def masks(self) -> NDArray[np.uint64]:
        """Return where substring i lies in the rest of table j, uint64 (tables, tables): [j, i]."""
        masks = np.zeros((len(self.offsets), len(self.offsets)), np.uint64)
        for j, i in np.ndindex(masks.shape):
            rest = min(self.rest, self.bits - int(self.lengths[j]))
            first = int(self.offsets[i] - self.offsets[j] - self.lengths[j]) % self.bits
            below = rest - first - int(self.lengths[i])
            if i != j and below >= 0:
                masks[j, i] = ((1 << int(self.lengths[i])) - 1) << below
        return masks


def pays(bits: int, count: int) -> bool:
    """Whether tables of so many distinct codes are worth their space.

    Of longer codes not all bits stand beside a number. Such codes have to be looked up one by one, and measured on ITQ
    codes of photographs and on learned-like codes of 128 bits, the scan was as fast or faster.
    """
    return count >= PAYS_FROM and Layout.for_codes(bits, count).whole


def expected_cost(bits: int, tables: int, count: int) -> float:
    """Return what a query for 100 nearest costs with so many tables over uniform codes, in nanoseconds."""
    total, distance, within = 2.0**bits, 0, 1
    while within * count < _EXPECTED_K * total and distance < bits:
        distance += 1
        within += math.comb(bits, distance)
    length = bits / tables
    whole, rest = math.floor(length), SHORT_REST if bits - math.floor(length) <= SHORT_REST else LONG_REST
    radius, last = divmod(distance, tables)
    buckets = tables * sum(math.comb(whole, r) for r in range(radius)) + (last + 1) * math.comb(whole, radius)
    return buckets * (BUCKET_NS + CODE_NS[rest] * count / 2**length)


class Tables(NamedTuple):
    """The tables of distinct codes, one beside the other.

    ``starts`` uint32 (tables, buckets + 1) is where each bucket begins, ``numbers`` uint32 (tables, m) the codes of the
    buckets, and ``rest`` uint32 or uint64 (tables, m) the bits that follow the substring. ``codes`` are the codes uint8
    (m, w). ``renumbered`` int32 (m,) is the number of each code in a part of the codes, negative for those that are not
    in that part, and None for all codes. All but the last may be mapped files.
    """

    codes: Codes
    layout: Layout
    starts: NDArray[np.uint32]
    numbers: NDArray[np.uint32]
    rest: NDArray[Any]
    renumbered: NDArray[np.int32] | None = None

    def subset(self, kept: NDArray[np.integer[Any]]) -> Tables:
        """Return the tables of some of the codes, whose numbers (c,) are given and which are renumbered from 0 on."""
        renumbered = np.full(len(self.codes) if self.renumbered is None else len(self.renumbered), -1, np.int32)
        new = np.arange(len(kept), dtype=np.int32)
        if self.renumbered is None:
            renumbered[kept] = new
        else:
            old = np.flatnonzero(self.renumbered >= 0)
            renumbered[old[np.argsort(self.renumbered[old])][kept]] = new
        return self._replace(renumbered=renumbered)
