"""Hamming stage: exact nearest codes by faiss `IndexBinaryFlat` over zero-padded codes."""

from __future__ import annotations

import warnings

import faiss
import numpy as np

from ..bits import pad, padded_width
from ..errors import HashretError

GPU_MAX_K = 2048  # a limit of faiss's GPU selection


class HammingStage:
    """Nearest codes by Hamming distance, ties in the order of insertion.

    Args:
        flat: a faiss IndexBinaryFlat over codes padded to `padded_width(bits)` bytes.
        bits: length of the codes.
        device: "auto" for a GPU where there is one, "cpu" or "cuda".
    """

    def __init__(self, flat, bits, device="auto"):
        self.flat, self.bits = flat, bits
        self.gpu = _to_gpu(flat) if _wants_gpu(device) else None

    @classmethod
    def empty(cls, bits, device="cpu"):
        """A stage without codes."""
        return cls(faiss.IndexBinaryFlat(8 * padded_width(bits)), bits, device)

    def __len__(self):
        return self.flat.ntotal

    def add(self, codes):
        """Append packed codes uint8 (n, ceil(bits / 8))."""
        self.flat.add(pad(codes, self.flat.code_size))

    def codes(self):
        """All codes as padded, uint8 (n, padded width)."""
        return faiss.vector_to_array(self.flat.xb).reshape(len(self), -1)

    def search(self, xq, k):
        """The k nearest codes: xq packed uint8 (nq, w) -> D int32, I int64 (nq, min(k, count)), nearest first."""
        if k < 1:
            raise HashretError(f"k must be at least 1, not {k}")
        k = min(k, len(self))
        if k == 0:
            return np.zeros((len(xq), 0), np.int32), np.zeros((len(xq), 0), np.int64)
        return self._engine(k).search(pad(xq, self.flat.code_size), k)

    def _engine(self, k):
        if self.gpu is None:
            return self.flat
        if k > GPU_MAX_K:
            warnings.warn(f"k = {k} is above the GPU's {GPU_MAX_K}: searching on the CPU", stacklevel=3)
            return self.flat
        return self.gpu


def _wants_gpu(device):
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    if device.startswith("cuda") and not gpus:
        raise HashretError("faiss sees no GPU here; use --device cpu")
    return gpus > 0 and device != "cpu"


def _to_gpu(flat):
    # index_cpu_to_gpu refuses binary indexes; the resources must live as long as the index.
    resources = faiss.StandardGpuResources()
    gpu = faiss.GpuIndexBinaryFlat(resources, flat)
    gpu.hashret_resources = resources
    return gpu
