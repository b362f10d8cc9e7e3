"""Which photographs of an index are gone, and which are only out of reach: on a disk that is not there now."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bits import Positions
from ..data.references import kind_of, status, whole_reference
from ..errors import HashretError, warn
from .folder import Index

_FEW, _FRACTION = 10, 0.1  # photographs, or a fraction of the index, that go without being asked for
_NAMED = 3  # folders in a message
_PRESENT, _MISSING, _UNKNOWN = range(3)


def gone_positions(index: Index, yes: bool = False) -> NDArray[np.bool_]:
    """Return which photographs are gone, bool over the positions of the index: the file is missing, not its folder.

    A folder is there when it holds anything, or was emptied since its photographs were indexed. Where it is missing, a
    folder above it must be there, on whose disk other photographs of the index are: a disk that is not mounted leaves
    an empty folder, a broken link or nothing. What is out of reach is counted in a warning and stays.

    Args:
        index: an opened `hashret.index.Index`.
        yes: False refuses where more than ten photographs, and more than a tenth of the index, would go.

    Raises:
        HashretError: too many without ``yes``, or every photograph is out of reach.
    """
    positions = np.flatnonzero(index.alive)
    stored = [index.path(position) for position in positions.tolist()]
    is_file = np.array([_names_a_file(path) for path in stored], bool)
    if not is_file.all():
        warn(f"{np.count_nonzero(~is_file):,} names in the index are not of files, and stay")
        positions, stored = positions[is_file], [path for path, counts in zip(stored, is_file, strict=True) if counts]
    paths = [whole_reference(path) for path in stored]
    states = np.array([_state(path) for path in paths], np.uint8)
    if (states == _PRESENT).all():
        return np.zeros(index.offsets[-1], bool)
    folders = [os.path.dirname(path) for path in paths]
    there = {folder for folder, state in zip(folders, states, strict=True) if state == _PRESENT}
    gone = _gone(index, positions, paths, states == _MISSING, there)
    kept = [folders[number] for number in np.flatnonzero((states != _PRESENT) & ~gone)]
    if kept:
        text = out_of_reach(kept)
        if len(kept) == len(positions):
            raise HashretError(f"{text}; is a disk missing?")
        warnings.warn(f"{text}; they stay in the index (is a disk missing?)", stacklevel=3)
    if not yes and is_large(gone.sum(), len(positions)):
        raise HashretError(
            large_share([folders[number] for number in np.flatnonzero(gone)], len(positions)),
            hint="add --yes to remove so many",
        )
    mask = np.zeros(index.offsets[-1], bool)
    mask[positions[gone]] = True
    return mask


def _names_a_file(stored: str) -> bool:
    """Whether what is kept as the path of a photograph, or of a vector, says where a file is, or was.

    Vectors may have names of their own, and those of an array go by its digest.
    """
    file = stored.rpartition("#")[0] or stored if kind_of(stored) else stored
    return file.startswith("/") or "://" in stored or os.path.lexists(file)


def missing_are_gone(index: Index, positions: Positions, folders: Collection[str]) -> NDArray[np.bool_]:
    """Return which photographs at some positions, none of which was found, are gone, bool (n,), as `gone_positions`.

    Args:
        index: an opened index.
        positions: of the photographs, int64 (n,).
        folders: those in which there are photographs.
    """
    paths = [whole_reference(index.path(position)) for position in positions.tolist()]
    missing = np.array([_state(path) == _MISSING for path in paths], bool)
    return _gone(index, positions, paths, missing, folders)


def out_of_reach(folders: Sequence[str]) -> str:
    """Say in one line that the photographs in some folders, one for each of them, are out of reach."""
    return f"{len(folders):,} photographs are out of reach, as their folders are not there: {_counted(folders)}"


def is_large(gone: int, total: int) -> bool:
    """Whether so many photographs of an index are more than may go without being asked for."""
    return bool(gone > max(_FEW, _FRACTION * total))


def large_share(folders: Sequence[str], total: int) -> str:
    """Say in one line that photographs of some folders, one for each of them, are gone."""
    return f"the files of {len(folders):,} of {total:,} photographs are gone from {_counted(folders)}"


def _gone(
    index: Index, positions: Positions, paths: Sequence[str], missing: NDArray[np.bool_], there: Collection[str]
) -> NDArray[np.bool_]:
    """Return which of the ``missing`` photographs are gone, bool (n,): the others are out of reach."""
    living = _living(there)
    since = np.array([segment.written for segment in index.segments])
    since = since[np.searchsorted(index.offsets, positions, side="right") - 1]
    lets_go: dict[tuple[str, float], bool] = {}
    gone = np.zeros(len(positions), bool)
    for number in np.flatnonzero(missing).tolist():
        if kind_of(paths[number]):  # it says itself when a photograph is gone, see ReferenceKind
            gone[number] = True
            continue
        asked = os.path.dirname(paths[number]), since[number]
        if asked not in lets_go:
            lets_go[asked] = _lets_go(*asked, living)
        gone[number] = lets_go[asked]
    return gone


def _state(path: str) -> int:
    try:
        status(path) if kind_of(path) else os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except (OSError, ValueError):  # may not be looked at, or its disk does not answer
        return _UNKNOWN
    return _PRESENT


def _living(folders: Iterable[str]) -> set[str]:
    """Return the folders in which photographs are, and those above them on the same disk."""
    living: set[str] = set()
    for folder in folders:
        device = _device(folder)
        for above in (folder, *map(str, Path(folder).parents)):
            if above in living or device is None or _device(above) != device:
                break
            living.add(above)
    return living


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None


def _lets_go(folder: str, since: float, living: set[str]) -> bool:
    """Return whether a photograph that is missing in a folder, indexed at a time ``since``, is gone."""
    try:
        if os.path.isdir(folder):
            with os.scandir(folder) as inside:
                return next(inside, None) is not None or os.stat(folder).st_mtime > since
        for above in (folder, *map(str, Path(folder).parents)):
            if os.path.isdir(above):
                return above in living
            if os.path.lexists(above):
                return False  # a link to a disk that is not there
    except OSError:
        pass
    return False


def _counted(folders: Iterable[str]) -> str:
    """Return the folders with most photographs, each with their number."""
    counts = Counter(folders).most_common()
    named = ", ".join(f"{folder} ({count:,})" for folder, count in counts[:_NAMED])
    return named + (f" and {len(counts) - _NAMED:,} other folders" if len(counts) > _NAMED else "")
