"""Binary codes: from hash outputs to packed bytes, and the distance between codes; and the types of these arrays.

The order of the bits is decided here and nowhere else: bit i of a code is bit ``7 - i % 8`` of byte ``i // 8`` (numpy's
"big" order), and the bits that fill up the last byte are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import is_whole
from .errors import HashretError

MIN_BITS, MAX_BITS = 8, 256
LEAST = 1e-7  # an output this near to 0 or 1 says of its logit only that it is large: float32 ends here
MOST_BITS = 4096  # of codes that others made; the compiled scan and hash layers end at MAX_BITS

Codes = npt.NDArray[np.uint8]  # packed codes (n, code_width(bits))
HashOutputs = npt.NDArray[np.float32]  # what a hash layer gives, (n, bits), each from 0 to 1
Distances = npt.NDArray[np.int32]  # Hamming distances, (queries, k)
Positions = npt.NDArray[np.int64]  # positions in an index, ids or rows of a source, (n,)
Labels = npt.NDArray[np.integer]  # class numbers (n,), -1 for none, or flags (n, classes)


def check_bits(bits: int) -> int:
    """Return ``bits`` as int, or raise HashretError unless it is a whole number and 8 <= bits <= 256."""
    if not is_whole(bits, MIN_BITS) or bits > MAX_BITS:
        raise HashretError(f"code length must be {MIN_BITS} to {MAX_BITS} bits, not {bits!r}")
    return int(bits)


def check_radius(radius: int) -> int:
    """Return a radius in bits as int, or raise HashretError unless it is a whole number from 0 up."""
    if not is_whole(radius):
        raise HashretError(f"the radius is a number of bits, not {radius!r}")
    return int(radius)


def lengths_of(meta: Mapping[str, Any]) -> list[int]:
    """Return the lengths of code that an encoder was trained for, ascending.

    The first bits of a code are a code, too, where several lengths were trained.

    Args:
        meta: what a checkpoint, shards or an index say of the encoder.
    """
    return meta.get("lengths") or [meta["bits"]]


def check_length(bits: int, meta: Mapping[str, Any]) -> int:
    """Return ``bits``, or raise HashretError unless that is one of `lengths_of` ``meta``."""
    lengths = lengths_of(meta)
    if bits not in lengths:
        raise HashretError(
            f"the encoder was trained for codes of {' or '.join(map(str, lengths))} bits, not of {bits}",
            hint=f"train another with --bits {','.join(map(str, sorted({*lengths, bits})))}",
        )
    return bits


def binarize(hash_outputs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Threshold hash outputs, (n, bits) from 0 to 1 -> (n, bits) bool: True from 0.5 on. Paper, formula (6).

    Raises:
        HashretError: an output is NaN, which is no zero bit.
    """
    outputs = np.asarray(hash_outputs)
    if np.isnan(outputs).any():
        raise HashretError("the encoder produced values that are not numbers (NaN); train it again with a lower rate")
    above: npt.NDArray[np.bool_] = outputs >= 0.5
    return above


def logits(hash_outputs: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return what a sigmoid made hash outputs of, as far as they say: (n, bits) in [0, 1] -> ``dtype`` (n, bits).

    Outputs nearer than `LEAST` to 0 or 1 are taken as that far from them, so that no logit is infinite. In float32, the
    largest logit is about 16.
    """
    outputs = np.clip(np.asarray(hash_outputs, dtype), LEAST, 1 - LEAST)
    known: npt.NDArray[Any] = np.log(outputs) - np.log1p(-outputs)
    return known


def dithered(hash_outputs: npt.ArrayLike, spread: float) -> npt.NDArray[np.bool_]:
    """Return the bits of photographs that are searched, with thresholds of their own: (n, bits) -> (n, bits) bool.

    Many bits of a trained code say the same of nearly all photographs, and a bit that repeats another adds nothing to a
    distance. With thresholds of their own, they say how sure the encoder is of it, and Hamming distances rank as the
    directions of the logits do. A query keeps the bits that `binarize` gives: what it asks for is what it most likely
    shows, and only of what is ranked does it matter how surely that is there.

    The logits, as far as hash outputs say them, are scaled to a mean square of 1 in each photograph. The thresholds lie
    evenly between -spread and spread, and those of the first bits do so, too, in the order of van der Corput.

    Args:
        hash_outputs: of all bits that were trained: the first bits of the result are those of a shorter code.
        spread: of the thresholds; 0 gives what `binarize` gives.

    Raises:
        HashretError: an output is NaN.

    Source: dithered quantisation; of random projections in Jacques & Cambareri, "Time for dithering", 2017; queries and
    database through different functions: Gordo, Perronnin, Gong & Lazebnik, "Asymmetric distances for binary
    embeddings", PAMI 2014.
    """
    plain = binarize(hash_outputs)
    if not spread:
        return plain
    known = logits(hash_outputs, np.float64)
    scaled = known / np.sqrt(np.mean(known**2, axis=1, keepdims=True) + 1e-12)
    numbers = np.arange(1, plain.shape[1] + 1).tolist()
    above: npt.NDArray[np.bool_] = scaled >= [spread * (2 * _van_der_corput(number) - 1) for number in numbers]
    return above


def _van_der_corput(number: int) -> float:
    """Return the binary digits of a number, mirrored at the point: 1/2, 1/4, 3/4, 1/8, ... for 1, 2, 3, 4, ..."""
    return float(int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length())


def code_width(bits: int) -> int:
    """Return the number of bytes that hold a code of ``bits`` bits."""
    return -(-bits // 8)


def pack(bit_rows: npt.ArrayLike) -> Codes:
    """Pack bits: (n, bits) bool -> (n, code_width(bits)) uint8, zero-filled at the end."""
    return np.packbits(np.asarray(bit_rows, dtype=bool), axis=1)


def unpack(codes: npt.ArrayLike, bits: int) -> npt.NDArray[np.bool_]:
    """Unpack what `pack` has packed: (n, w) uint8 -> (n, bits) bool."""
    codes = np.asarray(codes, dtype=np.uint8)
    if codes.shape[1] < code_width(bits):
        raise HashretError(f"codes of {codes.shape[1]} bytes cannot hold {bits} bits")
    return np.unpackbits(codes, axis=1, count=bits).astype(bool)


def prefix(codes: npt.ArrayLike, bits: int) -> Codes:
    """Return the first bits of packed codes: (n, w) uint8 -> (n, code_width(bits)) uint8."""
    first: Codes = np.array(np.asarray(codes)[:, : code_width(bits)])
    if bits % 8:
        first[:, -1] &= (0xFF << 8 - bits % 8) & 0xFF
    return first


def padded_width(bits: int) -> int:
    """Return the bytes of a code as it is searched: 4 or a multiple of 8, for which faiss has fast kernels."""
    width = code_width(bits)
    return 4 if width <= 4 else -(-width // 8) * 8


def pad(codes: npt.ArrayLike, width: int) -> Codes:
    """Zero-pad packed codes to ``width`` bytes: (n, w) uint8 -> (n, width) uint8. Distances do not change."""
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    if codes.shape[1] > width:
        raise HashretError(f"codes of {codes.shape[1]} bytes do not fit into {width}")
    if codes.shape[1] == width:
        return codes
    padded = np.zeros((len(codes), width), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded


def as_words(codes: Codes) -> npt.NDArray[np.uint64]:
    """View packed codes as 64-bit words for popcounts: (n, w) uint8 -> (n, ceil(w / 8)) uint64."""
    return pad(codes, -(-codes.shape[1] // 8) * 8).view(np.uint64)


def hamming(xq: Codes, xb: Codes) -> npt.NDArray[np.int32]:
    """Return the Hamming distances of packed codes: xq (nq, w), xb (nb, w) -> (nq, nb). Paper, formula (7)."""
    if xq.shape[1] != xb.shape[1]:
        raise HashretError(f"codes of {xq.shape[1]} and {xb.shape[1]} bytes cannot be compared")
    wq, wb = as_words(xq), as_words(xb)
    D = np.zeros((len(wq), len(wb)), np.int32)
    for word in range(wq.shape[1]):
        D += np.bitwise_count(wq[:, word, None] ^ wb[None, :, word])
    return D
