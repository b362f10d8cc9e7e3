"""Retrieval metrics on Hamming rankings, exact over ties.

Codes are few, so most items of a ranking share their distance with others, and the order among them is arbitrary. Every
metric here is the expectation over all orders of tied items, in closed form (McSherry & Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores", ECIR 2008; He et al., "Hashing as tie-aware
learning to rank", CVPR 2018), with the worst and the best order beside it.

All metrics work on counts: ``total[q, d]`` is the number of database items at distance d from query q, and
``relevant[q, d]`` the number of those that share a label with the query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .bits import Codes, Labels, Positions, as_words
from .errors import HashretError
from .progress import Progress
from .renamed import old_keywords

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Relevant = npt.NDArray[np.bool_]  # (nq, k), which of the k items that were ranked first are relevant

_PAIRS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Counts:
    """Numbers of items and of relevant items at each Hamming distance from each query, (nq, bits + 1) both."""

    total: Ints
    relevant: Ints


def is_relevant(labels_q: Labels, labels_b: Labels) -> Relevant:
    """Whether each query and each item share a label, (nq, nb), for labels of either form of `Labels`.

    Raises:
        HashretError: the labels are of different forms.
    """
    labels_q, labels_b = np.asarray(labels_q), np.asarray(labels_b)
    if labels_q.shape[1:] != labels_b.shape[1:]:
        hint = "encode both from the same data set"
        raise HashretError("queries and database have labels of different kinds", hint=hint)
    relevant: Relevant
    if labels_q.ndim == 1:
        relevant = (labels_q[:, None] == labels_b[None, :]) & has_label(labels_q)[:, None]
    else:
        relevant = labels_q.astype(np.float32) @ labels_b.T.astype(np.float32) > 0
    return relevant


def has_label(labels: Labels) -> npt.NDArray[np.bool_]:
    """Whether each photograph has a label, (n,), and so is relevant to itself."""
    labels = np.asarray(labels)
    return np.asarray(labels >= 0 if labels.ndim == 1 else labels.any(axis=1))


def count_by_distance(
    xq: Codes, xb: Codes, labels_q: Labels, labels_b: Labels, bits: int, progress: Progress | None = None
) -> Counts:
    """Count items and relevant items at each Hamming distance.

    Equal rows (same code, same labels) are counted once and weighed, which makes learned codes fast.

    Args:
        xq, xb: packed codes of queries (nq, w) and items (nb, w).
        labels_q, labels_b: their labels, as in `is_relevant`.
        progress: counts nq queries.
    """
    uq, back, same = unique_rows(xq, labels_q)
    ub, _, weight = unique_rows(xb, labels_b)
    words_q, words_b = as_words(xq[uq]), as_words(xb[ub])
    lq, lb = np.asarray(labels_q)[uq], np.asarray(labels_b)[ub]

    def done(queries: int | slice) -> None:
        if progress:
            progress.add(int(same[queries].sum()))

    count = _count_classes if lq.ndim == lb.ndim == 1 else _count_pairs
    total, relevant = count(words_q, words_b, lq, lb, weight, bits, done)
    return Counts(total[back], relevant[back])


def count_among_themselves(xq: Codes, xb: Codes, labels: Labels, bits: int, progress: Progress | None = None) -> Counts:
    """Count as `count_by_distance` does, photographs among each other: none is found by itself.

    Args:
        xq, xb: packed codes of the same photographs, (n, w) both, as queries and as items; they may differ.
        labels: of the photographs, as in `is_relevant`.
        bits: length of the codes.
        progress: counts n queries.
    """
    counts = count_by_distance(xq, xb, labels, labels, bits, progress)
    row, own = np.arange(len(xq)), np.bitwise_count(xq ^ xb).sum(axis=1)
    counts.total[row, own] -= 1
    counts.relevant[row, own] -= has_label(labels)
    return counts


def _count_classes(
    words_q: Words,
    words_b: Words,
    labels_q: Labels,
    labels_b: Labels,
    weight: Floats,
    bits: int,
    done: Callable[[int], None],
) -> tuple[Ints, Ints]:
    """Count by one histogram over class and distance for each query, where a photograph has one label."""
    classes, class_number = np.unique(labels_b, return_inverse=True)
    cell, weights = class_number * (bits + 1), None if (weight == 1).all() else weight
    xor, key = np.empty(words_b.shape, np.uint64), np.empty(len(words_b), np.int64)
    total = np.zeros((len(words_q), bits + 1), np.int64)
    relevant = np.zeros_like(total)
    of_query = {label: number for number, label in enumerate(classes.tolist())}
    for i, label in enumerate(labels_q.tolist()):
        np.bitwise_xor(words_b, words_q[i], out=xor)
        distance = np.bitwise_count(xor)
        np.add(cell, distance[:, 0] if distance.shape[1] == 1 else distance.sum(axis=1, dtype=np.int64), out=key)
        by_class = np.bincount(key, weights, len(classes) * (bits + 1)).reshape(-1, bits + 1)
        total[i] = by_class.sum(axis=0)
        if label >= 0 and label in of_query:
            relevant[i] = by_class[of_query[label]]
        done(i)
    return total, relevant


def _count_pairs(
    words_q: Words,
    words_b: Words,
    labels_q: Labels,
    labels_b: Labels,
    weight: Floats,
    bits: int,
    done: Callable[[slice], None],
) -> tuple[Ints, Ints]:
    """Count by one histogram over relevance and distance for a block of queries, where a photograph has many labels."""
    cells = 2 * (bits + 1)
    counts = np.zeros((len(words_q), cells))
    step = max(1, _PAIRS_AT_ONCE // max(1, len(words_b)))
    for start in range(0, len(words_q), step):
        block = slice(start, min(start + step, len(words_q)))
        n = block.stop - start
        key = np.zeros((n, len(words_b)), np.int64)
        for word in range(words_q.shape[1]):
            key += np.bitwise_count(words_q[block, word, None] ^ words_b[None, :, word])
        key *= 2
        key += is_relevant(labels_q[block], labels_b)
        key += cells * np.arange(n)[:, None]
        weights = np.broadcast_to(weight, key.shape).ravel()
        counts[block] = np.bincount(key.ravel(), weights, n * cells).reshape(n, cells)
        done(block)
    by_distance = counts.astype(np.int64).reshape(len(words_q), bits + 1, 2)
    return by_distance.sum(axis=2), by_distance[:, :, 1]


def unique_rows(codes: Codes, labels: Labels) -> tuple[Positions, Positions, Floats]:
    """Find the distinct pairs of code and labels.

    Returns:
        The first row of each distinct pair, (m,); the distinct pair of each row, (n,); the rows that each has, (m,).
    """
    labels = np.asarray(labels)
    columns = labels[:, None] if labels.ndim == 1 else labels
    as_bytes = np.ascontiguousarray(columns).view(np.uint8).reshape(len(columns), -1)
    rows = np.concatenate([np.ascontiguousarray(codes).view(np.uint8), as_bytes], axis=1)
    rows = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    _, first, inverse, count = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    return first, inverse.ravel(), count.astype(np.float64)


def ratio(numerator: Any, denominator: Any, empty: float = 0.0) -> Floats:
    """Return numerator / denominator element by element, and ``empty`` where the denominator is not positive."""
    quotient = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), empty)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


@old_keywords
def average_precision(
    counts: Counts,
    ties: Literal["expected", "worst", "best"] = "expected",
    topk: int | None = None,
    reranked_prefix: Relevant | None = None,
) -> Floats:
    """Return the average precision of each query, (nq,); 0 where nothing is relevant.

    AP = sum of precision@i over the relevant ranks i <= topk, divided by min(number of relevant items, topk). Without
    ``topk`` all ranks count; "mAP@all" is then the mean over the queries.

    Args:
        counts: counts of the items that are ranked by distance.
        ties: "expected" over all orders of tied items, or the "worst" or "best" order.
        topk: number of ranks that count; None for all.
        reranked_prefix: relevance of k items that are ranked before those of ``counts`` in a fixed order, (nq, k);
            they must not be in ``counts``.
    """
    total, relevant = counts.total, counts.relevant
    k, hits, score = 0, np.zeros(len(total), np.int64), np.zeros(len(total))
    if reranked_prefix is not None:
        k, hits = reranked_prefix.shape[1], reranked_prefix.sum(axis=1)
        score = _prefix_score(reranked_prefix[:, :topk])
    all_relevant = hits + relevant.sum(axis=1)
    n_before = k + np.cumsum(total, axis=1) - total
    r_before = hits[:, None] + np.cumsum(relevant, axis=1) - relevant
    last = k + int(total.sum(axis=1).max(initial=0)) if topk is None else topk
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, k + total.sum(axis=1).max(initial=0) + 2))])
    tied = {"expected": _tied_expected, "worst": _tied_worst, "best": _tied_best}[ties]
    score = score + tied(total, relevant, n_before, r_before, harmonic, last).sum(axis=1)
    return ratio(score, all_relevant if topk is None else np.minimum(all_relevant, topk))


def average_precision_by_index(
    xq: Codes, xb: Codes, labels_q: Labels, labels_b: Labels, topk: int | None = None
) -> Floats:
    """Return the average precision of each query with tied items in the order of the database, (nq,).

    Code that sorts distances by a stable sort reports this figure. The order means nothing, and a database sorted by
    class gives another figure; so use it only to compare with such figures. The arguments are those of
    `count_by_distance`.
    """
    unique, back, _ = unique_rows(xq, labels_q)
    words_q, words_b = as_words(xq[unique]), as_words(xb)
    labels_q = np.asarray(labels_q)[unique]
    score = np.zeros(len(unique))
    for i in range(len(unique)):
        distance = np.bitwise_count(words_q[i] ^ words_b).sum(axis=1, dtype=np.uint16)
        order = np.argsort(distance, kind="stable")  # radix sort, 16 bits wide
        relevant = is_relevant(labels_q[i : i + 1], labels_b)[0]
        ranks = np.flatnonzero(relevant[order]) + 1
        counted = len(ranks) if topk is None else min(len(ranks), topk)
        ranks = ranks if topk is None else ranks[ranks <= topk]
        score[i] = (np.arange(1, len(ranks) + 1) / ranks).sum() / max(1, counted)
    return score[back]


def _prefix_score(relevant: Relevant) -> Floats:
    ranks = np.arange(1, relevant.shape[1] + 1)
    score: Floats = (np.cumsum(relevant, axis=1) / ranks * relevant).sum(axis=1)
    return score


def _tied_expected(n: Ints, r: Ints, n_before: Ints, r_before: Ints, harmonic: Floats, last: int) -> Floats:
    """Return what the items at each distance add to the score: r relevant ones of n, in any order.

    ``n_before`` items, ``r_before`` of them relevant, are nearer. Ranks up to ``last`` count. ``harmonic[i]`` is the
    sum of 1 / j for j = 1 .. i.
    """
    # Rank n_before + t is relevant with probability r / n; then t - 1 tied items stand before it, each relevant
    # with probability (r - 1) / (n - 1): sum over t of r/n * (r_before + 1 + (t-1)(r-1)/(n-1)) / (n_before + t).
    t = np.clip(last - n_before, 0, n)
    inverse = harmonic[n_before + t] - harmonic[n_before]  # sum over t of 1 / (n_before + t)
    slope, chance = ratio(r - 1, n - 1), ratio(r, n)
    score: Floats = chance * ((r_before + 1) * inverse + slope * (t - (n_before + 1) * inverse))
    return score


def _relevant_run(count: Ints, n_before: Ints, r_before: Ints, harmonic: Floats) -> Floats:
    """Return the sum of (r_before + i) / (n_before + i) for i = 1 .. count: what ``count`` relevant items add."""
    score: Floats = count + (r_before - n_before) * (harmonic[n_before + count] - harmonic[n_before])
    return score


def _tied_best(n: Ints, r: Ints, n_before: Ints, r_before: Ints, harmonic: Floats, last: int) -> Floats:
    return _relevant_run(np.clip(last - n_before, 0, r), n_before, r_before, harmonic)


def _tied_worst(n: Ints, r: Ints, n_before: Ints, r_before: Ints, harmonic: Floats, last: int) -> Floats:
    start = n_before + n - r
    return _relevant_run(np.clip(last - start, 0, r), start, r_before, harmonic)


@old_keywords
def precision_at(counts: Counts, k: int, reranked_prefix: Relevant | None = None) -> Floats:
    """Return the expected precision of the first k items of each query, (nq,); arguments as of `average_precision`."""
    if k < 1:
        raise HashretError(f"precision@k needs k of at least 1, not {k}")
    skip, hits = 0, np.zeros(len(counts.total))
    if reranked_prefix is not None:
        skip, hits = reranked_prefix.shape[1], reranked_prefix[:, :k].sum(axis=1)
    n_before = skip + np.cumsum(counts.total, axis=1) - counts.total
    taken = np.clip(k - n_before, 0, counts.total)
    precision: Floats = (hits + (taken * ratio(counts.relevant, counts.total)).sum(axis=1)) / k
    return precision


def precision_within(counts: Counts, radius: int = 2) -> Floats:
    """Return the precision of all items within a Hamming radius (inclusive), (nq,); 0 where there is no item."""
    return ratio(counts.relevant[:, : radius + 1].sum(axis=1), counts.total[:, : radius + 1].sum(axis=1))


def recall_within(counts: Counts, radius: int = 2) -> Floats:
    """Return the fraction of the relevant items that lie within a Hamming radius (inclusive), (nq,)."""
    return ratio(counts.relevant[:, : radius + 1].sum(axis=1), counts.relevant.sum(axis=1))


def precision_recall(counts: Counts) -> tuple[Floats, Floats]:
    """Return precision and recall within each radius, means over the queries, (bits + 1,) each.

    Number d of each is that of `precision_within` and `recall_within` for radius d.
    """
    radii = range(counts.total.shape[1])
    precision = [precision_within(counts, radius).mean() for radius in radii]
    recall = [recall_within(counts, radius).mean() for radius in radii]
    return np.array(precision), np.array(recall)


def distance_histograms(counts: Counts) -> tuple[Ints, Ints]:
    """Return the numbers of relevant and of irrelevant pairs of query and item by distance, (bits + 1,) each."""
    relevant: Ints = counts.relevant.sum(axis=0)
    return relevant, counts.total.sum(axis=0) - relevant


def separation(relevant: Ints, irrelevant: Ints) -> float:
    """Return the probability that a relevant pair is nearer than an irrelevant one, equal distances counted half.

    It is the area under the ROC curve of the distance as a test for relevance; NaN without pairs of either kind. The
    arguments are what `distance_histograms` returns.
    """
    farther = irrelevant.sum() - np.cumsum(irrelevant)
    pairs = float(relevant.sum()) * float(irrelevant.sum())
    return float((relevant * (farther + irrelevant / 2)).sum() / pairs) if pairs else float("nan")
