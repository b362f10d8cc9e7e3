"""Data sources: what `Source` asks of one, `ImageSource`, which most of them are, and `SOURCES`, their registry."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..bits import Labels, Positions
from ..errors import HashretError
from ..registry import Registry
from ..shards import Array
from .images import read_image
from .references import status, whole_reference
from .walk import PassedOver


class Source(Protocol):
    """Photographs in a fixed order: what `train`, `encode`, `add` and the feature cache ask of a source.

    An `ImageSource` has all of it; a class that derives from that one defines `reference`, where its photographs are no
    files, and registers their `hashret.data.references.ReferenceKind`.
    """

    @property
    def spec(self) -> str:
        """How the user named the source, for records."""

    @property
    def root(self) -> Path:
        """Where ``paths`` start from; the feature cache belongs to it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the photographs below ``root``, which stay what they are when ``root`` moves."""

    @property
    def labels(self) -> Labels | None:
        """Class numbers (n,) int64, or flags (n, classes) uint8, or None."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty without labels."""

    @property
    def columns(self) -> Mapping[str, Array]:
        """Further columns for the shards, by their name in `hashret.shards.COLUMNS`, a row for each photograph."""

    @property
    def protocol(self) -> dict[str, Any] | None:
        """The evaluation protocol that the source is a set of, as records have it, or None."""

    @property
    def whole(self) -> Source | None:
        """The source that this is a subset of, with which it shares its feature cache, or None."""

    @property
    def rows(self) -> Positions | None:
        """The rows of ``whole`` that these photographs are."""

    @property
    def stats(self) -> npt.NDArray[np.int64]:
        """Size in bytes and time of the last change in ns of each photograph (n, 2), -1 where it is missing."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when any of the photographs does."""

    def __len__(self) -> int: ...

    def reference(self, row: int) -> str:
        """Return the reference of a photograph, by which it is opened, and which shards and indexes keep."""

    def subset(self, rows: npt.ArrayLike) -> Source:
        """Return the photographs at ``rows``, in that order."""

    def single_label(self) -> Source:
        """Return the source with class numbers for labels, where every photograph has exactly one."""

    def require_labels(self) -> None:
        """Raise HashretError unless there are labels of at least two classes."""

    def files_passed_over(self) -> tuple[PassedOver, ...]:
        """Return what lies among the photographs and is not read, with whole paths."""


@dataclass(frozen=True)
class ImageSource:
    """Photographs below a folder: the attributes of `Source`, and ``passed_over``, with paths from ``root`` on."""

    root: Path
    paths: tuple[str, ...]
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    spec: str = ""
    whole: ImageSource | None = None
    rows: Positions | None = None
    protocol: dict[str, Any] | None = None
    passed_over: tuple[PassedOver, ...] = ()
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Path:
        """Return the path of a photograph on disk."""
        return self.root / self.paths[row]

    def reference(self, row: int) -> str:
        """Return the reference of a photograph: the whole path of its file."""
        return whole_reference(self.paths[row], self.root)

    def pixels(self, row: int, size: int) -> npt.NDArray[np.uint8]:
        """Read a photograph as uint8 (3, size, size). Raises UnreadableImage."""
        return read_image(self.reference(row), size)

    def files_passed_over(self) -> tuple[PassedOver, ...]:
        """Return ``passed_over`` with whole paths."""
        return tuple(item._replace(path=os.path.abspath(self.root / item.path)) for item in self.passed_over)

    def single_label(self) -> Self:
        """Return the source with class numbers (n,) for labels, where every photograph has exactly one."""
        if self.labels is None or self.labels.ndim == 1 or (self.labels.sum(axis=1) != 1).any():
            return self
        return replace(self, labels=self.labels.argmax(axis=1).astype(np.int64))

    @cached_property
    def stats(self) -> npt.NDArray[np.int64]:
        """Size in bytes and time in ns of each photograph (n, 2), so that changed ones are noticed unread; -1 where
        there is none.
        """
        stats = np.full((len(self), 2), -1, np.int64)
        for row in range(len(self)):
            with suppress(OSError):
                stats[row] = status(self.reference(row))
        return stats

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 over every path with its photograph's size and time."""
        digest = hashlib.sha256()
        for path, (size, time) in zip(self.paths, self.stats.tolist(), strict=True):
            line = f"{path}\0missing\n" if size < 0 else f"{path}\0{size}\0{time}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def subset(self, rows: npt.ArrayLike, **changes: Any) -> Self:
        """Return the photographs at ``rows`` (m,), in that order; they share their feature cache with the whole.

        Args:
            changes: attributes that are others than those of the whole.
        """
        rows = np.asarray(rows, np.int64)
        whole, rows_of_whole = (
            (self, rows) if self.whole is None or self.rows is None else (self.whole, self.rows[rows])
        )
        selected = {
            "paths": tuple(self.paths[row] for row in rows),
            "labels": None if self.labels is None else self.labels[rows],
            "columns": {name: array[rows] for name, array in self.columns.items()},
        }
        return replace(self, **selected | {"whole": whole, "rows": rows_of_whole} | changes)

    def require_labels(self) -> None:
        """Raise HashretError unless there are labels of at least two classes."""
        if self.labels is None:
            hint = "use class folders or a list of labels, or a method that needs none, as --method itq"
            raise HashretError(f"{self.spec} has no labels to learn from", hint=hint)
        if len(self.classes) < 2:
            hint = "take a method that needs no labels, as --method itq"
            raise HashretError(f"{self.spec} has one class only; at least two are needed", hint=hint)


@dataclass(frozen=True)
class SourceRequest:
    """What is asked of the opener of a source.

    Attributes:
        spec: the name of the source as the user gave it, ``kind:where``.
        where: what stands behind the colon.
        subset: "train", "database" or "test"; None where the user named none.
        download: whether what is missing may be downloaded.
        exclude, include: patterns of files, only for a kind that is registered with ``patterns``.
    """

    spec: str
    where: str
    subset: str | None = None
    download: bool = False
    exclude: Sequence[str] = ()
    include: Sequence[str] = ()


@dataclass(frozen=True)
class SourceKind:
    """A kind of sources: its opener, the form of its names, for messages, and whether it takes patterns of files."""

    opener: Callable[[SourceRequest], Source]
    help: str
    patterns: bool = False


SOURCES: Registry[SourceKind] = Registry("kind of source")


def register(kind: str, opener: Callable[[SourceRequest], Source], help: str, *, patterns: bool = False) -> None:
    """Let data be named ``kind:WHERE``.

    Args:
        kind: the name of the kind.
        opener: opens a source of this kind. Raises HashretError where there is nothing to open.
        help: the form of the names, ``tar:FILE``.
        patterns: whether files are chosen by ``exclude`` and ``include``.

    Raises:
        ValueError: another kind has that name.
    """
    SOURCES.add(kind, SourceKind(opener, help, patterns))
