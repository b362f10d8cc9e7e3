"""The two stages of retrieval, Hamming distance and Euclidean re-rank, and the folder that keeps them."""

from .folder import Index, build_index, open_index

__all__ = ["Index", "build_index", "open_index"]
