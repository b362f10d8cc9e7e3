"""Labels of photographs: classes are matched by name, whatever number a data set gives them.

Photographs have one label each, (n,) class numbers with -1 for none, or several, (n, classes) flags. A list of classes
only ever grows at its end, so that labels that were written for a shorter one stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .bits import Labels
from .errors import HashretError


def united(*lists: Iterable[str]) -> list[str]:
    """Return the names of several lists of classes, each name once, in the order in which they come."""
    return list(dict.fromkeys(name for names in lists for name in names))


def renumbered(labels: npt.ArrayLike, names: Sequence[str], classes: Sequence[str], several: bool = False) -> Labels:
    """Return labels by the numbers of another list of classes; the same array where they are so already.

    Args:
        labels: (n,) numbers in ``names``, -1 for none, or (n, len(names)) flags.
        names: the classes that ``labels`` counts; where a name stands twice, both are one class.
        classes: the classes to count by, all of ``names`` among them.
        several: make flags of numbers.

    Returns:
        (n,) numbers, or uint8 (n, len(classes)).

    Raises:
        HashretError: a number that ``names`` does not have.
    """
    known: Labels = np.asanyarray(labels)
    number = {name: n for n, name in enumerate(classes)}
    new = np.array([number[name] for name in names], np.int64)
    same = np.array_equal(new, np.arange(len(new)))
    if known.ndim == 1:
        if len(known) and known.max() >= len(names):
            raise HashretError(f"the labels are damaged: a class number {known.max()} of {len(names)} classes")
        if not same:
            known = np.where(known < 0, -1, new[known] if len(new) else -1)
        return as_flags(known, len(classes)) if several else known
    if same and known.shape[1] == len(classes):
        return known
    flags = np.zeros((len(known), len(classes)), np.uint8)
    for column, target in enumerate(new):
        flags[:, target] |= known[:, column] != 0
    return flags


def as_flags(labels: Labels, classes: int) -> npt.NDArray[np.uint8]:
    """Return class numbers (n,), -1 for none, as uint8 (n, classes), one where a photograph has the label."""
    flags = np.zeros((len(labels), classes), np.uint8)
    rows = np.flatnonzero(labels >= 0)
    flags[rows, labels[rows]] = 1
    return flags
