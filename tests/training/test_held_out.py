"""What held-out photographs find among those that were learned from and among each other."""

import numpy as np
import pytest

from hashret.bits import pack
from hashret.metrics import average_precision, count_by_distance
from hashret.training.held_out import held_out_map


def mean_average_precision(queries, database, labels_q, labels_b, bits):
    return average_precision(count_by_distance(pack(queries), pack(database), labels_q, labels_b, bits)).mean()


@pytest.mark.parametrize("several", [False, True])
def test_it_is_the_mean_of_both_searches(several):
    rng = np.random.default_rng(0)
    bits, labels = rng.random((30, 12)) < 0.5, rng.integers(0, 3, 30)
    if several:
        labels = (rng.random((30, 4)) < 0.3).astype(np.uint8)
        labels[3] = 0  # a photograph without a label finds nothing
    held = 10
    among_learned = mean_average_precision(bits[:held], bits[held:], labels[:held], labels[held:], 12)
    found = []
    for one in range(held):
        others = np.delete(np.arange(held), one)
        relevant = labels[others] @ labels[one] if several else labels[others] == labels[one]
        if relevant.any():
            found.append(mean_average_precision(bits[[one]], bits[others], labels[[one]], labels[others], 12))
    wanted = (among_learned + np.mean(found)) / 2
    assert held_out_map(pack(bits), 12, labels, held) == pytest.approx(wanted, abs=1e-12)


def test_held_out_photographs_of_a_class_each_are_searched_among_the_others_alone():
    bits = np.repeat([[0, 0, 1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]], 2, axis=0)[[0, 2, 1, 3]]
    assert held_out_map(pack(bits), 8, np.array([4, 7, 4, 7]), 2) == 1
    assert held_out_map(pack(bits), 8, np.array([4, 7, 7, 4]), 2) == 0.5


def test_codes_that_are_right_where_they_were_learned_do_not_hide_what_the_others_lack():
    """Of two encoders whose codes of learned photographs are right, the better is that which tells others apart."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 20)
    right = np.repeat(labels[:, None], 8, axis=1)
    learned_labels, learned = np.repeat([0, 1], 500), np.repeat(np.repeat([0, 1], 500)[:, None], 8, axis=1)
    flipped = right ^ (rng.random(right.shape) < 0.3)  # still nearer to the right class
    both = np.concatenate([labels, learned_labels])
    alone = mean_average_precision(flipped, learned, labels, learned_labels, 8)
    assert held_out_map(pack(np.concatenate([flipped, learned])), 8, both, 40) < alone - 0.05
    assert held_out_map(pack(np.concatenate([right, learned])), 8, both, 40) == 1
