"""`hashret duplicates`: groups of photographs that are copies of one another, or nearly so, in an index.

The code of a trained encoder says what a photograph shows, not which photograph it is, and thousands of a class share
one. A radius in bits only says which to compare; what then decides is a distance of `hashret.near_duplicates.likeness`.
`benchmarks/run/planted_duplicates.py` measures what each finds, and what it takes for a copy that is none.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from ..bits import hamming
from ..data.images import UnreadableImage, image_size
from ..errors import HashretError
from ..files import identity
from ..index import open_index
from ..index.folder import read_meta
from ..progress import Progress, takes_quiet
from .components import components, linked_codes, stars
from .likeness import DISTANCES, check_by, is_enlarged, pages, same_pages, vectors
from .near_pairs import euclidean, near_pairs, with_neighbours

_SHARE = 6  # of the bits may differ: re-saved copies mostly differ in less
_SIZES = 4  # of smaller copies that a photograph may have been enlarged from
_SINGLE = (1, None)  # of a photograph that is no animation and has one page


@dataclass(frozen=True)
class Photograph:
    """One of a group: ``id`` and ``path``, whether to ``keep`` it, its ``hamming`` distance in bits from the kept one,
    its ``euclidean`` distance (None by codes alone), ``width``, ``height`` in pixels and ``bytes`` (None where the file
    cannot be read).
    """

    id: int
    path: str
    keep: bool
    hamming: int
    euclidean: float | None
    width: int | None
    height: int | None
    bytes: int | None

    def as_dict(self):
        """The photograph as plain types, for JSON."""
        return asdict(self)


@takes_quiet
def duplicates(index="index", *, radius=None, by="pixels", distance=None):
    """Groups of near-duplicates in an index: -> list of groups, the largest first, each a list of `Photograph`.

    Two photographs are a pair where their codes are within ``radius`` and they are within ``distance``; all such pairs
    are found. The first of a group is the one to keep: of most pixels, then of most bytes, then of the lowest id. By
    pixels, one that was enlarged from a smaller one of them (`is_enlarged`) comes behind that. The
    others are linked to it by pairs, and each is itself within ``distance`` of it (within ``radius``, by codes alone).
    Animations and scans of several pages are linked by their first, and in one group where all are alike
    (`same_pages`). A photograph is in one group at most, and several names of one file are one.

    Args:
        index: folder of an index.
        radius: bits in which two codes may differ; None for a sixth of them.
        by: what the distance is of, see `hashret.near_duplicates.likeness.vectors`.
        distance: up to which two are alike; None for that of `hashret.near_duplicates.likeness.DISTANCES`.

    Raises:
        HashretError: no index, one that does not keep what is compared, or none of whose photographs can be read.
    """
    opened = open_index(index, "cpu")
    radius, reach = _criterion(opened.bits, radius, by, distance)
    codes, rows = opened.codes(), np.flatnonzero(opened.alive)
    if by == "pixels":  # only photographs with something to be compared with are read
        rows = rows[with_neighbours(codes[rows], radius)]
    x = vectors(opened, rows, by)
    if by == "pixels":
        rows, x = _readable(opened, rows, x)
    codes = codes[rows]
    linked = linked_codes(codes, radius) if x is None else components(len(rows), near_pairs(codes, radius, x, reach))
    parts = _parts(linked)
    found, several = _photographs(opened, rows, list(chain.from_iterable(parts)))
    apart = partial(_apart, codes, x, several, reach if by == "pixels" else DISTANCES["pixels"])
    groups = []
    for part in parts:
        ranked = sorted((item for item in part if item in found), key=lambda item: _rank(found[item]))
        if by == "pixels":
            ranked = _enlarged_last(ranked, found, several, lambda item, others: reach >= apart(item, others))
        for first, others, D in stars(ranked, apart, reach):
            groups.append(_group(found, codes, int(first), others, None if x is None else D))
    copies = sum(len(group) - 1 for group in groups)
    if by != "pixels" and 2 * copies > len(opened):
        warnings.warn(
            f"{copies:,} of {len(opened):,} photographs pass for copies of others: by its {by}, this encoder says what "
            "a photograph shows, not which one it is; take --by pixels",
            stacklevel=2,
        )
    return sorted(groups, key=lambda group: (-len(group), group[0].id))


def alike(index, radius=None, by="pixels", distance=None):
    """In words, what `duplicates` takes for alike."""
    radius, reach = _criterion(read_meta(index)["bits"], radius, by, distance)
    unit = " grey levels" if by == "pixels" else ""
    return f"codes within {radius} bits" + (f", {by} within {reach:g}{unit}" if by != "codes" else "")


def _criterion(bits, radius, by, distance):
    """Radius in bits, and how far a photograph may be from the one that is kept."""
    radius = bits // _SHARE if radius is None else radius
    if by == "codes" and distance is not None:
        raise HashretError("--distance goes with another --by than codes")
    reach = DISTANCES[check_by(by)] if distance is None else distance
    reach = radius if by == "codes" else reach
    if radius < 0 or not 0 <= reach < np.inf:
        raise HashretError("the radius and the distance are numbers from 0 up")
    return radius, reach


def _readable(index, rows, x):
    """Leave out photographs that could not be read, and say so: -> rows, x."""
    readable = ~np.isnan(x).any(axis=1)
    missing = rows[~readable]
    if len(missing) and len(missing) == len(rows):
        raise HashretError(f"none of the photographs can be read, as {index.path(rows[0])}; take another --by")
    if len(missing):
        warnings.warn(
            f"{len(missing):,} photographs cannot be read and are left out, as {index.path(missing[0])}; "
            "hashret remove --gone takes those that are gone out of the index",
            stacklevel=3,
        )
    return rows[readable], x[readable]


def _parts(linked):
    """Items with the same number, where there are several: (n,) -> lists."""
    order = np.argsort(linked, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(linked[order])) + 1)
    return [part.tolist() for part in parts if len(part) > 1]


def _apart(codes, x, several, reach, first, others):
    """How far others are from a first: Euclidean distances, or, without x, Hamming distances.

    It is infinite where their frames or pages are not the same, of which ``several`` knows those that have some.
    """
    bits = _bits(codes, first, others)
    D = bits.astype(np.float32) if x is None else euclidean(x, np.full(len(others), first), others)
    if several:
        pages = several.get(int(first), _SINGLE)
        same = [same_pages(pages, several.get(int(other), _SINGLE), reach) for other in others]
        D = np.where(same, D, np.float32(np.inf))
    return D


def _bits(codes, first, others):
    return hamming(codes[first : first + 1], codes[others])[0]


def _enlarged_last(ranked, found, several, is_near):
    """Put each photograph that was enlarged from a smaller one behind that: items, the largest first -> the same.

    Of the smaller ones that are copies of it, the largest of each size is compared, and `_SIZES` sizes at most.
    """
    pixels = {item: (found[item].width or 0) * (found[item].height or 0) for item in ranked}
    detail = dict(pixels)  # of what it shows
    singles = np.array([item for item in ranked if item not in several])
    for place in reversed(range(len(singles))):
        item, others = singles[place], singles[place + 1 :]
        smaller = others[[0 < pixels[other] < pixels[item] for other in others]] if len(others) else others
        sizes = {pixels[other]: other for other in reversed(smaller[is_near(item, smaller)])} if len(smaller) else {}
        for other in sorted(sizes.values(), key=lambda other: -pixels[other])[:_SIZES]:
            if is_enlarged(found[item].path, found[other].path):
                detail[item] = min(detail[item], detail[other])
    return sorted(ranked, key=lambda item: (-detail[item], detail[item] < pixels[item]))


def _group(found, codes, first, others, D):
    """The photograph to keep, and its copies, the nearest first."""
    bits = _bits(codes, first, others).tolist()
    far = [None] * len(others) if D is None else D.tolist()
    copies = [
        replace(found[item], hamming=h, euclidean=d) for item, h, d in zip(others.tolist(), bits, far, strict=True)
    ]
    copies.sort(key=lambda copy: (copy.euclidean or 0, copy.hamming, copy.id))
    return [replace(found[first], keep=True, euclidean=None if D is None else 0.0), *copies]


def _photographs(index, rows, items):
    """The files of some items: -> dict of `Photograph`, without those whose file is another's, too, and dict of
    `hashret.near_duplicates.likeness.pages` of those that have several.
    """
    found, several, files = {}, {}, {}
    progress = Progress("looking at files", len(items), "photographs")
    for item in items:
        path = index.path(rows[item])
        width, height, size, shown = _looked_at(path)
        found[item] = Photograph(int(index.ids[rows[item]]), path, False, 0, None, width, height, size)
        if shown[0] > 1:
            several[item] = shown
        try:
            files.setdefault(identity(path), []).append(item)
        except OSError:
            files.setdefault(os.path.realpath(path), []).append(item)
        progress.add()
    progress.close()
    again = []  # a file that is there under several names must not pass for its own copy
    for same in files.values():
        same.sort(key=lambda item: (found[item].path != os.path.realpath(found[item].path), found[item].id))
        again += same[1:]
    if again:
        warnings.warn(
            f"{len(again):,} photographs are in the index more than once, or one file of several names, by a link or "
            f"in a folder mounted twice, and are left out, as {found[again[0]].path}",
            stacklevel=3,
        )
    return {item: found[item] for item in found.keys() - set(again)}, several


def _looked_at(path):
    """Width and height in pixels and size in bytes of a file, None where it cannot be read, and its frames or pages."""
    try:
        return *image_size(path), os.path.getsize(path), pages(path)
    except (OSError, UnreadableImage):
        return None, None, None, _SINGLE


def _rank(photograph):
    return -(photograph.width or 0) * (photograph.height or 0), -(photograph.bytes or 0), photograph.id
