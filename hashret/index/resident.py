"""An index that a GPU holds: codes, items and hash outputs stay on the card, and only the answers leave it.

The nearest codes are found by faiss, which reads and writes torch's memory (`.torch_nearest`). Their items and the
re-rank are torch's work.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bits import LEAST, Codes, Distances, Positions, pad, padded_width
from ..errors import warn_once
from ..vectors import Vectors
from .distinct import as_keys
from .folder import Index
from .hamming import has_compiled
from .keys import POSITION_BITS, make_keys, split_keys
from .rerank import CHOICES
from .torch_nearest import GPU_MAX_K, DeviceCodes, SegmentOnDevice, fill

# Up to so many queries the compiled scan answers sooner than a GPU: on an H200 with 16 cores, one query takes a GPU 20
# to 200 times as long, and 32 queries 3 to 20 times (benchmarks/results/gpu).
FEW_QUERIES = 32
_SPARE = 2**32  # bytes of a card that a search may take, which the limits here and in `.torch_nearest` are for
_NUMBERS_AT_ONCE = 2**27  # of the candidates' hash outputs


class Resident(Index):
    """An opened index on a torch device, as it was when it was opened.

    One GPU holds it; several take a process each. The same code runs on "cpu", where faiss is `IndexBinaryFlat`.

    Positions and Hamming distances are equal to those of `hashret.index.Index`. Euclidean distances are summed in
    another order, so they are equal up to rounding, and so is the order by them.

    The index is searched by the CPU until that has taken about as long as copying it onto the card would. The CPU also
    answers small batches, searches among some photographs, re-ranks by anything but hash outputs and directions or by
    hash outputs that do not fit onto the card, and queries for which faiss would have to select more than 2,048 codes.

    Args:
        index: a `hashret.index.Index`.
        device: of torch.
        few_queries: batches up to this size are answered by the CPU, where the compiled scan is installed.

    Attributes:
        outputs_on_device: float32 (n, bits); None before the index is on the device, or where it keeps no hash outputs
            or these do not fit.
    """

    def __init__(self, index: Index, device: str | torch.device = "cuda", few_queries: int = FEW_QUERIES) -> None:
        super().__init__(index.meta, index.segments, index.folder, index.verified)
        self._background = index._background
        self.device = torch.device(device)
        if self.device == torch.device("cuda"):
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._few_queries = few_queries if has_compiled() else 0
        # Rule of thumb: comparing two codes on the CPU takes as long as copying one byte of hash outputs to the GPU.
        self._comparisons_until_load = 4 * self.bits * self.offsets[-1]
        self._segments_on_device: list[SegmentOnDevice] | None = None
        self.outputs_on_device: Tensor | None = None
        self._lock = Lock()  # faiss lets one thread at a time use a GPU
        self._warned: set[str] = set()

    def warm(self) -> Resident:
        """Load what the first searches would load, on the CPU and on the device."""
        super().warm()
        with self._lock:
            self._load()
        return self

    def nearest(self, codes: Codes, k: int, among: Any = None) -> tuple[Distances, Positions]:
        self.check(codes)
        if among is not None:
            self._say_cpu("a search among some photographs")
            return super().nearest(codes, k, among)
        if k < 1 or not len(self) or not self._pays(len(codes), len(codes) * self.codes_compared):
            return super().nearest(codes, k)
        k = min(k, len(self))
        padded = pad(codes, padded_width(self.bits))
        _, first, inverse = np.unique(as_keys(padded), return_index=True, return_inverse=True)
        D, positions = np.empty((len(first), k), np.int32), np.empty((len(first), k), np.int64)
        unresolved = []
        step = max(1, _NUMBERS_AT_ONCE // k)
        with self._lock, torch.inference_mode():
            for start in range(0, len(first), step):
                block = slice(start, start + step)
                xq = torch.from_numpy(padded[first[block]]).to(self.device)
                distances, nearest, cut_off = self._nearest_on_device(xq, k)
                D[block], positions[block] = distances.to(torch.int32).cpu().numpy(), nearest.cpu().numpy()
                unresolved.append(cut_off.cpu().numpy() + start)
        again = np.unique(np.concatenate(unresolved))
        if len(again):
            answers = f"the CPU answers queries that take more than the GPU's {GPU_MAX_K} nearest codes"
            warn_once(self._warned, answers)
            D[again], positions[again] = super().nearest(codes[first[again]], k)
        return D[inverse], positions[inverse]

    def _nearest_on_device(self, xq: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Find the k nearest: padded uint8 (nq, w) -> distances and positions int64 (nq, k), and queries unresolved."""
        assert self._segments_on_device is not None
        nearest = [segment.nearest(xq, k) for segment in self._segments_on_device]
        D, positions, unresolved = (torch.cat(columns, -1) for columns in zip(*nearest, strict=True))
        if len(nearest) > 1:
            D, positions = split_keys(make_keys(D, positions, POSITION_BITS).sort(1)[0][:, :k], POSITION_BITS)
        return D, positions, unresolved

    def reranked(
        self, queries: Vectors, positions: Positions, rerank_by: str = "values"
    ) -> tuple[NDArray[np.float32], Positions]:
        pays = positions.size and self._pays(len(queries), 0)
        if not pays or rerank_by not in ("values", "directions") or self.outputs_on_device is None:
            if pays and self.has_hash_outputs and rerank_by in CHOICES:
                known = "values that are not on the GPU" if rerank_by in ("values", "directions") else rerank_by
                self._say_cpu(f"a re-rank by {known}")
            return super().reranked(queries, positions, rerank_by)
        euclidean, order = np.empty(positions.shape, np.float32), np.empty(positions.shape, np.int64)
        step = max(1, _NUMBERS_AT_ONCE // (positions.shape[1] * self.bits))
        with self._lock, torch.inference_mode():
            for start in range(0, len(queries), step):
                block = slice(start, start + step)
                xq = torch.from_numpy(np.asarray(queries[block], np.float32)).to(self.device)
                chosen = torch.from_numpy(np.ascontiguousarray(positions[block])).to(self.device)
                distances, columns = _by_distance(_squared(xq, self.outputs_on_device[chosen], rerank_by))
                euclidean[block], order[block] = distances.cpu().numpy(), columns.cpu().numpy()
        return euclidean, order

    def _say_cpu(self, what: str) -> None:
        """Warn once that the CPU does something, where the device could be expected to."""
        if self._segments_on_device is not None:
            warn_once(self._warned, f"{what} is done by the CPU")

    def _pays(self, queries: int, comparisons: int) -> bool:
        """Whether the device is to answer some queries, after so many comparisons of codes; load the index if so."""
        if queries <= self._few_queries:
            return False
        with self._lock:
            self._comparisons_until_load -= comparisons
            if self._segments_on_device is None and self._comparisons_until_load <= 0:
                self._load()
        return self._segments_on_device is not None

    def _load(self) -> None:
        """Copy the index onto the device."""
        if self._segments_on_device is not None:
            return
        resources = faiss.StandardGpuResources() if self.device.type == "cuda" else None
        tables = [
            segment.stage.table.subset(segment.alive)[0] if len(segment.removed) else segment.stage.table
            for segment in self.segments
        ]
        codes = [DeviceCodes(table.codes, self.device, resources) for table in tables]
        columns = zip(codes, tables, self.offsets, strict=False)
        segments = [SegmentOnDevice(code, table, offset, self.device) for code, table, offset in columns]
        if self.has_hash_outputs and 4 * self.bits * self.offsets[-1] <= _free(self.device):
            outputs = torch.empty(self.offsets[-1], self.bits, device=self.device)
            for segment, offset in zip(self.segments, self.offsets, strict=False):
                assert segment.hash_outputs is not None
                fill(outputs[offset : offset + len(segment)], segment.hash_outputs)
            self.outputs_on_device = outputs
        self._segments_on_device = segments


def _squared(xq: Tensor, xb: Tensor, rerank_by: str) -> Tensor:
    """Return squared distances of queries (nq, bits) to their candidates (nq, c, bits): paper, formula (8), squared."""
    if rerank_by == "directions":
        xq, xb = _directions(xq), _directions(xb)
    return (xb - xq[:, None]).square_().sum(2)


def _directions(hash_outputs: Tensor) -> Tensor:
    """Return what `hashret.index.rerank.directions` returns, for a tensor."""
    return torch.nn.functional.normalize(hash_outputs.clamp(LEAST, 1 - LEAST).logit(), dim=-1)


def _by_distance(squared: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roots of squared distances (nq, c) in ascending order, equal ones as they came, and their columns."""
    columns = torch.arange(squared.shape[1], device=squared.device)
    bits, order = split_keys(make_keys(squared.view(torch.int32).to(torch.int64), columns).sort(1)[0])
    return bits.to(torch.int32).view(torch.float32).sqrt(), order


def _free(device: torch.device) -> float:
    """Return the bytes of a device that may be filled."""
    return torch.cuda.mem_get_info(device)[0] - _SPARE if device.type == "cuda" else np.inf
