"""Confusion, means by class and the choice of queries, against plain rankings."""

import itertools

import numpy as np
import pytest

from hashret.bits import hamming, pack
from hashret.metrics import count_by_distance
from hashret.reporting import confusion as module
from hashret.reporting.confusion import chance_among_first, confusion, extremes, mean_by_label


def rankings(distances):
    """Every order of the items that sorts their distances."""
    groups = [np.flatnonzero(distances == d) for d in np.unique(distances)]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [item for order in orders for item in order]


def plain_confusion(D, labels_q, labels_b, k, classes):
    """Mean over all orders of ties, hit by hit; labels as sets."""
    found, queries = np.zeros((classes, classes)), np.zeros(classes)
    for q, mine in enumerate(labels_q):
        shares = np.zeros((classes, classes))
        orders = list(rankings(D[q]))
        for order in orders:
            for hit in order[:k]:
                for label in mine:
                    if mine & labels_b[hit]:
                        shares[label, label] += 1
                    else:
                        for other in labels_b[hit]:
                            shares[label, other] += 1
        found += shares / len(orders) / min(k, D.shape[1])
        for label in mine:
            queries[label] += 1
    return found / np.where(queries > 0, queries, np.nan)[:, None]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("k", [1, 3, 5, 20])
def test_confusion_is_the_mean_over_all_orders_of_ties(several, k, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 20)  # several blocks
    rng = np.random.default_rng(k)
    rows_q, rows_b = rng.random((9, 8)) < 0.3, rng.random((8, 8)) < 0.3
    if several:
        labels_q, labels_b = (rng.random((n, 4)) < 0.4 for n in (9, 8))
        labels_q[:, 3] = False
        sets_q, sets_b = ([set(np.flatnonzero(row).tolist()) for row in rows] for rows in (labels_q, labels_b))
    else:
        labels_q, labels_b = rng.integers(0, 3, 9), rng.integers(0, 4, 8)
        sets_q, sets_b = ([{int(label)} for label in labels] for labels in (labels_q, labels_b))
    rows_q[3], labels_q[3] = rows_q[0], labels_q[0]  # equal rows, which are computed once
    sets_q[3] = sets_q[0]
    xq, xb = pack(rows_q), pack(rows_b)
    counts = count_by_distance(xq, xb, labels_q, labels_b, 8)
    found = confusion(xq, xb, labels_q, labels_b, counts, k, 4)
    assert found == pytest.approx(plain_confusion(hamming(xq, xb), sets_q, sets_b, k, 4), nan_ok=True)
    assert np.isnan(found[3]).all()
    if not several:
        assert found[np.unique(labels_q)].sum(axis=1) == pytest.approx(1)


def test_unlabelled_items_are_hits_of_no_class():
    xq, xb = pack(np.zeros((1, 8), bool)), pack(np.zeros((4, 8), bool))
    labels_q, labels_b = np.array([0]), np.array([0, 1, -1, -1])
    counts = count_by_distance(xq, xb, labels_q, labels_b, 8)
    assert confusion(xq, xb, labels_q, labels_b, counts, 4, 2)[0].tolist() == [0.25, 0.25]


def test_chances_add_up_to_k():
    total = np.random.default_rng(0).integers(0, 5, (6, 9))
    for k in (1, 4, 12):
        hits = (chance_among_first(total, k) * total).sum(axis=1)
        assert hits == pytest.approx(np.minimum(k, total.sum(axis=1)))


def test_means_by_label():
    scores = np.array([0.1, 0.3, 0.8])
    single = mean_by_label(scores, np.array([0, 0, 2]), 3)
    assert single == pytest.approx([0.2, np.nan, 0.8], nan_ok=True)
    several = mean_by_label(scores, np.array([[1, 1], [1, 0], [0, 0]]), 2)
    assert several == pytest.approx([0.2, 0.1])


def test_extremes_are_spread_over_the_classes_and_codes():
    rng = np.random.default_rng(1)
    scores, labels = rng.permutation(40) / 40, np.arange(40) % 4
    codes = pack(rng.random((40, 32)) < 0.5)
    best, worst = extremes(scores, codes, labels, 4, 6)
    assert best == [max(np.flatnonzero(labels == c), key=lambda q: scores[q]) for c in labels[best]]
    assert sorted(labels[best]) == [0, 1, 2, 3]
    assert max(np.bincount(labels[worst])) == 2
    assert scores[best].tolist() == sorted(scores[best], reverse=True)
    assert scores[worst].tolist() == sorted(scores[worst])
    first_two = [np.sort(scores[labels == c])[:2] for c in range(4)]
    assert scores[worst].tolist() == sorted(np.concatenate(first_two))[:6]
    codes[:] = codes[0]
    assert extremes(scores, codes, labels, 4, 6) == ([int(scores.argmax())], [int(scores.argmin())])


def test_extremes_of_few_queries_share_none():
    codes, labels = pack(np.eye(8, dtype=bool)[:3]), np.zeros(3, int)
    assert extremes(np.array([0.5, 0.9, 0.1]), codes, labels, 2, 5) == ([1, 0], [2])
    assert extremes(np.zeros(0), codes[:0], labels[:0]) == ([], [])
