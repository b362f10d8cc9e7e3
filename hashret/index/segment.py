"""A segment of an index: the files of some photographs, written once and never changed.

`hamming.faiss` is an `IndexBinaryFlat` over zero-padded codes, each distinct code once where codes repeat; `starts.npy`
and `items.npy` are then the items of each (`CodeTable`), `numbers.npy` the code of each item, which segments of before
do without. `planes.npy` holds the codes by bit for the compiled scan. Of many codes, `substring_starts.npy`,
`substring_numbers.npy` and `substring_rest.npy` are the tables over their substrings (`hashret.index.substrings`);
segments of before, and of machines without numba, have none.
`paths.bin` and `path_ends.npy` hold the paths, and each other column of the shards has a file with a row for each
photograph, such as `ids.npy`. All are mapped.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ..bits import MAX_BITS, Codes, Distances, HashOutputs, Labels, Positions, code_width, pad, padded_width, prefix
from ..errors import HashretError
from ..names import utf8_path
from ..shards import COLUMNS, Column
from .arrays import ascends, damaged, map_array
from .blocks import ROWS_AT_ONCE
from .distinct import CodeTable, Grouping
from .hamming import HammingStage, load_scan
from .paths import Paths
from .planes import BLOCK, WORDS, bit_planes
from .substrings import SHORT_REST, Layout, Tables, pays

_OVERFETCH = 1000  # removed photographs that a search passes over; where more are in the way, it leaves all out first
MAX_ITEMS = 2**31 - 1
_CODES, _PATHS, _REMOVED = "hamming.faiss", "paths.bin", "removed"
# What faiss writes before the codes: kind, bits and bytes of a code, codes, whether trained, metric, bytes of all.
_FLAT = struct.Struct("<4siiqBiQ")


def row_columns() -> list[Column]:
    """Return the columns of which a segment has a file of rows each."""
    return [column for column in COLUMNS if column.name not in ("codes", "paths")]


class SegmentWriter:
    """Writes a segment a block of photographs at a time; of a photograph, its code stays in memory, or its number."""

    def __init__(self, folder: Path, bits: int, without: Collection[str] = ()) -> None:
        self.folder, self.bits, self.without = folder, bits, set(without)
        self.grouping, self.path_end = Grouping(), 0
        self.rows: dict[str, _ArrayFile] = {}  # of each column, once there is anything of it
        self.path_ends = _ArrayFile(folder / "path_ends.npy")
        self.paths = open(folder / _PATHS, "wb")

    def __len__(self) -> int:
        return self.grouping.count

    def add(self, columns: Mapping[str, NDArray[Any]], paths: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
        """Append photographs; the columns of ``without`` are left out, and of longer codes all but the first bits.

        Args:
            columns: `hashret.shards.COLUMNS` by name, but for the paths.
            paths: as `hashret.index.paths.cut` returns them.
        """
        if not len(columns["ids"]):
            return
        self.grouping.add(pad(prefix(columns["codes"], self.bits), padded_width(self.bits)))
        for column in row_columns():
            if (name := column.name) in columns.keys() - self.without:
                array = np.asarray(columns[name])
                rows = self.rows.setdefault(name, _ArrayFile(self.folder / f"{column.stored}.npy"))
                rows.add(array[:, : self.bits] if name == "hash_outputs" else array)
        raw, lengths = paths
        self.paths.write(raw.data)
        ends = self.path_end + np.cumsum(lengths)
        self.path_ends.add(ends)
        self.path_end = int(ends[-1])

    def close(self) -> dict[str, Any]:
        """Write the rest, and return what `index.json` says of the segment, beside its name."""
        self.paths.close()
        for rows in (*self.rows.values(), self.path_ends):
            rows.close()
        if len(self) > MAX_ITEMS:
            raise HashretError(
                f"a segment holds at most {MAX_ITEMS:,} photographs", hint="add the rest with hashret add"
            )
        table = self.grouping.table()
        flat = faiss.IndexBinaryFlat(8 * table.codes.shape[1])
        flat.add(table.codes)
        with open(self.folder / _CODES, "wb") as file:  # faiss itself says of a full disk nothing, at the end of a file
            faiss.write_index_binary(flat, faiss.PyCallbackIOWriter(file.write))
        del flat
        if table.grouped:
            starts, items = table.lists()
            save_array(self.folder / "starts.npy", starts)
            save_array(self.folder / "items.npy", items)
            numbers = _ArrayFile(self.folder / "numbers.npy")
            for block in self.grouping.numbers:
                numbers.add(block)
            numbers.close()
        if self.bits <= MAX_BITS:
            _save_planes(self.folder / "planes.npy", table.codes[:, : code_width(self.bits)])
            if pays(self.bits, len(table.codes)) and load_scan():
                _save_tables(self.folder, table.codes, self.bits)
        names = sorted(file.name for file in self.folder.iterdir())
        return {
            "count": len(self), "codes": len(table.codes), "grouped": table.grouped,
            "files": {name: describe(self.folder / name) for name in names},
        }  # fmt: skip


class Segment:
    """An opened segment.

    Args:
        folder: of the segment.
        meta: what `index.json` says of it.
        bits: length of the codes.
        backend: of the Hamming stage, see `HammingStage`.
        root: where paths start that are not kept whole, see `hashret.index.paths.stored_path`.

    Attributes:
        columns: memory maps of the `hashret.shards.COLUMNS` that the segment has, by name, but for codes and paths;
            ``hash_outputs``, ``fc_features``, ``ids`` and ``labels`` are those of that name, None where it has none.
        paths: `hashret.index.paths.Paths`.
        removed: rows that were removed since, int64 (r,), ascending.
        written: when the segment was written, seconds since 1970: its photographs were encoded before.
        stage: the `HammingStage` over the codes.
    """

    def __init__(
        self, folder: Path, meta: dict[str, Any], bits: int, backend: str = "auto", root: str | None = None
    ) -> None:
        self.folder, self.meta, self.bits = folder, meta, bits
        n, m, width = meta["count"], meta["codes"], padded_width(bits)
        mapped = {column.name: self._map(f"{column.stored}.npy", *column.kinds_of(n, bits)) for column in row_columns()}
        self.columns = {name: array for name, array in mapped.items() if array is not None}
        self.hash_outputs: HashOutputs | None = self.columns.get("hash_outputs")
        self.fc_features: NDArray[np.float32] | None = self.columns.get("fc_features")
        self.ids: NDArray[np.int64] = self.columns["ids"]
        self.labels: Labels | None = self.columns.get("labels")
        ends = np.asarray(self._map("path_ends.npy", ("<i8", (n,))))
        if not (folder / _PATHS).stat().st_size:  # which cannot be mapped
            raise damaged(folder.parent, _PATHS, "is empty")
        self.paths = Paths(np.asarray(np.memmap(folder / _PATHS, np.uint8, "r")), ends, root)
        self.written = (folder / "ids.npy").stat().st_mtime
        removed = self._map(meta[_REMOVED], ("<i8", (None,))) if meta.get(_REMOVED) else None
        self.removed: NDArray[np.int64] = np.empty(0, np.int64) if removed is None else removed
        self._check_flat(m, width)
        grouped = meta["grouped"]
        table = CodeTable(
            np.memmap(folder / _CODES, np.uint8, "r", _FLAT.size, (m, width)),
            self._map("starts.npy", ("<i8", (m + 1,))) if grouped else None,
            self._map("items.npy", ("<i4", (n,))) if grouped else None,
            self._map("numbers.npy", ("<i4", (n,))) if grouped else None,
        )
        planes = self._map("planes.npy", ("<u8", (-(-m // BLOCK), 8 * code_width(bits), WORDS)))
        self._check_ends(table)
        self.stage = HammingStage(table, bits, backend, self._flat(), planes, self._map_tables(table.codes))

    def __len__(self) -> int:
        return int(self.meta["count"])

    @property
    def count(self) -> int:
        """Photographs that were not removed."""
        return len(self) - len(self.removed)

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of those of some ids, ascending, that are there and were not removed."""
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)  # ids ascend
        rows = rows[self.ids[rows] == ids]
        there: NDArray[np.int64] = rows[~self._are_removed(rows)]
        return there

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows were not removed, bool (n,)."""
        alive = np.ones(len(self), bool)
        alive[self.removed] = False
        return alive

    @cached_property
    def _alive_stage(self) -> HammingStage:
        return self.stage.subset(self.alive)

    def search(self, xq: Codes, k: int) -> tuple[Distances, Positions]:
        """Find the k nearest of what was not removed: packed uint8 (nq, w) -> D, rows (nq, min(k, count))."""
        if not len(self.removed):
            return self.stage.search(xq, k)
        most, answers = min(_OVERFETCH, len(self.removed)), min(k, self.count)
        D, I = self.stage.search(xq, k + most)
        gone = self._are_removed(I)
        if most < len(self.removed) and np.count_nonzero(~gone, axis=1).min(initial=answers) < answers:
            return self._alive_stage.search(xq, k)
        order = np.argsort(gone, axis=1, kind="stable")[:, :answers]
        return np.take_along_axis(D, order, 1), np.take_along_axis(I, order, 1)

    def within(self, xq: Codes, radius: int) -> Iterator[tuple[int, Distances, Positions]]:
        """Yield what `HammingStage.within` yields, without what was removed."""
        for query, D, I in self.stage.within(xq, radius):
            keep = ~self._are_removed(I)
            yield query, D[keep], I[keep]

    def _are_removed(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some rows were removed."""
        if not len(self.removed):
            return np.zeros(np.shape(rows), bool)
        next_removed = np.minimum(np.searchsorted(self.removed, rows), len(self.removed) - 1)
        flags: NDArray[np.bool_] = self.removed[next_removed] == rows
        return flags

    def _map(self, name: str, *kinds: tuple[str, tuple[int | None, ...]]) -> Any:
        """Map a file of the segment, see `map_array`; None where `index.json` names no such file."""
        return map_array(self.folder / name, *kinds) if name in self.meta["files"] else None

    def _map_tables(self, codes: Codes) -> Tables | None:
        """Map the tables over substrings; None where the segment has none."""
        if "substring_starts.npy" not in self.meta["files"]:
            return None
        starts = self._map("substring_starts.npy", ("<u4", (None, None)))
        layout = Layout.of(self.bits, len(starts)) if 0 < len(starts) <= self.bits else None
        if layout is None or starts.shape[1] != (1 << int(layout.lengths.max())) + 1:
            raise damaged(self.folder.parent, "substring_starts.npy", "is not as it was written")
        size = len(starts) * len(codes)
        numbers = self._map("substring_numbers.npy", ("<u4", (size,)))
        rest = self._map("substring_rest.npy", ("<u4" if layout.rest == SHORT_REST else "<u8", (size,)))
        return Tables(codes, layout, starts, numbers.reshape(len(starts), -1), rest.reshape(len(starts), -1))

    def _check_flat(self, codes: int, width: int) -> None:
        """Raise HashretError unless the header of hamming.faiss is that of so many codes, which faiss would trust."""
        header = _FLAT.pack(b"IBxF", 8 * width, width, codes, 1, 1, codes * width)
        with open(self.folder / _CODES, "rb") as file:
            if file.read(_FLAT.size) != header or file.seek(0, 2) != _FLAT.size + codes * width:
                raise damaged(self.folder.parent, _CODES, f"does not hold {codes:,} codes of {8 * width} bits")

    def _check_ends(self, table: CodeTable) -> None:
        """Compare the first and last of what ascends with what they must be: a damaged middle is found when used."""
        starts = table.starts
        first, last, removed = int(self.ids[0]), int(self.ids[-1]), self.removed
        checks = {
            "ids.npy": first >= 0 and last - first >= len(self) - 1,
            "path_ends.npy": self.paths.last == len(self.paths.raw),
            "starts.npy": starts is None or (starts[0] == 0 and starts[-1] == len(self)),
            str(self.meta.get(_REMOVED)): ascends(removed, 0, len(self) - 1, strictly=True)
            and len(removed) == self.meta.get("removed_count", 0),
        }
        for name, good in checks.items():
            if not good:
                raise damaged(self.folder.parent, name, "is not as it was written")

    def _flat(self) -> Any:
        """Return the mapped `IndexBinaryFlat`, opened at once: a later change may take the file away."""
        path = self.folder / _CODES
        try:
            with utf8_path(path) as name:
                return faiss.read_index_binary(name, faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            if not path.exists():
                raise FileNotFoundError(2, "gone", str(path)) from None
            raise damaged(path.parent.parent, _CODES, f"cannot be read ({str(error).splitlines()[0]})") from None


def check_files(folder: Path, files: dict[str, dict[str, Any]], verify: bool) -> str | None:
    """Compare files with their sizes, and if ``verify`` with their sha256; return the name of the first that differs.

    Raises:
        FileNotFoundError: one is missing.
    """
    for name, expected in files.items():
        path, state = folder / name, (folder / name).stat()
        # A pipe or a device, which has no size, would be waited for, or read for ever.
        same_size = S_ISREG(state.st_mode) and state.st_size == expected["bytes"]
        if not same_size or (verify and _sha256(path) != expected["sha256"]):
            return name
    return None


def describe(path: Path) -> dict[str, Any]:
    """Return the size and the sha256 of a file, as `index.json` has them."""
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array (n, ...), n > 0, to an .npy file.

    `np.save` raises nothing where the disk is full at the end of the file, and leaves the file short.
    """
    file = _ArrayFile(path)
    file.add(array)
    file.close()


def _save_planes(path: Path, codes: Codes) -> None:
    file = _ArrayFile(path)
    for start in range(0, len(codes), ROWS_AT_ONCE):  # which is a multiple of a block of planes
        file.add(bit_planes(codes[start : start + ROWS_AT_ONCE]))
    file.close()


def _save_tables(folder: Path, codes: Codes, bits: int) -> None:
    """Write the tables over the substrings of codes, uint8 (m, w), a piece at a time."""
    from .multi_index import build_table

    layout = Layout.for_codes(bits, len(codes))
    starts, numbers, rest = (_ArrayFile(folder / f"substring_{name}.npy") for name in ("starts", "numbers", "rest"))
    for number in range(len(layout.offsets)):
        for table_starts, piece in build_table(codes, layout, number):
            if piece.first:
                starts.add(table_starts[None])
            numbers.add(piece.numbers)
            rest.add(piece.rest)
    for file in (starts, numbers, rest):
        file.close()


class _ArrayFile:
    """An .npy file that grows by blocks of rows; numpy leaves room in its header for the count, which is known last."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self.file: IO[bytes] | None = None

    def add(self, block: NDArray[Any]) -> None:
        if self.file is None:
            self.dtype, self.shape = block.dtype, block.shape[1:]
            self.file = open(self.path, "wb")
            self._write_header(self.file)
        if (block.dtype, block.shape[1:]) != (self.dtype, self.shape):
            raise HashretError(
                f"rows of {block.dtype} {block.shape[1:]} do not go into {self.path.name} of {self.dtype} {self.shape}"
            )
        self.file.write(np.ascontiguousarray(block).data)
        self.rows += len(block)

    def close(self) -> None:
        if self.file is not None:
            self.file.seek(0)
            self._write_header(self.file)
            self.file.close()

    def _write_header(self, file: IO[bytes]) -> None:
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(file, header)
