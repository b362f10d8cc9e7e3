"""What callers of the Python API give as arguments: one or several, and numbers."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np


def several(given: Any, single: type | tuple[type, ...]) -> list[Any]:
    """Return what a caller gives, one or several, as a list.

    Args:
        given: one of the type ``single``, or several; what is neither becomes the only one, for whoever looks at it.
    """
    if isinstance(given, single):
        return [given]
    try:
        return list(given)
    except TypeError:
        return [given]


def is_whole(given: Any, least: int = 0) -> bool:
    """Whether an argument is a whole number of Python's or numpy's, and not below ``least``."""
    return isinstance(given, int | np.integer) and bool(given >= least)


def is_number(given: Any) -> bool:
    """Whether an argument is a number of Python's or numpy's, and no text of one."""
    return isinstance(given, Real)
