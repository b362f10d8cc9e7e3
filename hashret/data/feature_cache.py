"""The feature cache: the feature map of each photograph that a frozen backbone gives, computed once and kept on disk.

A cache is a folder for one root of photographs under one set of weights, one image size and one number format. Its
files have a slot for each photograph that was ever asked for: `photographs.bin` says which one it is (`_RECORD`: a hash
of its path below the root, its size and time), `state.u8` is a byte (0 not yet, 1 there, 2 unreadable), `features.f16`
its feature map in float16; `info.json` says what the cache is of, and the shape of a map. A photograph that is changed
keeps its slot and is computed anew, a new one gets the next slot; the slot of one that is gone stays until the cache is
cleared. A killed run goes on where it stopped, and every later run (other bits, other seed, with or without attention)
reads what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bits import Positions
from ..distributed import barrier, is_main, rank, world
from ..errors import HashretError
from ..files import StrPath, atomic, default_cache, locked, read_json, remove_own, write_json
from ..progress import Progress
from ..records import fields, list_of, or_none, whole
from ..results import Result
from .batches import Batch, Transform, batch_size, batches, split_rows
from .source import Source

if TYPE_CHECKING:
    import torch

ComputeMaps = Callable[[npt.NDArray[np.uint8]], "torch.Tensor"]  # photographs (n, 3, s, s) to feature maps
Maps = npt.NDArray[np.float16]  # feature maps (n, channels, side, side)
States = npt.NDArray[np.uint8]  # of photographs (n,): MISSING, PRESENT or UNREADABLE

MISSING, PRESENT, UNREADABLE = 0, 1, 2
_FORMAT = 2
_READING = 1  # counts up when photographs come to be read to other pixels, so that their features are computed anew
_RECORD = np.dtype([("path", "V16"), ("size", "<i8"), ("time", "<i8")])
_BYTE = np.dtype(np.uint8)
_PHOTOGRAPHS, _STATE, _FEATURES, _INFO = "photographs.bin", "state.u8", "features.f16", "info.json"
_CHECK = fields({}, {"shape": or_none(list_of(whole(1, 2**20), 2))})
_FORMAT_1_SHAPE = (512, 32)  # channels and stride of the caches that knew of no others


class FeatureCache:
    """Feature maps of the photographs of one data source under one set of weights.

    Args:
        folder: where caches lie; None for `default_cache`.
        source: the photographs. The cache of a subset is that of the whole, as is that of any source of the same root.
        weights: what `hashret.models.backbones.Backbone.fingerprint` says of the layers.
        image_size: side of the images in pixels.
        compute_dtype: "bfloat16" or "float32", the number format that the backbone computes in.
        resize: how photographs become squares, see `hashret.data.images.read_image`.
        views: where it is not 0, the cache has in the place of a photograph's feature map the pooled features of the
            photograph as it is and of so many augmented views, (views + 1, channels).
        augment: how the views were made, where the cache has not their pooled features but their feature maps,
            (views + 1, channels, side, side); None for pooled features.
    """

    def __init__(
        self,
        folder: StrPath | None,
        source: Source,
        weights: str,
        image_size: int,
        compute_dtype: str,
        resize: str = "squeeze",
        *,
        views: int = 0,
        augment: str | None = None,
    ) -> None:
        self.whole: Source = source if source.whole is None else source.whole
        self.rows = np.arange(len(source)) if source.rows is None else source.rows
        self.image_size, self.resize, self.views = image_size, resize, views
        self.parent = _parent(folder)
        self.key: dict[str, Any] = {"weights": weights, "image_size": image_size, "precision": compute_dtype}
        if resize != "squeeze":  # which caches had from the start, unnamed
            self.key["resize"] = resize
        if views:
            self.key["views"] = views
            if augment:
                self.key["augment"] = augment
        key = {"format": _FORMAT, "reading": _READING, "root": os.path.realpath(self.whole.root), **self.key}
        self.folder, self.info = self.parent / _name(key), key | {"spec": self.whole.spec}
        self.slots: Positions | None = None  # of the photographs of the whole source, see `_located`

    @cached_property
    def paths(self) -> list[bytes]:
        """Return a hash of each path of the whole source, list of 16 bytes."""
        return [hashlib.blake2b(os.fsencode(path), digest_size=16).digest() for path in self.whole.paths]

    def state(self) -> States:
        """Return the state of each photograph of the source."""
        with self._reported():
            self._check_files()
            if self.slots is None:
                self.slots = self._located()
            return self._states(self.slots)[self.rows]

    def _check_files(self) -> None:
        """Raise HashretError where a name of the cache is that of a pipe, say, which would be waited for."""
        for name in (_PHOTOGRAPHS, _STATE, _FEATURES, _INFO):
            path = self.folder / name
            if path.exists() and not path.is_file():
                raise self._damaged()

    def _states(self, slots: Positions) -> States:
        """Return the states of the photographs of which these are the slots, -1 for none."""
        # Another run may enter photographs meanwhile: states first, see `_enter`.
        least = len(_read(self.folder / _PHOTOGRAPHS, _RECORD))
        state = _read(self.folder / _STATE, _BYTE)
        most = len(_read(self.folder / _PHOTOGRAPHS, _RECORD))
        present = np.flatnonzero(state == PRESENT)
        if len(state) < least or state[most:].any() or (len(present) and self._computed() <= present[-1]):
            raise self._damaged()
        return np.where(slots >= 0, state[slots], np.uint8(MISSING)) if len(state) else np.zeros(len(slots), np.uint8)

    def _computed(self) -> int:
        """Return the number of slots that there are feature maps or room for."""
        shape, path = self._shape(), self.folder / _FEATURES
        size = path.stat().st_size if path.exists() else 0
        if shape is None or size % _bytes(shape):
            raise self._damaged()
        return size // _bytes(shape)

    def _located(self, check: bool = True) -> Positions:
        """Return the slot of each photograph of the whole source, -1 where there is none.

        With ``check``, that of one whose file has changed since is -1 as well.
        """
        if not self.folder.exists():
            self._adopt()
        table = _read(self.folder / _PHOTOGRAPHS, _RECORD)
        slot = {path: number for number, path in enumerate(table["path"].tolist())}
        slots = np.array([slot.get(path, -1) for path in self.paths], np.int64)
        if check and len(table):
            known = table[slots]
            same = (known["size"] == self.whole.stats[:, 0]) & (known["time"] == self.whole.stats[:, 1])
            slots[~same] = -1
        return slots

    def open(self, shape: tuple[int, ...] | None = None) -> CachedRows:
        """Return the feature maps, which are read as they are indexed.

        Args:
            shape: of a feature map as the backbone makes it; None where any is right.

        Raises:
            HashretError: the cache is damaged, as where its feature maps have another shape.
        """
        maps: Maps = np.empty((0, 0, 0, 0), np.float16)
        if (self.state() == PRESENT).any():
            with self._reported():
                kept = self._shape() or ()
                if shape not in (None, kept):
                    raise self._damaged()
                maps = np.memmap(self.folder / _FEATURES, np.float16, "r", shape=(self._computed(), *kept))
        assert self.slots is not None
        return CachedRows(maps, self.slots[self.rows])

    def fill(
        self,
        compute: ComputeMaps,
        workers: int | None = None,
        transform: Transform | None = None,
        *,
        what: str = "convolution features",
    ) -> States:
        """Compute what is missing; several processes share the work. Returns `state`, complete.

        Args:
            compute: turns photographs, or what ``transform`` makes of them, (n, ...) uint8 into feature maps.
            workers, transform: see `hashret.data.batches.batches`.
            what: the name of the work, for its progress.

        Raises:
            HashretError: the disk is full; what was computed stays.
        """
        if is_main():
            self._create()
        barrier()
        with self._reported():
            self.slots = self._located(check=is_main())  # what the main process has just checked holds for all
        todo = self.rows[self.state() != PRESENT]  # what was unreadable may be readable with another plugin
        shared = split_rows(todo.tolist(), max(1, batch_size(self.image_size) // (self.views + 1)))
        barrier()  # all have seen the same state before one changes it
        mine = shared[rank() :: world()]
        total = sum(map(len, mine))
        progress = Progress(what, total)
        with self._reported(), self._opened(_FEATURES) as maps, self._opened(_STATE) as state:
            for batch in batches(self.whole, self.image_size, mine, workers, transform, resize=self.resize):
                self._write(batch, compute, maps, state)
                progress.add(len(batch.rows) + len(batch.skipped))
        progress.close()
        barrier()
        return self.state()

    def _create(self) -> None:
        """Make the folder, and give each photograph a slot that knows its file as it is now."""
        with self._reported():
            self.parent.mkdir(parents=True, exist_ok=True)
            if not self.folder.exists():
                self._adopt()
            with locked(self.parent):
                self.folder.mkdir(exist_ok=True)
                if any(path.is_symlink() for path in self.folder.iterdir()):  # what it leads to would be written to
                    raise self._damaged()
                self._check_files()
                if not (self.folder / _INFO).exists():
                    write_json(self.folder / _INFO, self.info)
                with self._opened(_PHOTOGRAPHS) as table, self._opened(_STATE) as state:
                    self._enter(table, state)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Yield a descriptor of a file of the cache, to read and to write; it is made where it is missing."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, batch: Batch, compute: ComputeMaps, maps: int, state: int) -> None:
        """Write feature maps to an open file, then to another that they are there: a run may be killed between the two.

        Plain writes, not a memory map: a full disk is then an error that can be reported, not a bus error.
        """
        slots = self.slots
        assert slots is not None
        if len(batch.rows):
            computed = np.asarray(compute(batch.images).cpu().numpy(), np.float16)
            size = self._settle(computed.shape[1:])
            for row, one in zip(batch.rows, computed, strict=True):
                _write_whole(maps, one.tobytes(), int(slots[row]) * size)
            os.fsync(maps)
        for row in batch.rows:
            _write_whole(state, bytes([PRESENT]), int(slots[row]))
        for row, _reason in batch.skipped:
            _write_whole(state, bytes([UNREADABLE]), int(slots[row]))

    def _enter(self, table: int, state: int) -> None:
        """Bring the open files of photographs and states up to date, so that a kill at any moment loses no more than
        features: a state never says more than is true of the photograph in its slot.
        """
        count = os.fstat(table).st_size // _RECORD.itemsize
        os.ftruncate(table, count * _RECORD.itemsize)  # the last may be cut off
        slots = self._located(check=False)
        self._states(slots)  # which says where they are damaged
        now = np.zeros(len(self.paths), _RECORD)
        now["path"] = np.array(self.paths, "V16")
        now["size"], now["time"] = self.whole.stats.T
        known = np.flatnonzero(slots >= 0)
        before = _read(self.folder / _PHOTOGRAPHS, _RECORD)[slots[known]]
        changed = known[(before["size"] != now["size"][known]) | (before["time"] != now["time"][known])]
        for row in changed:
            _write_whole(state, bytes([MISSING]), int(slots[row]))
        os.fsync(state)
        for row in changed:
            _write_whole(table, now[row].tobytes(), int(slots[row]) * _RECORD.itemsize)
        new = list({self.paths[row]: row for row in np.flatnonzero(slots < 0)}.values())
        os.ftruncate(state, count + len(new))
        os.fsync(state)
        _write_whole(table, now[new].tobytes(), count * _RECORD.itemsize)
        os.fsync(table)
        if self._shape():
            self._extend(count + len(new))

    def _shape(self) -> tuple[int, ...] | None:
        """Return the shape of a feature map, (channels, side, side), or as a stage or views have it; or None."""
        shape = self._read_info().get("shape")
        if shape is not None and len(shape) > 4:  # two are of tokens or pooled views, three of a map, four of views
            raise self._damaged()
        return shape and tuple(shape)

    def _settle(self, shape: Sequence[int]) -> int:
        """Take the shape of a feature map from the first one: -> its bytes."""
        known = self._shape()
        if known is None:
            write_json(self.folder / _INFO, self._read_info() | {"shape": list(shape)})
            self._extend(len(_read(self.folder / _PHOTOGRAPHS, _RECORD)))
        elif known != tuple(shape):
            raise self._damaged()
        return _bytes(shape)

    def _extend(self, slots: int) -> None:
        """Make room for the feature maps of so many slots; it takes space as it fills."""
        size = slots * _bytes(self._shape() or ())
        with open(self.folder / _FEATURES, "ab") as file:
            if file.tell() < size:
                file.truncate(size)

    def _read_info(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / _INFO, "feature cache", _CHECK)
        except HashretError:
            raise self._damaged() from None

    def _damaged(self) -> HashretError:
        return HashretError(f"the feature cache {self.folder} is damaged", hint="remove that folder and run again")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HashretError(
                f"cannot use the feature cache {self.folder}: {error.strerror or error}",
                hint="name another with --cache",
            ) from None

    def _adopt(self) -> None:
        """Take over the cache of an earlier hashret, or of the same photographs when their root was elsewhere."""
        with contextlib.suppress(OSError), locked(self.parent):
            if self.folder.exists():
                return
            earlier = {"format": 1, "data": self.whole.fingerprint, **self.key}
            if earlier.items() <= _info(self.parent / _name(earlier)).items():
                self._convert(self.parent / _name(earlier))
                return
            own = {"root", "spec", "shape"}  # what caches of the same photographs may differ in
            same = {name: value for name, value in self.info.items() if name not in own}
            for other in self.parent.iterdir():
                info = _info(other)
                alike = same == {name: value for name, value in info.items() if name not in own}
                if alike and not os.path.exists(str(info.get("root"))):
                    paths = _read(other / _PHOTOGRAPHS, _RECORD)["path"].tolist()
                    if 2 * len(set(self.paths).intersection(paths)) > len(paths):
                        write_json(other / _INFO, info | self.info)
                        os.rename(other, self.folder)
                        return

    def _convert(self, old: Path) -> None:
        """Make a cache of format 1, whose rows are those of the whole source, one of this format."""
        channels, stride = _FORMAT_1_SHAPE
        shape = (channels, self.image_size // stride, self.image_size // stride)
        state = _read(old / _STATE, _BYTE).copy()
        if len(state) != len(self.whole) or (old / _FEATURES).stat().st_size != len(state) * _bytes(shape):
            return
        for row in np.flatnonzero(state == PRESENT):
            if not _is_read_as_before(self.whole.reference(int(row))):
                state[row] = MISSING
        table = np.zeros(len(self.whole), _RECORD)
        table["path"] = np.array(self.paths, "V16")
        table["size"], table["time"] = self.whole.stats.T
        for name, content in ((_STATE, state), (_PHOTOGRAPHS, table)):
            with atomic(old / name) as partial:
                partial.write_bytes(content.tobytes())  # `tofile` raises nothing where the disk is full
        write_json(old / _INFO, self.info | {"shape": list(shape)})
        os.rename(old, self.folder)


class CachedRows:
    """Feature maps by the rows of a source: ``cached[rows]`` (m,) -> float16 (m, channels, side, side).

    Those of photographs that are not PRESENT hold nothing.
    """

    def __init__(self, maps: Maps, slots: Positions) -> None:
        self.maps, self.slots = maps, slots

    def __getitem__(self, rows: npt.ArrayLike | slice) -> Maps:
        slots = self.slots[rows if isinstance(rows, slice) else np.asarray(rows)]
        order = np.argsort(slots)  # reading forward is faster
        maps = np.empty((len(slots), *self.maps.shape[1:]), np.float16)
        maps[order] = self.maps[slots[order]]
        return maps

    def by_view(self) -> CachedRows:
        """Return the same with a row for each view of a photograph: the photograph's row times the views of each, plus
        the number of the view.
        """
        count, shape = self.maps.shape[1], self.maps.shape[2:]
        return CachedRows(self.maps.reshape(-1, *shape), (self.slots[:, None] * count + np.arange(count)).ravel())


def _write_whole(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of some bytes to a file: a disk that is just getting full takes a part, and says so at the next write.

    Raises:
        OSError: the disk is full, or fails.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


@dataclass(frozen=True)
class CacheInfo(Result):
    """A cache as `hashret cache list` shows it: ``name`` of its folder, ``source`` as it was named, ``photographs``
    whose features it has, ``bytes`` on disk, ``image_size``, ``precision``, ``days`` since it was written to, and
    ``root``, the folder that the photographs lie in. What is not known is None, as where it is damaged.
    """

    name: str
    source: str | None
    photographs: int
    bytes: int
    image_size: int | None
    precision: str | None
    days: float
    root: str | None


def caches(folder: StrPath | None = None) -> list[CacheInfo]:
    """List the feature caches in a folder, None for `default_cache`, the one last written first.

    Raises:
        HashretError: the folder cannot be read.
    """
    parent = _parent(folder)
    try:
        folders = [path for path in parent.iterdir() if path.is_dir() and re.fullmatch("[0-9a-f]{20}", path.name)]
        return sorted(map(_described, folders), key=lambda cache: cache.days)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HashretError(f"cannot read the feature caches in {parent}: {error.strerror}") from None


def _described(path: Path) -> CacheInfo:
    info = _info(path)
    files = [file.stat() for file in path.iterdir() if file.is_file()]
    written = max([file.st_mtime for file in files], default=path.stat().st_mtime)
    return CacheInfo(
        path.name, info.get("spec"), int((_read(path / _STATE, _BYTE) == PRESENT).sum()),
        sum(512 * file.st_blocks for file in files), info.get("image_size"), info.get("precision"),
        max(0.0, (time.time() - written) / 86400), info.get("root"),
    )  # fmt: skip


def clear_caches(names: Iterable[str], folder: StrPath | None = None) -> int:
    """Remove feature caches by name: -> bytes freed. Files that are not hashret's stay, and their folder with them.

    Raises:
        HashretError: no such cache; none is removed then. Or one that cannot be removed.
    """
    parent = _parent(folder)
    known, names = {cache.name: cache for cache in caches(folder)}, set(names)
    for name in names:
        if name not in known:
            raise HashretError(
                f"no feature cache {name} in {parent}", hint="hashret cache list names those that are there"
            )
    for name in names:
        remove_own(parent / name, "|".join(map(re.escape, (_STATE, _FEATURES, _PHOTOGRAPHS, _INFO))))
        if (parent / name / _INFO).exists():
            raise HashretError(f"cannot remove {parent / name}", hint="may you write there?")
    return sum(known[name].bytes for name in names)


def _parent(folder: StrPath | None) -> Path:
    """Return the folder of the feature caches in a folder of caches, None for `default_cache`."""
    return Path(folder or default_cache()) / "features"


def _name(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def _info(folder: Path) -> dict[str, Any]:
    """Return what a cache says it is of, {} where there is none, or it is damaged."""
    try:
        return read_json(folder / _INFO, "feature cache")
    except HashretError:
        return {}


def _bytes(shape: Sequence[int]) -> int:
    return 2 * int(np.prod(shape))


def _read(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the whole records of a file, none where there is no file."""
    try:
        raw = b"" if path.exists() and not path.is_file() else path.read_bytes()  # a pipe would be waited for
    except FileNotFoundError:
        raw = b""
    return np.frombuffer(raw[: len(raw) - len(raw) % dtype.itemsize], dtype)


def _is_read_as_before(path: str) -> bool:
    """Whether a photograph becomes the pixels that it was in caches of format 1: of 8 bits and not transparent."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image:
                plain = image.mode in ("1", "L", "P", "RGB", "CMYK") and "transparency" not in image.info
                return plain and ";16" not in str(image.tile)
    except Exception:  # as many kinds as Pillow has plugins
        return False
