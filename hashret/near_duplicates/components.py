"""What pairs link, and groups of it that do not drift: each member is within reach of the first."""

from __future__ import annotations

import numpy as np

from .code_pairs import pairs_within
from .near_pairs import by_code


def components(n, pairs):
    """Items that pairs (I, J, ...) link, directly or by others, get the same number: -> int64 (n,)."""
    root = np.arange(n)
    for I, J, *_ in pairs:
        while len(I):
            a, b = _find(root, I), _find(root, J)
            root[I], root[J] = a, b
            apart = a != b
            I, J, a, b = I[apart], J[apart], a[apart], b[apart]
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
    return _find(root, root)


def _find(root, items):
    """The least item of the component of each, as far as it is known."""
    found = root[items]
    while True:
        above = root[found]
        if np.array_equal(above, found):
            return found
        found = above


def stars(ranked, distances, reach):
    """Cut a component into groups whose members are all within reach of their first: yields (first, others, D).

    Chains of pairs lead far; so the first of those left takes all within reach, until none is left.

    Args:
        ranked: items of one component, int64 (c,), the one to keep before others first.
        distances: function of an item and others, int64 (p,): -> (p,).
    """
    left = np.asarray(ranked)
    while len(left) > 1:
        first, others = left[0], left[1:]
        D = distances(first, others)
        near = reach >= D
        if near.any():
            yield first, others[near], D[near]
        left = others[~near]


def linked_codes(codes, radius):
    """The `components` that codes within a radius link: packed uint8 (n, w) -> int64 (n,)."""
    if not len(codes):
        return np.zeros(0, np.int64)
    table = by_code(codes, radius)
    linked = np.empty(len(codes), np.int64)
    number = components(len(table.codes), pairs_within(table.codes, radius))
    linked[table.items] = np.repeat(number, np.diff(table.starts))
    return linked
