"""The two stages of retrieval, Hamming distance and Euclidean re-rank, and the folder that keeps them."""

from .changes import append, compact, remove
from .folder import Hits, Index, Selection, build_index, open_index

__all__ = ["Hits", "Index", "Selection", "append", "build_index", "compact", "open_index", "remove"]
