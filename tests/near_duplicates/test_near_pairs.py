"""Photographs near in bits and in distance, against brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hashret.bits import hamming, pack
from hashret.near_duplicates.near_pairs import euclidean, near_pairs, with_neighbours


def make_photographs(n, bits, d, flips, spread, seed):
    """Codes and values crowded around three centres, some photographs there twice."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    codes = pack((rng.random((3, bits)) < 0.5)[label] ^ (rng.random((n, bits)) < flips))
    x = rng.random((3, d), np.float32)[label] + spread * rng.normal(size=(n, d)).astype(np.float32)
    same = rng.integers(0, max(1, n), n // 4)
    codes[: n // 4], x[: n // 4] = codes[same], x[same]
    return codes, x


some_photographs = st.builds(
    make_photographs,
    n=st.integers(0, 200),
    bits=st.integers(8, 80),
    d=st.integers(1, 30),
    flips=st.sampled_from([0, 0.02, 0.5]),
    spread=st.sampled_from([0, 1e-6, 0.01, 1]),
    seed=st.integers(0, 10**6),
)


def brute_force(codes, x, radius, distance):
    bits = hamming(codes, codes)
    I, J = np.nonzero(np.triu(bits <= radius, 1))
    far = euclidean(x, I, J)
    near = far <= distance
    return sorted(zip(I[near].tolist(), J[near].tolist(), far[near].tolist(), strict=True))


@settings(deadline=None, max_examples=150)
@given(some_photographs, st.integers(0, 6), st.sampled_from([0, 1e-5, 0.01, 0.05, 0.5, 3]))
def test_near_pairs_are_those_of_brute_force(photographs, radius, distance):
    codes, x = photographs
    got = [
        pair
        for block in near_pairs(codes, radius, x, distance)
        for pair in zip(*(part.tolist() for part in block), strict=True)
    ]
    assert sorted(got) == brute_force(codes, x, radius, distance)


def test_distances_are_euclidean():
    x = np.random.default_rng(0).random((50, 7), np.float32)
    I, J = np.arange(49), np.arange(1, 50)
    assert np.allclose(euclidean(x, I, J), np.linalg.norm(x[I] - x[J], axis=1), rtol=1e-5)
    assert len(euclidean(x, I[:0], J[:0])) == 0


@settings(deadline=None)
@given(some_photographs, st.integers(0, 6))
def test_which_have_neighbours(photographs, radius):
    codes, _ = photographs
    near = hamming(codes, codes) <= radius
    assert with_neighbours(codes, radius).tolist() == (near.sum(axis=1) > 1).tolist()
