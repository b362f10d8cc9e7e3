import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashret import bits
from hashret.errors import HashretError


@pytest.mark.parametrize("n_bits", [8, 12, 24, 32, 48, 64, 100, 256])
def test_unpack_undoes_pack(n_bits):
    rows = np.random.default_rng(n_bits).random((20, n_bits)) < 0.5
    codes = bits.pack(rows)
    assert codes.shape == (20, -(-n_bits // 8))
    assert np.array_equal(bits.unpack(codes, n_bits), rows)


@given(st.integers(8, 256), st.integers(0, 2**32 - 1))
def test_hamming_is_the_count_of_different_bits_padded_or_not(n_bits, seed):
    rows = np.random.default_rng(seed).random((6, n_bits)) < 0.5
    codes = bits.pack(rows)
    wanted = (rows[:, None] != rows[None]).sum(axis=2)
    padded = bits.pad(codes, bits.padded_width(n_bits))
    assert np.array_equal(bits.hamming(codes, codes), wanted)
    assert np.array_equal(bits.hamming(padded, padded), wanted)


@pytest.mark.parametrize(
    ("n_bits", "width"), [(8, 4), (12, 4), (24, 4), (32, 4), (33, 8), (48, 8), (64, 8), (65, 16), (256, 32)]
)
def test_padded_width(n_bits, width):
    assert bits.padded_width(n_bits) == width


def test_bit_order_is_fixed():
    assert bits.pack([[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]]).tolist() == [[0b10000000, 0b01000000]]


def test_both_sides_of_one_half():
    half = np.float32(0.5)
    values = np.array([[np.nextafter(half, np.float32(0)), half, np.nextafter(half, np.float32(1)), 0, 1]], np.float32)
    assert bits.binarize(values).tolist() == [[False, True, True, False, True]]


def test_nan_is_refused():
    with pytest.raises(HashretError, match="NaN"):
        bits.binarize(np.array([[0.1, np.nan]]))


@pytest.mark.parametrize("n_bits", [0, 7, 257, -8])
def test_bits_out_of_range(n_bits):
    with pytest.raises(HashretError, match="8 to 256"):
        bits.check_bits(n_bits)


def test_widths_that_do_not_fit():
    codes = np.zeros((2, 6), np.uint8)
    with pytest.raises(HashretError, match="do not fit"):
        bits.pad(codes, 4)
    with pytest.raises(HashretError, match="cannot hold"):
        bits.unpack(codes, 49)
    with pytest.raises(HashretError, match="compared"):
        bits.hamming(codes, np.zeros((2, 8), np.uint8))
