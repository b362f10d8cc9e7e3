"""`folder:DIR`: class folders, with or without ``train/`` and ``test/`` above them, or a plain folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import HashretError
from ..files import StrPath
from .source import ImageSource, register
from .walk import summary, walk

SUBSETS = ("train", "database", "test")


def open_folder(
    folder: StrPath,
    subset: str | None = None,
    spec: str = "",
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> ImageSource:
    """List the images below ``folder``.

    A subset is a subfolder named train, database or test; a folder without any of these is one set, whatever the
    subset. The first folder below is the class, unless images lie beside the folders. What is not read, by ``exclude``
    and ``include`` or else, see `hashret.data.walk.walk`, is named in the source's ``passed_over``.

    Raises:
        HashretError: no such folder, no such subset, no image in it.
    """
    root = Path(folder)
    spec = spec or f"folder:{folder}"
    if not root.is_dir():
        raise HashretError(f"no such folder: {root}")
    present = [name for name in SUBSETS if (root / name).is_dir()]
    if subset == "database" and "database" not in present:
        subset = "train"  # by the field's custom the database is what was trained on
    if present and subset is not None:
        if subset not in present:
            raise HashretError(f"{root} has no {subset}/ folder; there is {', '.join(present)}")
        root = root / subset
    elif present:
        raise HashretError(f"{root} is split into {', '.join(present)}", hint="say which with --split")
    source = open_all(root, exclude, include)
    labels, number = None, {}
    if all("/" in path for path in source.paths):
        number = {name: i for i, name in enumerate(sorted({path.split("/", 1)[0] for path in source.paths}))}
        labels = np.array([number[path.split("/", 1)[0]] for path in source.paths], np.int64)
    return replace(source, labels=labels, classes=tuple(number), spec=spec)


def open_all(folder: StrPath, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> ImageSource:
    """List all images below a folder, whatever the folders in it are called; they have no labels.

    Raises:
        HashretError: no image in it.
    """
    paths, passed_over = walk(folder, exclude, include)
    if not paths:
        raise HashretError(f"no images in {folder}" + (f"; {summary(passed_over)}" if passed_over else ""))
    return ImageSource(Path(folder), tuple(paths), spec=f"folder:{folder}", passed_over=tuple(passed_over))


register(
    "folder",
    lambda asked: open_folder(asked.where, asked.subset, asked.spec, asked.exclude, asked.include),
    "folder:DIR",
    patterns=True,
)
