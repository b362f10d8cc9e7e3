"""Re-rank stage: candidates ordered by the Euclidean distance of the real-valued hash-layer values."""

from __future__ import annotations

import faiss
import numpy as np


def squared_distances(xq, xb, candidates):
    """Squared Euclidean distances to chosen rows, bit-identical to faiss `IndexFlatL2` over them.

    xq (nq, d) float32, xb (nb, d) float32, a memory map will do, candidates (nq, c) int64 -> (nq, c) float32.
    Paper, formula (8), before the root.
    """
    xq = np.ascontiguousarray(xq, np.float32)
    candidates = np.ascontiguousarray(candidates, np.int64)
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    if D.size:
        pointers = [faiss.swig_ptr(array) for array in (D, xq, xb, candidates)]
        faiss.fvec_L2sqr_by_idx(*pointers, xq.shape[1], nq, c)
    return D


def rerank(xq, xb, candidates):
    """Order candidates by Euclidean distance, equal ones as they came: -> (D float32, order), both (nq, c).

    ``D`` is the Euclidean distance in the new order; ``order`` the columns of ``candidates`` in it. Arguments as in
    `squared_distances`.
    """
    D = squared_distances(xq, xb, candidates)
    order = np.argsort(D, axis=1, kind="stable")
    return np.sqrt(np.take_along_axis(D, order, axis=1)), order
