"""Databases in engines that others run, Milvus and PostgreSQL with pgvector: export an index, then search it there.

What needs numpy is loaded when it is first used, so that the command line can name the engines in its help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lazy_loader

from ..addresses import EngineKind, is_engine, refuse_engine, register, shown
from ..renamed import forwarding

if TYPE_CHECKING:
    from .collection import Collection, open_collection
    from .engine import EngineError
    from .exporting import Export, export

__all__ = [
    "Collection",
    "EngineError",
    "EngineKind",
    "Export",
    "export",
    "is_engine",
    "open_collection",
    "refuse_engine",
    "register",
    "shown",
]

_loaded, _, _lazy_names = lazy_loader.attach(
    __name__,
    submod_attrs={
        "collection": ["Collection", "open_collection"],
        "engine": ["EngineError"],
        "exporting": ["Export", "export"],
    },
)
_moved = forwarding(__name__)


def __getattr__(name: str) -> Any:
    return _loaded(name) if name in _lazy_names else _moved(name)
