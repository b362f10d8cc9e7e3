"""Nearest codes and their items on a torch device, for an index that a GPU holds.

`Flat` finds the nearest codes. A GPU orders codes at one distance as it likes and cuts them off anywhere, so only those
nearer than the last are sure to be all there; `Part` asks for more until these hold the answer.
"""

from __future__ import annotations

import faiss
import numpy as np
import torch

from .hamming import GPU_MAX_K

_PAIRS_AT_ONCE = 2**25  # of queries with codes, or with items
_ROWS_AT_ONCE = 2**20  # copied to the device
LOW = 2**32 - 1  # of a key whose upper half is a distance


class Part:
    """The codes and items of a segment on a device.

    Args:
        codes: `Flat` over the table's codes.
        table: `hashret.index.distinct.CodeTable`.
        offset: the first row of the segment in the index.
    """

    def __init__(self, codes, table, offset, device):
        self.codes, self.table, self.offset = codes, table, offset
        table.check()  # torch on a GPU does not look where it reads
        self.starts = put(table.starts, device) if table.grouped else None
        self.items = put(table.items, device) if table.grouped else None

    def nearest(self, xq, k):
        """The k nearest items: padded uint8 (nq, w) -> D, rows int64 (nq, min(k, count)), and queries left undone."""
        count, m, most = self.table.count, len(self.table.codes), self.codes.most
        k = min(k, count)
        D, I = xq.new_zeros((2, len(xq), k), dtype=torch.int64)
        todo = torch.arange(len(xq), device=xq.device)
        if not k:
            return D, I, todo[:0]
        if most < m and k * m >= most * count:  # k items are more than so many codes have
            return D, I, todo
        share = self.table.share(k)
        while len(todo):
            share, left = min(share, most), []
            for some in todo.split(max(1, _PAIRS_AT_ONCE // share)):
                found, rows = _in_order(*self.codes.search(xq[some], share))
                done = torch.ones_like(some, dtype=torch.bool)
                if share < m:  # the last distance may go on beyond what was found
                    done = torch.where(found < found[:, -1:], self._sizes(rows), 0).sum(1) >= k
                D[some[done]], I[some[done]] = self._expand(found[done], rows[done], k)
                left.append(some[~done])
            todo = torch.cat(left)
            if share == most:
                break
            share *= 4
        return D, I + self.offset, todo

    def _sizes(self, rows):
        """How many items each of some codes has."""
        return torch.ones_like(rows) if self.items is None else self.starts[rows + 1] - self.starts[rows]

    def _expand(self, D, rows, k):
        """Nearest codes -> nearest items, as `hashret.index.distinct.expand` does it: -> D, I int64 (nq, k)."""
        if self.items is None:
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
            stop = max(start + 1, int(np.searchsorted(ends, limit, "right")))
            some = slice(start, stop)
            keys.append(self._first_items(D[some], rows[some], sizes[some], k))
            start = stop
        keys = torch.cat(keys)
        return keys >> 32 & 0x1FF, keys & LOW

    def _first_items(self, D, rows, sizes, k):
        """All items of the codes of some queries in one sort: -> distance and item of the first k of each, packed."""
        totals, sizes = sizes.sum(1), sizes.ravel()
        ends = totals.cumsum(0)
        place = torch.arange(int(ends[-1]), device=D.device)
        code = torch.arange(len(sizes), device=D.device).repeat_interleave(sizes, output_size=len(place))
        query = code // D.shape[1]
        item = self.items[(self.starts[rows.ravel()] - (sizes.cumsum(0) - sizes))[code] + place]
        keys = (query << 41 | D.ravel()[code] << 32 | item).sort()[0]
        return keys[(ends - totals)[:, None] + place[:k]]


class Flat:
    """Nearest codes by faiss: GpuIndexBinaryFlat, or IndexBinaryFlat where the device is "cpu"."""

    def __init__(self, codes, device, resources):
        self.resources, self.most, bits = resources, len(codes), 8 * codes.shape[1]
        if resources is None:
            self.flat = faiss.IndexBinaryFlat(bits)
        else:
            config = faiss.GpuIndexBinaryFlatConfig()
            config.device = device.index
            self.flat = faiss.GpuIndexBinaryFlat(resources, bits, config)
            self.most = min(self.most, GPU_MAX_K)
        self.flat.add(codes)

    def search(self, xq, k):
        """The k nearest codes: padded uint8 (nq, w) -> distances int32, rows int64 (nq, k), on the device."""
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


def _in_order(D, rows):
    """Codes by (distance, row), each query's."""
    keys = (D.to(torch.int64) << 32 | rows).sort(1)[0]
    return keys >> 32, keys & LOW


def put(array, device):
    """An array, or a memory map, on a device."""
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return fill(torch.empty(array.shape, dtype=kind, device=device), array)


def fill(tensor, array):
    """Copy an array to a tensor of its shape, a block at a time: -> the tensor."""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        tensor[some] = torch.from_numpy(np.array(array[some]))
    return tensor
