"""Hashing methods by name: what each adds to the shared network and training loop."""

from ..errors import HashretError
from .vggh import AMVGGH, VGGH

METHODS = {method.name: method for method in (AMVGGH, VGGH)}


def get_method(name):
    """The method of that name, or HashretError with the names there are."""
    if name not in METHODS:
        raise HashretError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
