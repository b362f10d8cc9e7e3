"""Re-rank stage: candidates ordered by the Euclidean distance of real-valued features.

The features are the hash-layer values, as in the paper, or their directions: the logits, scaled to unit length.
A trained hash layer saturates, and the nearest values are then those of photographs of which the encoder is as sure
as of the query. The length of the logits says how sure it is, their direction of what.
"""

from __future__ import annotations

import faiss
import numpy as np

from ..errors import HashretError

FEATURES = ("values", "directions")
_LEAST = 1e-7  # float32 tells values from 1 down to here
_PAIRS_AT_ONCE = 2**18


def directions(values):
    """Logits of hash-layer values, scaled to unit length: (n, bits) in [0, 1] -> float32 (n, bits)."""
    values = np.clip(np.asarray(values, np.float32), _LEAST, 1 - _LEAST)
    logits = np.log(values) - np.log1p(-values)
    length = np.linalg.norm(logits, axis=-1, keepdims=True)
    return np.divide(logits, length, out=np.zeros_like(logits), where=length > 0)


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


def squared_direction_distances(xq, xb, candidates):
    """The same between `directions`: those of the candidates alone are computed."""
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    step = max(1, _PAIRS_AT_ONCE // max(1, c))
    for start in range(0, nq, step):
        some = slice(start, min(start + step, nq))
        difference = directions(np.asarray(xb)[candidates[some]]) - directions(xq[some])[:, None]
        D[some] = np.einsum("qcd,qcd->qc", difference, difference)
    return D


def rerank(xq, xb, candidates, features="values"):
    """Order candidates by Euclidean distance, equal ones as they came: -> (D float32, order), both (nq, c).

    ``D`` is the Euclidean distance in the new order; ``order`` the columns of ``candidates`` in it. Arguments as in
    `squared_distances`; ``features``: one of `FEATURES`.
    """
    if features not in FEATURES:
        raise HashretError(f"the re-rank compares {' or '.join(FEATURES)}, not {features}")
    D = (squared_distances if features == "values" else squared_direction_distances)(xq, xb, candidates)
    order = np.argsort(D, axis=1, kind="stable")
    return np.sqrt(np.take_along_axis(D, order, axis=1)), order
