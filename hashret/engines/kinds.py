"""The one table of engine kinds: parsing, messages, help and the conformance tests read it."""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry


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
