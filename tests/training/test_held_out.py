"""What held-out photographs find among those that were learned from and among each other."""

import numpy as np
import pytest

from hashret.bits import pack
from hashret.metrics import average_precision, count_by_distance
from hashret.training.held_out import held_out_map, hold_out


def plain_map(queries, database, labels_q, labels_b):
    counts = count_by_distance(pack(queries), pack(database), labels_q, labels_b, queries.shape[1])
    return average_precision(counts).mean()


@pytest.mark.parametrize("several", [False, True])
def test_it_is_the_mean_of_both_searches(several):
    rng = np.random.default_rng(0)
    held, database, labels = 10, rng.random((30, 12)) < 0.5, rng.integers(0, 3, 30)
    queries = database[:held] ^ (rng.random((held, 12)) < 0.1)
    if several:
        labels = (rng.random((30, 4)) < 0.3).astype(np.uint8)
        labels[3] = 0  # a photograph without a label finds nothing
    among_learned = plain_map(queries, database[held:], labels[:held], labels[held:])
    found = []
    for one in range(held):
        others = np.delete(np.arange(held), one)
        relevant = labels[others] @ labels[one] if several else labels[others] == labels[one]
        if relevant.any():
            found.append(plain_map(queries[[one]], database[others], labels[[one]], labels[others]))
    wanted = (among_learned + np.mean(found)) / 2
    assert held_out_map(pack(queries), pack(database), 12, labels).mean == pytest.approx(wanted, abs=1e-12)


def test_where_no_held_out_photograph_has_a_relevant_one_the_others_count_alone():
    bits = np.array([[0, 0, 1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]] * 2, bool)
    for labels, wanted in ([4, 7, 4, 7], 1), ([4, 7, 7, 4], 0.5):
        assert held_out_map(pack(bits[:2]), pack(bits), 8, np.array(labels)).mean == wanted


def test_codes_that_are_right_where_they_were_learned_do_not_hide_what_the_others_lack():
    """Of two encoders whose codes of learned photographs are right, the better is that which tells others apart."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [520, 520])[np.r_[:20, 520:540, 20:520, 540:1040]]
    right = np.repeat(labels[:, None], 8, axis=1).astype(bool)
    others = right.copy()
    others[:40] ^= rng.random((40, 8)) < 0.3  # nearer to the right class still
    alone = plain_map(others[:40], others[40:], labels[:40], labels[40:])
    assert held_out_map(pack(others[:40]), pack(others), 8, labels).mean < alone - 0.05
    found = held_out_map(pack(right[:40]), pack(right), 8, labels)
    assert (found.mean, found.error) == (1, 0)


def test_the_standard_error_is_that_of_means_of_as_many_photographs():
    rng = np.random.default_rng(2)
    labels = np.tile([0, 1], 520)
    codes = np.repeat(labels[:, None], 8, axis=1).astype(bool) ^ (rng.random((1040, 8)) < 0.35)
    found = []
    for _ in range(200):
        drawn = np.r_[rng.integers(0, 40, 40), 40:1040]
        found.append(held_out_map(pack(codes[drawn[:40]]), pack(codes[drawn]), 8, labels[drawn]))
    error = held_out_map(pack(codes[:40]), pack(codes), 8, labels).error
    assert np.std([one.mean for one in found]) == pytest.approx(error, rel=0.3)


@pytest.mark.parametrize("fraction", [0.99, 1.0])
@pytest.mark.parametrize("several", [False, True])
def test_one_photograph_is_left_to_learn_from_however_many_are_held_out(fraction, several):
    for n in (1, 2, 40):
        learned, held = hold_out(np.ones((n, 2), np.uint8) if several else np.zeros(n, int), fraction, seed=0)
        assert (len(learned), len(held)) == (1, n - 1)
