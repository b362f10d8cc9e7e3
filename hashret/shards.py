"""HDF5 shards: what `encode` keeps of each photograph, in the columns of `COLUMNS`.

A shard ``codes-00000.h5`` holds a dataset for each column, and ``skipped``, a JSON line for each unreadable photograph
of its range. All are contiguous and uncompressed, so that numpy maps the rows. Hash outputs are float32 because trained
encoders saturate: in float16 most of them are exactly one, and re-ranking has nothing left to order by. A shard is
written under a temporary name and renamed: one that exists is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .bits import MAX_BITS, MIN_BITS, Codes, HashOutputs, Labels, Positions, binarize, code_width, pack, prefix
from .errors import HashretError
from .files import StrPath, atomic, read_json, recover
from .names import json_lines, to_json
from .precision import PRECISIONS
from .records import ascending, check_format, checked, fields, list_of, one_of, or_none, text, whole
from .records import number as real_number
from .registry import VARIABLE, load_plugins
from .renamed import old_attributes
from .vectors import STORED_TYPES

if TYPE_CHECKING:
    import h5py

FORMAT = 2  # of codes with spread thresholds, which are no queries; 1 of all others
MANIFEST = "codes.json"
_AGAIN = "remove it and run encode again"
# What HDF5 says of a file that the process holds open by other settings, which all of its handles must share.
_OPENED_OTHERWISE = re.compile(r"file (locking flag values don't|close degree doesn't) match")
_LONGEST = 2**16  # bytes of a path, and of an attribute
_ENCODED = {"bits": whole(MIN_BITS, MAX_BITS), "encoder": text(), "image_size": whole(1, 2**15)}
LENGTHS = ascending(whole(MIN_BITS, MAX_BITS))  # of code, of which the longest is that of the codes
_SHARD = fields(_ENCODED | {"sha256": text("[0-9a-f]{64}")}, {"format": whole(), "first_id": whole()})
_ATTRIBUTES = (*_ENCODED, "sha256", "format", "first_id")
SKIPPED_LINE = fields({"id": whole(), "path": text(), "reason": text()})
PROTOCOL = fields({"name": text(), "set": text(), "split": text()}, {"topk": or_none(whole(1))})
_MANIFEST = fields(
    _ENCODED | {"precision": one_of(*PRECISIONS), "shards": whole(0, 2**40), "classes": list_of(text())},
    {"format": whole(), "images": whole(), "shard_size": whole(1), "data": text(), "features": whole(1),
     "protocol": or_none(PROTOCOL), "rerank_by": text(), "own_ids": one_of(True), "lengths": LENGTHS,
     "dither": real_number(0)},
)  # fmt: skip

Array = npt.NDArray[Any]
Kind = tuple[str, tuple[int | None, ...]]  # the beginning of a dtype's name, and a shape in which None is any length


@dataclass(frozen=True)
class Column:
    """A column: an array with a row for each photograph, in shards and in the segments of an index.

    Attributes:
        name: of the array in code.
        stored: name on disk, of the dataset in a shard and, with ``.npy`` behind it, of the file in a segment.
        kinds: dtypes that it may have, each with the shape of a row, in which "bits" is the length of a code, "bytes"
            that of a packed code, and None any length.
        optional: whether a shard may lack it.
    """

    name: str
    stored: str
    kinds: tuple[tuple[str, tuple[int | str | None, ...]], ...]
    optional: bool = False

    @property
    def is_added(self) -> bool:
        """Whether it is one of `Shard.others`, beside those that a shard has by name."""
        return self.name not in Shard.__dataclass_fields__

    def kinds_of(self, count: int, bits: int) -> list[Kind]:
        """Return the dtypes and whole shapes that ``count`` rows of an encoder of ``bits`` bits may have."""
        lengths = {"bits": bits, "bytes": code_width(bits)}
        return [
            (dtype, (count, *(lengths[size] if isinstance(size, str) else size for size in shape)))
            for dtype, shape in self.kinds
        ]


# The one list of columns: what is added here is written, read, checked, and carried into an index.
COLUMNS = [
    Column("codes", "codes", (("|u1", ("bytes",)),)),
    Column("hash_outputs", "values", (("<f4", ("bits",)),)),
    Column("ids", "ids", (("<i8", ()),)),
    Column("paths", "paths", (("|S", ()),)),  # utf-8 of fixed length
    Column("labels", "labels", (("<i8", ()), ("|u1", (None,))), optional=True),  # class numbers, or a flag a class
    # The sha256 of the file, by which `hashret sync` knows a photograph that was moved; zeros where it is unknown.
    Column("digests", "digests", (("|u1", (32,)),), optional=True),
    # What the hash layer reads, or, where vectors are encoded, these as they came.
    Column("fc_features", "features", tuple((kind, (None,)) for kind in STORED_TYPES), optional=True),
]


def unknown_columns(stored: Iterable[str]) -> set[str]:
    """Return which names of columns on disk are none of `COLUMNS`, once the plugins that may add them are loaded."""
    stored = set(stored)
    if stored - {column.stored for column in COLUMNS}:
        load_plugins()
    return stored - {column.stored for column in COLUMNS}


def unknown_column(where: StrPath, unknown: Iterable[str]) -> HashretError:
    """Return the error of a shard or an index with columns that nothing adds here."""
    hint = f"name the plugin that adds it in {VARIABLE}"
    return HashretError(f"{where} has a column {min(unknown)!r} that nothing here knows", hint=hint)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"codes-{number:05d}.h5"


@old_attributes
@dataclass
class Shard:
    """The columns of one shard, see `COLUMNS`; arrays may be memory maps.

    Attributes:
        skipped: the unreadable photographs, a dict of id, path and reason each.
        others: columns that have no attribute here, by name.
    """

    codes: Codes
    hash_outputs: HashOutputs
    ids: Positions
    paths: npt.NDArray[np.bytes_]
    labels: Labels | None = None
    skipped: tuple[dict[str, Any], ...] = ()
    fc_features: npt.NDArray[Any] | None = None
    digests: npt.NDArray[np.uint8] | None = None
    others: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, columns: Mapping[str, Array], skipped: tuple[dict[str, Any], ...]) -> Shard:
        """Return the shard of some columns, by name."""
        own = {name: array for name, array in columns.items() if name in cls.__dataclass_fields__}
        others = {name: array for name, array in columns.items() if name not in own}
        return cls(**own, skipped=skipped, others=others)

    def columns(self) -> dict[str, Array]:
        """Return the columns that are there, by name, in the order of `COLUMNS`."""
        arrays = {column.name: self.others.get(column.name, getattr(self, column.name, None)) for column in COLUMNS}
        return {name: array for name, array in arrays.items() if array is not None}

    def shortened(self, bits: int) -> Shard:
        """Return the shard with codes of ``bits`` bits, the first of its own."""
        return replace(self, codes=prefix(self.codes, bits), hash_outputs=self.hash_outputs[:, :bits])

    def as_queries(self) -> Shard:
        """Return the shard with the codes that queries have, whose thresholds are never spread, see `dithered`."""
        return replace(self, codes=pack(binarize(self.hash_outputs)))

    def at(self, positions: npt.NDArray[Any]) -> Shard:
        """Return the shard with some of its photographs alone, by their positions in it, or a mask."""
        return Shard.of({name: array[positions] for name, array in self.columns().items()}, self.skipped)


def encode_paths(paths: Iterable[StrPath]) -> npt.NDArray[np.bytes_]:
    """Return paths as fixed-length bytes (n,), utf-8; names that are not utf-8 keep their bytes."""
    raw = [str(path).encode("utf-8", "surrogateescape") for path in paths]
    return np.array(raw, dtype=f"S{max([1, *map(len, raw)])}")


def decode_path(raw: Any) -> str:
    """Return the path of which `encode_paths` made these bytes."""
    return bytes(raw).decode("utf-8", "surrogateescape")


def write_shard(path: StrPath, shard: Shard, *, spread: bool = False, **attributes: Any) -> None:
    """Write a `Shard` atomically, with ``attributes`` (bits, encoder, image_size, first_id) on the file.

    Where the codes have ``spread`` thresholds, an earlier hashret, which would take them for queries, refuses it.
    """
    import h5py

    columns = shard.columns()
    arrays = {column.stored: columns[column.name] for column in COLUMNS if column.name in columns}
    skipped = "\n".join(map(to_json, shard.skipped))
    # HDF5 may crash on a full disk, so it writes to memory and the file is written plainly.
    with h5py.File("shard", "w", libver="latest", driver="core", backing_store=False) as file:
        for name, array in arrays.items():
            if name == "paths":
                array = array.view(h5py.string_dtype("utf-8", array.dtype.itemsize))
            file.create_dataset(name, data=array, track_times=False)
        file.create_dataset("skipped", data=np.frombuffer(skipped.encode("ascii"), np.uint8))
        file.attrs.update(format=FORMAT if spread else 1, sha256=_checksum(arrays), **attributes)
        file.flush()
        image = file.id.get_file_image()
    with atomic(path) as partial:
        partial.write_bytes(image)


def read_shard(path: StrPath, verify: bool = True) -> tuple[Shard, dict[str, Any]]:
    """Read a shard: -> (Shard of memory maps, attributes).

    Nothing is taken from the file but attributes that are single numbers or texts, and datasets as `write_shard` writes
    them: contiguous, of the expected type, inside the file. What else HDF5 can hold under these names, as links,
    compressed or virtual datasets, data kept in other files, is damage.

    Raises:
        HashretError: no such file, not a shard, damaged (``verify`` compares the checksum), of a later format.
    """
    import h5py

    if not Path(path).is_file():
        raise HashretError(f"no such shard: {path}")
    try:
        with h5py.File(path, "r", locking=False) as file:  # a shard is written whole, and never changed
            attributes = {name: _attribute(file, name) for name in _ATTRIBUTES if name in file.attrs}
            check_format(attributes.get("format", 0), FORMAT, path)
            checked(attributes, _SHARD, f"the shard {path}")
            n, bits = _length(file), attributes["bits"]
            unknown = unknown_columns(file.keys() - {"skipped"})
            present = [column for column in COLUMNS if not column.optional or column.stored in file]
            arrays = {c.stored: _map(path, file, c.stored, c.kinds_of(n, bits)) for c in present}
            raw = bytes(_map(path, file, "skipped", [("|u1", (None,))]))
        skipped = tuple(json_lines(raw.decode("utf-8", "surrogateescape")))
        checked(list(skipped), list_of(SKIPPED_LINE), f"the shard {path}")
        if verify and _checksum(arrays) != attributes["sha256"]:
            if unknown:  # which the checksum is of, too
                raise unknown_column(path, unknown)
            raise ValueError("its checksum does not match")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, BlockingIOError) or "already open for write" in str(error):
            raise HashretError(
                f"the shard {path} is locked: another program has it open for writing",
                hint=f"close that, or, where it ended without closing it, run h5clear -s {path}",
            ) from None
        if isinstance(error, OSError) and _OPENED_OTHERWISE.search(str(error)):
            raise HashretError(
                f"the shard {path} is open elsewhere in this process, in another way than hashret opens it",
                hint="close that, as an h5py.File, and try again",
            ) from None
        if isinstance(error, PermissionError):
            raise HashretError(f"cannot read the shard {path}: {os.strerror(error.errno or 0)}") from None
        raise HashretError(f"the shard {path} is damaged ({error})", hint=_AGAIN) from None
    return Shard.of({column.name: arrays[column.stored] for column in present}, skipped), attributes


def _attribute(file: h5py.File, name: str) -> Any:
    """Return a number or a text that is an attribute of the file."""
    import h5py

    attribute = file.attrs.get_id(name)
    kind, size = attribute.get_type().get_class(), attribute.get_storage_size()
    if attribute.shape != () or kind not in (h5py.h5t.INTEGER, h5py.h5t.STRING) or size > _LONGEST:
        raise ValueError(f"its {name} is no number and no text")
    value = file.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def _length(file: h5py.File) -> int:
    """Return how many photographs there are."""
    shape = _dataset(file, "ids").shape
    if len(shape) != 1:
        raise ValueError("its ids are no list")
    return int(shape[0])


def _dataset(file: h5py.File, name: str) -> h5py.h5d.DatasetID:
    """Return a dataset of the file itself, by HDF5's own means: `file[name]` would follow links."""
    import h5py

    raw = name.encode()
    if file.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"its {name} is a link")
    if h5py.h5o.get_info(file.id, raw).type != h5py.h5o.TYPE_DATASET:
        raise ValueError(f"its {name} is no dataset")
    return h5py.h5d.open(file.id, raw)


def _map(path: StrPath, file: h5py.File, name: str, kinds: list[Kind]) -> Array:
    """Return the memory map of a contiguous dataset of one of some ``kinds``."""
    import h5py

    dataset = _dataset(file, name)
    layout, stored = dataset.get_create_plist(), dataset.get_type()
    if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_nfilters() or layout.get_external_count():
        raise ValueError(f"its {name} are not kept as they were written")
    if stored.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING) or (
        stored.get_class() == h5py.h5t.STRING and stored.is_variable_str()
    ):
        raise ValueError(f"its {name} are of another type")
    dtype, shape = dataset.dtype, dataset.shape
    fits = (
        dtype.str.startswith(kind)
        and len(of) == len(shape)
        and all(a in (None, b) for a, b in zip(of, shape, strict=True))
        for kind, of in kinds
    )
    if not any(fits) or not 0 < dtype.itemsize <= _LONGEST:
        raise ValueError(f"its {name} are {dtype.str} {shape}")
    if 0 in shape:
        return np.zeros(shape, dtype)
    offset, size = dataset.get_offset(), int(np.prod(shape, dtype=object)) * dtype.itemsize
    if offset is None or offset + size > Path(path).stat().st_size:
        raise ValueError(f"its {name} end before they should")
    return np.memmap(path, dtype, "r", offset, shape)


def _checksum(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def is_shard_folder(folder: StrPath) -> bool:
    """Return whether a folder is one of shards."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: StrPath) -> dict[str, Any]:
    """Read what `codes.json` says of a folder of shards. Raises HashretError where there is none, or it is damaged."""
    if Path(folder).is_dir() and not os.path.lexists(Path(folder) / MANIFEST):
        hint = "if these are photographs, encode them first: hashret encode"
        raise HashretError(f"no shards in {folder}: {MANIFEST} is missing", hint=hint)
    manifest: dict[str, Any] = read_json(Path(folder) / MANIFEST, "shard folder")
    check_format(manifest.get("format", 0), FORMAT, folder)
    checked(manifest, _MANIFEST, f"the shard folder {Path(folder) / MANIFEST}")
    return manifest


def count_shards(folder: StrPath, manifest: Mapping[str, Any]) -> int:
    """Return how many of the shards of a folder are there."""
    numbers = (re.fullmatch(r"codes-(\d{5,18})\.h5", path.name) for path in Path(folder).iterdir())
    return sum(int(number[1]) < manifest["shards"] for number in numbers if number)


class ShardFolder:
    """All shards of one `encode` run, in order.

    Attributes:
        manifest: what `codes.json` says of the run: bits, encoder (its fingerprint), image_size, precision, shards ...

    Raises:
        HashretError: no such folder, no shards, or a run that has not ended.
    """

    def __init__(self, folder: StrPath):
        self.folder = Path(folder)
        recover(self.folder)
        if not self.folder.is_dir():
            raise HashretError(f"no such folder of shards: {folder}", hint="make one with hashret encode")
        self.manifest = read_manifest(self.folder)
        missing = self.manifest["shards"] - count_shards(self.folder, self.manifest)
        if missing:
            raise HashretError(
                f"{folder} is not complete: {missing} of {self.manifest['shards']} shards are missing",
                hint="run the same hashret encode again to go on",
            )

    def shard_path(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / shard_name(number)

    def __iter__(self) -> Iterator[Shard]:
        """Read each `Shard`, one after the other."""
        return map(self.read, range(self.manifest["shards"]))

    def read(self, number: int) -> Shard:
        """Read a `Shard`, and check that it is of this run."""
        shard, attributes = read_shard(self.shard_path(number))
        if read_manifest(self.folder) != self.manifest:
            raise HashretError(f"{self.folder} was encoded anew while it was read", hint="run this again")
        if (attributes["bits"], attributes["encoder"]) != (self.manifest["bits"], self.manifest["encoder"]):
            raise HashretError(f"{self.shard_path(number)} was encoded by another encoder than {self.folder}")
        wrong = self._contradiction(number, shard)
        if wrong:
            raise HashretError(f"the shard {self.shard_path(number)} is damaged ({wrong})", hint=_AGAIN)
        return shard

    def optional_columns(self) -> set[str]:
        """Return the names of the optional columns that the shards have."""
        if not self.manifest["shards"]:
            return set()
        first = read_shard(self.shard_path(0), verify=False)[0].columns()
        return {column.name for column in COLUMNS if column.optional and column.name in first}

    def label_dimensions(self) -> int:
        """Return 0 where the photographs have no labels, 1 where one each, 2 where several."""
        if not self.manifest["shards"]:
            return 0
        labels = read_shard(self.shard_path(0), verify=False)[0].labels
        return 0 if labels is None else labels.ndim

    def features_type(self) -> np.dtype[Any] | None:
        """Return the type of the features, or of the vectors, that are kept; None where none are."""
        if not self.manifest["shards"]:
            return None
        features = read_shard(self.shard_path(0), verify=False)[0].fc_features
        return None if features is None else features.dtype

    def paths(self) -> Iterator[np.bytes_]:
        """Yield the path of each photograph as it is stored, one after the other."""
        for number in range(self.manifest["shards"]):
            yield from read_shard(self.shard_path(number), verify=False)[0].paths

    def _contradiction(self, number: int, shard: Shard) -> str | None:
        """Return what of a shard is not as the manifest says, or None."""
        ids, labels, classes = shard.ids, shard.labels, len(self.manifest["classes"])
        if len(ids) and not (ids[0] >= 0 and (ids[1:] > ids[:-1]).all()):
            return "its ids do not ascend"
        if len(ids) and "shard_size" in self.manifest and "own_ids" not in self.manifest:
            start, size = number * self.manifest["shard_size"], self.manifest["shard_size"]
            if ids[0] < start or ids[-1] >= min(start + size, self.manifest.get("images", start + size)):
                return "its photographs are those of another shard"
        if (0 if shard.fc_features is None else shard.fc_features.shape[1]) != self.manifest.get("features", 0):
            return f"its features are not as {MANIFEST} says"
        if labels is None or not len(labels):
            return None
        known = labels.shape[1] == classes if labels.ndim == 2 else -1 <= labels.min() <= labels.max() < classes
        return None if known else f"its labels are not those of {classes} classes"

    def load(self) -> Shard:
        """Read all rows as one `Shard` in memory. Raises HashretError where not even a shard is there."""
        shards = list(self)
        if not shards:
            raise HashretError(f"there are no photographs in {self.folder}")
        columns = [shard.columns() for shard in shards]
        joined = {name: np.concatenate([arrays[name] for arrays in columns]) for name in columns[0]}
        return Shard.of(joined, tuple(line for shard in shards for line in shard.skipped))
