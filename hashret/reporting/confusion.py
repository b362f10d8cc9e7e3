"""Which classes a search takes for which, and which queries it serves best and worst."""

from __future__ import annotations

import numpy as np

from ..bits import hamming
from ..metrics import is_relevant, unique_rows
from .bits import indicator

_PAIRS_AT_ONCE = 2**22


def confusion(xq, xb, labels_q, labels_b, counts, k, classes, progress=None):
    """What queries of each label find among the k nearest: -> (classes, classes), NaN where no query has the label.

    On the diagonal the share of hits that are alike, that is, share a label with the query; elsewhere the share of
    hits that are not and have the label of the column. With one label a photograph, a row adds up to 1. Expectations
    over the order of items at equal distance; of min(k, nb) hits.

    Args:
        xq, xb, labels_q, labels_b, progress: as of `hashret.metrics.count_by_distance`.
        counts: what that function gives for them.
        classes: number of labels.
    """
    uq, _, same_q = unique_rows(xq, labels_q)
    ub, _, same_b = unique_rows(xb, labels_b)
    labels_q, labels_b = np.asarray(labels_q)[uq], np.asarray(labels_b)[ub]
    codes_q, codes_b = np.ascontiguousarray(xq[uq]), np.ascontiguousarray(xb[ub])
    chance = chance_among_first(counts.total[uq], k)
    of_label_q = indicator(labels_q, classes)
    weighed = same_b[:, None] * indicator(labels_b, classes)
    found, queries = np.zeros((classes, classes)), same_q @ of_label_q
    step = max(1, _PAIRS_AT_ONCE // len(ub))
    for start in range(0, len(uq), step):
        rows = slice(start, start + step)
        first = np.take_along_axis(chance[rows], hamming(codes_q[rows], codes_b), 1)
        alike = is_relevant(labels_q[rows], labels_b)
        of_queries = (same_q[rows, None] * of_label_q[rows]).T
        found += of_queries @ (np.where(alike, 0, first) @ weighed)
        # A label of the query itself is on no unlike item, so that the diagonal is still zero.
        found[np.diag_indices(classes)] += of_queries @ (np.where(alike, first, 0) @ same_b)
        if progress:
            progress.add(int(same_q[rows].sum()))
    hits = min(k, int(same_b.sum()))
    return np.divide(found, hits * queries[:, None], out=np.full_like(found, np.nan), where=queries[:, None] > 0)


def chance_among_first(total, k):
    """Probability that an item at each distance is among the first k: total (nq, bits + 1) -> the same shape."""
    before = np.cumsum(total, axis=1) - total
    return np.divide(np.clip(k - before, 0, total), total, out=np.zeros(total.shape), where=total > 0)


def mean_by_label(scores, labels, classes):
    """Mean score of the queries of each label: (nq,) -> (classes,), NaN where there is none."""
    has = indicator(labels, classes)
    queries = has.sum(axis=0, dtype=np.float64)
    return np.divide(scores @ has, queries, out=np.full(classes, np.nan), where=queries > 0)


def extremes(scores, codes, labels, best=4, worst=6):
    """Queries of the highest and the lowest score: -> rows of the best, best first, and of the worst, worst first.

    Either kind is spread over the classes: of the same labels there are as few as can be if all classes had some. No
    two of a kind have the same code, whose hits would be the same.
    """
    order = np.argsort(scores, kind="stable")
    keys = [row.tobytes() for row in np.ascontiguousarray(codes)]
    groups = [row.tobytes() for row in np.ascontiguousarray(labels)]

    def take(rows, wanted):
        chosen, seen, of_class = [], set(), dict.fromkeys(groups, 0)
        per_class = -(-wanted // max(1, len(of_class)))
        for row in rows:
            if len(chosen) == wanted:
                break
            if keys[row] not in seen and of_class[groups[row]] < per_class:
                chosen.append(int(row))
                seen.add(keys[row])
                of_class[groups[row]] += 1
        return chosen

    highest = take(np.argsort(-scores, kind="stable"), best)  # of equal scores the earlier query, here too
    return highest, take([row for row in order if row not in highest], worst)
