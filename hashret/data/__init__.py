"""Data sources: `open_data("folder:DIR" | "cifar10:DIR" | "list:FILE" | "cifar10-1:DIR" | "vectors:FILE" | "DIR")`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..addresses import masked
from ..distributed import is_main
from ..errors import HashretError, warn
from ..files import StrPath
from . import cifar10, embeddings, folder, lists, protocols  # noqa: F401  (each registers its kinds of source)
from .embeddings import VectorSource, vectors
from .formats import is_image_name, reason_passed_over
from .images import UnreadableImage, open_rgb, read_image
from .in_memory import refuse_in_memory
from .references import ReferenceKind, is_there, register_references
from .source import SOURCES, ImageSource, Source, SourceRequest, register
from .walk import LINKED_TO_NOTHING, SPECIAL, PassedOver, as_patterns, summary

__all__ = [
    "SOURCES",
    "ImageSource",
    "ReferenceKind",
    "Source",
    "SourceRequest",
    "UnreadableImage",
    "VectorSource",
    "as_source",
    "is_image_name",
    "open_data",
    "open_rgb",
    "read_image",
    "reason_passed_over",
    "register",
    "register_references",
    "vectors",
]


def open_data(
    spec: StrPath,
    split: str | None = None,
    *,
    download: bool = False,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> Source:
    """Open a data source by its name, and warn of what lies there and is passed over.

    Args:
        spec: ``folder:DIR`` or just ``DIR``, ``cifar10:DIR``, ``list:FILE`` or ``list:FILE,root=DIR``, a protocol of
            `hashret.data.protocols` as ``NAME:DIR``, or another kind of `SOURCES`.
        split: train, database, test; None where the source is not split.
        download: let torchvision fetch CIFAR-10 where it is missing.
        exclude, include: patterns of what is left out of a folder and what is not, see `hashret.data.walk.walk`.

    Raises:
        HashretError: unknown kind of source, or nothing there.
    """
    name = os.fspath(spec)
    kind, where = _kind_and_where(name)
    if (exclude or include) and not SOURCES[kind].patterns:
        raise HashretError(
            f"{name} names each photograph", hint="--exclude and --include choose among the files of a folder"
        )
    asked = SourceRequest(name, where, split, download, as_patterns(exclude), as_patterns(include))
    source = SOURCES[kind].opener(asked)
    warn_passed_over(source.root, source.files_passed_over())
    return source


def as_source(
    data: StrPath | Sequence[StrPath] | Source | npt.NDArray[np.number], subset: str | None = None, **options: Any
) -> Source:
    """Return a data source of what a verb was given: its name, see `open_data`, an open one, files, or vectors.

    Raises:
        HashretError: no such source, a file that is not there, or photographs in memory, which have no names to keep.
    """
    if isinstance(data, str | os.PathLike):
        return open_data(data, subset, **options)
    if isinstance(data, np.ndarray):
        return vectors(data)
    refuse_in_memory(data)
    if isinstance(data, list | tuple):
        return _of_files(data)
    if not hasattr(data, "reference"):
        raise HashretError(f"data are a name, files, an array of vectors or a source, not {type(data).__name__}")
    return cast(Source, data)


def _of_files(paths: Sequence[StrPath]) -> ImageSource:
    """Return a source of files of photographs, by their paths or other references."""
    missing = [path for path in paths if not is_there(path)]
    if missing or not paths:
        raise HashretError(f"no such file: {missing[0]}" if missing else "no photographs: the list of files is empty")
    return ImageSource(Path("."), tuple(map(str, paths)), spec=str(paths[0]))


def warn_passed_over(root: StrPath, passed_over: Sequence[PassedOver]) -> None:
    """Warn of what was passed over in a folder, by reason, where anything was."""
    if passed_over and is_main():
        warn(f"{root}: {summary(passed_over)}; hashret info {root} names them")


def _kind_and_where(name: str) -> tuple[str, str]:
    """Split the name of a source: "list:photos.txt" -> "list", "photos.txt". A name of no kind is that of a folder."""
    kind, colon, where = name.partition(":")
    if colon and kind in SOURCES:
        if not where:
            raise HashretError(f"{name!r} names no place; write {kind}:PATH")
        return kind, where
    if Path(name).is_file():
        hint = (
            "name the folder that it lies in"
            if is_image_name(name)
            else f"if it lists photographs, name it list:{name}"
        )
        raise HashretError(f"{name} is a file, not a folder", hint=hint)
    if os.path.lexists(name) and not Path(name).is_dir():
        raise HashretError(f"{SPECIAL if Path(name).exists() else LINKED_TO_NOTHING}, no folder: {name}")
    if not Path(name).is_dir():
        forms = ", ".join(kind.help for kind in SOURCES.values())
        raise HashretError(f"no such folder: {masked(name)}", hint=f"data are named DIR, {forms}")
    return "folder", name
