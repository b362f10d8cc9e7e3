"""The arithmetic of vectors that others made."""

import numpy as np
import pytest

from hashret.errors import HashretError
from hashret.vectors import are_unit, as_float32, lengths, scaled, unit, unusable


def test_lengths_of_what_overflows_in_its_own_type():
    assert lengths(np.array([[300, 400]], np.float16)).tolist() == [500]
    assert lengths(np.array([[90, 120]], np.int8)).tolist() == [150]
    assert lengths(np.array([[3e30, 4e30]], np.float32)) == pytest.approx(5e30)


def test_rows_of_zeros_stay_zeros():
    assert unit([[0.0, 0.0], [3.0, 4.0]]).tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert scaled(as_float32([0, 2]), "euclidean").tolist() == [[0, 2]]


def test_unit_length_is_told_from_others_in_half_precision():
    x = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    assert are_unit(unit(x).astype(np.float16))
    assert are_unit(np.vstack([unit(x), np.zeros((1, 64), np.float32)]))
    assert not are_unit(x)
    assert not are_unit(1.02 * unit(x[:1]))


def test_what_cannot_be_used_is_named():
    with np.errstate(all="raise"):
        x = as_float32(np.array([[0, 1], [np.nan, np.inf], [-np.inf, 0], [1e39, 0]]))
    assert [row for row, _ in unusable(x)] == [1, 2, 3]


@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 2)), np.zeros((3, 0)), 1.0, ["a"], [[True]], [[1j]]])
def test_what_is_no_vectors(wrong):
    with pytest.raises(HashretError, match=r"vectors are numbers, \(n, width\)"):
        as_float32(wrong)
