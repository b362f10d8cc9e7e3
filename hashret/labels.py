"""Labels of photographs: classes are matched by name, whatever number a data set gives them.

Photographs have one label each, (n,) class numbers with -1 for none, or several, (n, classes) flags. A list of classes
only ever grows at its end, so that labels that were written for a shorter one stay what they are.
"""

from __future__ import annotations

import numpy as np

from .errors import HashretError


def united(*lists):
    """The names of several lists of classes, each name once, in the order in which they come: -> list."""
    return list(dict.fromkeys(name for names in lists for name in names))


def renumbered(labels, names, classes, several=False):
    """Labels by the numbers of another list of classes; the same array where they are so already.

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
    labels = np.asanyarray(labels)
    number = {name: n for n, name in enumerate(classes)}
    place = np.array([number[name] for name in names], np.int64)
    same = np.array_equal(place, np.arange(len(place)))
    if labels.ndim == 1:
        if len(labels) and labels.max() >= len(names):
            raise HashretError(f"the labels are damaged: a class number {labels.max()} of {len(names)} classes")
        if not same:
            labels = np.where(labels < 0, -1, place[labels] if len(place) else -1)
        return as_flags(labels, len(classes)) if several else labels
    if same and labels.shape[1] == len(classes):
        return labels
    flags = np.zeros((len(labels), len(classes)), np.uint8)
    for column, target in enumerate(place):
        flags[:, target] |= labels[:, column] != 0
    return flags


def as_flags(labels, classes):
    """Class numbers (n,), -1 for none -> uint8 (n, classes), one where a photograph has the label."""
    flags = np.zeros((len(labels), classes), np.uint8)
    rows = np.flatnonzero(labels >= 0)
    flags[rows, labels[rows]] = 1
    return flags
