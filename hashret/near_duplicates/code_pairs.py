"""All pairs of codes within a radius in bits, exactly, far below the cost of comparing each with each.

The bits are dealt into B blocks. Two codes within radius R differ in at most R blocks, so they agree in at least B - R.
For each choice of B - R blocks the codes are sorted by the bits in them, and only codes that agree there are compared:
Manku, Jain & Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007. With B = R + 1 the blocks are the
substrings of Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing", TPAMI 2014; with
more blocks there is more to sort and less to compare. A sample of the codes tells which B costs least, or whether faiss
compares all codes faster: where codes are few, short or crowded, or the radius is large.

The tables of `hashret.index.multi_index` answer one query at a time. Asked for each code in turn, on a million uniform
or clumped codes of 48 bits, they took longer than the blocks wherever both were measured, and find each pair twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import faiss
import numpy as np
import numpy.typing as npt

from ..bits import MOST_BITS, Codes, Positions, as_words, check_radius, pad, padded_width
from ..progress import Progress

Words = npt.NDArray[np.uint64]  # codes as whole words, (m, words)
Pairs = tuple[Positions, Positions, npt.NDArray[np.int32]]  # I, J and their Hamming distances, (p,) each

_SAMPLE = 2**14
_TRIED = 6  # choices of blocks whose comparisons are counted in the sample
_SORT, _COMPARE, _SCAN = 150, 5, 0.6  # ns a code of a table, a comparison in it, a comparison by faiss on one thread
_PAIRS_AT_ONCE = 2**16
_QUERIES, _BLOCK = 2**11, 2**14  # queries and codes of a call of faiss
_FACTORS = np.random.default_rng(0).integers(0, 2**63, MOST_BITS // 64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def pairs_within(codes: Codes, radius: int) -> Iterator[Pairs]:
    """Yield all pairs of packed codes (m, w) within a radius: I, J and their distances, (p,) each, where I < J.

    Each pair comes once, in no particular order, some thousands at a time. Equal codes are a pair at distance 0, but
    are better left out beforehand (`hashret.index.distinct`).

    Raises:
        HashretError: a radius that is no number of bits.
    """
    codes = np.ascontiguousarray(codes)
    radius = min(check_radius(radius), 8 * codes.shape[1])  # faiss takes 31 bits of it
    blocks = plan(codes, radius)
    pairs = _by_scan(codes, radius) if blocks is None else _by_blocks(as_words(codes), blocks, radius)
    for I, J, D in pairs:
        if len(I):
            yield np.minimum(I, J), np.maximum(I, J), D


def plan(codes: Codes, radius: int) -> Words | None:
    """Choose the cheapest way by a sample.

    Returns:
        A mask of the bits of each block, (B, words), or None where comparing all codes is cheapest.
    """
    m = len(codes)
    rng = np.random.default_rng(0)
    sample = codes[np.sort(rng.permutation(m)[:_SAMPLE])] if m > _SAMPLE else codes
    ones = np.unpackbits(sample, axis=1).mean(axis=0) if m else np.zeros(0)
    bits = np.argsort(np.abs(ones - 0.5), kind="stable")[: np.count_nonzero((ones > 0) & (ones < 1))]
    words = as_words(sample)
    scale = m * (m - 1) / max(1, len(sample) * (len(sample) - 1))
    best, least = None, m * m / 2 * _SCAN / faiss.omp_get_max_threads()
    for count in range(radius + 1, len(bits) + 1):
        tables = comb(count, radius)
        if tables * m * _SORT >= least:
            break
        blocks = _masks(bits, count, codes.shape[1])
        choices = list(combinations(range(count), count - radius))
        tried = [choices[i] for i in np.linspace(0, tables - 1, min(tables, _TRIED)).astype(int)]
        compared = float(np.mean([_equal_pairs(_keys(words, blocks[list(choice)])) for choice in tried])) * scale
        cost = tables * (m * _SORT + compared * _COMPARE)
        if cost < least:
            best, least = blocks, cost
    return best


def _masks(bits: Positions, count: int, width: int) -> Words:
    """Deal bits into blocks, the bits that tell codes apart best first, and return the mask of each, (count, words)."""
    chosen = np.zeros((count, 8 * width), bool)
    chosen[np.arange(len(bits)) % count, bits] = True
    return as_words(np.packbits(chosen, axis=1))


def _keys(words: Words, blocks: Words) -> npt.NDArray[np.uint64]:
    """Return a number for each code, (m,), that is equal where the bits of all ``blocks`` are.

    For codes of several words it is a hash: a few codes that differ may share one, and are compared for nothing.
    """
    masked = words & np.bitwise_or.reduce(blocks, axis=0)
    keys: npt.NDArray[np.uint64] = masked[:, 0] if words.shape[1] == 1 else masked @ _FACTORS[: words.shape[1]]
    return keys


def _equal_pairs(keys: npt.NDArray[np.uint64]) -> float:
    """Count the pairs of keys that are equal."""
    sizes = np.unique(keys, return_counts=True)[1].astype(float)
    return float((sizes * (sizes - 1)).sum() / 2)


def _by_blocks(words: Words, blocks: Words, radius: int) -> Iterator[Pairs]:
    """Yield pairs that sorting finds; see the top of this module."""
    m, count = len(words), len(blocks)
    progress = Progress("comparing codes", comb(count, radius) * m, "codes")
    for choice in combinations(range(count), count - radius):
        keys = _keys(words, blocks[list(choice)])
        order = np.argsort(keys)
        keys, table = keys[order], words[order]
        ends = np.append(np.flatnonzero(keys[1:] != keys[:-1]) + 1, m)
        ends = np.repeat(ends, np.diff(ends, prepend=0))
        for left, right in expand_ranges(np.arange(1, m + 1), ends):
            D = _differing(table, left, right)
            near = np.flatnonzero(radius >= D)
            near = near[_first_here(table[left[near]] ^ table[right[near]], blocks, choice)]
            yield order[left[near]], order[right[near]], D[near]
        progress.add(m)
    progress.close()


def expand_ranges(starts: Positions, ends: Positions) -> Iterator[tuple[Positions, Positions]]:
    """Yield each number i with each of starts[i] .. ends[i] - 1, as two arrays (p,), some thousands at a time."""
    sizes = np.maximum(ends - starts, 0)
    before = np.cumsum(sizes) - sizes
    first = 0
    while first < len(sizes):
        stop = max(first + 1, int(np.searchsorted(before, before[first] + _PAIRS_AT_ONCE, "right")) - 1)
        size = sizes[first:stop]
        left = np.repeat(np.arange(first, stop), size)
        offset = np.repeat(starts[first:stop] - before[first:stop] + before[first], size)
        yield left, np.arange(len(left)) + offset
        first = stop


def _differing(words: Words, left: Positions, right: Positions) -> npt.NDArray[np.int32]:
    """Return the Hamming distances of pairs of codes, (p,)."""
    D = np.zeros(len(left), np.int32)
    for word in words.T:
        D += np.bitwise_count(word[left] ^ word[right])
    return D


def _first_here(differences: Words, blocks: Words, choice: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Whether the blocks of ``choice`` are the first in which a pair agrees, (p,); other choices find others first."""
    agrees = [~(differences & blocks[block]).any(axis=1) for block in range(choice[-1] + 1)]
    first = np.ones(len(differences), bool)
    for block, agree in enumerate(agrees):
        first &= agree if block in choice else ~agree
    return first


def _by_scan(codes: Codes, radius: int) -> Iterator[Pairs]:
    """Yield pairs by comparing all codes: each block of them with itself and with the codes before it."""
    m = len(codes)
    progress = Progress("comparing codes", m * (m + 1) // 2, "pairs")
    for start in range(0, m, _BLOCK):
        block, end = codes[start : start + _BLOCK], min(start + _BLOCK, m)
        for I, J, D in pairs_between(codes[:end], block, radius):
            once = start + J > I
            yield I[once], J[once] + start, D[once]
        progress.add(end * len(block))
    progress.close()


def pairs_between(queries: Codes, codes: Codes, radius: int) -> Iterator[Pairs]:
    """Yield all pairs of a query and a code within a radius, both packed, (q, w) and (m, w): I, J and their distances.

    All of the queries are compared with all of the codes, by faiss.
    """
    width = padded_width(8 * codes.shape[1])
    queries, codes = pad(queries, width), pad(codes, width)
    radius = min(radius, 8 * width)  # faiss takes 31 bits of it
    for start in range(0, len(codes), _BLOCK):
        block = faiss.IndexBinaryFlat(8 * width)
        block.add(codes[start : start + _BLOCK])
        for first in range(0, len(queries), _QUERIES):
            ends, D, J = block.range_search(queries[first : first + _QUERIES], radius + 1)  # faiss: less than
            I = np.repeat(np.arange(first, first + len(ends) - 1), np.diff(ends).astype(np.int64))
            yield I, J + start, D.astype(np.int32)
