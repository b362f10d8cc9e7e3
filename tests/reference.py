"""Codes to search, and the plain answers that every engine is held to."""

import numpy as np

from hashret.bits import hamming, pack, pad, padded_width
from hashret.index.distinct import group
from hashret.index.hamming import HammingStage


def make_codes(n, bits, seed, flips=0.02):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(bits).random((5, bits)) < 0.5
    return pack(centres[rng.integers(0, 5, n)] ^ (rng.random((n, bits)) < flips))


def stage_of(codes, bits, backend="auto", grouped=None):
    """A Hamming stage over packed codes; ``grouped``: whether by distinct codes, None to choose."""
    return HammingStage(group(pad(codes, padded_width(bits)), grouped), bits, backend)


def brute_force(xq, xb, k, rows=None):
    """The canonical answer: all distances, stably sorted."""
    rows = np.arange(len(xb)) if rows is None else rows
    D = hamming(xq, xb[rows])
    order = np.argsort(D, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(D, order, 1), rows[order]


def assert_same(got, wanted):
    assert got[0].dtype == np.int32
    assert got[1].dtype == np.int64
    assert np.array_equal(got[0], wanted[0])
    assert np.array_equal(got[1], wanted[1])
