"""Hashing methods by name: what each adds to the shared network and training loop."""

from ..errors import HashretError
from .cnnh import CNNH, CNNHPlus
from .codewords import AMVGGHPlus, VGGHPlus
from .dnnh import DNNH
from .dpsh import DPSH
from .ksh import KSH
from .lsh import ITQ, LSH
from .vggh import AMVGGH, VGGH

METHODS = {
    method.name: method for method in (AMVGGHPlus, VGGHPlus, AMVGGH, VGGH, DPSH, DNNH, CNNHPlus, CNNH, KSH, ITQ, LSH)
}


def get_method(name):
    """The method of that name, or HashretError with the names there are."""
    if name not in METHODS:
        raise HashretError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
