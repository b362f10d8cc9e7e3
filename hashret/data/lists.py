"""`list:FILE`: the literature's label lists, one ``path 0 1 0 ...`` a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import HashretError
from .source import ImageSource


def open_list(file, split=None, root=None, spec=None, check_images=True):
    """Read a label list. ``file`` may be a folder that holds ``train.txt``, ``test.txt``, ``database.txt``.

    ``root`` is where the paths start; by default the list's folder or the one above it, whichever holds the first
    image; with ``check_images`` off, the list's folder where neither does. Column names are read from ``labels.txt``
    beside the list, or above it, where it has a name a column.

    Raises:
        HashretError: no such file, a line that is not ``path 0 1 ...``, images that are not there.
    """
    path = Path(file)
    spec = spec or f"list:{file}"
    if path.is_dir():
        path = _split_file(path, split)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise HashretError(f"no such list: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HashretError(f"cannot read the list {path}: {error}") from None
    paths, labels = _parse(path, lines)
    root = Path(root) if root else _find_root(path, paths[0], check_images)
    classes = _column_names(path, labels.shape[1])
    return ImageSource(root, tuple(paths), labels if classes else None, classes, spec)


def _split_file(folder, split):
    present = sorted(file.stem for file in folder.glob("*.txt") if file.stem != "labels")
    if split is None or split not in present:
        wanted = f"no {split}.txt" if split else "several lists: say which with --split"
        raise HashretError(f"{folder}: {wanted}; there is {', '.join(present) or 'nothing'}")
    return folder / f"{split}.txt"


def _parse(file, lines):
    paths, rows = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *flags = line.split()
        if any(flag not in ("0", "1") for flag in flags):
            raise HashretError(f"{file}:{number}: a line must be a path and then 0s and 1s")
        if rows and len(flags) != len(rows[0]):
            raise HashretError(f"{file}:{number}: {len(flags)} label columns, but {len(rows[0])} in the first line")
        paths.append(name)
        rows.append(flags)
    if not paths:
        raise HashretError(f"the list {file} is empty")
    return paths, np.array(rows, dtype=np.uint8).reshape(len(paths), -1)


def _find_root(file, first, check_images):
    for root in (file.parent, file.parent.parent):
        if (root / first).exists():
            return root
    if not check_images:
        return file.parent
    raise HashretError(
        f"the photographs of {file} are missing: {first} is neither in {file.parent} nor in the folder above; "
        f"name their folder with list:{file},root=DIR"
    )


def _column_names(file, columns):
    for folder in (file.parent, file.parent.parent):
        names = folder / "labels.txt"
        if names.is_file():
            found = tuple(names.read_text(encoding="utf-8").split())
            if len(found) == columns:
                return found
    return tuple(str(i) for i in range(columns))
