"""Photographs of a data source, as `hashret.near_duplicates.groups` compares them: no encoder and no index is needed.

Two photographs may be copies where perceptual hashes of windows of them (`picture_codes`) differ in few bits; all such
pairs are found. They are where one picture can be laid over the other so that even details fit (`alignment`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..bits import Positions
from ..data import Source
from ..errors import HashretError
from ..files import StrPath
from ..progress import Progress
from .alignment import Fit, fit, is_toned, turned, turned_windows
from .code_pairs import pairs_between
from .components import Components, Distances
from .distances import is_enlarged
from .indexed import checked_distance
from .picture_codes import (
    FLIPPED_X,
    FLIPPED_Y,
    TRANSPOSED,
    WindowCodes,
    Windows,
    content,
    joined,
    query_codes,
    table_codes,
)
from .pictures import read_pictures

BY = ("details", "codes")  # what may be compared
RADII = {"details": 10, "codes": 4}  # bits of 64
DISTANCES = {"details": 0.75}
_PICTURES_AT_ONCE, _PAIRS_AT_ONCE = 512, 256
_TRIED = 2  # windows of the members of a group that are laid over each other at most: those of the nearest codes
_BORDER, _CUT, _MORE, _TONE = 0.04, 0.05, 0.1, 0.08  # shares of a picture, and of its brightness, that are a change


class Pair(NamedTuple):
    """What is known of two photographs, as seen from the first.

    Attributes:
        distance, bits: how far they are apart, and the codes of their windows that fit best.
        turn: how the second is turned.
        shares: of the content of each, how much the other one shows.
        brightness: of the second as a multiple of that of the first.
    """

    distance: float
    bits: int
    turn: str
    shares: tuple[float, float]
    brightness: float


_FAR = Pair(np.inf, 64, "", (1.0, 1.0), 1.0)


class ComparedPhotographs:
    """The photographs of a source that can be read.

    An attribute or method without a docstring is explained by `hashret.near_duplicates.groups.Compared`.

    Args:
        source: the photographs.
        radius, by, distance: see `hashret.duplicates`.
        cache, workers: see `hashret.near_duplicates.pictures.read_pictures`.
    """

    tells_copies_apart = True
    paths_are_shared = False

    def __init__(
        self,
        source: Source,
        radius: int | None,
        by: str | None,
        distance: float | None,
        *,
        cache: StrPath | None = None,
        workers: int | None = None,
    ) -> None:
        self.radius, self.by, self.distance = criterion(radius, by, distance)
        self.reach = self.radius if self.distance is None else self.distance
        self.source, self.read = source, read_pictures(source, cache, workers)
        self.contents = np.zeros((len(self.read), 4))
        self.toned = np.zeros(len(self.read), bool)
        self.first = np.arange(len(self.read))  # the first item that has the same picture, to the last bit
        self.table = self._table()
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._kept: dict[int, tuple[WindowCodes, WindowCodes]] = {}

    def id(self, item: int) -> int:
        return int(self.read.source_rows[item])

    def path(self, item: int) -> str:
        return self.source.reference(int(self.read.source_rows[item]))

    def linked(self) -> Positions:
        # Pairs that are linked already are not compared: a thousand shots of one scene are half a million pairs.
        components = Components(len(self.read))
        components.link(np.arange(len(self.read)), self.first)
        progress = Progress("comparing pictures", len(self.read), "photographs")
        for items in self._blocks():
            asked = items[self.first[items] == items]
            queries = query_codes(asked, self.read(asked).grey, self.contents[asked])
            for I, J, D in pairs_between(queries.codes, self.table.codes, self.radius):
                one, other = queries.items[I], self.table.items[J]
                rows = np.flatnonzero(components.of(one) != components.of(other))
                rows = rows[_nearest(one[rows], other[rows], D[rows], 1)]
                for start in range(0, len(rows), _PAIRS_AT_ONCE):
                    some = rows[start : start + _PAIRS_AT_ONCE]
                    some = some[components.of(one[some]) != components.of(other[some])]
                    distances = self._compared(queries.take(I[some]), self.table.take(J[some]), D[some])[0]
                    near = some[distances <= self.reach]
                    components.link(one[near], other[near])
            progress.add(len(items))
        progress.close()
        return components.all()

    def apart(self, first: int, others: Positions) -> Distances:
        new = np.array([other for other in others.tolist() if (first, other) not in self._pairs], np.int64)
        for start in range(0, len(new), _PICTURES_AT_ONCE):
            self._compare(first, new[start : start + _PICTURES_AT_ONCE])
        return np.array([self._pairs[first, other].distance for other in others.tolist()], np.float32)

    def bits(self, first: int, others: Positions) -> npt.NDArray[np.int32]:
        return np.array([self._pairs[first, other].bits for other in others.tolist()], np.int32)

    def change(self, kept: int, copy: int) -> str:
        pair = self._pairs[kept, copy]
        if self.distance is None:
            return ""
        changes = {
            pair.turn: bool(pair.turn),
            "cropped": pair.shares[0] < 1 - _CUT,
            "showing more": pair.shares[1] < 1 - _MORE,
            "bordered": self._border(copy) > self._border(kept) + _BORDER,
            "grey": self.toned[copy] and not self.toned[kept],
            "brighter": pair.brightness > 1 + _TONE,
            "darker": pair.brightness < 1 / (1 + _TONE),
        }
        return ", ".join(name for name, changed in changes.items() if changed)

    def is_toned(self, item: int) -> bool:
        return bool(self.toned[item])

    def shows_no_more(self, large: int, small: int) -> bool:
        pair = self._pairs[large, small]
        if pair.shares[0] < 1 - _MORE or (self.toned[small] and not self.toned[large]):
            return False
        if self._border(large) > self._border(small) + _BORDER:
            return True
        as_it_is = not pair.turn and min(pair.shares) >= 1 - _CUT
        return as_it_is and is_enlarged(self.path(large), self.path(small))

    def warn_of(self, copies: int) -> None:
        pass

    def _border(self, item: int) -> float:
        """Return the share of a picture that is border."""
        top, bottom, left, right = self.contents[item]
        return float(1 - (bottom - top) * (right - left))

    def _table(self) -> WindowCodes:
        """Return the codes that are searched, and note what the pictures say on their own."""
        parts: list[WindowCodes] = []
        known: dict[bytes, int] = {}
        for items in self._blocks():
            pictures = self.read(items)
            self.contents[items], self.toned[items] = content(pictures.grey), is_toned(pictures.colour)
            for item, grey, colour in zip(items.tolist(), *pictures, strict=True):
                digest = hashlib.blake2b(grey.tobytes() + colour.tobytes(), digest_size=16).digest()
                self.first[item] = known.setdefault(digest, item)
            new = self.first[items] == items
            parts.append(table_codes(items[new], pictures.grey[new], self.contents[items[new]]))
        return joined(parts)

    def _blocks(self) -> Iterator[Positions]:
        for start in range(0, len(self.read), _PICTURES_AT_ONCE):
            yield np.arange(start, min(start + _PICTURES_AT_ONCE, len(self.read)))

    def _compare(self, first: int, others: Positions) -> None:
        """Note what is known of a photograph and others."""
        asked, table = self._codes(np.append(first, others))
        sides: list[tuple[WindowCodes, WindowCodes]] = []
        bits: list[npt.NDArray[np.int32]] = []
        for is_turned in (False, True):
            own, other = (table, asked) if is_turned else (asked, table)
            own, other = own.take(np.flatnonzero(own.items == first)), other.take(np.flatnonzero(other.items != first))
            for I, J, D in pairs_between(own.codes, other.codes, self.radius):
                sides.append((own.take(I), other.take(J)))
                bits.append(D)
        here, there, D = *(joined(side) for side in zip(*sides, strict=True)), np.concatenate(bits)
        rows = _nearest(here.items, there.items, D, _TRIED)
        self._pairs.update(((first, other), _FAR) for other in others.tolist())
        while len(rows):  # one window of each pair at a time
            tried = rows[np.unique(there.items[rows], return_index=True)[1]]
            one, other = here.take(tried), there.take(tried)
            distances, shares, brightness = self._compared(one, other, D[tried])
            for n, item in enumerate(other.items.tolist()):
                if distances[n] < self._pairs[first, item].distance:
                    turn = TURNS[_TURN[one.orientations[n], other.orientations[n]]]
                    seen = (float(shares[n, 0]), float(shares[n, 1]))
                    self._pairs[first, item] = Pair(
                        float(distances[n]), int(D[tried[n]]), turn, seen, float(brightness[n])
                    )
            near = other.items[distances <= self.reach]
            rows = np.setdiff1d(rows, tried)
            rows = rows[~np.isin(there.items[rows], near)]
            rows = rows[np.argsort(D[rows], kind="stable")]

    def _codes(self, items: Positions) -> tuple[WindowCodes, WindowCodes]:
        """Return the codes that are asked for, and those that are found, of items; they are kept for a while."""
        new = np.unique([item for item in items.tolist() if item not in self._kept]).astype(np.int64)
        if len(new):
            if len(self._kept) > _PICTURES_AT_ONCE:
                self._kept, new = {}, np.unique(items)
            grey, contents = self.read(new).grey, self.contents[new]
            both = _by_item(query_codes(new, grey, contents), new), _by_item(table_codes(new, grey, contents), new)
            self._kept.update(zip(new.tolist(), zip(*both, strict=True), strict=True))
        asked, table = zip(*(self._kept[item] for item in dict.fromkeys(items.tolist())), strict=True)
        return joined(asked), joined(table)

    def _compared(
        self, one: WindowCodes, other: WindowCodes, bits: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.float32], Windows, npt.NDArray[np.float32]]:
        """Return distance (p,), shares (p, 2) and brightness (p,) of pairs, see `Pair`."""
        if self.distance is None:
            return bits.astype(np.float32), np.ones((len(bits), 2)), np.ones(len(bits), np.float32)
        fits = fit(self.read(one.items), one, self.read(other.items), other)
        contents = [turned_windows(self.contents[side.items], side.orientations) for side in (one, other)]
        return fits.distances, _shares(fits, contents[0], contents[1]), fits.brightness


def criterion(radius: int | None, by: str | None, distance: float | None) -> tuple[int, str, float | None]:
    """Return the radius in bits, what is compared, and up to which distance two photographs are duplicates, None by
    codes alone.
    """
    by = by or BY[0]
    if by not in BY:
        hint = "encode them and build an index for the others"
        raise HashretError(f"photographs without an index are compared by {' or '.join(BY)}, not by {by}", hint=hint)
    radius = RADII[by] if radius is None else radius
    return radius, by, checked_distance(radius, by, distance, DISTANCES)


def _by_item(codes: WindowCodes, items: Positions) -> list[WindowCodes]:
    """Return the codes of each of some items, which ascend."""
    order = np.argsort(codes.items, kind="stable")
    return [codes.take(rows) for rows in np.split(order, np.searchsorted(codes.items[order], items[1:]))]


def _nearest(one: Positions, other: Positions, bits: npt.NDArray[np.int32], most: int) -> Positions:
    """Return the rows of the nearest codes of each pair of photographs, ``most`` of each, the nearest of all first."""
    rows = np.lexsort((bits, other, one))
    new = np.append(True, (np.diff(one[rows]) != 0) | (np.diff(other[rows]) != 0))[: len(rows)]
    start = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    rows = rows[np.arange(len(rows)) - start < most]
    return rows[np.argsort(bits[rows], kind="stable")]


def _shares(fits: Fit, one: Windows, other: Windows) -> Windows:
    """Return which share of the content of each picture lies within that of the other, (p, 2)."""
    areas = np.ones((3, len(one)))
    for first, last in ((0, 1), (2, 3)):
        stretch = (fits.one[:, last] - fits.one[:, first]) / (fits.other[:, last] - fits.other[:, first])
        low, high = (fits.one[:, first] + stretch * (other[:, edge] - fits.other[:, first]) for edge in (first, last))
        areas[0] *= np.maximum(np.minimum(high, one[:, last]) - np.maximum(low, one[:, first]), 0)
        areas[1] *= one[:, last] - one[:, first]
        areas[2] *= high - low
    return np.stack([areas[0] / areas[1], areas[0] / areas[2]], 1)


# Where the corners 0 1 / 2 3 of a photograph are in one that was turned so.
_CORNERS = {
    "0123": "", "1032": "mirrored", "2301": "flipped", "3210": "upside down", "1302": "turned left",
    "2031": "turned right", "0213": "mirrored, turned left", "3120": "mirrored, turned right",
}  # fmt: skip
TURNS = tuple(_CORNERS.values())


def _turns() -> Positions:
    """Return the position in `TURNS` of pairs of orientations, (8, 8), in which two pictures look the same."""
    corners = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    table = np.zeros((8, 8), np.int64)
    for one, other in np.ndindex(8, 8):
        back = turned(corners, np.array([one], np.uint8))
        for bit in (TRANSPOSED, FLIPPED_X, FLIPPED_Y):  # backwards
            back = turned(back, np.array([other & bit], np.uint8))
        table[one, other] = list(_CORNERS).index("".join(str(int(corner)) for corner in back.ravel()))
    return table


_TURN = _turns()
