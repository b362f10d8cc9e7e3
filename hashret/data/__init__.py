"""Data sources: `open_data("folder:DIR" | "cifar10:DIR" | "list:FILE" | "cifar10-1:DIR" | "DIR")`."""

from __future__ import annotations

import os
from pathlib import Path

from ..distributed import is_main
from ..errors import HashretError, warn
from .cifar10 import open_cifar10
from .folder import open_folder
from .formats import is_image_name, reason_passed_over
from .images import UnreadableImage, open_rgb, read_image
from .lists import open_list
from .protocols import PROTOCOLS, open_protocol
from .source import ImageSource
from .walk import LINKED_TO_NOTHING, SPECIAL, summary

__all__ = [
    "ImageSource",
    "UnreadableImage",
    "is_image_name",
    "open_data",
    "open_rgb",
    "read_image",
    "reason_passed_over",
]


def open_data(spec, split=None, download=False, exclude=(), include=()):
    """Open a data source by its name: -> ImageSource. Warns of what lies there and is passed over.

    Args:
        spec: ``folder:DIR`` or just ``DIR``, ``cifar10:DIR``, ``list:FILE`` or ``list:FILE,root=DIR``, or a protocol of
            `hashret.data.protocols` as ``NAME:DIR``.
        split: train, database, test; None where the source is not split.
        download: let torchvision fetch CIFAR-10 where it is missing.
        exclude, include: patterns of what is left out of a folder and what is not, see `hashret.data.walk.walk`.

    Raises:
        HashretError: unknown kind of source, or nothing there.
    """
    source = _open(str(spec), split, download, tuple(exclude), tuple(include))
    warn_passed_over(source.root, source.passed_over)
    return source


def warn_passed_over(folder, passed_over):
    """Warn of what was passed over in a folder, by reason, where anything was."""
    if passed_over and is_main():
        warn(f"{folder}: {summary(passed_over)}; hashret info {folder} names them")


def _open(spec, split, download, exclude, include):
    kind, colon, where = spec.partition(":")
    if not colon or kind not in ("folder", "cifar10", "list", *PROTOCOLS):
        kind, where = "folder", spec
        if Path(where).is_file():
            raise HashretError(f"{where} is a file, not a folder; if it lists photographs, name it list:{where}")
        if os.path.lexists(where) and not Path(where).is_dir():
            raise HashretError(f"{SPECIAL if Path(where).exists() else LINKED_TO_NOTHING}, no folder: {where}")
        if not Path(where).is_dir():
            raise HashretError(
                f"no such folder: {where} (data are named DIR, folder:DIR, cifar10:DIR, list:FILE, or "
                f"{', '.join(PROTOCOLS)} with :DIR)"
            )
    if not where:
        raise HashretError(f"{spec!r} names no place; write {kind}:PATH")
    if (exclude or include) and kind != "folder":
        raise HashretError(f"--exclude and --include choose among the files of a folder; {spec} names each photograph")
    if kind in PROTOCOLS:
        return open_protocol(kind, where, split, download)
    if kind == "cifar10":
        return open_cifar10(where, split, download, spec)
    if kind == "list":
        file, _, root = where.partition(",root=")
        return open_list(file, split, root or None, spec)
    return open_folder(where, split, spec, exclude, include)
