"""HDF5 shards: packed codes, real values, ids, labels and paths of encoded photographs.

A shard ``codes-00000.h5`` holds the datasets ``codes`` uint8 (n, ceil(bits / 8)), ``values`` float32 (n, bits),
``ids`` int64 (n,), ``labels`` int64 (n,) or uint8 (n, classes) where known, ``paths`` fixed-length utf-8, and
``skipped``, a JSON line for each unreadable photograph of its range; where asked for, ``features`` float32 (n, width),
what the hash layer reads. All are contiguous and uncompressed, so that
numpy maps the rows. Values are float32 because trained encoders saturate: in float16 most of them are exactly one,
and re-ranking has nothing left to order by. A shard is written under a temporary name and renamed: one that exists
is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .bits import MAX_BITS, MIN_BITS, code_width
from .errors import HashretError
from .files import atomic, read_json, recover
from .names import json_lines, to_json
from .records import checked, fields, list_of, one_of, or_none, text, whole

FORMAT = 1
MANIFEST = "codes.json"
_ARRAYS = ("codes", "values", "ids", "paths")
_OPTIONAL = ("labels", "features")
_LONGEST = 2**16  # bytes of a path, and of an attribute
_ENCODED = {"bits": whole(MIN_BITS, MAX_BITS), "encoder": text(), "image_size": whole(1, 2**15)}
_SHARD = fields(_ENCODED | {"sha256": text("[0-9a-f]{64}")}, {"format": whole(), "first_id": whole()})
_ATTRIBUTES = (*_ENCODED, "sha256", "format", "first_id")
SKIPPED_LINE = fields({"id": whole(), "path": text(), "reason": text()})
PROTOCOL = fields({"name": text(), "set": text(), "split": text()}, {"topk": or_none(whole(1))})
_MANIFEST = fields(
    _ENCODED | {"precision": one_of("bfloat16", "float32"), "shards": whole(0, 2**40), "classes": list_of(text())},
    {"format": whole(), "images": whole(), "shard_size": whole(1), "data": text(), "features": whole(1),
     "protocol": or_none(PROTOCOL)},
)  # fmt: skip


def shard_name(number):
    """File name of a shard."""
    return f"codes-{number:05d}.h5"


@dataclass
class Shard:
    """Rows of one shard; arrays may be memory maps.

    codes uint8 (n, w), values float32 (n, bits), ids int64 (n,), paths bytes (n,), labels (n,) or (n, classes) or
    None, skipped: list of dicts (id, path, reason), features float32 (n, width) or None.
    """

    codes: np.ndarray
    values: np.ndarray
    ids: np.ndarray
    paths: np.ndarray
    labels: np.ndarray | None = None
    skipped: tuple = ()
    features: np.ndarray | None = None

    def __len__(self):
        return len(self.ids)

    def without(self, paths):
        """The shard without the rows of some paths, a set."""
        rows = [row for row, path in enumerate(self.paths) if decode_path(path) not in paths]
        there = [name for name in (*_ARRAYS, *_OPTIONAL) if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[rows] for name in there})


def encode_paths(paths):
    """Paths as fixed-length bytes (n,), utf-8; names that are not utf-8 keep their bytes."""
    raw = [str(path).encode("utf-8", "surrogateescape") for path in paths]
    return np.array(raw, dtype=f"S{max([1, *map(len, raw)])}")


def decode_path(raw):
    """Inverse of `encode_paths` for one path."""
    return bytes(raw).decode("utf-8", "surrogateescape")


def write_shard(path, shard, **attributes):
    """Write a `Shard` atomically, with ``attributes`` (bits, encoder, image_size, first_id) on the file."""
    import h5py

    arrays = {name: getattr(shard, name) for name in (*_ARRAYS, *_OPTIONAL) if getattr(shard, name) is not None}
    skipped = "\n".join(map(to_json, shard.skipped))
    # HDF5 may crash on a full disk, so it writes to memory and the file is written plainly.
    with h5py.File("shard", "w", libver="latest", driver="core", backing_store=False) as file:
        for name, array in arrays.items():
            if name == "paths":
                array = array.view(h5py.string_dtype("utf-8", array.dtype.itemsize))
            file.create_dataset(name, data=array, track_times=False)
        file.create_dataset("skipped", data=np.frombuffer(skipped.encode("ascii"), np.uint8))
        file.attrs.update(format=FORMAT, sha256=_checksum(arrays), **attributes)
        file.flush()
        image = file.id.get_file_image()
    with atomic(path) as partial:
        partial.write_bytes(image)


def read_shard(path, verify=True):
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
            if attributes.get("format", 0) > FORMAT:
                raise HashretError(f"{path} was written by a later hashret (format {attributes['format']}); upgrade")
            checked(attributes, _SHARD, f"the shard {path}")
            n, bits = _length(file), attributes["bits"]
            shapes = {
                "codes": [("|u1", (n, code_width(bits)))], "values": [("<f4", (n, bits))], "ids": [("<i8", (n,))],
                "paths": [("|S", (n,))], "labels": [("<i8", (n,)), ("|u1", (n, None))],
                "features": [("<f4", (n, None))],
            }  # fmt: skip
            names = [*_ARRAYS, *(name for name in _OPTIONAL if name in file)]
            arrays = {name: _map(path, file, name, shapes[name]) for name in names}
            skipped = bytes(_map(path, file, "skipped", [("|u1", (None,))])).decode("utf-8", "surrogateescape")
        skipped = tuple(json_lines(skipped))
        checked(list(skipped), list_of(SKIPPED_LINE), f"the shard {path}")
        if verify and _checksum(arrays) != attributes["sha256"]:
            raise ValueError("its checksum does not match")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, BlockingIOError) or "already open for write" in str(error):
            raise HashretError(
                f"the shard {path} is locked: another program has it open for writing; close that, "
                f"or, where it ended without closing it, run h5clear -s {path}"
            ) from None
        if isinstance(error, PermissionError):
            raise HashretError(f"cannot read the shard {path}: {os.strerror(error.errno)}") from None
        raise HashretError(f"the shard {path} is damaged ({error}); remove it and run encode again") from None
    return Shard(**arrays, skipped=skipped), attributes


def _attribute(file, name):
    """A number or a text that is an attribute of the file."""
    import h5py

    found = file.attrs.get_id(name)
    kind = found.get_type().get_class()
    if found.shape != () or kind not in (h5py.h5t.INTEGER, h5py.h5t.STRING) or found.get_storage_size() > _LONGEST:
        raise ValueError(f"its {name} is no number and no text")
    value = file.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def _length(file):
    """How many photographs there are."""
    shape = _dataset(file, "ids").shape
    if len(shape) != 1:
        raise ValueError("its ids are no list")
    return shape[0]


def _dataset(file, name):
    """A dataset of the file itself, by HDF5's own means: `file[name]` would follow links."""
    import h5py

    raw = name.encode()
    if file.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"its {name} is a link")
    if h5py.h5o.get_info(file.id, raw).type != h5py.h5o.TYPE_DATASET:
        raise ValueError(f"its {name} is no dataset")
    return h5py.h5d.open(file.id, raw)


def _map(path, file, name, kinds):
    """Memory map of a contiguous dataset of one of some ``kinds``: a type and a shape, in which None is any length."""
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


def _checksum(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def read_manifest(folder):
    """What `codes.json` says of a folder of shards. Raises HashretError where there is none, or it is damaged."""
    return read_json(Path(folder) / MANIFEST, "shard folder", _MANIFEST)


def count_shards(folder, manifest):
    """How many of the shards of a folder are there."""
    numbers = (re.fullmatch(r"codes-(\d{5,18})\.h5", path.name) for path in Path(folder).iterdir())
    return sum(int(number[1]) < manifest["shards"] for number in numbers if number)


class ShardFolder:
    """All shards of one `encode` run, in order.

    Attributes:
        manifest: what the run encoded: bits, encoder, image_size, precision, count, shards, complete ...

    Raises:
        HashretError: no such folder, no shards, or a run that has not ended.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        recover(self.folder)
        if not self.folder.is_dir():
            raise HashretError(f"no such folder of shards: {folder}; make one with hashret encode")
        self.manifest = read_manifest(self.folder)
        missing = self.manifest["shards"] - count_shards(self.folder, self.manifest)
        if missing:
            raise HashretError(
                f"{folder} is not complete: {missing} of {self.manifest['shards']} shards are missing; "
                "run the same hashret encode again to go on"
            )

    def shard_path(self, number):
        """Path of a shard."""
        return self.folder / shard_name(number)

    def __iter__(self):
        """Each `Shard`, one after the other."""
        return map(self.read, range(self.manifest["shards"]))

    def read(self, number):
        """A `Shard`, checked to be of this run."""
        shard, attributes = read_shard(self.shard_path(number))
        if read_manifest(self.folder) != self.manifest:
            raise HashretError(f"{self.folder} was encoded anew while it was read; run this again")
        if (attributes["bits"], attributes["encoder"]) != (self.manifest["bits"], self.manifest["encoder"]):
            raise HashretError(f"{self.shard_path(number)} was encoded by another encoder than {self.folder}")
        wrong = self._contradiction(number, shard)
        if wrong:
            raise HashretError(
                f"the shard {self.shard_path(number)} is damaged ({wrong}); remove it and run encode again"
            )
        return shard

    def paths(self):
        """The path of each photograph, bytes, one after the other."""
        for number in range(self.manifest["shards"]):
            yield from read_shard(self.shard_path(number), verify=False)[0].paths

    def _contradiction(self, number, shard):
        """What of a shard is not as the manifest says, or None."""
        ids, labels, classes = shard.ids, shard.labels, len(self.manifest["classes"])
        if len(ids) and not (ids[0] >= 0 and (ids[1:] > ids[:-1]).all()):
            return "its ids do not ascend"
        if len(ids) and "shard_size" in self.manifest:
            start, size = number * self.manifest["shard_size"], self.manifest["shard_size"]
            if ids[0] < start or ids[-1] >= min(start + size, self.manifest.get("images", start + size)):
                return "its photographs are those of another shard"
        if (0 if shard.features is None else shard.features.shape[1]) != self.manifest.get("features", 0):
            return f"its features are not as {MANIFEST} says"
        if labels is None or not len(labels):
            return None
        known = labels.shape[1] == classes if labels.ndim == 2 else -1 <= labels.min() <= labels.max() < classes
        return None if known else f"its labels are not those of {classes} classes"

    def load(self):
        """All rows as one `Shard` in memory."""
        shards = list(self)
        there = [name for name in _OPTIONAL if getattr(shards[0], name) is not None]
        joined = {name: np.concatenate([getattr(shard, name) for shard in shards]) for name in (*_ARRAYS, *there)}
        return Shard(**joined, skipped=sum((shard.skipped for shard in shards), ()))
