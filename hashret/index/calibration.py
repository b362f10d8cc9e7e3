"""How many Hamming candidates the re-rank needs, measured on the index itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ..arguments import is_number, is_whole
from ..bits import Positions, binarize, code_width, pack, unpack
from ..errors import HashretError
from ..results import Result
from ..vectors import Vectors, scaled
from .blocks import PAIRS_AT_ONCE, ROWS_AT_ONCE
from .hamming import HammingStage
from .rerank import OF_FEATURES, check_rerank_by, directions, rerank, squared
from .rows import Rows

_QUERIES_AT_ONCE = 16  # from 20 on faiss takes |q|^2 - 2 qb + |b|^2, which blurs the small distances of close outputs
_WITHIN = 20  # the answer is the least number to within a twentieth


@dataclass(frozen=True)
class Calibration(Result):
    """How many candidates reach a recall.

    Attributes:
        candidates: the least number that reaches the recall.
        recall: mean fraction of the k nearest that these find, over a sample of queries.
        k: answers a query.
        sample: how many queries were asked.
    """

    candidates: int
    recall: float
    k: int
    sample: int


def calibrate(
    stage: HammingStage,
    compared: Rows,
    k: int = 10,
    recall: float = 0.99,
    sample: int = 200,
    seed: int = 0,
    rerank_by: str = "values",
    codes: Rows | None = None,
    hash_outputs: Rows | None = None,
) -> Calibration:
    """Find the least number of Hamming candidates among which the re-rank finds the nearest by its own distance.

    Items of the index are the queries, each left out of its own answers, with the codes that queries have, see
    `hashret.bits.dithered`. An answer is right if the re-rank puts it among its first k and it is no farther, by the
    distance of the re-rank, than the k-th nearest of a full search. The number is doubled from k on until the recall
    is reached, then bisected to within 5 %.

    Args:
        stage: a `HammingStage` of n items.
        compared: hash outputs, float32 (n, bits), of its items, or for a re-rank by one of
            `hashret.index.rerank.OF_FEATURES` their features, (n, width); read in blocks: a memory map will do.
        k: answers a query; all others where an index has no more.
        recall: mean fraction of the k nearest that is to be found.
        sample: how many items to query, all where there are fewer.
        seed: of the drawing of them.
        rerank_by: one of `hashret.index.rerank.CHOICES`.
        codes: packed codes of the items, uint8 (n, w); None to ask the stage.
        hash_outputs: of the items, to make the codes of the queries of, where features are compared; None takes the
            codes of the items, which have other thresholds where these are spread.

    Raises:
        HashretError: k or sample below 1, recall not in (0, 1], another re-rank, fewer than two items.
    """
    for number in (k, sample):
        if not is_whole(number, 1):
            raise HashretError(f"k and the sample must be at least 1, not {number!r}")
    if not (is_number(recall) and 0 < recall <= 1):
        raise HashretError(f"the recall to reach is above 0 and at most 1, not {recall!r}")
    if check_rerank_by(rerank_by) not in OF_FEATURES:
        hash_outputs = compared
    n = len(compared)
    if n < 2:
        raise HashretError("an index of fewer than two photographs has nothing to calibrate")
    k = min(k, n - 1)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, min(sample, n), replace=False, shuffle=False))
    codes = stage.codes() if codes is None else codes
    xq = np.asarray(compared[rows], np.float32)
    own_codes = codes[rows][:, : code_width(stage.bits)] if hash_outputs is None else pack(binarize(hash_outputs[rows]))
    items = codes if rerank_by == "asymmetric" else compared
    farthest = kth_distances(xq, items, rows, k, rerank_by)

    def recall_of(candidates: int) -> float:
        right, step = 0, max(1, PAIRS_AT_ONCE // candidates)
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            others = _without_query(stage.search(own_codes[block], candidates + 1)[1], rows[block])
            _, order = rerank(xq[block], items, others, rerank_by)
            best = np.take_along_axis(others, order[:, :k], axis=1)
            right += int(np.count_nonzero(squared(xq[block], items, best, rerank_by) <= farthest[block, None]))
        return right / (k * len(rows))

    low, high = k - 1, k
    while (reached := recall_of(high)) < recall:
        if high == n:
            return Calibration(n, reached, k, len(rows))
        low, high = high, min(2 * high, n)
    while high - low > max(1, high // _WITHIN):
        middle = (low + high) // 2
        if (other := recall_of(middle)) >= recall:
            high, reached = middle, other
        else:
            low = middle
    return Calibration(high, reached, k, len(rows))


def kth_distances(
    xq: Vectors, items: Rows, own: NDArray[np.int64], k: int, rerank_by: str = "values"
) -> NDArray[np.float32]:
    """Return the squared distance of each query to the k-th nearest item that is not its own: float32 (nq,).

    Args:
        xq: float32 (nq, d).
        items: what the re-rank compares the queries with, (n, d); for "asymmetric" the packed codes, (n, w).
        own: int64 (nq,), the item that each query is.
        k: at most n - 1.
        rerank_by: one of `hashret.index.rerank.CHOICES`.
    """
    asked = xq if rerank_by == "asymmetric" else _points(xq, rerank_by, xq.shape[1])
    D, near = np.empty((len(xq), 0), np.float32), np.empty((len(xq), 0), np.int64)
    for start in range(0, len(items), ROWS_AT_ONCE):
        block = _points(items[start : start + ROWS_AT_ONCE], rerank_by, xq.shape[1])
        nearest = [
            faiss.knn(asked[query : query + _QUERIES_AT_ONCE], block, min(k + 1, len(block)))
            for query in range(0, len(xq), _QUERIES_AT_ONCE)
        ]
        D = np.hstack([D, np.vstack([distances for distances, _ in nearest])])
        near = np.hstack([near, np.vstack([numbers for _, numbers in nearest]) + start])
        least = np.argsort(D, axis=1)[:, : k + 1]
        D, near = np.take_along_axis(D, least, axis=1), np.take_along_axis(near, least, axis=1)
    # Among k + 1 items are k others at least.
    distances = squared(xq, items, np.where(near == own[:, None], -1, near), rerank_by)
    return np.sort(distances, axis=1)[:, k - 1]


def _points(items: NDArray[Any], rerank_by: str, bits: int) -> Vectors:
    """Return rows of what the re-rank compares as points whose Euclidean distance orders as it does, float32 (n, d)."""
    if rerank_by == "asymmetric":
        return unpack(items, bits).astype(np.float32)
    rows = np.ascontiguousarray(items, np.float32)
    return directions(rows) if rerank_by == "directions" else scaled(rows, rerank_by)


def _without_query(answers: Positions, rows: NDArray[np.int64]) -> Positions:
    """Return answers without the query itself, or without the last where it is not there: (nq, c) -> (nq, c - 1)."""
    keep = answers != rows[:, None]
    keep[:, -1] &= ~keep.all(axis=1)
    others: Positions = answers[keep].reshape(len(answers), -1)
    return others
