"""Addresses of databases in engines, ``milvus:http://host:19530#photos``, and the one table of engine kinds.

Parsing, messages, help and the conformance tests read the table. What takes a folder asks here whether it was given an
address instead.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .errors import HashretError
from .registry import Registry

DEFAULT = "hashret"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")  # what all engines take
# A password may hold / and ?, though it should not: it ends at the last @ before the parameters. One / is what a path
# makes of two.
_PASSWORD = re.compile(r"(:/{1,2}[^:@/]*):(?:[^?]*|[^/?]*\?.*)@")
_SECRET_PARAMETER = re.compile(r"([^?&=\s]*(?:password|secret|token|_key)=)[^&]*", re.IGNORECASE)
_COPY = "is a copy in an engine"
_CHANGE_THE_INDEX = "change the index that it was exported from, and export that again"


@dataclass(frozen=True)
class EngineKind:
    """A kind of engine that can hold a database.

    Attributes:
        name: "milvus".
        schemes: beginnings of the addresses that mean this kind; "milvus:" or "postgresql://".
        module: that has ``open_engine(address, create=False)``, which returns a `hashret.engines.engine.Engine`. It is
            imported when an address of this kind is opened.
        extra: of ``pip install 'hashret[extra]'``, which brings the packages that the module imports; None where it
            needs none.
        examples: addresses for messages and help.
        prefixed: whether the scheme is hashret's own and no part of the address that the engine's client takes.
    """

    name: str
    schemes: tuple[str, ...]
    module: str
    extra: str | None
    examples: tuple[str, ...]
    prefixed: bool = False


KINDS: Registry[EngineKind] = Registry("kind of engine")


def register(kind: EngineKind) -> EngineKind:
    """Add a kind of engine, also from outside hashret, and return it. Raises ValueError if another has its name."""
    KINDS.add(kind.name, kind)
    return kind


def examples(last: str = "or") -> str:
    """Return an address of each kind, for a message: "milvus:http://host:19530, milvus:file.db or postgresql://…"."""
    *first, end = [example for kind in KINDS.values() for example in kind.examples]
    return f"{', '.join(first)} {last} {end}" if first else end


register(
    EngineKind(
        "milvus",
        ("milvus:",),
        "hashret.engines.milvus",
        "milvus",
        ("milvus:http://host:19530", "milvus:file.db"),
        prefixed=True,
    )
)
register(
    EngineKind(
        "postgres",
        ("postgresql://", "postgres://"),
        "hashret.engines.postgres",
        "pgvector",
        ("postgresql://host/database",),
    )
)


@dataclass(frozen=True)
class EngineAddress:
    """A ``collection`` in the engine at ``uri``, of a ``kind`` that is registered."""

    kind: EngineKind
    uri: str
    collection: str

    def __str__(self) -> str:
        """Return the address as the user named it, without the password."""
        return f"{self.kind.schemes[0] if self.kind.prefixed else ''}{masked(self.uri)}#{self.collection}"


def masked(address: str) -> str:
    """Return an address, or what was meant to be one, without the secrets in it."""
    return _SECRET_PARAMETER.sub(r"\1…", _PASSWORD.sub(r"\1@", address))


def masked_line(line: str) -> str:
    """Return a line with addresses in it without their secrets."""
    return re.sub(r"\S+:/\S+", lambda match: masked(match[0]), line)


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
        raise HashretError(f"{masked(name)} names no engine", hint=f"one is {examples()}")
    uri, _, behind = str(name).partition("#")
    if "@" in behind:  # none of which is shown, since it is a part of a password
        raise HashretError("a # in an address begins the name of the collection", hint="write # in a password as %23")
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


def refuse_engine(name: object, what: str = _COPY, hint: str = _CHANGE_THE_INDEX) -> None:
    """Raise HashretError where a folder is needed and an engine was named; ``what`` says what is wrong with that."""
    text = str(name)
    if ":" in text and not os.path.isabs(text):
        text = re.sub(r":/(?!/)", "://", text, count=1)  # as it was before it became a path
        if is_engine(text):
            raise HashretError(f"{shown(text)} {what}", hint=hint)


def refuse_to_write_to_engine(name: object) -> None:
    """Raise HashretError where a file or folder is to be written and an engine was named."""
    refuse_engine(
        name, "is in an engine, and here a folder or a file is written", "hashret export copies an index there"
    )
