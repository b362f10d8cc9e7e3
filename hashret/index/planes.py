"""Codes by bit, for the compiled scan: see `hashret.index.scan` for what they are good for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bits import Codes

WORDS = 16  # of a plane of a block
BLOCK = 64 * WORDS


def bit_planes(codes: Codes) -> NDArray[np.uint64]:
    """Return codes by bit, as the scan reads them: padded or packed uint8 (m, w) -> uint64 (blocks, 8 w, 16).

    Bit ``b`` of word ``j`` of plane ``p`` of block ``n`` is bit p of code 1024 n + 64 j + b; what fills up is zero.
    """
    m, width = codes.shape
    planes = np.zeros((-(-m // BLOCK), 8 * width, WORDS), np.uint64)
    for number in range(len(planes)):
        bits = np.unpackbits(codes[number * BLOCK : (number + 1) * BLOCK], axis=1).T
        words = np.packbits(np.ascontiguousarray(bits), axis=1, bitorder="little")
        planes[number].view(np.uint8)[:, : words.shape[1]] = words
    return planes
