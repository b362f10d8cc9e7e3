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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .bits import code_width
from .errors import HashretError
from .files import atomic, read_json, recover
from .names import json_lines, to_json

FORMAT = 1
MANIFEST = "codes.json"
_ARRAYS = ("codes", "values", "ids", "paths")
_OPTIONAL = ("labels", "features")


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

    Raises:
        HashretError: no such file, not a shard, damaged (``verify`` compares the checksum), of a later format.
    """
    import h5py

    if not Path(path).is_file():
        raise HashretError(f"no such shard: {path}")
    try:
        with h5py.File(path, "r", locking=False) as file:  # a shard is written whole, and never changed
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            if attributes.get("format", 0) > FORMAT:
                raise HashretError(f"{path} was written by a later hashret (format {attributes['format']}); upgrade")
            arrays = {name: _map(path, file[name]) for name in (*_ARRAYS, *_OPTIONAL) if name in file}
            skipped = bytes(file["skipped"][()]).decode("utf-8", "surrogateescape")
        shard = Shard(**arrays, skipped=tuple(json_lines(skipped)))
        n, bits = len(shard.ids), attributes["bits"]
        if shard.codes.shape != (n, code_width(bits)) or shard.values.shape != (n, bits) or len(shard.paths) != n:
            raise ValueError("its datasets differ in length")
        if verify and _checksum(arrays) != attributes["sha256"]:
            raise ValueError("its checksum does not match")
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BlockingIOError) or "already open for write" in str(error):
            raise HashretError(
                f"the shard {path} is locked: another program has it open for writing; close that, "
                f"or, where it ended without closing it, run h5clear -s {path}"
            ) from None
        if isinstance(error, PermissionError):
            raise HashretError(f"cannot read the shard {path}: {os.strerror(error.errno)}") from None
        raise HashretError(f"the shard {path} is damaged ({error}); remove it and run encode again") from None
    return shard, attributes


def _map(path, dataset):
    """Memory map of a contiguous dataset."""
    offset = dataset.id.get_offset()
    if offset is None:  # no rows
        return np.zeros(dataset.shape, dataset.dtype)
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape)


def _checksum(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


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
        self.manifest = read_json(self.folder / MANIFEST, "shard folder")
        missing = [number for number in range(self.manifest["shards"]) if not self.shard_path(number).exists()]
        if missing:
            raise HashretError(
                f"{folder} is not complete: {len(missing)} of {self.manifest['shards']} shards are missing; "
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
        if read_json(self.folder / MANIFEST, "shard folder") != self.manifest:
            raise HashretError(f"{self.folder} was encoded anew while it was read; run this again")
        if (attributes["bits"], attributes["encoder"]) != (self.manifest["bits"], self.manifest["encoder"]):
            raise HashretError(f"{self.shard_path(number)} was encoded by another encoder than {self.folder}")
        return shard

    def paths(self):
        """The path of each photograph, bytes, one after the other."""
        for number in range(self.manifest["shards"]):
            yield from read_shard(self.shard_path(number), verify=False)[0].paths

    def load(self):
        """All rows as one `Shard` in memory."""
        shards = list(self)
        there = [name for name in _OPTIONAL if getattr(shards[0], name) is not None]
        joined = {name: np.concatenate([getattr(shard, name) for shard in shards]) for name in (*_ARRAYS, *there)}
        return Shard(**joined, skipped=sum((shard.skipped for shard in shards), ()))
