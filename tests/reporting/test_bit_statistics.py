"""Every statistic of the bits against plain counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashret.bits import hamming, pack
from hashret.metrics import Counts, average_precision, is_relevant
from hashret.reporting.bits import COPY, average_precision_without, binary_entropy, bit_statistics


def random_rows(seed, n=300, bits=20):
    """Bits of which some depend on others."""
    rng = np.random.default_rng(seed)
    rows = rng.random((n, bits)) < rng.uniform(0.2, 0.8, bits)
    rows[:, 3] = rows[:, 1] ^ (rng.random(n) < 0.1)
    return rows


def information(xs, ys):
    """Mutual information of two lists in bits, by its definition."""
    n, total = len(xs), 0.0
    for x in set(xs):
        for y in set(ys):
            both = sum(a == x and b == y for a, b in zip(xs, ys, strict=True)) / n
            if both:
                total += both * np.log2(both / (xs.count(x) / n * ys.count(y) / n))
    return total


def test_ones_correlation_and_entropy_are_numpys(monkeypatch):
    monkeypatch.setattr("hashret.reporting.bits._CODES_AT_ONCE", 64)  # several blocks
    rows = random_rows(0)
    found = bit_statistics(pack(rows), 20)
    assert found.ones == pytest.approx(rows.mean(axis=0))
    assert found.correlation == pytest.approx(np.corrcoef(rows.T))
    p = rows.mean(axis=0)
    assert found.entropy == pytest.approx(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))
    assert found.distinct == len({tuple(row) for row in rows.tolist()})
    assert found.information is None
    assert found.told is None


def test_effective_bits_are_the_participation_ratio_of_the_eigenvalues():
    rows = random_rows(1)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(rows.T))
    wanted = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert bit_statistics(pack(rows), 20).effective == pytest.approx(wanted)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_repeating_negating_or_freezing_bits_adds_no_effective_ones(seed, times):
    rng = np.random.default_rng(seed)
    rows = rng.random((40, 8)) < 0.5
    plain = bit_statistics(pack(rows), 8).effective
    more = np.concatenate([rows ^ (rng.random(8) < 0.5) for _ in range(times)] + [np.ones((40, 3), bool)], axis=1)
    assert bit_statistics(pack(more), more.shape[1]).effective == pytest.approx(plain)
    assert plain <= 8 + 1e-9


def test_constant_bits_and_copies_are_named():
    rng = np.random.default_rng(2)
    rows = rng.random((1000, 12)) < 0.5
    rows[:, 4] = False
    rows[:, 5] = np.arange(1000) < 5  # nearly constant
    rows[:, 7] = ~rows[:, 2]
    rows[:, 9] = rows[:, 2] ^ (np.arange(1000) < 10)
    found = bit_statistics(pack(rows), 12)
    assert found.rare.tolist() == [4, 5]
    (first, earlier, r), (second, other, almost) = found.copies
    assert (first, earlier, r) == (7, 2, pytest.approx(-1))
    assert second == 9
    assert other in (2, 7)
    assert COPY <= abs(almost) < 1
    assert found.correlation[4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.entropy[4] == 0


def test_codes_that_are_all_one_have_no_effective_bits():
    found = bit_statistics(pack(np.ones((5, 8), bool)), 8)
    assert found.effective == 0
    assert found.distinct == 1
    assert len(found.rare) == 8


def test_information_on_the_class():
    rows = random_rows(3)
    labels = np.random.default_rng(3).integers(0, 4, 300)
    rows[:, 0] = labels >= 2
    rows[:, 6] = True
    found = bit_statistics(pack(rows), 20, labels)
    wanted = [information(column.tolist(), labels.tolist()) for column in rows.T]
    assert found.information == pytest.approx(wanted)
    assert found.information[6] == 0
    unknown = np.where(np.arange(300) < 50, -1, labels)  # photographs without a label do not count
    found = bit_statistics(pack(rows), 20, unknown)
    assert found.information == pytest.approx([information(c[50:].tolist(), labels[50:].tolist()) for c in rows.T])
    assert found.ones == pytest.approx(rows.mean(axis=0))


def test_information_on_the_label_that_a_bit_tells_most_of():
    rows = random_rows(4)
    labels = (np.random.default_rng(4).random((300, 5)) < 0.3).astype(np.uint8)
    rows[:, 2] = labels[:, 3]
    found = bit_statistics(pack(rows), 20, labels)
    wanted = np.array([[information(c.tolist(), has.tolist()) for has in labels.T] for c in rows.T])
    assert found.information == pytest.approx(wanted.max(axis=1))
    assert found.told.tolist() == wanted.argmax(axis=1).tolist()
    assert found.told[2] == 3


def test_entropy_of_what_is_certain_is_zero():
    assert binary_entropy([0, 1, 0.5]).tolist() == [0, 0, 1]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("topk", [None, 10])
def test_average_precision_without_a_bit_is_that_of_the_shorter_codes(several, topk):
    rng = np.random.default_rng(5)
    rows_q, rows_b = rng.random((12, 10)) < 0.4, rng.random((60, 10)) < 0.4
    shape = (lambda n: (n, 4)) if several else (lambda n: n)
    labels_q, labels_b = rng.integers(0, 2, shape(12)), rng.integers(0, 2, shape(60))
    found = average_precision_without(pack(rows_q), pack(rows_b), labels_q, labels_b, 10, topk)
    relevant = is_relevant(labels_q, labels_b)
    for bit in range(10):
        D = hamming(pack(np.delete(rows_q, bit, 1)), pack(np.delete(rows_b, bit, 1)))
        counts = Counts(
            np.stack([np.bincount(d, minlength=10) for d in D]),
            np.stack([np.bincount(d[r], minlength=10) for d, r in zip(D, relevant, strict=True)]),
        )
        assert found[bit] == pytest.approx(average_precision(counts, topk=topk))
