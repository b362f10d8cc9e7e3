"""A list of photographs with their labels: what every data source turns into."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import HashretError
from .images import read_image
from .walk import PassedOver


@dataclass(frozen=True)
class ImageSource:
    """Photographs in a fixed order.

    Attributes:
        root: folder that ``paths`` start from.
        paths: n paths with forward slashes, relative to ``root``.
        labels: (n,) int64 class numbers, or (n, classes) uint8 for several labels a photograph, or None.
        classes: names of the label columns; empty without labels.
        spec: how the user named it, for records.
        whole, rows: the source that these photographs are ``rows`` of, where this is a `subset`.
        protocol: name and sha256 of the committed split, where a protocol made it.
        passed_over: what lies there and is not read, a `hashret.data.walk.PassedOver` each.
    """

    root: Path
    paths: tuple[str, ...]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    spec: str = ""
    whole: ImageSource | None = None
    rows: np.ndarray | None = None
    protocol: dict | None = None
    passed_over: tuple[PassedOver, ...] = ()

    def __len__(self):
        return len(self.paths)

    def file(self, i):
        """Path of photograph ``i`` on disk."""
        return self.root / self.paths[i]

    def pixels(self, i, size):
        """Photograph ``i`` as uint8 (3, size, size); raises UnreadableImage."""
        return read_image(self.file(i), size)

    def files_passed_over(self):
        """`passed_over` with whole paths."""
        return tuple(item._replace(path=os.path.abspath(self.root / item.path)) for item in self.passed_over)

    def single_label(self):
        """The same source with class numbers (n,) for labels, where every photograph has exactly one."""
        if self.labels is None or self.labels.ndim == 1 or (self.labels.sum(axis=1) != 1).any():
            return self
        return replace(self, labels=self.labels.argmax(axis=1).astype(np.int64))

    @cached_property
    def stats(self):
        """Size in bytes and time in ns of each file, int64 (n, 2), so that changed files are noticed unread; -1 where
        there is none.
        """
        found = np.full((len(self), 2), -1, np.int64)
        for row, path in enumerate(self.paths):
            with suppress(OSError):
                stat = os.stat(self.root / path)
                found[row] = stat.st_size, stat.st_mtime_ns
        return found

    @cached_property
    def fingerprint(self):
        """sha256 over every path with its file's size and time."""
        digest = hashlib.sha256()
        for path, (size, time) in zip(self.paths, self.stats.tolist(), strict=True):
            line = f"{path}\0missing\n" if size < 0 else f"{path}\0{size}\0{time}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def subset(self, rows, **changes):
        """The photographs at ``rows`` (m,), in that order; it shares its feature cache with the whole."""
        rows = np.asarray(rows, np.int64)
        labels = None if self.labels is None else self.labels[rows]
        paths = tuple(self.paths[row] for row in rows)
        whole, places = (self, rows) if self.whole is None else (self.whole, self.rows[rows])
        return replace(self, paths=paths, labels=labels, whole=whole, rows=places, **changes)

    def require_labels(self):
        """Raise HashretError unless there are labels of at least two classes."""
        if self.labels is None:
            raise HashretError(f"{self.spec} has no labels to learn from; use class folders or a list of labels")
        if len(self.classes) < 2:
            raise HashretError(f"{self.spec} has one class only; at least two are needed")
