"""The command line: each verb parses, calls the function of the same name, prints."""

from . import caches, duplicates, indexes, learning, mirroring, reports, searching  # noqa: F401  (each adds its verbs to main)
from .group import main

__all__ = ["main"]
