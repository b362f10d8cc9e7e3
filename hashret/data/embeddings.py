"""`vectors:FILE` and `vectors(array)`: vectors that somebody already has, as a data source that needs no backbone.

Files are mapped, or read a span of rows at a time; nothing is unpickled. A row that holds NaN or infinity is what an
unreadable photograph is: named, and left out.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from ..bits import Labels, Positions
from ..errors import HashretError
from ..files import StrPath
from ..vectors import STORED_TYPES, Vectors, as_float32, unusable
from .lists import read_lines
from .references import ReferenceKind, register_references, whole_reference
from .source import ImageSource, SourceRequest, register

HELP = "vectors:FILE[::NAME][,ids=FILE][,labels=FILE][,paths=FILE]"
ROWS_AT_ONCE = 4096
_BESIDE = ("ids", "labels", "paths")  # what may stand beside the vectors: arrays of these names, or files
_ROW = re.compile(r"(.+\.(?:npy|npz|h5|hdf5|parquet))(?:::[^#]+)?#\d+", re.I | re.S)
_SPAN = 64  # rows between two that are wanted, which are read along with them


@dataclass(frozen=True)
class VectorSource(ImageSource):
    """Vectors in a fixed order: a `hashret.data.Source` whose rows are vectors instead of photographs.

    Attributes:
        numbers: the vectors as they came, (n, width) of any type of numbers: ``numbers[positions]`` reads some of them.
        ids: of the rows, int64 (n,), ascending; None to count them.
        named_after: returns what the rows are named after that have no ``paths``, the file or the array.
        numbered: number of each row in its file, which its name ends with, int64 (n,); None for all, in order.
    """

    numbers: Any = None
    ids: Positions | None = None
    named_after: Callable[[], str] = field(default=lambda: "", compare=False)
    numbered: Positions | None = None

    def __len__(self) -> int:
        return int(self.numbers.shape[0])

    def __getitem__(self, row: int) -> str:
        """Return the name of a row, as a list of paths has it."""
        return self.reference(row)

    def __iter__(self) -> Iterator[str]:
        return map(self.reference, range(len(self)))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.numbers.shape[1])

    @property
    def stored(self) -> np.dtype[Any]:
        """The type in which vectors are kept so that nothing is lost, where hashret has it: else float32."""
        dtype = self.numbers.dtype.newbyteorder("=")
        return dtype if dtype.str in STORED_TYPES else np.dtype("<f4")

    def read(self, rows: npt.ArrayLike | slice) -> Vectors:
        """Return some of the vectors as float32 (m, width)."""
        return as_float32(self.numbers[rows if isinstance(rows, slice) else np.asarray(rows, np.int64)])

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield the vectors in blocks, each with the row that it begins at."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield start, self.read(slice(start, min(start + ROWS_AT_ONCE, len(self))))

    @cached_property
    def skipped(self) -> dict[int, str]:
        """The rows that cannot be used, and why. All vectors are read once for it."""
        return {start + row: reason for start, block in self.blocks() for row, reason in unusable(block)}

    def reference(self, row: int) -> str:
        """Return the name of a row: its path, or the file with the number of the row behind it."""
        if self.paths:
            return self.paths[row]
        return f"{self.named_after()}#{row if self.numbered is None else int(self.numbered[row])}"

    def earlier_names(self) -> dict[str, str]:
        """Return for names of rows what an earlier hashret may have kept: it made ids that are texts whole paths where
        the first of them named something beside the file.
        """
        folder = _folder_of(self.root)
        return {name: whole_reference(name, folder) for name in self.paths if not name.startswith("/")}

    def id(self, row: int) -> int:
        """Return the id of a row."""
        return int(row if self.ids is None else self.ids[row])

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over what tells these vectors from any others: the file with its size and time, or the numbers."""
        digest = hashlib.sha256(self.named_after().encode(errors="surrogateescape"))
        if os.path.exists(self.root) and self.root.is_file():
            state = self.root.stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
        for array in (self.ids, self.labels, self.numbered):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        digest.update("\0".join(self.paths).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def subset(self, rows: npt.ArrayLike, **changes: Any) -> Self:
        """Return the vectors at ``rows`` (m,), in that order."""
        rows = np.asarray(rows, np.int64)
        selected: dict[str, Any] = {
            "numbers": _Rows((len(rows), self.width), self.numbers.dtype, lambda some: self.numbers[rows[some]]),
            "ids": None if self.ids is None else self.ids[rows],
            "paths": tuple(self.paths[row] for row in rows) if self.paths else (),
            "labels": None if self.labels is None else self.labels[rows],
            "columns": {name: array[rows] for name, array in self.columns.items()},
            "numbered": rows if self.numbered is None else self.numbered[rows],
        }
        return replace(self, **selected | changes)


class _Rows:
    """Rows (n, width) of an array that are read as they are indexed."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], read: Callable[[Positions], npt.NDArray[Any]]
    ) -> None:
        self.shape, self.dtype, self.read = shape, dtype, read

    def __getitem__(self, rows: Positions | slice) -> npt.NDArray[Any]:
        return self.read(np.arange(self.shape[0])[rows] if isinstance(rows, slice) else rows)


def in_spans(read: Callable[[int, int], npt.NDArray[Any]], rows: Positions) -> npt.NDArray[Any]:
    """Return rows (m,) of what can be read from one row to another only, forward, with ``read(start, stop)``."""
    distinct, inverse = np.unique(rows, return_inverse=True)
    spans = np.split(distinct, np.flatnonzero(np.diff(distinct) > _SPAN) + 1)
    blocks = [read(int(span[0]), int(span[-1]) + 1)[span - span[0]] for span in spans if len(span)]
    return np.concatenate(blocks or [read(0, 0)])[inverse]


def vectors(
    array: npt.ArrayLike,
    *,
    ids: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    paths: Sequence[StrPath] | None = None,
) -> VectorSource:
    """Return vectors as a data source, for `hashret.train`, `encode`, `add`, `evaluate` and `Searcher.search_vectors`.

    Args:
        array: (n, width), or one vector (width,), of any type of numbers, in any order in memory; it is not copied.
        ids: n whole numbers, which hits are then known by, or n texts, which become their paths.
        labels: class numbers or names (n,), or flags (n, classes).
        paths: n paths of files or other names, which hits have.

    Raises:
        HashretError: no array of numbers, or not n of the others.
    """
    numbers = np.asarray(array)
    if numbers.ndim == 1 and numbers.dtype.kind in "fiu":
        numbers = numbers[None]
    beside = {"ids": ids, "labels": labels, "paths": paths}
    return _source("vectors", numbers, beside, Path("."), _named_by_content(numbers), "vectors")


def _named_by_content(numbers: npt.NDArray[Any]) -> Callable[[], str]:
    """Return a function that names an array by what it holds, which is read when the name is first asked for."""

    @cache
    def named() -> str:
        digest = hashlib.sha256(f"{numbers.dtype} {numbers.shape}".encode())
        for start in range(0, len(numbers), ROWS_AT_ONCE):
            digest.update(np.ascontiguousarray(numbers[start : start + ROWS_AT_ONCE]).tobytes())
        return f"array-{digest.hexdigest()[:12]}"

    return named


def open_vectors(asked: SourceRequest) -> VectorSource:
    """Open the source ``vectors:FILE``, see `HELP`.

    Raises:
        HashretError: no such file or array, several of which none is named, or what stands beside does not fit.
    """
    where, *options = re.split(r",(ids|labels|paths)=", asked.where)
    path, name = split_name(where)
    given = dict(zip(options[::2], options[1::2], strict=True))
    try:
        arrays = open_arrays(path)
        name, numbers = choose(path, arrays, name)
        beside = {key: arrays[key]() for key in _BESIDE if key in arrays and key != name}
        beside |= {key: _beside(key, text, arrays) for key, text in given.items()}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise HashretError(f"cannot read the vectors {where}: {reason}") from None
    named = os.path.abspath(path) + (f"::{name}" if name else "")
    return _source(where, numbers, beside, path, lambda: named, asked.spec)


def split_name(where: str) -> tuple[Path, str]:
    """Split ``FILE::NAME`` or ``FILE#NAME``, where there is no file of that whole name: -> path and name, or ""."""
    if os.path.isfile(where):
        return Path(where), ""
    file, colons, name = where.rpartition("::")
    if not colons:
        file, colons, name = where.rpartition("#")
    return (Path(file), name) if colons else (Path(where), "")


Arrays = Mapping[str, Callable[[], Any]]  # how each array of a file is opened, by its name; "" in a file of one


def open_arrays(path: Path) -> Arrays:
    """Return what arrays a file holds, mapped or read as they are indexed. Raises HashretError where it cannot be."""
    if not path.is_file():
        raise HashretError(f"no such file of vectors: {path}")
    openers: dict[str, Callable[[Path], Arrays]] = {
        ".npy": lambda path: {"": lambda: _map_npy(path)}, ".npz": _open_npz, ".h5": _open_hdf5, ".hdf5": _open_hdf5,
        ".parquet": _open_parquet, ".txt": lambda path: {"": lambda: _lines(path)},
    }  # fmt: skip
    if path.suffix.lower() not in openers:
        raise HashretError(f"{path} is no file of vectors; its name must end in {', '.join(list(openers)[:-1])}")
    return openers[path.suffix.lower()](path)


def choose(path: Path, arrays: Arrays, name: str) -> tuple[str, Any]:
    """Return the name and the array of the vectors; where none is named, there must be one that may be meant."""
    if name and name not in arrays:
        raise HashretError(f"{path} has no array {name!r}; there are {', '.join(arrays) or 'none'}")
    opened = {one: arrays[one]() for one in ([name] if name else arrays) if name or one not in _BESIDE}
    possible = {one: array for one, array in opened.items() if _are_vectors(array)}
    possible = {one: array for one, array in possible.items() if len(array.shape) == 2} or possible
    if len(possible) != 1:
        if possible:
            hint = f"name one: vectors:{path}::{next(iter(possible))}"
            raise HashretError(f"{path} holds several arrays of vectors, {', '.join(possible)}", hint=hint)
        shapes = ", ".join(f"{one} {array.dtype} {tuple(array.shape)}".strip() for one, array in opened.items())
        raise HashretError(f"{path} holds no vectors, numbers (n, width), but {shapes or 'nothing'}")
    return next(iter(possible.items()))


def _are_vectors(array: Any) -> bool:
    return array.dtype.kind in "fiu" and len(array.shape) in (1, 2) and array.shape[-1] > 0


def _beside(key: str, text: str, arrays: Arrays) -> Any:
    """Return the array that ``ids=``, ``labels=`` or ``paths=`` names: one of the same file, or another file."""
    if text in arrays:
        return arrays[text]()
    file, name = split_name(text)
    if key == "paths" and file.suffix.lower() == ".txt" and file.is_file():
        return np.array(_texts(file))  # of which "007" is not the number 7
    others = open_arrays(file)
    if name not in others and len(others) != 1:
        raise HashretError(f"{file} holds several arrays, {', '.join(others)}", hint=f"name one: {file}::NAME")
    return others[name if name in others else next(iter(others))]()


def _source(
    what: str, numbers: Any, beside: Mapping[str, Any], root: Path, named_after: Callable[[], str], spec: str
) -> VectorSource:
    if numbers.dtype.hasobject or not _are_vectors(numbers):
        raise HashretError(f"{what}: vectors are numbers, (n, width), not {numbers.dtype} {tuple(numbers.shape)}")
    if len(numbers.shape) == 1:
        numbers = numbers[None]
    n = numbers.shape[0]
    given = {key: array for key, array in beside.items() if array is not None}
    known = {key: np.asarray(array[:] if isinstance(array, _Rows) else array) for key, array in given.items()}
    for key, array in known.items():
        if not array.ndim:
            raise HashretError(f"{what}: {key} are one for each vector, not a single value")
        if len(array) != n:
            raise HashretError(f"{what}: {len(array):,} {key} for {n:,} vectors")
    ids, paths = known.get("ids"), known.get("paths")
    names: tuple[str, ...] = ()
    if ids is not None and ids.dtype.kind not in "iu":
        if paths is not None or ids.dtype.kind not in "SUT":
            raise HashretError(f"{what}: ids beside paths are whole numbers, not {ids.dtype}")
        names, ids = _names(ids), None
    if paths is not None:
        names = _whole(_names(paths), root)
    labels, classes = _classes(known["labels"], what) if "labels" in known else (None, ())
    if ids is None:
        return VectorSource(root, names, labels, classes, spec, numbers=numbers, named_after=named_after)
    order = _order(ids, what)
    source = VectorSource(
        root, names, labels, classes, spec, numbers=numbers, named_after=named_after, ids=ids.astype(np.int64)
    )
    return source if np.array_equal(order, np.arange(n)) else source.subset(order)


def _order(ids: npt.NDArray[Any], what: str) -> Positions:
    """Return the order in which ids ascend, as they must in an index."""
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < 2**63 - 1:
        raise HashretError(f"{what}: ids are whole numbers from 0 to 2^63 - 2")
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(again):
        raise HashretError(f"{what}: the id {ids[order][again[0]]} stands there more than once")
    return order


def _names(paths: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the names of rows as texts."""
    if paths.ndim != 1 or paths.dtype.kind not in "iuSUTO":
        raise HashretError(f"paths are names (n,), not {paths.dtype} {paths.shape}")
    given = paths.tolist()
    wrong = [name for name in given if not isinstance(name, (int, str, bytes, os.PathLike))]
    names = [str(name) if isinstance(name, int) else os.fsdecode(name) for name in given] if not wrong else []
    wrong += [name for name in names if "\0" in name]
    if wrong:
        raise HashretError(f"paths are names without NUL, not {wrong[0]!r}")
    return tuple(names)


def _whole(names: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """Return paths of files whole, if they start where the file of vectors lies: the first says so for all."""
    folder = _folder_of(root)
    inside = bool(names) and os.path.exists(folder / names[0])
    return tuple(whole_reference(name, folder) for name in names) if inside else names


def _folder_of(root: Path) -> Path:
    """Return the folder that a file of vectors lies in; of arrays in memory the working folder."""
    return root if root.is_dir() else root.parent


def _classes(labels: npt.NDArray[Any], what: str) -> tuple[Labels, tuple[str, ...]]:
    """Return labels as a source has them, and the names of the classes: numbers below 0 are none."""
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and np.isin(labels, (0, 1)).all():
        return labels.astype(np.uint8), tuple(map(str, range(labels.shape[1])))
    if labels.ndim != 1 or labels.dtype.kind not in "iufSUT":
        raise HashretError(f"{what}: labels are class numbers or names (n,), or flags (n, classes)")
    if labels.dtype.kind == "f":
        wrong = labels[~(np.isfinite(labels) & (labels == np.round(labels)))]
        if len(wrong):
            raise HashretError(f"{what}: labels are whole numbers, not as {wrong[0]}")
        labels = labels.astype(np.int64)
    present, numbers = np.unique(labels, return_inverse=True)
    none = int((present < 0).sum()) if present.dtype.kind == "i" else 0
    names = tuple(os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in present[none:].tolist())
    return np.maximum(numbers.astype(np.int64) - none, -1), names


def _map_npy(path: Path, start: int = 0, size: int | None = None) -> npt.NDArray[Any]:
    """Map an array of numpy's format, ``size`` bytes of a file; Python objects are refused, not unpickled."""
    with open(path, "rb") as file:
        file.seek(start)
        shape, fortran_order, dtype = _header(file, path)
        begin, end = file.tell(), file.seek(0, 2) if size is None else start + size
    if begin + dtype.itemsize * int(np.prod(shape, dtype=object)) > end:
        raise HashretError(f"{path} is cut off: it is shorter than its header says")
    if 0 in shape or not shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran_order else "C")


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of an array of numpy's format."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    if header[2].hasobject:
        raise HashretError(f"{path} holds Python objects, which could run any code as they are loaded")
    return header


def _open_npz(path: Path) -> Arrays:
    """Return the arrays of an .npz: mapped where it is not compressed, else loaded when it is asked for."""
    archive = zipfile.ZipFile(path)

    def load(member: zipfile.ZipInfo) -> npt.NDArray[Any]:
        if member.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as file:
                file.seek(member.header_offset + 26)
                lengths = file.read(4)  # of the name and of the extra field, which stand before the content
            before = 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            return _map_npy(path, member.header_offset + before, member.file_size)
        with archive.open(member) as content:
            _header(content, path)
        with np.load(path, allow_pickle=False) as loaded:
            array: npt.NDArray[Any] = loaded[member.filename]
            return array

    return {
        member.filename.removesuffix(".npy"): partial(load, member)
        for member in archive.infolist()
        if member.filename.endswith(".npy")
    }


def _open_hdf5(path: Path) -> Arrays:
    """Return the datasets of an HDF5 file by their path in it; vectors are read a span of rows at a time."""
    import h5py

    file = h5py.File(path, "r")
    arrays: dict[str, Callable[[], Any]] = {}

    def opened(dataset: Any) -> Any:
        if h5py.check_string_dtype(dataset.dtype):
            return dataset.asstr(errors="surrogateescape")[:].astype("U")
        if dataset.ndim != 2:
            return dataset[...]
        return _Rows(dataset.shape, dataset.dtype, lambda rows: in_spans(lambda start, stop: dataset[start:stop], rows))

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and entry.shape is not None:
            arrays[name] = lambda: opened(entry)

    file.visititems(visit)
    return arrays


def _open_parquet(path: Path) -> Arrays:
    """Return the columns of a Parquet file; vectors are lists of numbers, of one length, see `_ParquetRows`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise HashretError(f"{path} needs pyarrow", hint="pip install 'hashret[parquet]'") from None
    file = pq.ParquetFile(path)

    def opened(column: str, kind: Any) -> Any:
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            return np.array(file.read(columns=[column]).column(0).to_pylist())
        first = next((row for row in file.iter_batches(1, columns=[column]) if row.column(0).null_count == 0), None)
        width = 0 if first is None else len(first.column(0)[0])
        dtype = np.dtype(kind.value_type.to_pandas_dtype())

        stored = dtype if dtype.kind == "f" else np.dtype(np.float32)  # which has NaN, for null

        def decoded(lists: Any) -> npt.NDArray[Any]:
            rows = np.full((len(lists), width), np.nan, stored)
            present = ~np.asarray(lists.is_null())
            flat = lists.flatten().to_numpy(zero_copy_only=False)
            if len(flat) != width * int(present.sum()):
                raise HashretError(f"{path}: the lists of {column} are not all of {width} numbers")
            rows[present] = flat.reshape(-1, width)
            return rows

        empty = np.zeros((0, width), stored)
        return _Rows((file.metadata.num_rows, width), dtype, _ParquetRows(file, column, decoded, empty))

    return {one.name: partial(opened, one.name, one.type) for one in file.schema_arrow}


class _ParquetRows:
    """Reads rows of a column of a Parquet file, which can be decoded forward alone, from the start of a row group on.

    `ROWS_AT_ONCE` rows are decoded at a time, however large the row groups are, and the last of these batches is kept:
    rows in order are decoded once, and rows here and there once a call.

    Args:
        file: the opened file.
        decoded: makes an array, (m, width), of a batch of the column.
        empty: such an array of no rows.
    """

    def __init__(
        self, file: Any, column: str, decoded: Callable[[Any], npt.NDArray[Any]], empty: npt.NDArray[Any]
    ) -> None:
        self.file, self.column, self.decoded, self.empty = file, column, decoded, empty
        groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        self.ends = np.cumsum(groups, dtype=np.int64)
        self._begin(0)

    def __call__(self, rows: Positions) -> npt.NDArray[Any]:
        distinct, inverse = np.unique(rows, return_inverse=True)
        chosen, done = [self.empty], 0
        while done < len(distinct):
            self._go_to(int(distinct[done]))
            end = int(np.searchsorted(distinct, self._start + len(self._batch)))
            chosen.append(self._batch[distinct[done:end] - self._start])
            done = end
        return np.concatenate(chosen)[inverse]

    def _begin(self, group: int) -> None:
        """Begin at a row group."""
        groups = list(range(group, len(self.ends)))
        self._batches: Iterator[Any] = self.file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[self.column])
        self._start, self._batch = int(self.ends[group - 1]) if group else 0, self.empty

    def _go_to(self, row: int) -> None:
        """Decode the batch that has a row, and those between."""
        group = int(np.searchsorted(self.ends, row, side="right"))
        stop = self._start + len(self._batch)
        if row < self._start or (group and self.ends[group - 1] > stop):
            self._begin(group)
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = self.decoded(next(self._batches).column(0))


def _lines(path: Path) -> npt.NDArray[Any]:
    """Return the lines of a text file, whole numbers where all are such as int64 has."""
    lines = _texts(path)
    if all(re.fullmatch(r"-?\d{1,19}", line) for line in lines):
        with suppress(OverflowError):
            return np.array(list(map(int, lines)), np.int64)
    return np.array(lines)


def _texts(path: Path) -> list[str]:
    lines = read_lines(path)
    return lines if lines[-1] else lines[:-1]


def _file_of(reference: str) -> str:
    match = _ROW.fullmatch(reference)
    assert match is not None
    return match[1]


def _status(reference: str) -> tuple[int, int]:
    state = os.stat(_file_of(reference))
    return state.st_size, state.st_mtime_ns


def _no_picture(reference: str) -> bytes:
    raise OSError(f"{reference} is a vector, no picture")


register_references("vectors", ReferenceKind(lambda text: _ROW.fullmatch(text) is not None, _no_picture, _status))
register("vectors", open_vectors, HELP)
