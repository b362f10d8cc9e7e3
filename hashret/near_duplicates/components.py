"""Groups of photographs that pairs link, cut so that each member of a group is within reach of its first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bits import Codes, Positions
from .code_pairs import pairs_within
from .near_pairs import by_code

Distances = npt.NDArray[np.floating]


class Components:
    """The connected components of n items, which grow as items are linked; each goes by its least item."""

    def __init__(self, n: int) -> None:
        self._root = np.arange(n)

    def link(self, I: Positions, J: Positions) -> None:
        """Link pairs of items, (p,) each."""
        root = self._root
        while len(I):
            a, b = self.of(I), self.of(J)
            root[I], root[J] = a, b
            apart = a != b
            I, J, a, b = I[apart], J[apart], a[apart], b[apart]
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))

    def of(self, items: Positions) -> Positions:
        """Return the least known item of the component of each item."""
        roots = self._root[items]
        while not np.array_equal(above := self._root[roots], roots):
            roots = above
        return roots

    def all(self) -> Positions:
        """Return that of every item, (n,)."""
        return self.of(self._root)


def components(n: int, pairs: Iterable[tuple[Any, ...]]) -> Positions:
    """Number the connected components of n items: items that pairs (I, J, ...) link get the same number, (n,)."""
    linked = Components(n)
    for I, J, *_ in pairs:
        linked.link(I, J)
    return linked.all()


def stars(
    ranked: npt.ArrayLike,
    distances: Callable[[int, Positions], Distances],
    reach: float,
    best: Callable[[Positions], int] = lambda rest: 0,
) -> Iterator[tuple[int, Positions, Distances]]:
    """Cut a component into groups whose members are all within reach of the group's first.

    Chains of pairs lead far. So the first item takes all items within reach, then the first of the rest does, until no
    item is left.

    Args:
        ranked: items of one component, (c,); an item that is to be kept rather than others stands before them.
        distances: function of an item and others, (p,), that returns the distances to them, (p,).
        best: function of the rest that returns the position of its first, where that is not the one at the front.

    Yields:
        The first of a group, the others, and their distances.
    """
    rest = np.asarray(ranked)
    while len(rest) > 1:
        position = best(rest)
        first, others = int(rest[position]), np.delete(rest, position)
        D = distances(first, others)
        near = reach >= D
        if near.any():
            yield first, others[near], D[near]
        rest = others[~near]


def linked_codes(codes: Codes, radius: int) -> Positions:
    """Number the `components` that packed codes (n, w) within a radius link, (n,)."""
    if not len(codes):
        return np.zeros(0, np.int64)
    groups = by_code(codes, radius)
    linked = np.empty(len(codes), np.int64)
    number = components(len(groups.codes), pairs_within(groups.codes, radius))
    linked[groups.items] = np.repeat(number, np.diff(groups.starts))
    return linked
