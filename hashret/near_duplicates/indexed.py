"""The photographs of an index, as `hashret.near_duplicates.groups` compares them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arguments import is_number, is_whole
from ..bits import Positions, hamming
from ..errors import HashretError, warn
from ..files import StrPath
from ..index import Index, open_index
from ..index.folder import read_meta
from .components import Distances, components, linked_codes
from .distances import DISTANCES, check_by, is_enlarged, vectors
from .near_pairs import Vectors, euclidean, near_pairs, with_neighbours

_FRACTION = 6  # a sixth of the bits may differ: most copies that were saved again differ in fewer


class IndexedPhotographs:
    """The photographs of an index that have others near them, by their codes and by what the index says of them.

    An attribute or method without a docstring is explained by `hashret.near_duplicates.groups.Compared`.
    """

    def __init__(self, index: StrPath, radius: int | None, by: str | None, distance: float | None) -> None:
        self.index: Index = open_index(index, "cpu")
        self.radius, self.by, self.distance = criterion(self.index.bits, radius, by, distance)
        self.tells_copies_apart = self.by == "pixels"
        self.paths_are_shared = self.index.is_of_vectors and self.by != "pixels"
        codes, positions = self.index.codes(), np.flatnonzero(self.index.alive)
        if self.by == "pixels":  # only photographs with something to be compared with are read
            positions = positions[with_neighbours(codes[positions], self.radius)]
        x = vectors(self.index, positions, self.by)
        if self.by == "pixels" and x is not None:
            positions, x = _readable(self.index, positions, x)
        self.positions, self.codes, self.x = positions, codes[positions], x

    def linked(self) -> Positions:
        if self.x is None or self.distance is None:
            return linked_codes(self.codes, self.radius)
        return components(len(self.positions), near_pairs(self.codes, self.radius, self.x, self.distance))

    def id(self, item: int) -> int:
        return int(self.index.ids[self.positions[item]])

    def path(self, item: int) -> str:
        return self.index.path(self.positions[item])

    def apart(self, first: int, others: Positions) -> Distances:
        if self.x is None:
            return self.bits(first, others).astype(np.float32)
        return euclidean(self.x, np.full(len(others), first), others)

    def bits(self, first: int, others: Positions) -> npt.NDArray[np.int32]:
        bits: npt.NDArray[np.int32] = hamming(self.codes[first : first + 1], self.codes[others])[0]
        return bits

    def change(self, kept: int, copy: int) -> str:
        return ""

    def is_toned(self, item: int) -> bool:
        return False

    def shows_no_more(self, large: int, small: int) -> bool:
        return is_enlarged(self.path(large), self.path(small))

    def warn_of(self, copies: int) -> None:
        if self.by != "pixels" and 2 * copies > len(self.index):
            warn(
                f"{copies:,} of {len(self.index):,} photographs pass for copies of others: by its {self.by}, this "
                "encoder says what a photograph shows, not which one it is; take --by pixels"
            )


def index_criterion(
    index: StrPath, radius: int | None, by: str | None, distance: float | None
) -> tuple[int, str, float | None]:
    """Return `criterion` of an index that is not opened."""
    return criterion(read_meta(index)["bits"], radius, by, distance)


def criterion(bits: int, radius: int | None, by: str | None, distance: float | None) -> tuple[int, str, float | None]:
    """Return the radius in bits, what is compared, and up to which distance two photographs are duplicates, None by
    codes alone.
    """
    by = check_by(by or "pixels")
    radius = bits // _FRACTION if radius is None else radius
    return radius, by, checked_distance(radius, by, distance, DISTANCES)


def checked_distance(radius: int, by: str, distance: float | None, usual: dict[str, float]) -> float | None:
    """Return a distance, or the usual one by its name; None by codes. Raises HashretError where one cannot be."""
    if by == "codes" and distance is not None:
        raise HashretError("codes alone have no distance", hint="--distance goes with another --by than codes")
    if by != "codes" and distance is None:
        distance = usual[by]
    if not is_whole(radius) or not (distance is None or (is_number(distance) and 0 <= distance < np.inf)):
        raise HashretError("the radius and the distance are numbers from 0 up, and the radius is a whole one")
    return distance


def _readable(index: Index, positions: Positions, x: Vectors) -> tuple[Positions, Vectors]:
    """Leave out photographs that could not be read, and say so."""
    readable = ~np.isnan(x).any(axis=1)
    missing = positions[~readable]
    if len(missing) and len(missing) == len(positions):
        path = index.path(positions[0])
        raise HashretError(f"none of the photographs can be read, as {path}", hint="take another --by")
    if len(missing):
        warn(
            f"{len(missing):,} photographs cannot be read and are left out, as {index.path(missing[0])}; "
            "hashret remove --gone takes those that are gone out of the index"
        )
    return positions[readable], x[readable]
