"""`hashret duplicates`: groups of photographs that are copies of one another, or nearly so.

The photographs are those of an index (`indexed`) or of a folder or another data source (`photographs`). The code of a
trained encoder says what a photograph shows, not which photograph it is, and thousands of a class share one. A radius
in bits only says which photographs to compare; a distance then decides, see `distances` and `alignment`.
`benchmarks/run/planted_duplicates.py` measures what each distance finds, and what it wrongly takes for a copy.

The photographs that are compared are numbered; an ``item`` is such a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..addresses import refuse_engine
from ..bits import Positions
from ..data import SOURCES, Source, VectorSource, open_data, warn_passed_over
from ..data.folder import open_all
from ..data.images import UnreadableImage, image_size
from ..data.references import status
from ..errors import HashretError, warn
from ..files import StrPath, identity
from ..places import find_index, is_index
from ..progress import Progress, takes_quiet
from ..results import Result, ResultList
from . import indexed, photographs
from .components import Distances, stars
from .distances import DISTANCES, Pages, pages, same_pages

_SIZES = 4  # sizes of smaller copies that a photograph may have been enlarged from
_SINGLE: Pages = (1, None)  # of a photograph that is no animation and has one page


class Compared(Protocol):
    """Photographs among which groups are looked for, and what is known of pairs of them.

    Attributes:
        radius, by, distance: see `Duplicates`.
        tells_copies_apart: whether `shows_no_more` has something to say.
        paths_are_shared: whether several items may have one path and yet be different things, as the vectors of one
            document.
    """

    radius: int
    by: str
    distance: float | None
    tells_copies_apart: bool
    paths_are_shared: bool

    def linked(self) -> Positions:
        """Return a number for each item, (n,), the same for those that pairs link."""

    def id(self, item: int) -> int:
        """Return the id of an item."""

    def path(self, item: int) -> str:
        """Return the reference of an item, by which it is opened."""

    def apart(self, first: int, others: Positions) -> Distances:
        """Return how far others are from a first item, (m,): by codes alone in bits."""

    def bits(self, first: int, others: Positions) -> npt.NDArray[np.int32]:
        """Return how far the codes of others are from that of a first item, (m,)."""

    def change(self, kept: int, copy: int) -> str:
        """Return in words how a copy differs from the photograph to keep, "" where nothing is known of that."""

    def is_toned(self, item: int) -> bool:
        """Whether an item is known to be grey or of one colour."""

    def shows_no_more(self, large: int, small: int) -> bool:
        """Whether a photograph shows no more than a copy of it that has fewer pixels."""

    def warn_of(self, copies: int) -> None:
        """Warn where there are so many copies that they cannot be."""


@dataclass(frozen=True)
class Photograph(Result):
    """A photograph of a group.

    Attributes:
        id, path: those in the index, or of a data source the row and the reference.
        keep: whether the photograph is the one to keep.
        hamming: distance of its code from that of the kept photograph, in bits.
        euclidean: distance from the kept photograph, None by codes alone.
        width, height: size in pixels, None where the file cannot be read.
        bytes: size of the file, None where the file cannot be read.
        change: in words, how the photograph differs from the kept one, as "mirrored, cropped"; "" of one in an index.
    """

    id: int
    path: str
    keep: bool
    hamming: int
    euclidean: float | None
    width: int | None
    height: int | None
    bytes: int | None
    change: str = ""


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
    index: StrPath | None = None,
    *,
    radius: int | None = None,
    by: str | None = None,
    distance: float | None = None,
    split: str | None = None,
    cache: StrPath | None = None,
    workers: int | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> Duplicates:
    """Find groups of near-duplicates in an index, or among photographs of which there is none.

    Two photographs are a pair where their codes are within ``radius`` and they are within ``distance``; all such pairs
    are found. The photograph to keep of those that pairs link is the one of most pixels, then, of photographs without
    an index, one in colours, then of most bytes, then of the lowest id. By pixels or details, a photograph that was
    enlarged from a smaller one of them (`hashret.near_duplicates.distances.is_enlarged`), or that has a border more,
    comes behind that. The others of its group are each within ``distance`` of it themselves (by codes alone, within
    ``radius``). Animations and scans of several pages are linked by their first page, and are in one group where all
    pages are duplicates (`same_pages`). A photograph is in one group at most, and several names of one file are one
    photograph; but of an index of vectors, several may have one path.

    Args:
        index: folder of an index, or photographs: a folder, or another source as `hashret.data.open_data` takes it;
            None for the index that `hashret.places.find_index` finds.
        radius: bits in which two codes may differ; None for a sixth of those of an index, and of 64 for 10, or 4 by
            codes alone, where there is none.
        by: what the distance is of: in an index "pixels", the default, or as in
            `hashret.near_duplicates.distances.vectors`; of photographs without one "details", the default, see
            `hashret.near_duplicates.alignment`, or "codes".
        distance: up to which two photographs are duplicates; None for that of
            `hashret.near_duplicates.distances.DISTANCES`, or 0.75 of details.
        split, exclude, include: which photographs, see `hashret.data.open_data`.
        cache: folder of feature caches, which keeps small pictures of photographs without an index.
        workers: processes that decode these; None for one a core.

    Raises:
        HashretError: no index and no photographs, an index that does not keep what is compared, or none of whose
            photographs can be read.
    """
    chosen = {"split": split, "cache": cache, "workers": workers, "exclude": exclude, "include": include}
    compared = _compared(find_index() if index is None else index, radius, by, distance, chosen)
    reach = compared.radius if compared.distance is None else compared.distance
    several_linked = _with_several(compared.linked())
    looked_at, several_pages = _photographs(compared, list(chain.from_iterable(several_linked)))
    apart = partial(_apart, compared, several_pages, reach if compared.by == "pixels" else DISTANCES["pixels"])
    groups = []
    for items in several_linked:
        ranked = sorted(looked_at.keys() & set(items), key=lambda item: _rank(looked_at[item], compared.is_toned(item)))
        detail = _Detail(ranked, looked_at, several_pages, compared, lambda *pair: reach >= apart(*pair))
        for first, others, D in stars(ranked, apart, reach, detail.best):
            groups.append(_group(looked_at, compared, first, others, D))
    compared.warn_of(sum(len(group) - 1 for group in groups))
    groups.sort(key=lambda group: (-len(group), group[0].id))
    return Duplicates(groups, compared.radius, compared.by, compared.distance)


def criterion(
    index: StrPath = "index", radius: int | None = None, by: str | None = None, distance: float | None = None
) -> str:
    """Return in words what `duplicates` takes for duplicates, without looking for any; its arguments and errors."""
    of = photographs.criterion if is_source(index) else partial(indexed.index_criterion, index)
    return Duplicates([], *of(radius, by, distance)).criterion


def is_source(name: StrPath) -> bool:
    """Whether a name is that of photographs, and not of an index: ``KIND:WHERE``, or a folder that holds no index."""
    path, kind = Path(name), os.fspath(name).partition(":")
    if not path.is_dir():
        return bool(kind[1]) and kind[0] in SOURCES
    if os.path.lexists(path / "index.json"):
        return (path / "index.json").is_file() and not is_index(path)
    return not os.path.lexists(path / "000000")


def _compared(
    index: StrPath, radius: int | None, by: str | None, distance: float | None, chosen: dict[str, Any]
) -> Compared:
    """Open what is named; ``chosen`` says which photographs, of a source alone, and how they are read."""
    if not is_source(index):
        refuse_engine(index, hint="name the index that it was exported from")
        if given := [name for name, value in chosen.items() if value not in (None, ())]:
            raise HashretError(f"{given[0]} goes with photographs, and {index} is an index, or is not there")
        if not os.path.isdir(index):
            raise HashretError(
                f"no photographs and no index at {index}", hint="name a folder of photographs, or an index"
            )
        return indexed.IndexedPhotographs(index, radius, by, distance)
    photographs.criterion(radius, by, distance)  # before many are read
    exclude, include = chosen["exclude"], chosen["include"]
    if Path(index).is_dir() and chosen["split"] is None:
        source: Source = open_all(index, exclude, include)
        warn_passed_over(source.root, source.files_passed_over())
    else:
        source = open_data(index, chosen["split"], exclude=exclude, include=include)
    if isinstance(source, VectorSource):
        raise HashretError(f"{index} has vectors, and no photographs", hint="build an index of them")
    options = {name: chosen[name] for name in ("cache", "workers")}
    return photographs.ComparedPhotographs(source, radius, by, distance, **options)


def _with_several(linked: Positions) -> list[list[int]]:
    """Return the items that have the same number, (n,), where there are several of them."""
    order = np.argsort(linked, kind="stable")
    same = np.split(order, np.flatnonzero(np.diff(linked[order])) + 1)
    return [items.tolist() for items in same if len(items) > 1]


def _apart(
    compared: Compared, several_pages: dict[int, Pages], reach: float, first: int, others: Positions
) -> Distances:
    """Return how far others are from a first item, infinite where their frames or pages are not the same.

    Args:
        several_pages: the frames or pages of the items that have some.
        reach: up to which two of them are duplicates.
    """
    D = compared.apart(first, others)
    if several_pages:
        own = several_pages.get(first, _SINGLE)
        same = [same_pages(own, several_pages.get(int(other), _SINGLE), reach) for other in others]
        D = np.where(same, D, np.float32(np.inf))
    return D


class _Detail:
    """Tells which of some copies shows most.

    A photograph that shows no more than a smaller one, as it was enlarged from that, has the detail of that. The
    smaller ones that are copies of it are compared: the largest of each size, and `_SIZES` sizes at most. Nothing is
    compared before it has to be.

    Args:
        ranked: items, the largest first.
    """

    def __init__(
        self,
        ranked: Sequence[int],
        photographs: dict[int, Photograph],
        several_pages: dict[int, Pages],
        compared: Compared,
        is_near: Callable[[int, Positions], npt.NDArray[np.bool_]],
    ) -> None:
        self.pixels = {item: (photographs[item].width or 0) * (photographs[item].height or 0) for item in ranked}
        self.singles = [item for item in ranked if item not in several_pages] if compared.tells_copies_apart else []
        self.compared, self.is_near = compared, is_near
        self._known: dict[int, int] = {}

    def best(self, rest: Positions) -> int:
        """Return the position of the item that shows most, among those of which the largest come first."""
        best, most = 0, (-1, False)
        for position, item in enumerate(rest.tolist()):
            if (self.pixels[item], True) <= most:
                break
            detail = self.pixels_of(item)
            if (detail, detail == self.pixels[item]) > most:
                best, most = position, (detail, detail == self.pixels[item])
        return best

    def pixels_of(self, item: int) -> int:
        """Return the pixels of the smallest that shows as much as an item."""
        if item not in self._known:
            self._known[item] = self.pixels[item]
            sizes: dict[int, list[int]] = {}
            for other in self.singles if item in self.singles else ():
                if 0 < self.pixels[other] < self.pixels[item]:
                    sizes.setdefault(self.pixels[other], []).append(other)
            near = (np.array(same)[self.is_near(item, np.array(same))] for same in sizes.values())
            for other in islice((int(same[0]) for same in near if len(same)), _SIZES):
                if self.compared.shows_no_more(item, other):
                    self._known[item] = min(self._known[item], self.pixels_of(other))
        return self._known[item]


def _group(
    photographs: dict[int, Photograph], compared: Compared, first: int, others: Positions, D: Distances
) -> list[Photograph]:
    """Return the photograph to keep, and its copies, the nearest first."""
    copies = [
        replace(
            photographs[item],
            hamming=bits,
            euclidean=None if compared.distance is None else distance,
            change=compared.change(first, item),
        )
        for item, bits, distance in zip(others.tolist(), compared.bits(first, others).tolist(), D.tolist(), strict=True)
    ]
    copies.sort(key=lambda copy: (copy.euclidean or 0, copy.hamming, copy.id))
    return [replace(photographs[first], keep=True, euclidean=None if compared.distance is None else 0.0), *copies]


def _photographs(compared: Compared, items: Sequence[int]) -> tuple[dict[int, Photograph], dict[int, Pages]]:
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
        path = compared.path(item)
        width, height, size, frames = _looked_at(path)
        photographs[item] = Photograph(compared.id(item), path, False, 0, None, width, height, size)
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
        own_path = photographs[same[0]].path
        again += [item for item in same[1:] if not (compared.paths_are_shared and photographs[item].path == own_path)]
    if again:
        where = "in the index" if isinstance(compared, indexed.IndexedPhotographs) else "there"
        warn(
            f"{len(again):,} photographs are {where} more than once, or one file of several names, by a link or "
            f"in a folder mounted twice, and are left out, as {photographs[again[0]].path}"
        )
    return {item: photographs[item] for item in photographs.keys() - set(again)}, several_pages


def _looked_at(path: str) -> tuple[int | None, int | None, int | None, Pages]:
    """Return width and height in pixels and size in bytes, None where the file cannot be read; and its pages."""
    try:
        return *image_size(path), status(path)[0], pages(path)
    except (OSError, UnreadableImage):
        return None, None, None, _SINGLE


def _rank(photograph: Photograph, is_toned: bool) -> tuple[int, bool, int, int]:
    pixels = (photograph.width or 0) * (photograph.height or 0)
    return -pixels, is_toned, -(photograph.bytes or 0), photograph.id
