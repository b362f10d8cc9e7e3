"""All pairs of codes within a radius in bits, exactly, far below the cost of comparing each with each.

The bits are dealt into B blocks. Two codes within radius R differ in at most R blocks, so they agree in at least B - R.
For each choice of B - R blocks the codes are sorted by the bits in them, and only those that agree there are compared:
Manku, Jain & Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007. With B = R + 1 these are the substrings
that agree exactly of Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing", TPAMI
2014; with more blocks there is more to sort and less to compare. A sample of the codes tells which B costs least, or
whether comparing all, by faiss, costs less still: where codes are few, short or crowded, or the radius is large.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import faiss
import numpy as np

from ..bits import as_words, pad, padded_width
from ..errors import HashretError
from ..progress import Progress

_SAMPLE = 2**14
_TRIED = 6  # choices of blocks whose comparisons are counted in the sample
_SORT, _COMPARE, _SCAN = 150, 5, 0.6  # ns a code of a table, a comparison in it, a comparison by faiss on one thread
_PAIRS_AT_ONCE = 2**16
_QUERIES, _PIECE = 512, 2**14  # of a call of faiss
_FACTORS = np.random.default_rng(0).integers(0, 2**63, 32, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def pairs_within(codes, radius):
    """All pairs of codes within a radius: packed uint8 (m, w) -> yields I, J int64, D int32, (p,) each, where I < J.

    Each pair comes once, in no particular order, some thousands at a time. Equal codes are a pair at distance 0, but
    are better left out beforehand (`hashret.index.distinct`).

    Raises:
        HashretError: a negative radius.
    """
    if radius < 0:
        raise HashretError(f"the radius is a number of bits, not {radius}")
    codes = np.ascontiguousarray(codes)
    blocks = plan(codes, radius)
    found = _by_scan(codes, radius) if blocks is None else _by_blocks(as_words(codes), blocks, radius)
    for I, J, D in found:
        if len(I):
            yield np.minimum(I, J), np.maximum(I, J), D


def plan(codes, radius):
    """The cheapest way, by a sample: -> masks of the blocks, uint64 (B, words), or None for comparing all."""
    m = len(codes)
    rng = np.random.default_rng(0)
    sample = codes[np.sort(rng.permutation(m)[:_SAMPLE])] if m > _SAMPLE else codes
    share = np.unpackbits(sample, axis=1).mean(axis=0) if m else np.zeros(0)
    bits = np.argsort(np.abs(share - 0.5), kind="stable")[: np.count_nonzero((share > 0) & (share < 1))]
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
        compared = np.mean([_agreeing(_keys(words, blocks[list(choice)])) for choice in tried]) * scale
        cost = tables * (m * _SORT + compared * _COMPARE)
        if cost < least:
            best, least = blocks, cost
    return best


def _masks(bits, count, width):
    """Bits dealt into blocks, the most telling ones first to each: -> uint64 (count, words)."""
    chosen = np.zeros((count, 8 * width), bool)
    chosen[np.arange(len(bits)) % count, bits] = True
    return as_words(np.packbits(chosen, axis=1))


def _keys(words, blocks):
    """One number for the bits of some blocks of each code, equal where these are: -> uint64 (m,).

    Of codes of several words it is a hash: a few that differ may share one, and are compared for nothing.
    """
    masked = words & np.bitwise_or.reduce(blocks, axis=0)
    return masked[:, 0] if words.shape[1] == 1 else masked @ _FACTORS[: words.shape[1]]


def _agreeing(keys):
    """How many pairs of keys are equal."""
    sizes = np.unique(keys, return_counts=True)[1].astype(float)
    return (sizes * (sizes - 1)).sum() / 2


def _by_blocks(words, blocks, radius):
    """Pairs by sorting: words uint64 (m, words), masks of the blocks."""
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


def expand_ranges(starts, ends):
    """Each row i with each of starts[i] .. ends[i] - 1: yields both, int64 (p,), some thousands at a time."""
    sizes = np.maximum(ends - starts, 0)
    before = np.cumsum(sizes) - sizes
    row = 0
    while row < len(sizes):
        stop = max(row + 1, int(np.searchsorted(before, before[row] + _PAIRS_AT_ONCE, "right")) - 1)
        size = sizes[row:stop]
        total = int(size.sum())
        left = np.repeat(np.arange(row, stop), size)
        yield left, np.arange(total) + np.repeat(starts[row:stop] - before[row:stop] + before[row], size)
        row = stop


def _differing(words, left, right):
    """Hamming distances of rows of words: -> int32 (p,)."""
    D = np.zeros(len(left), np.int32)
    for word in words.T:
        D += np.bitwise_count(word[left] ^ word[right])
    return D


def _first_here(differences, blocks, choice):
    """Whether a pair's first agreeing blocks are those of ``choice``: others find it in another table. -> bool (p,)."""
    agrees = [~(differences & blocks[block]).any(axis=1) for block in range(choice[-1] + 1)]
    first = np.ones(len(differences), bool)
    for block, agree in enumerate(agrees):
        first &= agree if block in choice else ~agree
    return first


def _by_scan(codes, radius):
    """Pairs by comparing all: each piece of the codes with itself and those before it."""
    codes = pad(codes, padded_width(8 * codes.shape[1]))
    m = len(codes)
    progress = Progress("comparing codes", m * (m + 1) // 2, "pairs")
    for start in range(0, m, _PIECE):
        piece = faiss.IndexBinaryFlat(8 * codes.shape[1])
        piece.add(codes[start : start + _PIECE])
        for first in range(0, start + piece.ntotal, _QUERIES):
            queries = codes[first : min(first + _QUERIES, start + piece.ntotal)]
            ends, D, J = piece.range_search(queries, radius + 1)  # faiss: less than
            I, J = np.repeat(np.arange(first, first + len(queries)), np.diff(ends.astype(np.int64))), J + start
            once = I < J
            yield I[once], J[once], D[once].astype(np.int32)
            progress.add(len(queries) * piece.ntotal)
    progress.close()
