"""Retrieval metrics on Hamming rankings, exact over ties.

Codes are few, so most items of a ranking share their distance with others, and the order among them is
arbitrary. Every metric here is the expectation over all orders of tied items, in closed form (McSherry & Najork,
"Computing information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008; He et
al., "Hashing as tie-aware learning to rank", CVPR 2018), with the worst and the best order beside it.

All work on counts: ``total[q, d]`` database items at distance d from query q, and ``relevant[q, d]`` of them that
share a label with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bits import as_words
from .errors import HashretError

_PAIRS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Counts:
    """Items and relevant items by Hamming distance: two arrays (nq, bits + 1) int64."""

    total: np.ndarray
    relevant: np.ndarray


def is_relevant(labels_q, labels_b):
    """Whether photographs share a label: (nq,) and (nb,), below 0 for none, or (nq, c) and (nb, c) -> bool (nq, nb)."""
    labels_q, labels_b = np.asarray(labels_q), np.asarray(labels_b)
    if labels_q.shape[1:] != labels_b.shape[1:]:
        raise HashretError("queries and database have labels of different kinds; encode both from the same data set")
    if labels_q.ndim == 1:
        return (labels_q[:, None] == labels_b[None, :]) & (labels_q >= 0)[:, None]
    return labels_q.astype(np.float32) @ labels_b.T.astype(np.float32) > 0


def count_by_distance(xq, xb, labels_q, labels_b, bits, progress=None):
    """Count items and relevant items at each Hamming distance.

    xq (nq, w), xb (nb, w) packed codes uint8, labels as in `is_relevant` -> Counts. Equal rows (same code, same
    labels) are counted once and weighed, which is what makes learned codes fast. ``progress``: a
    `hashret.progress.Progress` of nq queries.
    """
    uq, back, same = unique_rows(xq, labels_q)
    ub, _, weight = unique_rows(xb, labels_b)
    words_q, words_b = as_words(xq[uq]), as_words(xb[ub])
    lq, lb = np.asarray(labels_q)[uq], np.asarray(labels_b)[ub]
    done = (lambda rows: progress.add(int(same[rows].sum()))) if progress else lambda rows: None
    count = _count_classes if lq.ndim == lb.ndim == 1 else _count_pairs
    total, relevant = count(words_q, words_b, lq, lb, weight, bits, done)
    return Counts(total[back], relevant[back])


def _count_classes(words_q, words_b, labels_q, labels_b, weight, bits, done):
    """One label a photograph: a histogram by class and distance, of which one class is relevant."""
    classes, place = np.unique(labels_b, return_inverse=True)
    cell, weight = place * (bits + 1), None if (weight == 1).all() else weight
    xor, key = np.empty(words_b.shape, np.uint64), np.empty(len(words_b), np.int64)
    total = np.zeros((len(words_q), bits + 1), np.int64)
    relevant = np.zeros_like(total)
    of_query = {label: number for number, label in enumerate(classes.tolist())}
    for i, label in enumerate(labels_q.tolist()):
        np.bitwise_xor(words_b, words_q[i], out=xor)
        distance = np.bitwise_count(xor)
        np.add(cell, distance[:, 0] if distance.shape[1] == 1 else distance.sum(axis=1, dtype=np.int64), out=key)
        by_class = np.bincount(key, weight, len(classes) * (bits + 1)).reshape(-1, bits + 1)
        total[i] = by_class.sum(axis=0)
        if label >= 0 and label in of_query:
            relevant[i] = by_class[of_query[label]]
        done(i)
    return total, relevant


def _count_pairs(words_q, words_b, labels_q, labels_b, weight, bits, done):
    """Several labels a photograph: a histogram by relevance and distance, for many queries at once."""
    cells = 2 * (bits + 1)
    counts = np.zeros((len(words_q), cells))
    step = max(1, _PAIRS_AT_ONCE // max(1, len(words_b)))
    for start in range(0, len(words_q), step):
        rows = slice(start, min(start + step, len(words_q)))
        n = rows.stop - start
        key = np.zeros((n, len(words_b)), np.int64)
        for word in range(words_q.shape[1]):
            key += np.bitwise_count(words_q[rows, word, None] ^ words_b[None, :, word])
        key *= 2
        key += is_relevant(labels_q[rows], labels_b)
        key += cells * np.arange(n)[:, None]
        weights = np.broadcast_to(weight, key.shape).ravel()
        counts[rows] = np.bincount(key.ravel(), weights, n * cells).reshape(n, cells)
        done(rows)
    counts = counts.astype(np.int64).reshape(len(words_q), bits + 1, 2)
    return counts.sum(axis=2), counts[:, :, 1]


def unique_rows(codes, labels):
    """First places of the distinct (code, labels) rows, the way back, and how many each stands for."""
    labels = np.asarray(labels)
    labels = labels[:, None] if labels.ndim == 1 else labels
    rows = np.concatenate([np.ascontiguousarray(codes).view(np.uint8), _as_bytes(labels)], axis=1)
    rows = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    _, first, inverse, count = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    return first, inverse.ravel(), count.astype(np.float64)


def _as_bytes(array):
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)


def average_precision(counts, ties="expected", topk=None, head=None):
    """Average precision of each query: -> (nq,) float64; 0 where nothing is relevant.

    AP = sum of precision@i over the relevant ranks i <= topk, divided by min(number of relevant items, topk); without
    ``topk`` all ranks count ("mAP@all" is the mean over queries).

    Args:
        counts: of the items ranked by distance.
        ties: "expected" over all orders of tied items, or the "worst" or "best" order.
        topk: ranks counted; None for all.
        head: bool (nq, k), relevance of k items ranked before those of ``counts`` in a fixed order (a re-ranked
            head); they must not be in ``counts``.
    """
    total, relevant = counts.total, counts.relevant
    k, hits, score = 0, np.zeros(len(total), np.int64), np.zeros(len(total))
    if head is not None:
        k, hits, score = head.shape[1], head.sum(axis=1), _head_score(head[:, :topk])
    all_relevant = hits + relevant.sum(axis=1)
    n_before = k + np.cumsum(total, axis=1) - total
    r_before = hits[:, None] + np.cumsum(relevant, axis=1) - relevant
    last = k + int(total.sum(axis=1).max(initial=0)) if topk is None else topk
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, k + total.sum(axis=1).max(initial=0) + 2))])
    tied = {"expected": _tied_expected, "worst": _tied_worst, "best": _tied_best}[ties]
    score = score + tied(total, relevant, n_before, r_before, harmonic, last).sum(axis=1)
    found = all_relevant if topk is None else np.minimum(all_relevant, topk)
    return np.divide(score, found, out=np.zeros(len(score)), where=found > 0)


def average_precision_by_index(xq, xb, labels_q, labels_b, topk=None):
    """Average precision with tied items in the order of the database: -> (nq,).

    What code that sorts distances by a stable sort reports. The order means nothing: a database sorted by class gives
    another figure. Only for comparison with such figures; arguments as of `count_by_distance`.
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
        found = len(ranks) if topk is None else min(len(ranks), topk)
        ranks = ranks if topk is None else ranks[ranks <= topk]
        score[i] = (np.arange(1, len(ranks) + 1) / ranks).sum() / max(1, found)
    return score[back]


def _head_score(head):
    ranks = np.arange(1, head.shape[1] + 1)
    return (np.cumsum(head, axis=1) / ranks * head).sum(axis=1)


def _tied_expected(n, r, n_before, r_before, harmonic, last):
    # Rank n_before + t is relevant with probability r / n; then t - 1 tied items stand before it, each relevant
    # with probability (r - 1) / (n - 1): sum over t of r/n * (r_before + 1 + (t-1)(r-1)/(n-1)) / (n_before + t).
    t = np.clip(last - n_before, 0, n)
    inverse = harmonic[n_before + t] - harmonic[n_before]  # sum over t of 1 / (n_before + t)
    slope = np.divide(r - 1, n - 1, out=np.zeros(n.shape), where=n > 1)
    chance = np.divide(r, n, out=np.zeros(n.shape), where=n > 0)
    return chance * ((r_before + 1) * inverse + slope * (t - (n_before + 1) * inverse))


def _run(count, n_before, r_before, harmonic):
    """Sum of (r_before + i) / (n_before + i) for i = 1 .. count: a run of relevant items."""
    return count + (r_before - n_before) * (harmonic[n_before + count] - harmonic[n_before])


def _tied_best(n, r, n_before, r_before, harmonic, last):
    return _run(np.clip(last - n_before, 0, r), n_before, r_before, harmonic)


def _tied_worst(n, r, n_before, r_before, harmonic, last):
    start = n_before + n - r
    return _run(np.clip(last - start, 0, r), start, r_before, harmonic)


def precision_at(counts, k, head=None):
    """Expected precision of the first k: -> (nq,). ``head`` as in `average_precision`."""
    if k < 1:
        raise HashretError(f"precision@k needs k of at least 1, not {k}")
    skip, hits = 0, np.zeros(len(counts.total))
    if head is not None:
        skip, hits = head.shape[1], head[:, :k].sum(axis=1)
    n_before = skip + np.cumsum(counts.total, axis=1) - counts.total
    taken = np.clip(k - n_before, 0, counts.total)
    chance = np.divide(counts.relevant, counts.total, out=np.zeros(taken.shape), where=counts.total > 0)
    return (hits + (taken * chance).sum(axis=1)) / k


def precision_within(counts, radius=2):
    """Precision of all items within a Hamming radius (inclusive): -> (nq,); 0 where there is none."""
    found = counts.total[:, : radius + 1].sum(axis=1)
    good = counts.relevant[:, : radius + 1].sum(axis=1)
    return np.divide(good, found, out=np.zeros(len(found)), where=found > 0)


def recall_within(counts, radius=2):
    """Share of the relevant items that lie within a Hamming radius (inclusive): -> (nq,)."""
    good = counts.relevant[:, : radius + 1].sum(axis=1)
    wanted = counts.relevant.sum(axis=1)
    return np.divide(good, wanted, out=np.zeros(len(good)), where=wanted > 0)


def precision_recall(counts):
    """Precision-recall curve by Hamming radius: -> (precision, recall), means over queries, each (bits + 1,).

    Item d is of all database items within radius d, see `precision_within` and `recall_within`.
    """
    radii = range(counts.total.shape[1])
    precision = [precision_within(counts, radius).mean() for radius in radii]
    recall = [recall_within(counts, radius).mean() for radius in radii]
    return np.array(precision), np.array(recall)


def distance_histograms(counts):
    """Pairs of query and item by Hamming distance, alike and unlike: -> two arrays (bits + 1,) int64."""
    alike = counts.relevant.sum(axis=0)
    return alike, counts.total.sum(axis=0) - alike


def separation(alike, unlike):
    """Probability that an alike pair is nearer than an unlike pair, equal distances counted half; NaN without either.

    The area under the ROC curve of the distance as a test for alike; arguments as `distance_histograms` gives them.
    """
    farther = unlike.sum() - np.cumsum(unlike)
    pairs = float(alike.sum()) * float(unlike.sum())
    return float((alike * (farther + unlike / 2)).sum() / pairs) if pairs else float("nan")
