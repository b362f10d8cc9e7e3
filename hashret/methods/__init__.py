"""The registry of hashing methods: what each adds to the shared network and training loop.

Importing this module loads no torch, since the command line lists the names of the methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..errors import HashretError
from ..registry import Registry

if TYPE_CHECKING:
    from .method import Method

AUTO = "auto"  # stands for one of these, which found most of what was measured (benchmarks/tables.md):
WITH_LABELS, WITHOUT_LABELS = "hashnet", "itq"  # the second in seconds; cibhash finds a little more, in minutes
MethodType = TypeVar("MethodType", bound="type[Method]")
METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        name: f"{__name__}.{where}"
        for name, where in {
            "am-vggh+": "codewords:AMVGGHPlus",
            "vggh+": "codewords:VGGHPlus",
            "am-vggh": "vggh:AMVGGH",
            "vggh": "vggh:VGGH",
            "dpsh": "dpsh:DPSH",
            "dnnh": "dnnh:DNNH",
            "cnnh+": "cnnh:CNNHPlus",
            "cnnh": "cnnh:CNNH",
            "ksh": "ksh:KSH",
            "itq": "lsh:ITQ",
            "lsh": "lsh:LSH",
            "greedyhash": "greedyhash:GreedyHash",
            "hashnet": "hashnet:HashNet",
            "csq": "csq:CSQ",
            "dch": "dch:DCH",
            "dtsh": "dtsh:DTSH",
            "cibhash": "cibhash:CIBHash",
            "bihalf": "bihalf:BiHalf",
        }.items()
    },
)


def register(method: MethodType) -> MethodType:
    """Make a subclass of `Method` known to ``--method`` by its name; to be used as a decorator.

    Raises:
        ValueError: another method has that name.
    """
    METHODS.add(method.name, method)
    return method


def get_method(name: str) -> type[Method]:
    """Return the method of that name, see `METHODS`.

    Raises:
        HashretError: there is none; the message lists the names.
    """
    if name not in METHODS:
        raise HashretError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
