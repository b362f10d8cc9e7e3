"""Nearest codes and their items on a torch device, for an index that a GPU holds.

`DeviceCodes` finds the nearest codes. A GPU orders codes at one distance as it likes and cuts them off anywhere, so
only those nearer than the last are sure to be complete; `SegmentOnDevice` fetches more until these hold the answer.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bits import Codes
from .blocks import ROWS_AT_ONCE
from .distinct import CodeTable
from .keys import MOST_QUERIES, make_keys, make_query_keys, split_keys, split_query_keys

GPU_MAX_K = 2048  # a limit of faiss's GPU selection
_PAIRS_AT_ONCE = 2**25  # of queries with codes, or with items


class SegmentOnDevice:
    """The codes and items of a segment on a device.

    Args:
        codes: `DeviceCodes` over the table's codes.
        table: `hashret.index.distinct.CodeTable`.
        offset: position of the segment's first photograph in the index.
        device: of torch.
    """

    def __init__(self, codes: DeviceCodes, table: CodeTable, offset: int, device: torch.device) -> None:
        self.codes, self.table, self.offset = codes, table, offset
        table.check()  # torch on a GPU does not check where it reads
        self.starts = None if table.starts is None else put(table.starts, device)
        self.items = None if table.items is None else put(table.items, device)

    def nearest(self, xq: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Find the k nearest items: padded uint8 (nq, w).

        Returns:
            Distances and positions int64 (nq, min(k, count)), and the numbers of the queries that would need more
            codes than a GPU selects; their answers mean nothing.
        """
        count, m, most = self.table.count, len(self.table.codes), self.codes.most
        k = min(k, count)
        D, I = xq.new_zeros((2, len(xq), k), dtype=torch.int64)
        unresolved = torch.arange(len(xq), device=xq.device)
        if not k:
            return D, I, unresolved[:0]
        if most < m and k * m >= most * count:  # k items are more than so many codes have
            return D, I, unresolved
        codes_to_fetch = self.table.codes_to_fetch(k)
        while len(unresolved):
            codes_to_fetch, again = min(codes_to_fetch, most), []
            for block in unresolved.split(max(1, _PAIRS_AT_ONCE // codes_to_fetch)):
                distances, rows = _in_order(*self.codes.search(xq[block], codes_to_fetch))
                done = torch.ones_like(block, dtype=torch.bool)
                if codes_to_fetch < m:  # codes at the last distance may have been cut off
                    done = torch.where(distances < distances[:, -1:], self._sizes(rows), 0).sum(1) >= k
                D[block[done]], I[block[done]] = self._expand(distances[done], rows[done], k)
                again.append(block[~done])
            unresolved = torch.cat(again)
            if codes_to_fetch == most:
                break
            codes_to_fetch *= 4
        return D, I + self.offset, unresolved

    def _sizes(self, rows: Tensor) -> Tensor:
        """Return how many items each of some codes has."""
        return torch.ones_like(rows) if self.starts is None else self.starts[rows + 1] - self.starts[rows]

    def _expand(self, D: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Turn nearest codes into nearest items, as `hashret.index.distinct.expand` does: -> D, I int64 (nq, k)."""
        if self.starts is None or self.items is None:
            return D[:, :k], rows[:, :k]
        sizes = self._sizes(rows).clamp(max=k)
        before = sizes.cumsum(1) - sizes
        fresh = torch.ones_like(D, dtype=torch.bool)
        fresh[:, 1:] = D[:, 1:] != D[:, :-1]
        nearer = torch.where(fresh, before, 0).cummax(1)[0]  # items at a smaller distance
        sizes = torch.where(nearer < k, sizes, 0)
        ends, start, keys = sizes.sum(1).cumsum(0).cpu().numpy(), 0, [D.new_empty(0, k)]
        while start < len(D):
            limit = _PAIRS_AT_ONCE + (ends[start - 1] if start else 0)
            stop = max(start + 1, int(np.searchsorted(ends[: start + MOST_QUERIES], limit, "right")))
            block = slice(start, stop)
            keys.append(_first_items(D[block], rows[block], sizes[block], self.starts, self.items, k))
            start = stop
        return split_query_keys(torch.cat(keys))


def _first_items(D: Tensor, rows: Tensor, sizes: Tensor, starts: Tensor, items: Tensor, k: int) -> Tensor:
    """Sort all items of the codes of some queries at once: -> distance and item of the first k of each, packed."""
    totals, sizes = sizes.sum(1), sizes.ravel()
    ends = totals.cumsum(0)
    number = torch.arange(int(ends[-1]), device=D.device)
    code = torch.arange(len(sizes), device=D.device).repeat_interleave(sizes, output_size=len(number))
    query = code // D.shape[1]
    item = items[(starts[rows.ravel()] - (sizes.cumsum(0) - sizes))[code] + number]
    keys: Tensor = make_query_keys(query, D.ravel()[code], item).sort()[0]
    return keys[(ends - totals)[:, None] + number[:k]]


class DeviceCodes:
    """Nearest codes by faiss: GpuIndexBinaryFlat, or IndexBinaryFlat where the device is "cpu".

    Attributes:
        most: codes that a search can select.
    """

    def __init__(self, codes: Codes, device: torch.device, resources: Any) -> None:
        self.resources, self.most, bits = resources, len(codes), 8 * codes.shape[1]
        if resources is None:
            self.flat = faiss.IndexBinaryFlat(bits)
        else:
            config = faiss.GpuIndexBinaryFlatConfig()
            config.device = device.index
            self.flat = faiss.GpuIndexBinaryFlat(resources, bits, config)
            self.most = min(self.most, GPU_MAX_K)
        self.flat.add(codes)

    def search(self, xq: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Find the k nearest codes: padded uint8 (nq, w) -> distances int32, rows int64 (nq, k), on the device."""
        D = torch.empty((len(xq), k), dtype=torch.int32, device=xq.device)
        rows = torch.empty((len(xq), k), dtype=torch.int64, device=xq.device)
        if self.resources is not None:
            stream = faiss.cast_integer_to_cudastream_t(torch.cuda.current_stream(xq.device).cuda_stream)
            self.resources.setDefaultStream(xq.device.index, stream)
        self.flat.search_c(
            len(xq), faiss.cast_integer_to_uint8_ptr(xq.data_ptr()), k,
            faiss.cast_integer_to_int_ptr(D.data_ptr()), faiss.cast_integer_to_idx_t_ptr(rows.data_ptr()),
        )  # fmt: skip
        return D, rows


def _in_order(D: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each query's codes by (distance, row)."""
    return split_keys(make_keys(D.to(torch.int64), rows).sort(1)[0])


def put(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array, or a memory map, to a device."""
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return fill(torch.empty(array.shape, dtype=kind, device=device), array)


def fill(tensor: Tensor, array: NDArray[Any]) -> Tensor:
    """Copy an array to a tensor of its shape, a block at a time, and return the tensor."""
    for start in range(0, len(array), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        tensor[block] = torch.from_numpy(np.array(array[block]))
    return tensor
