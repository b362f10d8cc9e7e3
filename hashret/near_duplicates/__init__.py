"""Near-duplicates in an index: pairs of near codes, groups of them, and moving photographs aside and back."""

from ..renamed import forwarding

__getattr__ = forwarding(__name__)
