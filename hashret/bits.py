"""Binary codes: from hash-layer values to packed bytes, and the distance between codes.

Bit order lives here and nowhere else: bit i of a code is bit ``7 - i % 8`` of byte ``i // 8`` (numpy's
"big" order); the bits that fill up the last byte are zero.
"""

from __future__ import annotations

import numpy as np

from .errors import HashretError

MIN_BITS, MAX_BITS = 8, 256


def check_bits(bits):
    """Return ``bits`` as int, or raise HashretError unless 8 <= bits <= 256."""
    if not MIN_BITS <= int(bits) <= MAX_BITS:
        raise HashretError(f"code length must be {MIN_BITS} to {MAX_BITS} bits, not {bits}")
    return int(bits)


def binarize(values):
    """Threshold hash-layer values: (n, bits) in (0, 1) -> (n, bits) bool, True where value >= 0.5.

    Paper, formula (6). NaN is an error, not a zero bit.
    """
    values = np.asarray(values)
    if np.isnan(values).any():
        raise HashretError("the encoder produced values that are not numbers (NaN); train it again with a lower rate")
    return values >= 0.5


def code_width(bits):
    """Bytes that hold a code of ``bits`` bits."""
    return -(-bits // 8)


def pack(bit_rows):
    """Pack bits: (n, bits) bool -> (n, code_width(bits)) uint8, zero-filled at the end."""
    return np.packbits(np.asarray(bit_rows, dtype=bool), axis=1)


def unpack(codes, bits):
    """Inverse of `pack`: (n, w) uint8 -> (n, bits) bool."""
    codes = np.asarray(codes, dtype=np.uint8)
    if codes.shape[1] < code_width(bits):
        raise HashretError(f"codes of {codes.shape[1]} bytes cannot hold {bits} bits")
    return np.unpackbits(codes, axis=1, count=bits).astype(bool)


def padded_width(bits):
    """Bytes of a code as searched: 4, 8, then multiples of 8, the widths with fast faiss kernels."""
    width = code_width(bits)
    return 4 if width <= 4 else -(-width // 8) * 8


def pad(codes, width):
    """Zero-pad packed codes to ``width`` bytes: (n, w) uint8 -> (n, width) uint8. Distances do not change."""
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    if codes.shape[1] > width:
        raise HashretError(f"codes of {codes.shape[1]} bytes do not fit into {width}")
    if codes.shape[1] == width:
        return codes
    padded = np.zeros((len(codes), width), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded


def as_words(codes):
    """View packed codes as 64-bit words for popcounts: (n, w) uint8 -> (n, ceil(w / 8)) uint64."""
    return pad(codes, -(-codes.shape[1] // 8) * 8).view(np.uint64)


def hamming(xq, xb):
    """Hamming distances of packed codes: xq (nq, w), xb (nb, w) uint8 -> (nq, nb) int32. Paper, formula (7)."""
    if xq.shape[1] != xb.shape[1]:
        raise HashretError(f"codes of {xq.shape[1]} and {xb.shape[1]} bytes cannot be compared")
    wq, wb = as_words(xq), as_words(xb)
    D = np.zeros((len(wq), len(wb)), np.int32)
    for word in range(wq.shape[1]):
        D += np.bitwise_count(wq[:, word, None] ^ wb[None, :, word])
    return D
