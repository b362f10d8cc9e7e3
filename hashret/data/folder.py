"""`folder:DIR`: class folders, with or without ``train/`` and ``test/`` above them, or a plain folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import HashretError
from .formats import is_image_name
from .source import ImageSource

SPLITS = ("train", "database", "test")


def open_folder(folder, split=None, spec=None):
    """List the images below ``folder``.

    A split is a subfolder named train, database or test; a folder without any of these is one set, whatever the
    split. The first folder below is the class, unless images lie beside the folders.

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
    paths = image_paths(root)
    if not paths:
        raise HashretError(f"no images in {root}")
    classes = _class_names(paths)
    labels = None
    if classes:
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number[path.split("/", 1)[0]] for path in paths], np.int64)
    return ImageSource(root, tuple(paths), labels, tuple(classes), spec)


def image_paths(root):
    """Relative paths of all images below ``root``, sorted, so that the order is the same everywhere."""
    paths = []
    for where, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(where).relative_to(root).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        paths += [prefix + name for name in names if is_image_name(name) and not name.startswith(".")]
    return sorted(paths)


def _class_names(paths):
    if any("/" not in path for path in paths):
        return []
    return sorted({path.split("/", 1)[0] for path in paths})
