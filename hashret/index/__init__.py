"""The two stages of retrieval, Hamming distance and Euclidean re-rank, and the folder that keeps them.

What changes a folder is loaded when it is first used, since a query does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from .database import Database, Hits, Item
from .folder import Index, Selection
from .opening import open_index

if TYPE_CHECKING:
    from .changes import append, build_index, compact, relocate, remove

__all__ = [
    "Database", "Hits", "Index", "Item", "Selection", "append", "build_index", "compact", "open_index", "relocate",
    "remove",
]  # fmt: skip

__getattr__, _, _ = lazy_loader.attach(
    __name__, submod_attrs={"changes": ["append", "build_index", "compact", "relocate", "remove"]}
)
