"""Pairs of codes within a radius are those of brute force, whichever way they are found."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashret.bits import hamming, pack
from hashret.errors import HashretError
from hashret.near_duplicates import code_pairs as pairs_module
from hashret.near_duplicates.code_pairs import expand_ranges, pairs_within, plan


def make_codes(n, bits, flips, seed):
    rng = np.random.default_rng(seed)
    centres = rng.random((4, bits)) < 0.5
    return pack(centres[rng.integers(0, 4, n)] ^ (rng.random((n, bits)) < flips))


def found(codes, radius):
    """All pairs as a sorted list of (i, j, distance)."""
    blocks = list(pairs_within(codes, radius))
    for I, J, D in blocks:
        assert (I.dtype, J.dtype, D.dtype) == (np.int64, np.int64, np.int32)
    return sorted(pair for block in blocks for pair in zip(*(part.tolist() for part in block), strict=True))


def brute_force(codes, radius):
    distances = hamming(codes, codes)
    I, J = np.nonzero(np.triu(distances <= radius, 1))
    return list(zip(I.tolist(), J.tolist(), distances[I, J].tolist(), strict=True))


@settings(deadline=None, max_examples=150)
@given(
    bits=st.integers(8, 256),
    n=st.integers(0, 250),
    radius=st.integers(0, 9),
    flips=st.sampled_from([0, 0.01, 0.05, 0.5]),
    blocks=st.sampled_from(["planned", None, 1, 2, 4]),
    at_once=st.sampled_from([3, 2**16]),
    seed=st.integers(0, 10**6),
)
def test_pairs_are_those_of_brute_force(bits, n, radius, flips, blocks, at_once, seed):
    codes = make_codes(n, bits, flips, seed)
    chosen = plan(codes, radius) if blocks == "planned" else None
    if isinstance(blocks, int) and radius < 5:
        chosen = pairs_module._masks(np.arange(bits), radius + blocks, codes.shape[1])
    with patch.object(pairs_module, "plan", return_value=chosen), patch.object(pairs_module, "_PAIRS_AT_ONCE", at_once):
        assert found(codes, radius) == brute_force(codes, radius)


def test_a_radius_of_all_bits_gives_every_pair():
    codes = make_codes(60, 12, 0.5, 0)
    assert len(found(codes, 12)) == 60 * 59 // 2


def test_both_ways_agree_on_more_codes_than_faiss_is_given_at_once():
    codes = np.unique(make_codes(28_000, 32, 0.1, 1), axis=0)
    assert len(codes) > pairs_module._BLOCK + pairs_module._QUERIES
    chosen = plan(codes, 1)
    assert chosen is not None
    by_sorting = found(codes, 1)
    with patch.object(pairs_module, "plan", return_value=None):
        assert found(codes, 1) == by_sorting
    assert len(by_sorting) > 1000


def test_the_plan_follows_the_cost():
    uniform = np.random.default_rng(0).integers(0, 256, (100_000, 6), dtype=np.uint8)
    counts = [len(plan(uniform, radius)) for radius in range(5)]
    assert counts == sorted(counts)
    assert all(count > radius for radius, count in enumerate(counts))
    assert plan(uniform, 24) is None
    assert plan(uniform[:50], 1) is None


def test_a_negative_radius_is_refused():
    for radius in (-1, 2.5, "2"):
        with pytest.raises(HashretError, match=f"number of bits, not {radius!r}"):
            list(pairs_within(np.zeros((3, 6), np.uint8), radius))


def test_a_radius_beyond_all_bits_and_what_faiss_takes():
    codes = np.array([[0] * 8, [255] * 8], np.uint8)
    [(I, J, D)] = pairs_module.pairs_between(codes[:1], codes, 2**31)
    assert (I.tolist(), J.tolist(), D.tolist()) == ([0, 0], [0, 1], [0, 64])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-3, 20)), max_size=40), st.sampled_from([1, 7, 2**16]))
def test_ranges_are_expanded_row_by_row(ranges, at_once):
    starts = np.array([start for start, _ in ranges], np.int64)
    ends = starts + np.array([size for _, size in ranges], np.int64)
    with patch.object(pairs_module, "_PAIRS_AT_ONCE", at_once):
        got = [pair for rows, items in expand_ranges(starts, ends) for pair in zip(rows, items, strict=True)]
    assert got == [(row, item) for row, (start, size) in enumerate(ranges) for item in range(start, start + size)]


@pytest.mark.parametrize("bits", [2048, 2112, 4096])
def test_long_codes(bits):
    codes = make_codes(400, bits, 0.0005, 0)
    chosen = pairs_module._masks(np.arange(bits), 4, codes.shape[1])
    with patch.object(pairs_module, "plan", return_value=chosen):
        assert found(codes, 3) == brute_force(codes, 3)
    assert len(found(codes[:50], 2**31)) == 50 * 49 // 2
