"""`hashret duplicates`: groups of photographs in an index that are copies of one another, or nearly so.

The code of a trained encoder says what a photograph shows, not which photograph it is, and thousands of a class share
one. A radius in bits only says which photographs to compare; a distance of `hashret.near_duplicates.distances` then
decides. `benchmarks/run/planted_duplicates.py` measures what each distance finds, and what it wrongly takes for a copy.

The photographs that are compared are numbered; an ``item`` is such a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bits import Codes, Positions, hamming
from ..data.images import UnreadableImage, image_size
from ..data.references import status
from ..errors import HashretError, warn
from ..files import StrPath, identity
from ..index import Index, open_index
from ..index.folder import read_meta
from ..places import find_index
from ..progress import Progress, takes_quiet
from ..results import Result, ResultList
from .components import Distances, components, linked_codes, stars
from .distances import DISTANCES, Pages, check_by, is_enlarged, pages, same_pages, vectors
from .near_pairs import Vectors, euclidean, near_pairs, with_neighbours

_FRACTION = 6  # a sixth of the bits may differ: most copies that were saved again differ in fewer
_SIZES = 4  # sizes of smaller copies that a photograph may have been enlarged from
_SINGLE: Pages = (1, None)  # of a photograph that is no animation and has one page


@dataclass(frozen=True)
class Photograph(Result):
    """A photograph of a group.

    Attributes:
        id, path: those in the index.
        keep: whether the photograph is the one to keep.
        hamming: distance of its code from that of the kept photograph, in bits.
        euclidean: distance from the kept photograph, None by codes alone.
        width, height: size in pixels, None where the file cannot be read.
        bytes: size of the file, None where the file cannot be read.
    """

    id: int
    path: str
    keep: bool
    hamming: int
    euclidean: float | None
    width: int | None
    height: int | None
    bytes: int | None


@dataclass(frozen=True, eq=False)
class Duplicates(ResultList[list[Photograph]]):
    """The groups that `duplicates` finds; as a sequence, it is the list of the groups.

    Attributes:
        groups: the largest group first; in each the photograph to keep first, then its copies, the nearest first.
        radius: bits in which two codes could differ.
        by: what was compared.
        distance: up to which two photographs are duplicates, None by codes alone.
    """

    groups: list[list[Photograph]]
    radius: int
    by: str
    distance: float | None

    @property
    def criterion(self) -> str:
        """In words, which photographs are taken for duplicates."""
        text = f"codes within {self.radius} bits"
        if self.distance is not None:
            text += f", {self.by} within {self.distance:g}" + (" grey levels" if self.by == "pixels" else "")
        return text

    def as_dict(self) -> dict[str, Any]:
        """Return the groups as JSON has them, each with its number."""
        groups = [
            {"group": number, "photographs": [photograph.as_dict() for photograph in group]}
            for number, group in enumerate(self.groups, 1)
        ]
        return {"radius": self.radius, "by": self.by, "distance": self.distance, "groups": groups}


@takes_quiet
def duplicates(
    index: StrPath | None = None, *, radius: int | None = None, by: str = "pixels", distance: float | None = None
) -> Duplicates:
    """Find groups of near-duplicates in an index.

    Two photographs are a pair where their codes are within ``radius`` and they are within ``distance``; all such pairs
    are found. The photograph to keep of those that pairs link is the one of most pixels, then of most bytes, then of
    the lowest id. By pixels, a photograph that was enlarged from a smaller one of them (`is_enlarged`) comes behind
    that. The others of its group are linked to it by pairs, and each is itself within ``distance`` of it (within
    ``radius``, by codes alone). Animations and scans of several pages are linked by their first page, and are in one
    group where all pages are duplicates (`same_pages`). A photograph is in one group at most, and several names of one
    file are one photograph.

    Args:
        index: folder of an index; None for the one that `hashret.places.find_index` finds.
        radius: bits in which two codes may differ; None for a sixth of them.
        by: what the distance is of, see `hashret.near_duplicates.distances.vectors`.
        distance: up to which two photographs are duplicates; None for that of
            `hashret.near_duplicates.distances.DISTANCES`.

    Raises:
        HashretError: no index, one that does not keep what is compared, or none of whose photographs can be read.
    """
    opened = open_index(find_index(index), "cpu")
    radius, distance = _criterion(opened.bits, radius, by, distance)
    reach = radius if distance is None else distance
    codes, positions = opened.codes(), np.flatnonzero(opened.alive)
    if by == "pixels":  # only photographs with something to be compared with are read
        positions = positions[with_neighbours(codes[positions], radius)]
    x = vectors(opened, positions, by)
    if by == "pixels" and x is not None:
        positions, x = _readable(opened, positions, x)
    codes = codes[positions]
    pairs = None if x is None else near_pairs(codes, radius, x, reach)
    linked = linked_codes(codes, radius) if pairs is None else components(len(positions), pairs)
    several_linked = _with_several(linked)
    photographs, several_pages = _photographs(opened, positions, list(chain.from_iterable(several_linked)))
    apart = partial(_apart, codes, x, several_pages, reach if by == "pixels" else DISTANCES["pixels"])
    groups = []
    for items in several_linked:
        ranked = sorted((item for item in items if item in photographs), key=lambda item: _rank(photographs[item]))
        if by == "pixels":
            ranked = _enlarged_last(
                ranked, photographs, several_pages, lambda item, others: reach >= apart(item, others)
            )
        for first, others, D in stars(ranked, apart, reach):
            groups.append(_group(photographs, codes, first, others, None if x is None else D))
    copies = sum(len(group) - 1 for group in groups)
    if by != "pixels" and 2 * copies > len(opened):
        warn(
            f"{copies:,} of {len(opened):,} photographs pass for copies of others: by its {by}, this encoder says what "
            "a photograph shows, not which one it is; take --by pixels"
        )
    groups.sort(key=lambda group: (-len(group), group[0].id))
    return Duplicates(groups, radius, by, distance)


def criterion(
    index: StrPath = "index", radius: int | None = None, by: str = "pixels", distance: float | None = None
) -> str:
    """Return in words what `duplicates` takes for duplicates, without looking for any; its arguments and errors."""
    radius, distance = _criterion(read_meta(index)["bits"], radius, by, distance)
    return Duplicates([], radius, by, distance).criterion


def _criterion(bits: int, radius: int | None, by: str, distance: float | None) -> tuple[int, float | None]:
    """Return the radius in bits, and the distance up to which two photographs are duplicates, None by codes alone."""
    radius = bits // _FRACTION if radius is None else radius
    if check_by(by) != "codes" and distance is None:
        distance = DISTANCES[by]
    elif by == "codes" and distance is not None:
        raise HashretError("codes alone have no distance", hint="--distance goes with another --by than codes")
    if radius < 0 or not 0 <= (distance or 0) < np.inf:
        raise HashretError("the radius and the distance are numbers from 0 up")
    return radius, distance


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


def _with_several(linked: Positions) -> list[list[int]]:
    """Return the items that have the same number, (n,), where there are several of them."""
    order = np.argsort(linked, kind="stable")
    same = np.split(order, np.flatnonzero(np.diff(linked[order])) + 1)
    return [items.tolist() for items in same if len(items) > 1]


def _apart(
    codes: Codes, x: Vectors | None, several_pages: dict[int, Pages], reach: float, first: int, others: Positions
) -> Distances:
    """Return how far others are from a first item: Euclidean distances, or, without x, Hamming distances.

    The distance is infinite where their frames or pages are not the same; ``several_pages`` has the items with some.
    """
    if x is None:
        D: npt.NDArray[np.float32] = _bits(codes, first, others).astype(np.float32)
    else:
        D = euclidean(x, np.full(len(others), first), others)
    if several_pages:
        own = several_pages.get(first, _SINGLE)
        same = [same_pages(own, several_pages.get(int(other), _SINGLE), reach) for other in others]
        D = np.where(same, D, np.float32(np.inf))
    return D


def _bits(codes: Codes, first: int, others: Positions) -> npt.NDArray[np.int32]:
    bits: npt.NDArray[np.int32] = hamming(codes[first : first + 1], codes[others])[0]
    return bits


def _enlarged_last(
    ranked: Sequence[int],
    photographs: dict[int, Photograph],
    several_pages: dict[int, Pages],
    is_near: Callable[[int, Positions], npt.NDArray[np.bool_]],
) -> list[int]:
    """Put each photograph that was enlarged from a smaller one behind that: items, the largest first -> the same.

    The smaller ones that are copies of it are compared: the largest of each size, and `_SIZES` sizes at most.
    """
    pixels = {item: (photographs[item].width or 0) * (photographs[item].height or 0) for item in ranked}
    detail = dict(pixels)  # pixels of what a photograph was enlarged from
    singles = np.array([item for item in ranked if item not in several_pages])
    for number in reversed(range(len(singles))):
        item, others = singles[number], singles[number + 1 :]
        smaller = others[[0 < pixels[other] < pixels[item] for other in others]] if len(others) else others
        sizes = {pixels[other]: other for other in reversed(smaller[is_near(item, smaller)])} if len(smaller) else {}
        for other in sorted(sizes.values(), key=lambda other: -pixels[other])[:_SIZES]:
            if is_enlarged(photographs[item].path, photographs[other].path):
                detail[item] = min(detail[item], detail[other])
    return sorted(ranked, key=lambda item: (-detail[item], detail[item] < pixels[item]))


def _group(
    photographs: dict[int, Photograph], codes: Codes, first: int, others: Positions, D: Distances | None
) -> list[Photograph]:
    """Return the photograph to keep, and its copies, the nearest first."""
    bits = _bits(codes, first, others).tolist()
    far = [None] * len(others) if D is None else D.tolist()
    copies = [
        replace(photographs[item], hamming=h, euclidean=d)
        for item, h, d in zip(others.tolist(), bits, far, strict=True)
    ]
    copies.sort(key=lambda copy: (copy.euclidean or 0, copy.hamming, copy.id))
    return [replace(photographs[first], keep=True, euclidean=None if D is None else 0.0), *copies]


def _photographs(
    index: Index, positions: Positions, items: Sequence[int]
) -> tuple[dict[int, Photograph], dict[int, Pages]]:
    """Look at the files of some items.

    Returns:
        The photograph of each item, without items whose file is another item's, too; and the frames or pages of the
        items that have several.
    """
    photographs: dict[int, Photograph] = {}
    several_pages: dict[int, Pages] = {}
    files: dict[object, list[int]] = {}
    progress = Progress("looking at files", len(items), "photographs")
    for item in items:
        path = index.path(positions[item])
        width, height, size, frames = _looked_at(path)
        photographs[item] = Photograph(int(index.ids[positions[item]]), path, False, 0, None, width, height, size)
        if frames[0] > 1:
            several_pages[item] = frames
        try:
            files.setdefault(identity(path), []).append(item)
        except OSError:
            files.setdefault(os.path.realpath(path), []).append(item)
        progress.add()
    progress.close()

    def own_name_first(item: int) -> tuple[bool, int]:
        photograph = photographs[item]
        return photograph.path != os.path.realpath(photograph.path), photograph.id

    again = []  # a file that is there under several names must not pass for its own copy
    for same in files.values():
        same.sort(key=own_name_first)
        again += same[1:]
    if again:
        warn(
            f"{len(again):,} photographs are in the index more than once, or one file of several names, by a link or "
            f"in a folder mounted twice, and are left out, as {photographs[again[0]].path}"
        )
    return {item: photographs[item] for item in photographs.keys() - set(again)}, several_pages


def _looked_at(path: str) -> tuple[int | None, int | None, int | None, Pages]:
    """Return width and height in pixels and size in bytes, None where the file cannot be read; and its pages."""
    try:
        return *image_size(path), status(path)[0], pages(path)
    except (OSError, UnreadableImage):
        return None, None, None, _SINGLE


def _rank(photograph: Photograph) -> tuple[int, int, int]:
    return -(photograph.width or 0) * (photograph.height or 0), -(photograph.bytes or 0), photograph.id
