"""`hashret serve`: an index to search with a browser, or from another program."""

from .server import serve

__all__ = ["serve"]
