"""Databases in engines that others run, Milvus and PostgreSQL with pgvector: export an index, then search it there."""

from ..renamed import forwarding
from .collection import Collection, open_collection
from .engine import EngineError
from .exporting import Export, export
from .names import is_engine, refuse_engine, shown

__all__ = [
    "Collection",
    "EngineError",
    "Export",
    "export",
    "is_engine",
    "open_collection",
    "refuse_engine",
    "shown",
]

__getattr__ = forwarding(__name__)
