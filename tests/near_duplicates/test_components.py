"""What pairs link, against one pair after another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hashret.bits import hamming
from hashret.near_duplicates.components import components, linked_codes, stars
from near_duplicates.test_near_pairs import some_photographs


@settings(deadline=None)
@given(some_photographs, st.integers(0, 6))
def test_links_of_codes_alone(photographs, radius):
    codes, _ = photographs
    I, J = np.nonzero(hamming(codes, codes) <= radius)
    assert partition(linked_codes(codes, radius)) == partition(plain_components(len(codes), I, J))


@settings(deadline=None)
@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=80), st.integers(1, 9))
def test_components_are_those_of_one_pair_after_another(n, pairs, size):
    pairs = np.array([(i % n, j % n) for i, j in pairs], np.int64).reshape(-1, 2)
    blocks = [pairs[start : start + size].T for start in range(0, len(pairs), size)]
    assert partition(components(n, blocks)) == partition(plain_components(n, *pairs.T))


def plain_components(n, I, J):
    number = list(range(n))
    for i, j in zip(I, J, strict=True):
        number = [number[i] if other == number[j] else other for other in number]
    return number


def partition(numbers):
    """Which items have the same number, whatever the number is."""
    first = {}
    return [first.setdefault(int(number), item) for item, number in enumerate(numbers)]


def test_a_chain_is_cut_into_groups_within_reach_of_their_first():
    at = np.arange(8) * 1.0

    def apart(first, others):
        return np.abs(at[others] - at[first])

    got = [(int(first), others.tolist(), D.tolist()) for first, others, D in stars([3, 0, 1, 2, 4, 5, 6, 7], apart, 1)]
    assert got == [(3, [2, 4], [1, 1]), (0, [1], [1]), (5, [6], [1])]
