"""Hamming stage: exact nearest codes, over distinct codes where they repeat.

Every answer is that of faiss `IndexBinaryFlat` on all codes, in the order of (distance, item). Three engines give it:
the compiled scan (`hashret.index.scan`) where numba is installed, faiss on the CPU, and faiss on GPUs. A GPU returns
codes at one distance in any order and cuts them off anywhere: only those nearer than the last are sure to be all there.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import faiss
import numpy as np

from ..bits import code_width, pad, padded_width
from ..errors import HashretError, warn_once
from ..files import default_cache, is_private, is_writable, temporary_cache
from .distinct import as_keys, expand, expand_one, group, in_order
from .rows import ItemCodes
from .threads import at_most

GPU_MAX_K = 2048  # a limit of faiss's GPU selection
ENGINES = ("auto", "compiled", "faiss")
_PAIRS_TO_LOAD = 2**28  # comparisons that take faiss as long as it takes to load the compiled scan
_PAIRS_TO_COMPILE = 2**33  # and to compile it
_CODES_TO_COMPILE = 2**16
_PYCACHE = Path(__file__).with_name("__pycache__")


class HammingStage:
    """Nearest codes by Hamming distance, ties in the order of items.

    Args:
        table: a `CodeTable` of codes padded to `padded_width(bits)` bytes.
        bits: length of the codes.
        device: "auto" for GPUs where there are any, "cpu" or "cuda".
        engine: on the CPU, "compiled", "faiss", or "auto": compiled where numba is installed and there is enough
            to search.
        flat: a faiss IndexBinaryFlat over the table's codes; None to make one when it is needed.
        planes: the codes' `hashret.index.planes.bit_planes`; None to make them when they are needed.
    """

    def __init__(self, table, bits, device="auto", engine="auto", flat=None, planes=None):
        if engine not in ENGINES:
            raise HashretError(f"the engine is {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, not {engine}")
        if engine == "compiled" and not has_compiled():
            raise HashretError("the compiled scan needs numba: pip install 'hashret[fast]', or take the engine faiss")
        self.table, self.bits, self.engine = table, bits, engine
        self._flat, self._planes, self._scan = flat, planes, None
        self._unpaid = None
        self.gpu = _to_gpus(self.flat) if _wants_gpu(device) else None
        self._gpu_lock, self._said = Lock(), set()  # faiss lets one thread at a time use a GPU

    @classmethod
    def from_codes(cls, codes, bits, device="cpu", engine="auto", grouped=None):
        """A stage over packed codes uint8 (n, w); ``grouped``: whether by distinct codes, None to choose."""
        return cls(group(pad(codes, padded_width(bits)), grouped), bits, device, engine)

    def __len__(self):
        return self.table.count

    @property
    def flat(self):
        """The codes of the table as faiss `IndexBinaryFlat`."""
        if self._flat is None:
            self._flat = faiss.IndexBinaryFlat(8 * padded_width(self.bits))
            self._flat.add(self.table.codes)
        return self._flat

    def codes(self):
        """The padded code of each item, uint8 (n, padded width): an array, or what gives the rows asked for."""
        return ItemCodes(self.table) if self.table.grouped else self.table.codes

    def subset(self, mask):
        """A stage of the items of a mask, bool (n,), which keep their numbers; always on the CPU."""
        if self.gpu is not None:
            warn_once(
                self._said, "searches that leave photographs out run on the CPU; hashret compact drops removed ones"
            )
        return HammingStage(self.table.subset(mask), self.bits, "cpu", self.engine)

    def search(self, xq, k):
        """The k nearest items: xq packed uint8 (nq, w) -> D int32, I int64 (nq, min(k, count)), nearest first."""
        if k < 1:
            raise HashretError(f"k must be at least 1, not {k}")
        k = min(k, len(self))
        if k == 0 or not len(xq):
            return np.zeros((len(xq), k), np.int32), np.zeros((len(xq), k), np.int64)
        if len(xq) > 1:
            padded = pad(xq, padded_width(self.bits))
            _, first, inverse = np.unique(as_keys(padded), return_index=True, return_inverse=True)
            if len(first) < len(xq):
                D, I = self._search(xq[first], k)
                return D[inverse], I[inverse]
        return self._search(xq, k)

    def _search(self, xq, k):
        return self._on_cpu(xq, k) if self.gpu is None else self._on_gpu(xq, k)

    def _on_cpu(self, xq, k):
        if self._compiled(len(xq)):
            return self._scan.search(xq, k, faiss.omp_get_max_threads())
        xq = pad(xq, padded_width(self.bits))
        if not self.table.grouped:
            return self._ask(xq, k)
        most, share = min(k, len(self.table.codes)), self.table.share(k)  # k codes, cut off by row, are enough
        while len(xq) == 1:
            share = min(share, most)
            found, rows = self._ask(xq, share)
            answer = expand_one(found[0], rows[0], self.table, k)
            if answer:
                return answer[0][None], answer[1][None]
            share *= 4
        return self._by_codes(self._ask, xq, k, most, most)[:2]

    def _on_gpu(self, xq, k):
        """On GPUs; the CPU answers what takes more codes than they select."""
        codes, left = len(self.table.codes), slice(None)
        D, I = np.empty((len(xq), k), np.int32), np.empty((len(xq), k), np.int64)
        if codes <= GPU_MAX_K or k * codes < GPU_MAX_K * len(self):  # else k items are more than so many codes have
            padded = pad(xq, padded_width(self.bits))
            D, I, left = self._by_codes(self._ask_gpu, padded, k, min(codes, GPU_MAX_K), codes)
        if len(xq[left]):
            warn_once(self._said, f"the CPU answers queries that take more than the GPU's {GPU_MAX_K} nearest codes")
            D[left], I[left] = self._on_cpu(xq[left], k)
        return D, I

    def _by_codes(self, ask, xq, k, most, enough):
        """The k nearest items of ever more of the nearest codes: -> D, I, and the queries that ``most`` left undone.

        ``ask`` gives a number of codes by (distance, row), where others at the last distance may have been cut off;
        ``enough`` of them hold the answer in any case.
        """
        D, I = np.empty((len(xq), k), np.int32), np.empty((len(xq), k), np.int64)
        share, todo = self.table.share(k), np.arange(len(xq))
        while len(todo):
            share = min(share, most)
            found, rows = ask(xq[todo], share)
            done = np.ones(len(todo), bool)
            if share < enough:
                done = np.where(found < found[:, -1:], self.table.sizes(rows), 0).sum(axis=1) >= k
            D[todo[done]], I[todo[done]] = expand(found[done], rows[done], self.table, k)
            todo = todo[~done]
            if share == most:
                break
            share *= 4
        return D, I, todo

    def within(self, xq, radius):
        """All items within a radius in bits: yields (query, D int32, I int64) by (distance, item), a query at a time.

        Raises:
            HashretError: a negative radius.
        """
        if radius < 0:
            raise HashretError(f"the radius is a number of bits, not {radius}")
        xq = pad(xq, padded_width(self.bits))
        for query in range(len(xq) if len(self) else 0):
            _, found, rows = self.flat.range_search(xq[query : query + 1], radius + 1)  # faiss: less than
            found, items = found.astype(np.int32), rows
            if self.table.grouped:
                sizes = self.table.sizes(rows)
                items = self.table.items_of(rows, sizes).astype(np.int64)
                found = np.repeat(found, sizes)
            order = np.lexsort((items, found))
            yield query, found[order], items[order]

    def warm(self):
        """Load the compiled scan now, rather than when searching has cost as much as loading it."""
        self._unpaid = 0
        if self.gpu is None and self._compiled(0):
            self._scan.search(self.table.codes[:1, : code_width(self.bits)], 1)
        return self

    def _compiled(self, queries):
        """Whether the compiled scan is to answer, loaded when it pays."""
        if self._scan is None and self.engine != "faiss" and len(self) and has_compiled():
            if self.engine == "compiled":
                self._unpaid = 0
            if self._unpaid is None:
                self._unpaid = _PAIRS_TO_LOAD if _is_compiled() else _PAIRS_TO_COMPILE
            self._unpaid -= queries * len(self.table.codes)
            if self.engine == "compiled" and not load_scan():
                raise HashretError("the compiled scan cannot be used here; take the engine faiss")
            if self._unpaid <= 0 and load_scan():
                from .planes import bit_planes

                if self._planes is None:
                    self._planes = bit_planes(np.ascontiguousarray(self.table.codes[:, : code_width(self.bits)]))
                table = self.table
                self._scan = load_scan().Scan(self._planes, len(table.codes), table.starts, table.items, table.end)
        return self._scan is not None

    def _ask(self, xq, k):
        """faiss's answer over the codes of the table."""
        with at_most(len(xq)):
            return self.flat.search(xq, k)

    def _ask_gpu(self, xq, k):
        with self._gpu_lock:
            return in_order(*self.gpu.search(xq, k))


@cache
def has_compiled() -> bool:
    """Whether numba is installed; asked once, as each query would look through the folders of Python otherwise."""
    return find_spec("numba") is not None


def compile_for(codes):
    """Compile the scan where an index of so many codes will want it, so that no query has to wait for that."""
    if codes >= _CODES_TO_COMPILE and load_scan():
        load_scan().compile_scan()


@cache
def load_scan():
    """`hashret.index.scan`, whose compiled code is kept in `_code_folder`.

    Where there is none, or numba does not load, that is said, and it is None: faiss searches then.
    """
    if not has_compiled():
        return None
    folder, reason = _code_folder(), "no folder to keep its code in can be written to; name one with NUMBA_CACHE_DIR"
    try:
        if folder:
            from numba import config

            before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
            try:
                from . import scan
            finally:
                config.CACHE_DIR = before
            return scan
    except (ImportError, RuntimeError) as error:  # of another numpy, of llvmlite, of a system without executable memory
        reason = str(error).splitlines()[0]
    warnings.warn(f"the compiled scan is not used, faiss searches: {reason}", stacklevel=2)
    return None


@cache
def _code_folder():
    """Where compiled code is kept: the first of the usual places that is this user's to write to, and where nobody else
    could have put code; None where there is none.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named and is_writable(named):
        return Path(named)
    if is_writable(_PYCACHE):
        return _PYCACHE
    shared = temporary_cache()  # where others could have made a folder of this name
    for folder in (default_cache(), shared):
        if (folder != shared or is_private(folder)) and is_private(folder / "numba"):
            return folder / "numba"
    return None


def _is_compiled():
    """Whether this machine has compiled the scan as it stands, and so can load it."""
    changed = Path(__file__).with_name("scan.py").stat().st_mtime
    found = _code_folder().glob("**/scan._search-*.nbi") if _code_folder() else ()
    return any(file.stat().st_mtime >= changed for file in found)


def gpus():
    """How many GPUs faiss sees."""
    return getattr(faiss, "get_num_gpus", lambda: 0)()


def _wants_gpu(device):
    if device.startswith("cuda") and not gpus():
        raise HashretError("faiss sees no GPU here; use --device cpu")
    return gpus() > 0 and device != "cpu"


def _to_gpus(flat):
    """The codes on a GPU; on several, a copy on each, which share the queries."""
    # index_cpu_to_gpu refuses binary indexes; the resources must live as long as the index.
    resources = [faiss.StandardGpuResources() for _ in range(gpus())]
    copies = []
    for device, resource in enumerate(resources):
        config = faiss.GpuIndexBinaryFlatConfig()
        config.device = device
        copies.append(faiss.GpuIndexBinaryFlat(resource, flat, config))
    gpu = copies[0]
    if len(copies) > 1:
        gpu = faiss.IndexBinaryReplicas()
        for copy in copies:
            gpu.addIndex(copy)
    gpu.hashret_keep = (resources, copies)
    return gpu
