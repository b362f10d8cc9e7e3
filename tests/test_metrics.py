"""Every closed form against a plain ranking: the mean over all orders of ties, or over many shuffles."""

import itertools

import numpy as np
import pytest

from hashret import metrics
from hashret.bits import hamming, pack
from hashret.errors import HashretError


def plain_ap(relevant, topk=None):
    """AP of one ranking, step by step."""
    found = min(sum(relevant), topk or len(relevant))
    score = hits = 0
    for rank, good in enumerate(relevant[:topk], 1):
        hits += good
        score += good * hits / rank
    return score / found if found else 0.0


def all_orders(distances, relevant):
    """Relevance in every order that sorts the distances."""
    groups = [[r for d, r in zip(distances, relevant, strict=True) if d == x] for x in sorted(set(distances))]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [r for group in orders for r in group]


def as_counts(distances, relevant, bits=8):
    d, r = np.array(distances), np.array(relevant, bool)
    return metrics.Counts(np.bincount(d, minlength=bits + 1)[None], np.bincount(d[r], minlength=bits + 1)[None])


def random_case(seed, n=7):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, n).tolist(), rng.integers(0, 2, n).tolist()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("topk", [None, 1, 3, 5, 20])
def test_average_precision_over_all_orders_of_ties(seed, topk):
    distances, relevant = random_case(seed)
    scores = [plain_ap(order, topk) for order in all_orders(distances, relevant)]
    counts = as_counts(distances, relevant)
    for ties, wanted in (("expected", np.mean(scores)), ("worst", min(scores)), ("best", max(scores))):
        assert metrics.average_precision(counts, ties, topk)[0] == pytest.approx(wanted), ties


@pytest.mark.parametrize("topk", [None, 2, 4, 6])
def test_average_precision_behind_a_fixed_head(topk):
    distances, relevant = random_case(5)
    head = [1, 0, 1]
    scores = [plain_ap(head + order, topk) for order in all_orders(distances, relevant)]
    got = metrics.average_precision(as_counts(distances, relevant), "expected", topk, np.array([head], bool))
    assert got[0] == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_precision_at_k_over_all_orders_of_ties(k):
    for seed in range(8):
        distances, relevant = random_case(seed)
        wanted = np.mean([sum(order[:k]) / k for order in all_orders(distances, relevant)])
        assert metrics.precision_at(as_counts(distances, relevant), k)[0] == pytest.approx(wanted)


def test_precision_at_k_behind_a_fixed_head():
    distances, relevant = random_case(3)
    head = [1, 0]
    wanted = np.mean([sum((head + order)[:5]) / 5 for order in all_orders(distances, relevant)])
    got = metrics.precision_at(as_counts(distances, relevant), 5, np.array([head], bool))
    assert got[0] == pytest.approx(wanted)


@pytest.mark.parametrize("n_bits", [12, 48, 100])
@pytest.mark.parametrize("several", [False, True])
def test_counts_and_map_equal_a_brute_force_average_over_shuffles(n_bits, several):
    rng = np.random.default_rng(n_bits)
    centres = rng.random((4, n_bits)) < 0.5
    classes_b, classes_q = rng.integers(0, 4, 150), rng.integers(0, 4, 10)
    xb = pack(centres[classes_b] ^ (rng.random((150, n_bits)) < 0.05))
    xq = pack(centres[classes_q] ^ (rng.random((10, n_bits)) < 0.05))
    labels_b, labels_q = classes_b, classes_q
    if several:
        labels_b, labels_q = (
            np.eye(4, dtype=np.uint8)[c] | (rng.random((len(c), 4)) < 0.2) for c in (classes_b, classes_q)
        )
    D = hamming(xq, xb)
    relevant = np.array([[np.any((a == b) & (a == 1)) if several else a == b for b in labels_b] for a in labels_q])
    counts = metrics.count_by_distance(xq, xb, labels_q, labels_b, n_bits)
    for q in range(10):
        assert np.array_equal(counts.total[q], np.bincount(D[q], minlength=n_bits + 1))
        assert np.array_equal(counts.relevant[q], np.bincount(D[q][relevant[q]], minlength=n_bits + 1))
    shuffles = []
    for _ in range(400):
        order = rng.permutation(150)
        order = order[np.argsort(D[:, order], axis=1, kind="stable")]
        shuffles.append([plain_ap(relevant[q][order[q]].tolist()) for q in range(10)])
    shuffles = np.array(shuffles)
    error = shuffles.std(axis=0) / 20
    expected = metrics.average_precision(counts)
    assert np.all(np.abs(expected - shuffles.mean(axis=0)) <= 5 * error + 1e-9)
    assert np.all(metrics.average_precision(counts, "worst") <= shuffles.min(axis=0) + 1e-9)
    assert np.all(metrics.average_precision(counts, "best") >= shuffles.max(axis=0) - 1e-9)


def test_within_radius_includes_the_radius():
    counts = as_counts([0, 2, 2, 3], [1, 1, 0, 1])
    assert metrics.precision_within(counts, 2)[0] == pytest.approx(2 / 3)
    assert metrics.recall_within(counts, 2)[0] == pytest.approx(2 / 3)
    nothing = as_counts([5, 6], [1, 1])
    assert metrics.precision_within(nothing, 2)[0] == 0


def test_a_query_without_relevant_items_scores_zero():
    assert metrics.average_precision(as_counts([0, 1, 1], [0, 0, 0]))[0] == 0


def test_labels_of_different_kinds_are_refused():
    with pytest.raises(HashretError, match="different kinds"):
        metrics.is_relevant(np.zeros(3, int), np.zeros((3, 2), int))


def test_k_of_zero_is_refused():
    with pytest.raises(HashretError, match="at least 1"):
        metrics.precision_at(as_counts([0], [1]), 0)


@pytest.mark.parametrize("kind", ["single", "several"])
@pytest.mark.parametrize("topk", [None, 5])
def test_index_order_is_a_stable_sort(kind, topk):
    rng = np.random.default_rng(3)
    bits_q, bits_b = rng.random((20, 12)) < 0.3, rng.random((60, 12)) < 0.3
    labels = (lambda n: rng.integers(0, 4, n)) if kind == "single" else (lambda n: rng.integers(0, 2, (n, 5)))
    labels_q, labels_b = labels(20), labels(60)
    D, relevant = hamming(pack(bits_q), pack(bits_b)), metrics.is_relevant(labels_q, labels_b)
    wanted = [plain_ap(relevant[i][sorted(range(60), key=lambda b: D[i, b])].tolist(), topk) for i in range(20)]
    got = metrics.average_precision_by_index(pack(bits_q), pack(bits_b), labels_q, labels_b, topk)
    assert got == pytest.approx(wanted)
    counts = metrics.count_by_distance(pack(bits_q), pack(bits_b), labels_q, labels_b, 12)
    assert (metrics.average_precision(counts, "worst", topk) <= got + 1e-9).all()
    assert (got <= metrics.average_precision(counts, "best", topk) + 1e-9).all()


def test_precision_recall_curve_by_brute_force():
    rng = np.random.default_rng(4)
    bits_q, bits_b = rng.random((9, 10)) < 0.4, rng.random((40, 10)) < 0.4
    labels_q, labels_b = rng.integers(0, 3, 9), rng.integers(0, 3, 40)
    counts = metrics.count_by_distance(pack(bits_q), pack(bits_b), labels_q, labels_b, 10)
    precision, recall = metrics.precision_recall(counts)
    assert len(precision) == len(recall) == 11
    for radius in range(11):
        p, r = [], []
        for q in range(9):
            near = [b for b in range(40) if (bits_q[q] != bits_b[b]).sum() <= radius]
            good = sum(labels_b[b] == labels_q[q] for b in near)
            p.append(good / len(near) if near else 0)
            r.append(good / (labels_b == labels_q[q]).sum())
        assert precision[radius] == pytest.approx(np.mean(p))
        assert recall[radius] == pytest.approx(np.mean(r))


@pytest.mark.parametrize("several", [False, True])
def test_histograms_and_separation_by_brute_force(several):
    rng = np.random.default_rng(6)
    xq, xb = pack(rng.random((7, 10)) < 0.4), pack(rng.random((30, 10)) < 0.4)
    shape = (lambda n: (n, 4)) if several else (lambda n: n)
    labels_q, labels_b = rng.integers(0, 2, shape(7)), rng.integers(0, 2, shape(30))
    alike, unlike = metrics.distance_histograms(metrics.count_by_distance(xq, xb, labels_q, labels_b, 10))
    D, relevant = hamming(xq, xb), metrics.is_relevant(labels_q, labels_b)
    assert alike.tolist() == np.bincount(D[relevant], minlength=11).tolist()
    assert unlike.tolist() == np.bincount(D[~relevant], minlength=11).tolist()
    nearer = [(a < b) + (a == b) / 2 for a in D[relevant] for b in D[~relevant]]
    assert metrics.separation(alike, unlike) == pytest.approx(np.mean(nearer))
    assert np.isnan(metrics.separation(alike, 0 * unlike))


@pytest.mark.parametrize("several", [False, True])
def test_progress_counts_every_query_once(several):
    done = []
    progress = type("Progress", (), {"add": lambda self, n: done.append(n)})()
    codes = pack(np.eye(8, dtype=bool)[[0, 1, 1, 2, 0]])
    labels = np.ones((5, 2), int) if several else np.ones(5, int)
    metrics.count_by_distance(codes, codes, labels, labels, 8, progress)
    assert sum(done) == 5
