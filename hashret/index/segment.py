"""A segment of an index: the files of some photographs, written once and never changed.

`hamming.faiss` is an `IndexBinaryFlat` over zero-padded codes, each distinct code once where codes repeat; `starts.npy`
and `items.npy` are then the items of each (`CodeTable`), `numbers.npy` the code of each item, which segments of before
do without. `planes.npy` holds the codes by bit for the compiled scan.
`values.npy`, `features.npy`, `ids.npy`, `labels.npy`, `paths.bin` and `path_ends.npy` have a row a photograph. All are
mapped.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property

import faiss
import numpy as np

from ..bits import code_width, pad, padded_width
from ..errors import HashretError
from ..names import utf8_path
from .distinct import CodeTable, Grouping
from .hamming import HammingStage
from .paths import Paths

_OVERFETCH = 1000  # removed photographs that a search passes over; where more are in the way, it leaves all out first
_MAX_ITEMS = 2**31 - 1
_ROWS = ("values", "features", "ids", "path_ends", "labels")
_LABELS, _CODES, _REMOVED = "labels.npy", "hamming.faiss", "removed"


class SegmentWriter:
    """Writes a segment a block of photographs at a time; of a photograph, its code stays in memory, or its number."""

    def __init__(self, folder, bits, values=True):
        self.folder, self.bits, self.values = folder, bits, values
        self.grouping, self.path_end = Grouping(), 0
        self.rows = {name: _Rows(folder / f"{name}.npy") for name in _ROWS}
        self.paths = open(folder / "paths.bin", "wb")

    def __len__(self):
        return self.grouping.count

    def add(self, codes, values, ids, paths, labels=None, features=None):
        """Append photographs: codes uint8 (n, w), values (n, bits), ids (n,), paths as `hashret.index.paths.cut` has
        them, labels (n, ...).
        """
        if not len(ids):
            return
        self.grouping.add(pad(codes, padded_width(self.bits)))
        if self.values and values is not None:
            self.rows["values"].add(np.asarray(values, np.float32))
        if features is not None:
            self.rows["features"].add(np.asarray(features, np.float32))
        self.rows["ids"].add(np.asarray(ids, np.int64))
        raw, lengths = paths
        self.paths.write(raw)
        ends = self.path_end + np.cumsum(lengths)
        self.rows["path_ends"].add(ends)
        self.path_end = int(ends[-1])
        if labels is not None:
            self.rows["labels"].add(np.asarray(labels))

    def close(self):
        """Write the rest: -> what `index.json` says of the segment, beside its name."""
        self.paths.close()
        for rows in self.rows.values():
            rows.close()
        if len(self) > _MAX_ITEMS:
            raise HashretError(f"a segment holds at most {_MAX_ITEMS:,} photographs; add the rest with hashret add")
        table = self.grouping.table()
        flat = faiss.IndexBinaryFlat(8 * table.codes.shape[1])
        flat.add(table.codes)
        with utf8_path(self.folder / _CODES, os.O_WRONLY | os.O_CREAT) as name:
            faiss.write_index_binary(flat, name)
        del flat
        if table.grouped:
            np.save(self.folder / "starts.npy", table.starts)
            np.save(self.folder / "items.npy", table.items)
            numbers = _Rows(self.folder / "numbers.npy")
            for block in self.grouping.numbers:
                numbers.add(block)
            numbers.close()
        _save_planes(self.folder / "planes.npy", table.codes[:, : code_width(self.bits)])
        names = sorted(file.name for file in self.folder.iterdir())
        return {
            "count": len(self), "codes": len(table.codes), "grouped": table.grouped,
            "files": {name: describe(self.folder / name) for name in names},
        }  # fmt: skip


class Segment:
    """An opened segment.

    Attributes:
        values: float32 (n, bits) or None, features: float32 (n, width) or None, ids: int64 (n,), labels: (n,) or
            (n, classes) or None; memory maps. paths: `hashret.index.paths.Paths`.
        removed: rows that were removed since, int64 (r,), ascending.
    """

    def __init__(self, folder, meta, bits, device="auto", engine="auto"):
        self.folder, self.meta, self.bits = folder, meta, bits
        self.values = self._load("values.npy") if "values.npy" in meta["files"] else None
        self.features = self._load("features.npy") if "features.npy" in meta["files"] else None
        self.ids = self._load("ids.npy")
        self.labels = self._load(_LABELS) if _LABELS in meta["files"] else None
        self.paths = Paths(np.memmap(folder / "paths.bin", np.uint8, "r"), self._load("path_ends.npy"))
        self.removed = self._load(meta[_REMOVED]) if meta.get(_REMOVED) else np.empty(0, np.int64)
        grouped = meta["grouped"]
        width = padded_width(bits)
        offset = (folder / _CODES).stat().st_size - meta["codes"] * width  # behind faiss's header
        table = CodeTable(
            np.memmap(folder / _CODES, np.uint8, "r", offset, (meta["codes"], width)),
            self._load("starts.npy") if grouped else None,
            self._load("items.npy") if grouped else None,
            self._load("numbers.npy") if "numbers.npy" in meta["files"] else None,
        )
        self.stage = HammingStage(table, bits, device, engine, self._flat(), self._load("planes.npy"))

    def __len__(self):
        return self.meta["count"]

    @property
    def count(self):
        """Photographs that were not removed."""
        return len(self) - len(self.removed)

    def compared(self, features):
        """What a re-rank by one of `hashret.index.rerank.FEATURES` compares the query with."""
        if features == "asymmetric":
            return self.stage.codes()
        return self.features if features == "features" else self.values

    def rows(self, ids):
        """The rows of those of some ids that are there and were not removed, int64, ascending."""
        ids = np.unique(np.asarray(ids, np.int64))
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)  # ids ascend
        rows = rows[self.ids[rows] == ids]
        return rows[~self._are_removed(rows)]

    @cached_property
    def alive(self):
        """Which rows were not removed, bool (n,)."""
        alive = np.ones(len(self), bool)
        alive[self.removed] = False
        return alive

    @cached_property
    def _alive_stage(self):
        return self.stage.subset(self.alive)

    def search(self, xq, k):
        """The k nearest of what was not removed: packed uint8 (nq, w) -> D int32, I int64 (nq, min(k, count))."""
        if not len(self.removed):
            return self.stage.search(xq, k)
        most, answers = min(_OVERFETCH, len(self.removed)), min(k, self.count)
        D, I = self.stage.search(xq, k + most)
        gone = self._are_removed(I)
        if most < len(self.removed) and np.count_nonzero(~gone, axis=1).min(initial=answers) < answers:
            return self._alive_stage.search(xq, k)
        order = np.argsort(gone, axis=1, kind="stable")[:, :answers]
        return np.take_along_axis(D, order, 1), np.take_along_axis(I, order, 1)

    def within(self, xq, radius):
        """See `HammingStage.within`."""
        for query, D, I in self.stage.within(xq, radius):
            keep = ~self._are_removed(I)
            yield query, D[keep], I[keep]

    def _are_removed(self, rows):
        """Which of some rows were removed."""
        if not len(self.removed):
            return np.zeros(np.shape(rows), bool)
        place = np.minimum(np.searchsorted(self.removed, rows), len(self.removed) - 1)
        return self.removed[place] == rows

    def _load(self, name):
        return np.load(self.folder / name, mmap_mode="r")

    def _flat(self):
        """The mapped `IndexBinaryFlat`, opened at once: a later change may take the file away."""
        path = self.folder / _CODES
        try:
            with utf8_path(path) as name:
                flat = faiss.read_index_binary(name, faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            if not path.exists():
                raise FileNotFoundError(2, "gone", str(path)) from None
            raise HashretError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
        if (flat.ntotal, flat.code_size) != (self.meta["codes"], padded_width(self.bits)):
            raise HashretError(f"{path} is damaged: it holds other codes than index.json says")
        return flat


def check_files(folder, files, verify):
    """Compare files with their sizes, and with their sha256 where ``verify``: -> name of the first that differs.

    Raises:
        FileNotFoundError: one is missing.
    """
    for name, wanted in files.items():
        path = folder / name
        if path.stat().st_size != wanted["bytes"] or (verify and _sha256(path) != wanted["sha256"]):
            return name
    return None


def describe(path):
    """Size and sha256 of a file, as `index.json` has them."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_planes(path, codes, block=2**20):
    from .planes import bit_planes

    rows = _Rows(path)
    for start in range(0, len(codes), block):
        rows.add(bit_planes(codes[start : start + block]))
    rows.close()


class _Rows:
    """An .npy file that grows by blocks of rows; its header is written at the end, when the count is known."""

    _HEADER = 128

    def __init__(self, path):
        self.path, self.rows, self.file = path, 0, None

    def add(self, block):
        if self.file is None:
            self.dtype, self.shape = block.dtype, block.shape[1:]
            self.file = open(self.path, "wb")
            self.file.write(b" " * self._HEADER)
        self.file.write(np.ascontiguousarray(block))
        self.rows += len(block)

    def close(self):
        if self.file is None:
            return
        shape = (self.rows, *self.shape)
        descr = np.lib.format.dtype_to_descr(self.dtype)
        text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
        magic = np.lib.format.magic(1, 0)
        size = self._HEADER - len(magic) - 2
        self.file.seek(0)
        self.file.write(magic + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n")
        self.file.close()
