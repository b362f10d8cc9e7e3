"""Re-rank stage: candidates ordered by the Euclidean distance of real-valued features.

The features are the hash-layer values, as in the paper, or their directions: the logits, scaled to unit length.
A trained hash layer saturates, and the nearest values are then those of photographs of which the encoder is as sure
as of the query. The length of the logits says how sure it is, their direction of what.

Or they are what the hash layer reads, thousands of numbers a photograph, where they were kept.

The asymmetric re-rank compares the query's values with the candidates' bits, and so needs no values stored: Dong et
al., "Asymmetric distance estimation with sketches for similarity search in high-dimensional spaces", SIGIR 2008;
Gordo et al., "Asymmetric distances for binary embeddings", TPAMI 2014.
"""

from __future__ import annotations

import faiss
import numpy as np

from ..bits import code_width, unpack
from ..errors import HashretError
from .threads import at_most

FEATURES = ("values", "directions", "asymmetric", "features")
LEAST = 1e-7  # float32 tells values from 1 down to here
_PAIRS_AT_ONCE = 2**18
_BYTES = unpack(np.arange(256, dtype=np.uint8)[:, None], 8).astype(np.float32)
_ONES_AND_ZEROS = np.hstack([_BYTES, 1 - _BYTES])  # (256, 16)


def directions(values):
    """Logits of hash-layer values, scaled to unit length: (n, bits) in [0, 1] -> float32 (n, bits)."""
    values = np.clip(np.asarray(values, np.float32), LEAST, 1 - LEAST)
    logits = np.log(values) - np.log1p(-values)
    length = np.linalg.norm(logits, axis=-1, keepdims=True)
    return np.divide(logits, length, out=np.zeros_like(logits), where=length > 0)


def squared_distances(xq, xb, candidates):
    """Squared Euclidean distances to chosen rows, bit-identical to faiss `IndexFlatL2` over them.

    xq (nq, d) float32, xb (nb, d) float32, a memory map will do, candidates (nq, c) int64 -> (nq, c) float32, inf for
    candidates below 0. Paper, formula (8), before the root.

    Raises:
        HashretError: values of different lengths, or a candidate that xb has no row for.
    """
    xq = np.ascontiguousarray(xq, np.float32)
    candidates = np.ascontiguousarray(candidates, np.int64)
    nq, c = candidates.shape
    if xq.shape[1:] != xb.shape[1:]:
        raise HashretError(f"{xq.shape[1]} values of a query cannot be compared with {xb.shape[1]} of the index")
    D = np.empty((nq, c), np.float32)
    if D.size:
        if candidates.max() >= len(xb):  # faiss would read beyond the end
            raise HashretError(f"there is no photograph {candidates.max()} to compare with; is the index damaged?")
        pointers = [faiss.swig_ptr(array) for array in (D, xq, xb, candidates)]
        with at_most(nq):
            faiss.fvec_L2sqr_by_idx(*pointers, xq.shape[1], nq, c)
    return D


def squared_direction_distances(xq, xb, candidates):
    """The same between `directions`: those of the candidates alone are computed."""
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    step = max(1, _PAIRS_AT_ONCE // max(1, c))
    for start in range(0, nq, step):
        some = slice(start, min(start + step, nq))
        difference = directions(np.asarray(xb)[np.maximum(candidates[some], 0)]) - directions(xq[some])[:, None]
        D[some] = np.einsum("qcd,qcd->qc", difference, difference)
    D[candidates < 0] = np.inf
    return D


def squared_asymmetric_distances(xq, codes, candidates):
    """Squared Euclidean distances from values to the bits of chosen codes, looked up a byte at a time.

    xq (nq, bits) float32 in [0, 1], codes packed uint8 (nb, w), zero-padded or not, an array or what gives the rows
    asked for, candidates (nq, c) int64 -> (nq, c) float32, inf for candidates below 0.
    """
    nq, bits = xq.shape
    width = code_width(bits)
    if codes.shape[1] < width:
        raise HashretError(f"codes of {codes.shape[1]} bytes cannot hold {bits} bits")
    costs = np.zeros((nq, 2, 8 * width), np.float32)  # of each bit where it is one and where it is zero
    costs[:, 0, :bits] = (1 - xq) ** 2
    costs[:, 1, :bits] = xq**2
    costs = costs.reshape(nq, 2, width, 8).swapaxes(1, 2).reshape(nq, width, 16)
    D, rows = np.empty(candidates.shape, np.float32), np.maximum(candidates, 0)
    for query in range(nq):
        tables = costs[query] @ _ONES_AND_ZEROS.T  # (width, 256)
        chosen = np.asarray(codes[rows[query]])
        D[query] = tables[0][chosen[:, 0]]
        for byte in range(1, width):
            D[query] += tables[byte][chosen[:, byte]]
    D[candidates < 0] = np.inf
    return D


def check_features(features):
    """Return ``features``, or raise HashretError unless it is one of `FEATURES`."""
    if features not in FEATURES:
        raise HashretError(f"the re-rank compares {', '.join(FEATURES[:-1])} or {FEATURES[-1]}, not {features}")
    return features


def squared(xq, xb, candidates, features="values"):
    """Squared distances by one of `FEATURES`: -> float32 (nq, c), inf for a candidate -1; arguments as in `rerank`."""
    return _DISTANCES[check_features(features)](xq, xb, candidates)


def by_distance(squared):
    """Squared distances (nq, c) in ascending order, equal ones as they came: -> their roots, and their columns."""
    # Distances are not negative, so their bits sort as they do: one sort of (distance, column), three times as fast
    # as a stable argsort.
    keys = squared.view(np.uint32).astype(np.uint64) << 32
    keys |= np.arange(squared.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    return np.sqrt((keys >> 32).astype(np.uint32).view(np.float32)), (keys & 0xFFFFFFFF).astype(np.int64)


def rerank(xq, xb, candidates, features="values"):
    """Order candidates by Euclidean distance, equal ones as they came: -> (D float32, order int64), both (nq, c).

    ``D`` is the Euclidean distance in the new order; ``order`` the columns of ``candidates`` in it. Arguments as in
    `squared_distances`; ``features``: one of `FEATURES`, for "asymmetric" ``xb`` is the packed codes.
    """
    return by_distance(squared(xq, xb, candidates, features))


_DISTANCES = dict(
    zip(
        FEATURES,
        (squared_distances, squared_direction_distances, squared_asymmetric_distances, squared_distances),
        strict=True,
    )
)
