"""`folder:DIR`: class folders, with or without ``train/`` and ``test/`` above them, or a plain folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import HashretError
from .source import ImageSource
from .walk import summary, walk

SPLITS = ("train", "database", "test")


def open_folder(folder, split=None, spec=None, exclude=(), include=()):
    """List the images below ``folder``.

    A split is a subfolder named train, database or test; a folder without any of these is one set, whatever the
    split. The first folder below is the class, unless images lie beside the folders. What is not read, by ``exclude``
    and ``include`` or else, see `hashret.data.walk.walk`, is named in the source's ``passed_over``.

    Raises:
        HashretError: no such folder, no such split, no image in it.
    """
    root = Path(folder)
    spec = spec or f"folder:{folder}"
    if not root.is_dir():
        raise HashretError(f"no such folder: {root}")
    present = [name for name in SPLITS if (root / name).is_dir()]
    if split == "database" and "database" not in present:
        split = "train"  # by the field's custom the database is what was trained on
    if present and split is not None:
        if split not in present:
            raise HashretError(f"{root} has no {split}/ folder; there is {', '.join(present)}")
        root = root / split
    elif present:
        raise HashretError(f"{root} is split into {', '.join(present)}; say which with --split")
    paths, passed_over = walk(root, exclude, include)
    if not paths:
        raise HashretError(f"no images in {root}" + (f"; {summary(passed_over)}" if passed_over else ""))
    classes = _class_names(paths)
    labels = None
    if classes:
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number[path.split("/", 1)[0]] for path in paths], np.int64)
    return ImageSource(root, tuple(paths), labels, tuple(classes), spec, passed_over=tuple(passed_over))


def _class_names(paths):
    if any("/" not in path for path in paths):
        return []
    return sorted({path.split("/", 1)[0] for path in paths})
