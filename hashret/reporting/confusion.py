"""Which classes a search takes for which, and the queries that it serves best and worst."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..bits import Codes, Labels, hamming
from ..metrics import Counts, Floats, is_relevant, ratio, unique_rows
from ..progress import Progress
from .bits import indicator

_PAIRS_AT_ONCE = 2**22


def confusion(
    xq: Codes,
    xb: Codes,
    labels_q: Labels,
    labels_b: Labels,
    counts: Counts,
    k: int,
    classes: int,
    progress: Progress | None = None,
) -> Floats:
    """Return what queries of each label find among the k nearest, (classes, classes), NaN where no query has the label.

    The diagonal holds the fraction of hits that are relevant, that is, share a label with the query. Elsewhere stands
    the fraction of hits that are not relevant and have the label of the column. With one label a photograph, a row adds
    up to 1. These are expectations over the order of items at equal distance, and of min(k, nb) hits.

    Args:
        xq, xb, labels_q, labels_b, progress: as of `hashret.metrics.count_by_distance`.
        counts: what that function returns for them.
        classes: number of labels.
    """
    uq, _, same_q = unique_rows(xq, labels_q)
    ub, _, same_b = unique_rows(xb, labels_b)
    labels_q, labels_b = np.asarray(labels_q)[uq], np.asarray(labels_b)[ub]
    codes_q, codes_b = np.ascontiguousarray(xq[uq]), np.ascontiguousarray(xb[ub])
    chance = chance_among_first(counts.total[uq], k)
    of_label_q = indicator(labels_q, classes)
    weighed = same_b[:, None] * indicator(labels_b, classes)
    hits, queries = np.zeros((classes, classes)), same_q @ of_label_q
    step = max(1, _PAIRS_AT_ONCE // len(ub))
    for start in range(0, len(uq), step):
        block = slice(start, start + step)
        first = np.take_along_axis(chance[block], hamming(codes_q[block], codes_b), 1)
        relevant = is_relevant(labels_q[block], labels_b)
        of_queries = (same_q[block, None] * of_label_q[block]).T
        hits += of_queries @ (np.where(relevant, 0, first) @ weighed)
        # No irrelevant item has a label of the query, so the diagonal is still zero.
        hits[np.diag_indices(classes)] += of_queries @ (np.where(relevant, first, 0) @ same_b)
        if progress:
            progress.add(int(same_q[block].sum()))
    count = min(k, int(same_b.sum()))
    return ratio(hits, count * queries[:, None], np.nan)


def chance_among_first(total: npt.NDArray[np.int64], k: int) -> Floats:
    """Return the probability that an item at each distance is among the first k.

    Args:
        total: number of items at each distance from each query, (nq, bits + 1), the shape of the result.
    """
    before = np.cumsum(total, axis=1) - total
    return ratio(np.clip(k - before, 0, total), total)


def mean_by_label(scores: Floats, labels: Labels, classes: int) -> Floats:
    """Return the mean of the scores (nq,) over the queries of each label, (classes,), NaN where there is none."""
    has = indicator(labels, classes)
    return ratio(scores @ has, has.sum(axis=0, dtype=np.float64), np.nan)


def extremes(
    scores: Floats, codes: Codes, labels: Labels, best: int = 4, worst: int = 6
) -> tuple[list[int], list[int]]:
    """Return the numbers of the queries with the highest scores, best first, and with the lowest ones, worst first.

    Both lists are spread over the classes: no class appears more often than ceil(wanted / classes) times. No two
    queries of a list have the same code, whose hits would be the same.
    """
    order = np.argsort(scores, kind="stable")
    keys = [row.tobytes() for row in np.ascontiguousarray(codes)]
    groups = [row.tobytes() for row in np.ascontiguousarray(labels)]

    def take(queries: Iterable[int], wanted: int) -> list[int]:
        chosen: list[int] = []
        seen, of_class = set(), dict.fromkeys(groups, 0)
        per_class = -(-wanted // max(1, len(of_class)))
        for query in map(int, queries):
            if len(chosen) == wanted:
                break
            if keys[query] not in seen and of_class[groups[query]] < per_class:
                chosen.append(query)
                seen.add(keys[query])
                of_class[groups[query]] += 1
        return chosen

    highest = take(np.argsort(-scores, kind="stable"), best)  # of equal scores the earlier query, here too
    return highest, take((query for query in order if query not in highest), worst)
