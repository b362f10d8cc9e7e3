"""How many Hamming candidates the re-rank needs, measured on the index itself."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from ..bits import code_width
from ..errors import HashretError
from .rerank import check_features, rerank, squared_distances

_ROWS_AT_ONCE = 2**18
_PAIRS_AT_ONCE = 2**22
_QUERIES_AT_ONCE = 16  # from 20 on faiss takes |q|^2 - 2 qb + |b|^2, which blurs the small distances of close values
_WITHIN = 20  # the answer is the least number to within a twentieth


@dataclass(frozen=True)
class Calibration:
    """The least candidates that reach a recall of the k nearest, and the one they reach, over a sample of queries."""

    candidates: int
    recall: float
    k: int
    sample: int


def calibrate(stage, values, k=10, recall=0.99, sample=200, seed=0, features="values", codes=None):
    """The least number of Hamming candidates whose re-rank finds the nearest values: -> `Calibration`.

    Items of the index are the queries, each left out of its own answers. Found is what the re-rank puts among its
    first k and is no farther, by its values, than the k-th nearest of a full search. The number is doubled from k on
    until the recall is reached, then bisected to within 5 %.

    Args:
        stage: a `HammingStage` of n items.
        values: float32 (n, bits) of its items, read in blocks: a memory map will do.
        k: answers wanted; all others where an index has no more.
        recall: mean share of the k nearest that is to be found.
        sample: how many items to query, all where there are fewer.
        seed: of the drawing of them.
        features: what the re-rank compares, one of `hashret.index.rerank.FEATURES`. With others than values, even all
            candidates may not reach the recall: they are the answer then, with the recall that they reach.
        codes: packed codes of the items, uint8 (n, w); None to ask the stage.

    Raises:
        HashretError: k or sample below 1, recall not in (0, 1], other features, fewer than two items.
    """
    if k < 1 or sample < 1:
        raise HashretError(f"k and the sample must be at least 1, not {min(k, sample)}")
    if not 0 < recall <= 1:
        raise HashretError(f"the recall to reach is above 0 and at most 1, not {recall}")
    check_features(features)
    n = len(values)
    if n < 2:
        raise HashretError("an index of fewer than two photographs has nothing to calibrate")
    k = min(k, n - 1)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, min(sample, n), replace=False, shuffle=False))
    codes = stage.codes() if codes is None else codes
    xq, query_codes = values[rows], codes[rows][:, : code_width(stage.bits)]
    farthest = kth_distances(values, rows, k)

    def reached(candidates):
        right, step = 0, max(1, _PAIRS_AT_ONCE // candidates)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            found = _others(stage.search(query_codes[some], candidates + 1)[1], rows[some])
            _, order = rerank(xq[some], codes if features == "asymmetric" else values, found, features)
            best = np.take_along_axis(found, order[:, :k], axis=1)
            right += int(np.count_nonzero(squared_distances(xq[some], values, best) <= farthest[some, None]))
        return right / (k * len(rows))

    low, high = k - 1, k
    while (share := reached(high)) < recall:
        if high == n:
            return Calibration(n, share, k, len(rows))
        low, high = high, min(2 * high, n)
    while high - low > max(1, high // _WITHIN):
        middle = (low + high) // 2
        if (other := reached(middle)) >= recall:
            high, share = middle, other
        else:
            low = middle
    return Calibration(high, share, k, len(rows))


def kth_distances(values, rows, k):
    """Squared distance of each chosen row to the k-th nearest other: values float32 (n, d) -> float32 (len(rows),)."""
    xq = np.ascontiguousarray(values[rows])
    D, near = np.empty((len(rows), 0), np.float32), np.empty((len(rows), 0), np.int64)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        block = np.ascontiguousarray(values[start : start + _ROWS_AT_ONCE])
        found = [
            faiss.knn(xq[query : query + _QUERIES_AT_ONCE], block, min(k + 1, len(block)))
            for query in range(0, len(rows), _QUERIES_AT_ONCE)
        ]
        D = np.hstack([D, np.vstack([distances for distances, _ in found])])
        near = np.hstack([near, np.vstack([places for _, places in found]) + start])
        least = np.argsort(D, axis=1)[:, : k + 1]
        D, near = np.take_along_axis(D, least, axis=1), np.take_along_axis(near, least, axis=1)
    return np.sort(squared_distances(xq, values, near), axis=1)[:, k]  # the row itself is at 0, before the k others


def _others(found, rows):
    """Answers without the query itself, or without the last where it is not there: (nq, c) -> (nq, c - 1)."""
    keep = found != rows[:, None]
    keep[:, -1] &= ~keep.all(axis=1)
    return found[keep].reshape(len(found), -1)
