"""The feature cache: what frozen convolutions say of each photograph, computed once and kept on disk.

A cache is a folder named by data, weights, image size and precision. `features.f16` holds a row a photograph,
float16 (n, 512, s/32, s/32); `state.u8` a byte a photograph: 0 not yet, 1 there, 2 unreadable. A killed run goes
on where it stopped, and every later run (other bits, other seed, with or without attention) reads what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from .data.batches import batch_size, batches, split_rows
from .distributed import barrier, is_main, rank, world
from .errors import HashretError
from .progress import Progress

MISSING, PRESENT, UNREADABLE = 0, 1, 2
_FORMAT = 1


def default_cache():
    """``HASHRET_CACHE``, or ``hashret`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HASHRET_CACHE") or Path(home) / "hashret")


def weights_fingerprint(features):
    """sha256 over the parameters of a convolution stack, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(features.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """Features of one data source under one set of weights.

    Args:
        folder: where caches lie; None for `default_cache`.
        source: an ImageSource. The cache of a `subset` is that of the whole, of which it fills and reads its rows.
        weights: what `weights_fingerprint` says of the convolutions.
        image_size: side of the images in pixels.
        precision: "bfloat16" or "float32", what the convolutions compute in.
    """

    def __init__(self, folder, source, weights, image_size, precision):
        self.whole = source if source.whole is None else source.whole
        self.rows = np.arange(len(source)) if source.whole is None else source.rows
        self.image_size = image_size
        self.shape = (512, image_size // 32, image_size // 32)
        info = {
            "format": _FORMAT,
            "data": self.whole.fingerprint,
            "weights": weights,
            "image_size": image_size,
            "precision": precision,
        }
        key = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:20]
        self.folder = Path(folder or default_cache()) / "features" / key
        self.info = info | {"images": len(self.whole), "spec": self.whole.spec}

    @property
    def row_bytes(self):
        return int(np.prod(self.shape)) * 2

    def state(self):
        """uint8 (n,) of the source's photographs: MISSING, PRESENT or UNREADABLE."""
        try:
            state = np.fromfile(self.folder / "state.u8", np.uint8)
        except FileNotFoundError:
            return np.zeros(len(self.rows), np.uint8)
        if len(state) != len(self.whole):
            raise HashretError(f"the feature cache {self.folder} is damaged; remove that folder and run again")
        return state[self.rows]

    def open(self):
        """The features, read as they are indexed: see `CachedRows`."""
        path = self.folder / "features.f16"
        if not path.exists() or path.stat().st_size != len(self.whole) * self.row_bytes:
            raise HashretError(f"the feature cache {self.folder} is damaged; remove that folder and run again")
        return CachedRows(np.memmap(path, np.float16, "r", shape=(len(self.whole), *self.shape)), self.rows)

    def fill(self, convolutions, workers=None, quiet=False):
        """Compute what is missing; several processes share the work. Returns `state`, complete.

        Raises:
            HashretError: the disk is full; what was computed stays.
        """
        if is_main():
            self._create()
        barrier()
        todo = split_rows(self.rows[self.state() == MISSING].tolist(), batch_size(self.image_size))
        barrier()  # all have seen the same state before one changes it
        todo = todo[rank() :: world()]
        total = sum(map(len, todo))
        progress = Progress("convolution features", total, quiet=quiet or not is_main())
        try:
            with self._writer() as write:
                for batch in batches(self.whole, self.image_size, todo, workers):
                    write(batch, convolutions)
                    progress.add(len(batch.rows) + len(batch.skipped))
        except OSError as error:
            raise HashretError(
                f"cannot write the feature cache {self.folder}: {error.strerror}; name another with --cache"
            ) from None
        progress.close()
        barrier()
        return self.state()

    def _create(self):
        need = len(self.whole) * self.row_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, size in (("features.f16", need), ("state.u8", len(self.whole))):
                with open(self.folder / name, "ab") as file:
                    if file.tell() < size:
                        file.truncate(size)  # sparse: takes space as it fills
            (self.folder / "info.json").write_text(json.dumps(self.info, indent=2) + "\n")
        except OSError as error:
            raise HashretError(
                f"cannot make the feature cache {self.folder}: {error.strerror}; name another with --cache"
            ) from None

    def _writer(self):
        return Writer(self.folder, self.row_bytes)


class CachedRows:
    """Features of a source by its own row numbers: ``cached[rows]`` (m,) -> float16 (m, 512, s/32, s/32).

    Rows that are not PRESENT hold nothing.
    """

    def __init__(self, features, rows):
        self.features, self.rows = features, rows

    def __getitem__(self, rows):
        places = self.rows[rows]
        order = np.argsort(places)  # reading forward is faster
        out = np.empty((len(places), *self.features.shape[1:]), np.float16)
        out[order] = self.features[places[order]]
        return out


class Writer:
    """Writes rows, then says that they are there; the order matters when a run is killed between the two.

    Plain writes, not a memory map: a full disk is then an error one can report, not a bus error.
    """

    def __init__(self, folder, row_bytes):
        self.folder, self.row_bytes = folder, row_bytes

    def __enter__(self):
        self.features = os.open(self.folder / "features.f16", os.O_WRONLY)
        self.state = os.open(self.folder / "state.u8", os.O_WRONLY)
        return self

    def __exit__(self, *_):
        os.close(self.features)
        os.close(self.state)

    def __call__(self, batch, convolutions):
        if len(batch.rows):
            for row, feature in zip(batch.rows, convolutions(batch.images).cpu().numpy(), strict=True):
                os.pwrite(self.features, feature.tobytes(), int(row) * self.row_bytes)
            os.fsync(self.features)
        for row in batch.rows:
            os.pwrite(self.state, bytes([PRESENT]), int(row))
        for row, _reason in batch.skipped:
            os.pwrite(self.state, bytes([UNREADABLE]), int(row))
