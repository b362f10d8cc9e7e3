"""An index that a GPU holds: codes, items and values stay on the card, and only the answers leave it.

The nearest codes are found by faiss, which reads and writes torch's memory (`.torch_nearest`). Their items and the
re-rank are torch's work.
"""

from __future__ import annotations

from threading import Lock

import faiss
import numpy as np
import torch

from ..bits import pad, padded_width
from ..errors import warn_once
from .database import CANDIDATES, Hits, joined, ties_are_cut
from .distinct import as_keys
from .hamming import GPU_MAX_K
from .rerank import LEAST, check_features
from .torch_nearest import LOW, Flat, Part, fill

_SPARE = 2**32  # bytes of a card that a search may take, which the limits here and in `.torch_nearest` are for
_NUMBERS_AT_ONCE = 2**27  # of the candidates' values


class Resident:
    """An opened index on a torch device, as it was when this was made.

    One GPU holds it; several take a process each. The same code runs on "cpu", where faiss is `IndexBinaryFlat`.

    Args:
        index: a `hashret.index.Index` opened for the CPU. It answers what this does not: searches among some
            photographs, re-ranks by other features than values and directions or by values that do not fit onto the
            card, and queries for which faiss would have to select more than 2,048 codes.
        device: of torch.

    Attributes:
        values: float32 (n, bits) on the device; None where the index keeps none, or they do not fit.
    """

    def __init__(self, index, device="cuda"):
        self.index, self.device = index, torch.device(device)
        if self.device == torch.device("cuda"):
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._lock, self._said = Lock(), set()  # faiss lets one thread at a time use a GPU
        tables = [_without_removed(segment) for segment in index.segments]
        keeps_values = all(segment.hash_outputs is not None for segment in index.segments)
        bytes_of_values = 4 * index.bits * index.offsets[-1] if keeps_values else 0
        resources = faiss.StandardGpuResources() if self.device.type == "cuda" else None
        codes = [Flat(table.codes, self.device, resources) for table in tables]
        self.parts = [Part(*each, self.device) for each in zip(codes, tables, index.offsets, strict=False)]
        self.values = None
        if keeps_values and bytes_of_values <= _free(self.device):
            self.values = torch.empty(index.offsets[-1], index.bits, device=self.device)
            for segment, offset in zip(index.segments, index.offsets, strict=False):
                fill(self.values[offset : offset + len(segment)], segment.hash_outputs)

    def search(self, codes, values=None, k=10, candidates=None, rerank_by="values", among=None, features=None):
        """The answer of `hashret.index.Index.search`, whose arguments these are: -> `Hits`.

        Rows and Hamming distances of the first stage are equal to it. Euclidean distances are summed in another order,
        so they are equal up to rounding, and so is the order by them.
        """
        self.index.check(codes, k, 1 if candidates is None else candidates)
        reranks = values is not None
        lacking = None
        if among is not None:
            lacking = "a search among some photographs"
        elif reranks and check_features(rerank_by) not in ("values", "directions"):
            lacking = f"a re-rank by {rerank_by}"
        elif reranks and self.values is None:
            lacking = "a re-rank by values that are not on the GPU"
        if lacking or not len(codes) or not len(self.index):
            hits = self.index.search(codes, values, k, candidates, rerank_by, among, features)
            if lacking:
                warn_once(self._said, f"{lacking} is done by the CPU")
            return hits
        least = min(max(k, CANDIDATES if candidates is None else candidates) if reranks else k, len(self.index))
        step = max(1, _NUMBERS_AT_ONCE // (least * self.index.bits))
        parts = []
        with self._lock, torch.inference_mode():
            for start in range(0, len(codes), step):
                some = slice(start, start + step)
                compared = values[some] if reranks else None
                parts.append(self._search(codes[some], compared, k, candidates, least, rerank_by))
        return joined(parts)

    def _search(self, codes, values, k, candidates, least, rerank_by):
        padded = pad(codes, padded_width(self.index.bits))
        _, first, inverse = np.unique(as_keys(padded), return_index=True, return_inverse=True)
        fetched = least if values is None else min(least + 1, len(self.index))  # one more says whether a tie goes on
        D, rows, left = self._nearest(torch.from_numpy(padded[first]).to(self.device), fetched)
        inverse = torch.from_numpy(inverse).to(self.device)
        D, rows = D[inverse], rows[inverse]
        cut = np.zeros(len(codes), bool)
        if values is None:
            euclidean = D.new_full(D.shape, np.nan, dtype=torch.float32)
        else:
            cut[:] = ties_are_cut(D, k, least).cpu() if fetched > least else False
            D, rows = D[:, :least], rows[:, :least]
            xq = torch.from_numpy(np.asarray(values, np.float32)).to(self.device)
            euclidean, order = _by_distance(_squared(xq, self.values[rows], rerank_by), k)
            D, rows = D.gather(1, order), rows.gather(1, order)
        columns = [tensor.cpu().numpy() for tensor in (rows, D.to(torch.int32), euclidean)]
        hits = Hits(*columns, np.full(len(codes), 0 if values is None else least), cut)
        again = torch.isin(inverse, left).cpu().numpy()
        if again.any():
            warn_once(self._said, f"the CPU answers queries that take more than the GPU's {GPU_MAX_K} nearest codes")
        if candidates is None:
            again |= cut
        if again.any():
            some = None if values is None else values[again]
            hits.put(again, self.index.search(codes[again], some, k, candidates, rerank_by))
        return hits

    def _nearest(self, xq, k):
        """The k nearest items: padded uint8 (nq, w) -> D, rows int64 (nq, k), and the queries that are left undone."""
        found = [part.nearest(xq, k) for part in self.parts]
        D, rows, left = (torch.cat(columns, -1) for columns in zip(*found, strict=True))
        if len(found) > 1:
            keys = (D << 40 | rows).sort(1)[0][:, :k]
            D, rows = keys >> 40, keys & 2**40 - 1
        return D, rows, left


def _squared(xq, xb, rerank_by):
    """Squared distances: xq (nq, bits), its candidates xb (nq, c, bits) -> (nq, c). Paper, formula (8), squared."""
    if rerank_by == "directions":
        xq, xb = _directions(xq), _directions(xb)
    return (xb - xq[:, None]).square_().sum(2)


def _directions(values):
    """See `hashret.index.rerank.directions`."""
    return torch.nn.functional.normalize(values.clamp(LEAST, 1 - LEAST).logit(), dim=-1)


def _by_distance(squared, k):
    """The k least of squared distances (nq, c), equal ones as they came: -> their roots and their columns (nq, k)."""
    keys = squared.view(torch.int32).to(torch.int64) << 32 | torch.arange(squared.shape[1], device=squared.device)
    keys = keys.sort(1)[0][:, :k]
    return (keys >> 32).to(torch.int32).view(torch.float32).sqrt(), keys & LOW


def _without_removed(segment):
    table = segment.stage.table
    return table.subset(segment.alive) if len(segment.removed) else table


def _free(device):
    """Bytes of a device that may be filled."""
    return torch.cuda.mem_get_info(device)[0] - _SPARE if device.type == "cuda" else np.inf
