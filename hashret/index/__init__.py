"""The two stages of retrieval, Hamming distance and Euclidean re-rank, and the folder that keeps them."""

from .changes import append, build_index, compact, remove
from .database import Database, Hits, Item
from .folder import Index, Selection
from .opening import open_index

__all__ = ["Database", "Hits", "Index", "Item", "Selection", "append", "build_index", "compact", "open_index", "remove"]
