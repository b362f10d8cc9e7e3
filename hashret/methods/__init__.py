"""The registry of hashing methods: what each adds to the shared network and training loop."""

from __future__ import annotations

from typing import TypeVar

from ..errors import HashretError
from .cnnh import CNNH, CNNHPlus
from .codewords import AMVGGHPlus, VGGHPlus
from .dnnh import DNNH
from .dpsh import DPSH
from .ksh import KSH
from .lsh import ITQ, LSH
from .method import Method
from .vggh import AMVGGH, VGGH

MethodType = TypeVar("MethodType", bound=type[Method])
METHODS: dict[str, type[Method]] = {}


def register(method: MethodType) -> MethodType:
    """Make a subclass of `Method` known to ``--method`` by its name; to be used as a decorator.

    Raises:
        ValueError: another method has that name.
    """
    if method.name in METHODS:
        raise ValueError(f"there is a method {method.name!r} already")
    METHODS[method.name] = method
    return method


def get_method(name: str) -> type[Method]:
    """Return the method of that name.

    Raises:
        HashretError: there is none; the message lists the names.
    """
    if name not in METHODS:
        raise HashretError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


for _method in (AMVGGHPlus, VGGHPlus, AMVGGH, VGGH, DPSH, DNNH, CNNHPlus, CNNH, KSH, ITQ, LSH):
    register(_method)
