"""What an engine's database is called: ``milvus:http://host:19530#photos``, ``postgresql://host/db#photos``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import HashretError

DEFAULT = "hashret"
_SCHEMES = {"milvus:": "milvus", "postgresql://": "postgres", "postgres://": "postgres"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")  # what all engines take


@dataclass(frozen=True)
class Place:
    """A ``collection`` in the engine at ``uri``; ``kind`` is the module of `hashret.engines` that speaks to it."""

    kind: str
    uri: str
    collection: str

    def __str__(self):
        """As the user named it, less the password."""
        prefix = "milvus:" if self.kind == "milvus" else ""
        shown = re.sub(r"(?<=://)([^:@/]*):[^@/]*@", r"\1@", self.uri)
        return prefix + re.sub(r"\b(password=)[^&]*", r"\1…", shown) + f"#{self.collection}"


def is_engine(name):
    """Whether a name means an engine, and not a folder."""
    return str(name).startswith(tuple(_SCHEMES))


def parse(name, collection=None):
    """The `Place` of a name; ``collection`` where the name has none behind its ``#``, else "hashret".

    Raises:
        HashretError: no engine's name, or a collection that engines would not take.
    """
    kind = next((kind for scheme, kind in _SCHEMES.items() if str(name).startswith(scheme)), None)
    if kind is None:
        raise HashretError(
            f"{name} names no engine; one is milvus:http://host:19530, milvus:file.db or postgresql://host/database"
        )
    uri, _, behind = str(name).partition("#")
    if collection and behind and collection != behind:
        raise HashretError(f"{behind} or {collection}? Name the collection once, behind the # or with --collection")
    collection = collection or behind or DEFAULT
    if not _NAME.fullmatch(collection):
        raise HashretError(f"a collection's name is letters, digits and _, at most 63, not {collection!r}")
    return Place(kind, uri.removeprefix("milvus:"), collection)


def shown(name):
    """A name as it may be shown: of an engine, without the password."""
    return str(parse(name)) if is_engine(name) else name


def refuse_engine(name):
    """Raise HashretError where a folder is needed and an engine was named."""
    if is_engine(name):
        raise HashretError(
            f"{shown(name)} is a copy in an engine; change the index that it was exported from, and export that again"
        )
