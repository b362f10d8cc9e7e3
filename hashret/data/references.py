"""References, by which shards and indexes name photographs, and the one place that opens a photograph by its reference.

A reference is the whole path of a file, unless one of `KINDS` knows it: a member of an archive, say, or an address.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..files import StrPath
from ..registry import Registry

Readable = StrPath | io.BytesIO  # what Pillow opens: the path of a file, or the bytes of one


@dataclass(frozen=True)
class ReferenceKind:
    """A kind of references that are not paths of files.

    ``read`` and ``status`` raise FileNotFoundError where the photograph is gone for good, and another OSError where
    it is out of reach just now.

    Attributes:
        matches: whether a text is a reference of this kind.
        read: returns the bytes of the photograph.
        status: returns its size in bytes and the time of its last change in ns, by which changes are noticed unread.
    """

    matches: Callable[[str], bool]
    read: Callable[[str], bytes]
    status: Callable[[str], tuple[int, int]]


KINDS: Registry[ReferenceKind] = Registry("kind of reference")


def register_references(name: str, kind: ReferenceKind) -> None:
    """Let photographs be opened by references of a further kind.

    Raises:
        ValueError: another kind goes by that name.
    """
    KINDS.add(name, kind)


def kind_of(reference: StrPath) -> ReferenceKind | None:
    """Return the kind of a reference, None where it is the path of a file.

    Plugins are asked only for a text with ``::`` or ``://`` in it, which the path of a photograph hardly has.
    """
    text = os.fspath(reference)
    return KINDS.find(lambda kind: kind.matches(text), in_plugins="::" in text or "://" in text)


def open_reference(reference: Readable) -> Readable:
    """Return what Pillow opens: of a file its path, so that no more is read than is needed, else the bytes.

    Raises:
        OSError: a photograph that is no file is gone or out of reach.
    """
    if isinstance(reference, io.BytesIO):
        return reference
    kind = kind_of(reference)
    return reference if kind is None else io.BytesIO(kind.read(os.fspath(reference)))


def status(reference: StrPath) -> tuple[int, int]:
    """Return the size of a photograph in bytes and the time of its last change in ns.

    Raises:
        OSError: it is gone or out of reach.
    """
    kind = kind_of(reference)
    if kind is not None:
        return kind.status(os.fspath(reference))
    file = os.stat(reference)
    return file.st_size, file.st_mtime_ns


def is_there(reference: StrPath) -> bool:
    """Whether there is such a photograph, or such a file."""
    if kind_of(reference) is None:
        return os.path.isfile(reference)
    try:
        return bool(status(reference))
    except OSError:
        return False


def whole_reference(reference: StrPath, root: StrPath = "") -> str:
    """Return what is kept of a reference: of a file the whole path, which starts at ``root`` where it is not whole."""
    text = os.fspath(reference)
    return os.path.abspath(os.path.join(root, text)) if kind_of(text) is None else text
