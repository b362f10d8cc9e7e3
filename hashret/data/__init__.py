"""Data sources: `open_data("folder:DIR" | "cifar10:DIR" | "list:FILE" | "cifar10-1:DIR" | "DIR")`."""

from __future__ import annotations

from pathlib import Path

from ..errors import HashretError
from .cifar10 import open_cifar10
from .folder import open_folder
from .formats import is_image_name, reason_passed_over
from .images import UnreadableImage, open_rgb, read_image
from .lists import open_list
from .protocols import PROTOCOLS, open_protocol
from .source import ImageSource

__all__ = [
    "ImageSource",
    "UnreadableImage",
    "is_image_name",
    "open_data",
    "open_rgb",
    "read_image",
    "reason_passed_over",
]


def open_data(spec, split=None, download=False):
    """Open a data source by its name: -> ImageSource.

    Args:
        spec: ``folder:DIR`` or just ``DIR``, ``cifar10:DIR``, ``list:FILE`` or ``list:FILE,root=DIR``, or a protocol of
            `hashret.data.protocols` as ``NAME:DIR``.
        split: train, database, test; None where the source is not split.
        download: let torchvision fetch CIFAR-10 where it is missing.

    Raises:
        HashretError: unknown kind of source, or nothing there.
    """
    spec = str(spec)
    kind, colon, where = spec.partition(":")
    if not colon or kind not in ("folder", "cifar10", "list", *PROTOCOLS):
        kind, where = "folder", spec
        if not Path(where).is_dir():
            raise HashretError(
                f"no such folder: {where} (data are named DIR, folder:DIR, cifar10:DIR, list:FILE, or "
                f"{', '.join(PROTOCOLS)} with :DIR)"
            )
    if not where:
        raise HashretError(f"{spec!r} names no place; write {kind}:PATH")
    if kind in PROTOCOLS:
        return open_protocol(kind, where, split, download)
    if kind == "cifar10":
        return open_cifar10(where, split, download, spec)
    if kind == "list":
        file, _, root = where.partition(",root=")
        return open_list(file, split, root or None, spec)
    return open_folder(where, split, spec)
