"""Re-rank stage: candidates ordered by Euclidean distance.

The distance is that between hash outputs, as in the paper, or between their directions. A trained hash layer saturates:
distances between saturated outputs mostly compare how confident the encoder is. The norm of the logits encodes
confidence, their direction the content; so "directions" compares logits scaled to unit length.

"features" compares what the hash layer reads, thousands of numbers a photograph, where the index keeps them; where
vectors were encoded, these are what it keeps. "euclidean" is another name of it, and "cosine" compares the same scaled
to unit length, which orders by the cosine c, since the distance is then the root of 2 - 2c.

"asymmetric" compares the query's hash outputs with the candidates' bits, and so needs no outputs stored: Dong et al.,
"Asymmetric distance estimation with sketches for similarity search in high-dimensional spaces", SIGIR 2008; Gordo et
al., "Asymmetric distances for binary embeddings", TPAMI 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bits import HashOutputs, Positions, code_width, logits, unpack
from ..errors import HashretError
from ..vectors import METRICS, Vectors, lengths, unit
from .keys import make_keys, split_keys
from .rows import Rows
from .threads import at_most

CHOICES = ("values", "directions", "asymmetric", "features", *METRICS)  # of the option --rerank-by
OF_FEATURES = ("features", *METRICS)  # which compare the features that an index keeps, not hash outputs
DEFAULT = "directions"  # of photographs: on Corel5k-21 more than "values" with every method (benchmarks/tables.md)
AUTO = "auto"  # stands for the choice that an index is made for, see `hashret.index.database.Database.rerank_choice`
_NUMBERS_AT_ONCE = 2**18  # of features that are converted and compared, which stay in the processor's cache
_CLOSE = np.float32(1e-3)  # squared distance by cosine below which 2 - 2c has lost the digits that order
_NO_DIRECTION = np.float32(4.001)  # squared distance by cosine to a row of zeros, beyond the 4 of opposite directions
_PAIRS_AT_ONCE = 2**18  # of queries and candidates, each of some 100 numbers
_BITS_OF_BYTE = unpack(np.arange(256, dtype=np.uint8)[:, None], 8).astype(np.float32)
_ONES_AND_ZEROS = np.hstack([_BITS_OF_BYTE, 1 - _BITS_OF_BYTE])  # (256, 16)


def check_rerank_by(rerank_by: str) -> str:
    """Return ``rerank_by``, or raise HashretError unless it is one of `CHOICES`."""
    if rerank_by not in CHOICES:
        raise HashretError(f"the re-rank compares {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, not {rerank_by}")
    return rerank_by


def directions(hash_outputs: ArrayLike) -> Vectors:
    """Return the logits of hash outputs, scaled to unit length: (n, bits) in [0, 1] -> float32 (n, bits)."""
    known = logits(hash_outputs)
    length = np.linalg.norm(known, axis=-1, keepdims=True)
    unit: Vectors = np.divide(known, length, out=np.zeros_like(known), where=length > 0)
    return unit


def squared_distances(xq: Vectors, xb: Vectors, candidates: Positions) -> Vectors:
    """Return squared Euclidean distances to chosen rows, bit-identical to faiss `IndexFlatL2` over them.

    Args:
        xq: float32 (nq, d).
        xb: float32 (nb, d); a memory map will do.
        candidates: int64 (nq, c), rows of ``xb``.

    Returns:
        float32 (nq, c), inf for candidates below 0. Paper, formula (8), before the root.

    Raises:
        HashretError: vectors of different lengths, or a candidate that xb has no row for.
    """
    return _by_idx(faiss.fvec_L2sqr_by_idx, xq, xb, candidates)


def _by_idx(compare: Callable[..., None], xq: Vectors, xb: Vectors, candidates: Positions) -> Vectors:
    """Return what a function of faiss makes of each query and its chosen rows: float32 (nq, c)."""
    xq = np.ascontiguousarray(xq, np.float32)
    candidates = np.ascontiguousarray(candidates, np.int64)
    _check_comparable(xq, xb, candidates)
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    if D.size:
        pointers = [faiss.swig_ptr(array) for array in (D, xq, xb, candidates)]
        with at_most(nq):
            compare(*pointers, xq.shape[1], nq, c)
    return D


def _check_comparable(xq: Vectors, xb: Rows, candidates: Positions) -> None:
    """Raise HashretError for vectors of different lengths, or a candidate beyond the last row."""
    if xq.shape[1:] != xb.shape[1:]:
        raise HashretError(f"{xq.shape[1]} values of a query cannot be compared with {xb.shape[1]} of the index")
    if candidates.size and candidates.max() >= len(xb):  # faiss would read beyond the end
        raise HashretError(f"there is no photograph {candidates.max()} to compare with; is the index damaged?")


def squared_direction_distances(xq: HashOutputs, xb: HashOutputs, candidates: Positions) -> Vectors:
    """Return the same between `directions`: those of the candidates alone are computed."""
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    step = max(1, _PAIRS_AT_ONCE // max(1, c))
    for start in range(0, nq, step):
        block = slice(start, min(start + step, nq))
        difference = directions(np.asarray(xb)[np.maximum(candidates[block], 0)]) - directions(xq[block])[:, None]
        D[block] = np.einsum("qcd,qcd->qc", difference, difference)
    D[candidates < 0] = np.inf
    return D


def squared_asymmetric_distances(xq: HashOutputs, codes: Rows, candidates: Positions) -> Vectors:
    """Return squared Euclidean distances from hash outputs to the bits of chosen codes, looked up a byte at a time.

    Args:
        xq: float32 (nq, bits) in [0, 1].
        codes: packed uint8 (nb, w), zero-padded or not.
        candidates: int64 (nq, c), rows of ``codes``.

    Returns:
        float32 (nq, c), inf for candidates below 0.
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


def squared_feature_distances(xq: Vectors, xb: Rows, candidates: Positions, metric: str = "euclidean") -> Vectors:
    """Return the same between features of any of `hashret.vectors.STORED_TYPES`, computed in float32.

    By cosine, what is all zeros is farther from any query than all else.

    Args:
        xq: float32 (nq, d).
        xb: (nb, d); a memory map will do, and of float32 no copy is made.
        candidates: int64 (nq, c), rows of ``xb``.
        metric: one of `hashret.vectors.METRICS`.
    """
    distances = squared_distances if metric == "euclidean" else _squared_cosine_distances
    if isinstance(xb, np.ndarray) and xb.dtype == np.float32:
        return distances(xq, xb, candidates)
    _check_comparable(xq, xb, candidates)
    nq, c = candidates.shape
    D = np.empty((nq, c), np.float32)
    step = max(1, _NUMBERS_AT_ONCE // max(1, c * xq.shape[1]))
    for start in range(0, nq, step):
        rows = candidates[start : start + step]
        block = _as_float32(xb[np.maximum(rows, 0).ravel()])
        numbers = np.where(rows < 0, -1, np.arange(rows.size).reshape(rows.shape))
        D[start : start + step] = distances(xq[start : start + step], block, numbers)
    return D


def _as_float32(rows: NDArray[Any]) -> Vectors:
    """Return rows of any of `hashret.vectors.STORED_TYPES` as float32: torch converts float16 six times as fast."""
    if rows.dtype != np.float16:
        return np.ascontiguousarray(rows, np.float32)
    import torch

    widened: Vectors = torch.from_numpy(rows).float().numpy()
    return widened


def _squared_cosine_distances(xq: Vectors, xb: Vectors, candidates: Positions) -> Vectors:
    """Return the squared distances between what `hashret.vectors.unit` makes of both sides, of xb without a copy.

    They are 2 - 2c of the cosine c, but of what is close, where that leaves nothing but its rounding, differences.
    """
    asked = unit(xq)
    length = np.sqrt(squared_distances(np.zeros_like(asked), xb, candidates))
    product = _by_idx(faiss.fvec_inner_products_by_idx, asked, xb, candidates)
    # Lengths beyond the range of float32, where also zeros may be small numbers, are computed anew.
    odd = (candidates >= 0) & ~((length > 1e-15) & (length < 1e15))
    if odd.any():
        anew = unit(xb[candidates[odd]])
        product[odd], length[odd] = np.einsum("nd,nd->n", anew, asked[np.nonzero(odd)[0]]), 1
    with np.errstate(invalid="ignore"):  # of candidates below 0
        D = np.maximum(1 + lengths(asked)[:, None].astype(np.float32) ** 2 - 2 * product / length, 0)
    D[candidates < 0] = np.inf
    if odd.any():
        D[odd] = np.where(anew.any(axis=1), D[odd], _NO_DIRECTION)
    queries, columns = np.nonzero(D < _CLOSE)
    step = max(1, _NUMBERS_AT_ONCE // xq.shape[1])
    for start in range(0, len(queries), step):
        query, column = queries[start : start + step], columns[start : start + step]
        difference = unit(xb[candidates[query, column]]) - asked[query]
        D[query, column] = np.einsum("nd,nd->n", difference, difference)
    return D


_DISTANCES: dict[str, Callable[[Vectors, Any, Positions], Vectors]] = {
    "values": squared_distances,
    "directions": squared_direction_distances,
    "asymmetric": squared_asymmetric_distances,
    "features": squared_feature_distances,
    "euclidean": squared_feature_distances,
    "cosine": partial(squared_feature_distances, metric="cosine"),
}


def squared(xq: Vectors, xb: Rows, candidates: Positions, rerank_by: str = "values") -> Vectors:
    """Return squared distances by one of `CHOICES`: float32 (nq, c), inf for a candidate -1; arguments of `rerank`."""
    return _DISTANCES[check_rerank_by(rerank_by)](xq, xb, candidates)


def by_distance(squared: Vectors) -> tuple[Vectors, Positions]:
    """Return the roots of squared distances (nq, c) in ascending order, equal ones as they came, and their columns."""
    # Distances are not negative, so their bits sort as they do.
    keys = make_keys(squared.view(np.uint32).astype(np.uint64), np.arange(squared.shape[1], dtype=np.uint64))
    keys.sort(axis=1)
    bits, columns = split_keys(keys)
    return np.sqrt(bits.astype(np.uint32).view(np.float32)), columns.astype(np.int64)


def rerank(xq: Vectors, xb: Rows, candidates: Positions, rerank_by: str = "values") -> tuple[Vectors, Positions]:
    """Order candidates by Euclidean distance, equal ones as they came.

    Args:
        xq, candidates: as of `squared_distances`.
        xb: what is compared, (nb, d); for "asymmetric" the packed codes.
        rerank_by: one of `CHOICES`.

    Returns:
        Euclidean distances float32 (nq, c), ascending, and the columns of ``candidates`` in that order, int64 (nq, c).
    """
    return by_distance(squared(xq, xb, candidates, rerank_by))
