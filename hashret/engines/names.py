"""Addresses of databases in engines: ``milvus:http://host:19530#photos``, ``postgresql://host/db#photos``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import HashretError
from .kinds import KINDS, EngineKind, examples

DEFAULT = "hashret"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")  # what all engines take


@dataclass(frozen=True)
class EngineAddress:
    """A ``collection`` in the engine at ``uri``, of a ``kind`` that is registered."""

    kind: EngineKind
    uri: str
    collection: str

    def __str__(self) -> str:
        """Return the address as the user named it, without the password."""
        shown = re.sub(r"(?<=://)([^:@/]*):[^@/]*@", r"\1@", self.uri)
        shown = re.sub(r"\b(password=)[^&]*", r"\1…", shown)
        return f"{self.kind.schemes[0] if self.kind.prefixed else ''}{shown}#{self.collection}"


def _find_kind(name: object) -> EngineKind | None:
    """Return the kind of engine that a name means, None where it means a folder."""
    text = str(name)
    return KINDS.find(lambda kind: text.startswith(kind.schemes), in_plugins=":" in text)


def is_engine(name: object) -> bool:
    """Whether a name means an engine, and not a folder."""
    return _find_kind(name) is not None


def parse(name: str, collection: str | None = None) -> EngineAddress:
    """Return the address that a name means.

    Args:
        name: such as ``milvus:http://host:19530#photos``.
        collection: the collection's name where there is none behind the ``#``; "hashret" where both are missing.

    Raises:
        HashretError: no engine's name, or a collection that engines would not take.
    """
    kind = _find_kind(name)
    if kind is None:
        raise HashretError(f"{name} names no engine", hint=f"one is {examples()}")
    uri, _, behind = str(name).partition("#")
    if collection and behind and collection != behind:
        hint = "name the collection once, behind the # or with --collection"
        raise HashretError(f"two names of a collection, {behind} and {collection}", hint=hint)
    collection = collection or behind or DEFAULT
    if not _NAME.fullmatch(collection):
        raise HashretError(f"a collection's name is letters, digits and _, at most 63, not {collection!r}")
    scheme = next(scheme for scheme in kind.schemes if name.startswith(scheme))
    return EngineAddress(kind, uri.removeprefix(scheme) if kind.prefixed else uri, collection)


def shown(name: object) -> str:
    """Return a name as it may be shown: that of an engine without the password."""
    return str(parse(str(name)) if is_engine(name) else name)


def refuse_engine(name: object) -> None:
    """Raise HashretError where a folder is needed and an engine was named."""
    if is_engine(name):
        raise HashretError(
            f"{shown(name)} is a copy in an engine",
            hint="change the index that it was exported from, and export that again",
        )
