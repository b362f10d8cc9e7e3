"""Hamming stage: exact nearest codes, over distinct codes where they repeat.

Every answer is that of faiss `IndexBinaryFlat` on all codes, in the order of (distance, item). Three ways lead to it on
the CPU: tables over substrings (`hashret.index.substrings`), which read little of the codes, the compiled scan
(`hashret.index.scan`), which reads all of them, and faiss, where numba is not installed. The first two are chosen for
each query by what they cost. `hashret.index.resident` searches on a GPU.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ..bits import MAX_BITS, Codes, Distances, Positions, check_radius, code_width, pad, padded_width
from ..errors import HashretError
from ..files import default_cache, is_private, is_writable, temporary_cache
from .distinct import CodeTable, as_keys, expand, expand_one
from .rows import ItemCodes, Rows
from .substrings import ANSWER_NS
from .threads import at_most

if TYPE_CHECKING:
    from .multi_index import MultiIndex
    from .scan import Scan
    from .substrings import Tables

BACKENDS = ("auto", "compiled", "faiss")
# Loading the compiled scan takes as long as faiss takes for so many comparisons of codes, and compiling it for so many.
_COMPARISONS_TO_LOAD = 2**28
_COMPARISONS_TO_COMPILE = 2**33
_CODES_TO_COMPILE = 2**16  # of an index for which the scan is compiled when it is built
# Nanoseconds that the scan takes of one core for a bit of a code: to compute, and to wait for memory, which the queries
# of a tile share. Of the machine that those of `hashret.index.substrings` are of; only their ratios matter.
_SCAN_BIT_NS, _SCAN_WAIT_NS, _SCAN_TILE = 0.004, 0.003, 16
_CORRECTION = 1.1  # factor by which an expected time follows a measured one, which something else may have disturbed
_FORGOTTEN = 0.99
_LONGEST_PAUSE = 64  # queries that go to the scan at once, where tables were of no use for the queries before
_PYCACHE = Path(__file__).with_name("__pycache__")


class HammingStage:
    """Nearest codes by Hamming distance, ties in the order of items.

    Args:
        table: a `CodeTable` of codes padded to `padded_width(bits)` bytes.
        bits: length of the codes.
        backend: "compiled", "faiss", or "auto": compiled where numba is installed and there is enough to search.
        flat: a faiss IndexBinaryFlat over the table's codes; None to make one when it is needed.
        planes: the codes' `hashret.index.planes.bit_planes`; None to make them when they are needed.
        tables: over the substrings of the codes, None where there are none.

    Raises:
        HashretError: no such backend, or the compiled scan without numba.
    """

    def __init__(
        self,
        table: CodeTable,
        bits: int,
        backend: str = "auto",
        flat: Any = None,
        planes: NDArray[np.uint64] | None = None,
        tables: Tables | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise HashretError(f"the engine is {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, not {backend}")
        if backend == "compiled" and not has_compiled():
            raise HashretError("the compiled scan needs numba: pip install 'hashret[fast]', or take the engine faiss")
        self.table, self.bits, self.backend = table, bits, "faiss" if bits > MAX_BITS else backend
        self._flat, self._planes, self.tables = flat, planes, tables
        self._multi_index: MultiIndex | None = None  # made of the tables when the compiled code is loaded
        self._pauses: dict[int, int] = {}  # how many queries for about so many answers go to the scan at once,
        self._waiting: dict[int, int] = {}  # and how many of these are still to come
        # Nanoseconds that single queries took for about so many answers: of the scan, and of the tables beyond buckets.
        self._scan_took: dict[int, float] = {}
        self._beyond_buckets: dict[int, float] = {}
        self._scan: Scan | None = None
        self._comparisons_until_load: int | None = None  # None until the first search; see `_compiled`

    def __len__(self) -> int:
        return self.table.count

    @property
    def flat(self) -> Any:
        """The codes of the table as faiss `IndexBinaryFlat`."""
        if self._flat is None:
            self._flat = faiss.IndexBinaryFlat(8 * padded_width(self.bits))
            self._flat.add(self.table.codes)
        return self._flat

    def codes(self) -> Rows:
        """Return the padded code of each item, uint8 (n, padded width): an array, or what gives the rows asked for."""
        return ItemCodes(self.table) if self.table.grouped else self.table.codes

    def subset(self, mask: NDArray[np.bool_]) -> HammingStage:
        """Return a stage of the items of a mask, bool (n,), which keep their numbers."""
        table, rows = self.table.subset(mask)
        tables = None if self.tables is None else self.tables.subset(rows)
        return HammingStage(table, self.bits, self.backend, tables=tables)

    def search(self, xq: Codes, k: int) -> tuple[Distances, Positions]:
        """Find the k nearest items, nearest first: packed uint8 (nq, w) -> D int32, I int64 (nq, min(k, count)).

        Raises:
            HashretError: k below 1, or a table whose files cannot be as they were written.
        """
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

    def _search(self, xq: Codes, k: int) -> tuple[Distances, Positions]:
        scan = self._compiled(len(xq))
        if scan is not None:
            threads = faiss.omp_get_max_threads()
            return self._search_tables(scan, xq, k, threads) if self._multi_index else scan.search(xq, k, threads)
        xq = pad(xq, padded_width(self.bits))
        return self._search_distinct(xq, k) if self.table.grouped else self._ask_faiss(xq, k)

    def _search_tables(self, scan: Scan, xq: Codes, k: int, threads: int) -> tuple[Distances, Positions]:
        """Answer by the tables what costs less so, and by the scan the rest.

        Queries for about as many answers as those for which the tables were of no use go to the scan at once, up to
        64 in a row, so that hardly any time is lost where codes are long or lie far from the queries. What a single
        query took corrects what is expected of the next: how much an answer costs depends on how codes are distributed.
        """
        assert self._multi_index is not None
        about = k.bit_length()
        if self._waiting.get(about, 0) > 0:
            self._waiting[about] -= len(xq)
            return scan.search(xq, k, threads)
        scan_ns, beyond, alone = self._scan_ns(len(xq), threads), ANSWER_NS * k, len(xq) == 1
        if alone:
            scan_ns, beyond = self._scan_took.get(about, scan_ns), self._beyond_buckets.get(about, beyond)
        begun = time.perf_counter_ns()
        D, I, costs = self._multi_index.search(xq, k, scan_ns - beyond, threads)
        ended, missed = time.perf_counter_ns(), np.flatnonzero(costs < 0)
        if len(missed):
            D[missed], I[missed] = scan.search(xq[missed], k, threads)
            if alone:
                self._scan_took[about] = _corrected(scan_ns, time.perf_counter_ns() - ended)
                self._beyond_buckets[about] = _FORGOTTEN * beyond  # so that tables are tried again
        elif alone:
            self._beyond_buckets[about] = _corrected(beyond, ended - begun - float(costs[0]))
        useless = 2 * len(missed) > len(xq)
        pause = self._pauses.get(about, 0) if useless else 0  # none after the first that was missed
        self._waiting[about], self._pauses[about] = pause, min(2 * pause + 1, _LONGEST_PAUSE) if useless else 0
        return D, I

    def _scan_ns(self, queries: int, threads: int) -> float:
        """Return the nanoseconds that the scan takes for one of so many queries."""
        together = min(_SCAN_TILE, -(-queries // threads))
        bits = 8 * code_width(self.bits)
        return len(self.table.codes) * bits * (_SCAN_BIT_NS + _SCAN_WAIT_NS / together) / max(1, threads // queries)

    def _search_distinct(self, xq: Codes, k: int) -> tuple[Distances, Positions]:
        """Fetch more and more of the nearest distinct codes until these hold the k nearest items of each query."""
        enough = min(k, len(self.table.codes))  # k codes, cut off by row, hold k items in any case
        codes_to_fetch = min(self.table.codes_to_fetch(k), enough)
        while len(xq) == 1:
            D, rows = self._ask_faiss(xq, codes_to_fetch)
            nearest = expand_one(D[0], rows[0], self.table, k)
            if nearest is not None:
                return nearest[0][None], nearest[1][None]
            codes_to_fetch = min(4 * codes_to_fetch, enough)
        D, I = np.empty((len(xq), k), np.int32), np.empty((len(xq), k), np.int64)
        unresolved = np.arange(len(xq))
        while len(unresolved):
            distances, rows = self._ask_faiss(xq[unresolved], codes_to_fetch)
            done = np.ones(len(unresolved), bool)
            if codes_to_fetch < enough:  # codes at the last distance may have been cut off
                nearer = distances < distances[:, -1:]
                done = np.where(nearer, self.table.sizes(rows), 0).sum(axis=1) >= k
            D[unresolved[done]], I[unresolved[done]] = expand(distances[done], rows[done], self.table, k)
            unresolved = unresolved[~done]
            codes_to_fetch = min(4 * codes_to_fetch, enough)
        return D, I

    def within(self, xq: Codes, radius: int) -> Iterator[tuple[int, Distances, Positions]]:
        """Yield all items within a radius in bits: query number, D int32, I int64 by (distance, item), a query a time.

        Raises:
            HashretError: a radius that is no number of bits.
        """
        radius = min(check_radius(radius), self.bits)  # faiss takes 31 bits of it
        xq = pad(xq, padded_width(self.bits))
        for query in range(len(xq) if len(self) else 0):
            D, rows = self._rows_within(xq[query : query + 1], radius)
            items = rows
            if self.table.grouped:
                sizes = self.table.sizes(rows)
                items = self.table.items_of(rows, sizes).astype(np.int64)
                D = np.repeat(D, sizes)
            order = np.lexsort((items, D))
            yield query, D[order], items[order]

    def _rows_within(self, xq: Codes, radius: int) -> tuple[Distances, NDArray[np.int64]]:
        """Return distances and rows of the codes of the table within a radius of one query, in any order."""
        if self._compiled(1) is not None and self._multi_index is not None:
            near = self._multi_index.within(xq[0], radius, self._scan_ns(1, 1))
            if near is not None:
                return near
        _, D, rows = self.flat.range_search(xq, radius + 1)  # faiss: less than
        return D.astype(np.int32), rows

    def warm(self) -> HammingStage:
        """Load the compiled scan now, rather than when searching has cost as much as loading it."""
        self._comparisons_until_load = 0
        scan = self._compiled(0)
        if scan is not None:
            query = self.table.codes[:1, : code_width(self.bits)]
            scan.search(query, 1)
            if self._multi_index is not None:
                self._multi_index.search(query, 1, float("inf"))
        return self

    def _compiled(self, queries: int) -> Scan | None:
        """Return the compiled scan, loaded once searches by faiss have cost as much as loading it; None before."""
        if self._scan is not None or self.backend == "faiss" or not len(self) or not has_compiled():
            return self._scan
        if self.backend == "compiled":
            self._comparisons_until_load = 0
            if not load_scan():
                raise HashretError("the compiled scan cannot be used here; take the engine faiss")
        if self._comparisons_until_load is None:
            self._comparisons_until_load = _COMPARISONS_TO_LOAD if _is_compiled() else _COMPARISONS_TO_COMPILE
        self._comparisons_until_load -= queries * len(self.table.codes)
        if self._comparisons_until_load <= 0 and (module := load_scan()):
            from .planes import bit_planes

            table = self.table
            if self._planes is None:
                self._planes = bit_planes(np.ascontiguousarray(table.codes[:, : code_width(self.bits)]))
            self._scan = module.Scan(self._planes, len(table.codes), table.starts, table.items, table.item_end)
            if self.tables is not None:
                from .multi_index import MultiIndex

                self._multi_index = MultiIndex(self.tables, table)
        return self._scan

    def _ask_faiss(self, xq: Codes, k: int) -> tuple[Distances, NDArray[np.int64]]:
        """Return faiss's answer over the codes of the table: distances and rows (nq, k), by (distance, row)."""
        with at_most(len(xq)):
            D, rows = self.flat.search(xq, k)
        return D, rows


@cache
def has_compiled() -> bool:
    """Whether numba is installed; asked once, as each query would look through the folders of Python otherwise."""
    return find_spec("numba") is not None


def compile_for(codes: int) -> None:
    """Compile the scan where an index of so many codes will want it, so that no query has to wait for that.

    Building tables (`hashret.index.substrings`) has compiled what searches them.
    """
    if codes >= _CODES_TO_COMPILE and (scan := load_scan()):
        scan.compile_scan()


def _corrected(expected: float, measured: float) -> float:
    """Return what is expected after a measurement: a step towards it, so that single disturbed ones hardly count."""
    return max(1.0, expected * _CORRECTION if measured > expected else expected / _CORRECTION)


@cache
def load_scan() -> ModuleType | None:
    """Return `hashret.index.scan`, whose compiled code is kept in `_code_folder`.

    None, with a warning, where there is no such folder, or numba does not load: faiss searches then.
    """
    if not has_compiled():
        return None
    folder, reason = _code_folder(), "no folder to keep its code in can be written to; name one with NUMBA_CACHE_DIR"
    try:
        if folder:
            from numba import config

            before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
            try:
                from . import multi_index, scan
            finally:
                config.CACHE_DIR = before
            assert multi_index.__name__  # imported here, as its functions keep their code in the same folder
            return scan
    except (ImportError, RuntimeError) as error:  # of another numpy, of llvmlite, of a system without executable memory
        reason = str(error).splitlines()[0]
    warnings.warn(f"the compiled scan is not used, faiss searches: {reason}", stacklevel=2)
    return None


@cache
def _code_folder() -> Path | None:
    """Return the folder of compiled code: the first of the usual places that this user can write to, and where nobody
    else could have put code. None where there is no such folder.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named and is_writable(named):
        return Path(named)
    if is_writable(_PYCACHE):
        return _PYCACHE
    shared: Path = temporary_cache()  # where others could have made a folder of this name
    for folder in (default_cache(), shared):
        if (folder != shared or is_private(folder)) and is_private(folder / "numba"):
            return folder / "numba"
    return None


def _is_compiled() -> bool:
    """Whether this machine has compiled the scan as it stands, and so can load it."""
    folder, changed = _code_folder(), Path(__file__).with_name("scan.py").stat().st_mtime
    return folder is not None and any(file.stat().st_mtime >= changed for file in folder.glob("**/scan._search-*.nbi"))


def gpus() -> int:
    """Return how many GPUs faiss sees."""
    return int(getattr(faiss, "get_num_gpus", lambda: 0)())
