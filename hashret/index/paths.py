"""Paths of an index: one after the other in `paths.bin`, and where each ends in `path_ends.npy`."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import several
from ..errors import HashretError
from ..files import StrPath
from ..shards import decode_path
from .arrays import ascends
from .blocks import ROWS_AT_ONCE
from .distinct import damaged_table

_LONGEST = 2**16  # bytes of a path; Linux has them to 4,096
_BELOW = "./"  # how a path begins that starts at the root which the index names
_TAIL = 16  # bytes from the end of a path that are compared first: paths of photographs begin with the same folders


def cut(paths: NDArray[np.bytes_]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Turn fixed-length bytes (n,) into the paths one after the other, uint8, and the length of each, int64 (n,)."""
    lengths = np.char.str_len(paths).astype(np.int64)
    raw = np.ascontiguousarray(paths).view(np.uint8).reshape(len(paths), paths.itemsize)
    return raw[np.arange(paths.itemsize) < lengths[:, None]], lengths


def stored_path(path: str, root: str | None) -> str:
    """Return a path as an index keeps it: one below its root begins with "./", and others are whole."""
    return _BELOW + path[len(_slashed(root)) :] if root and path.startswith(_slashed(root)) else path


def whole_path(path: str, root: str | None) -> str:
    """Return the whole path of one as `stored_path` has it."""
    return _slashed(root) + path.removeprefix(_BELOW) if root and path.startswith(_BELOW) else path


def _slashed(root: str) -> str:
    return root.rstrip("/") + "/"


class Paths:
    """The paths of a segment, ``raw`` uint8 and ``ends`` int64 (n,), memory maps mostly; ``paths[row]`` is text.

    What is given and asked for are whole paths. Where the index names a ``root``, those below it are kept from there
    on, see `stored_path`. ``ends`` are compared with ``raw`` when they are used: of the paths asked for, or once all,
    where all are looked at.
    """

    def __init__(self, raw: NDArray[np.uint8], ends: NDArray[np.int64], root: str | None = None) -> None:
        self.raw, self._ends, self.root, self._are_checked = raw, ends, root, False

    def __getitem__(self, row: int) -> str:
        start, end = int(self._ends[row - 1]) if row else 0, int(self._ends[row])
        if not (0 <= start <= end <= len(self.raw) and end - start <= _LONGEST):
            raise damaged_table("path_ends.npy")
        path = decode_path(self.raw[start:end])
        if "\0" in path:  # which no file is called, and the system refuses in its own way
            raise damaged_table("paths.bin")
        return whole_path(path, self.root)

    @property
    def last(self) -> int:
        """Where the last path ends."""
        return int(self._ends[-1])

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each path ends in ``raw``, int64 (n,)."""
        if not self._are_checked:
            if not ascends(self._ends, 0, len(self.raw)):
                raise damaged_table("path_ends.npy")
            self._are_checked = True
        return self._ends

    def cut_at(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the paths of some rows, as `cut` has them."""
        ends = self.ends[numbers]
        lengths = ends - np.where(numbers > 0, self.ends[numbers - 1], 0)
        bytes_ = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        return np.asarray(self.raw[bytes_]), lengths

    def folders(self) -> set[str]:
        """Return the folders that the photographs are in."""
        folders = set()
        for start in range(0, len(self.ends), ROWS_AT_ONCE):
            first = begin = int(self.ends[start - 1]) if start else 0
            ends = self.ends[start : start + ROWS_AT_ONCE].tolist()
            raw = self.raw[first : ends[-1]].tobytes()
            for end in ends:
                folders.add(raw[begin - first : max(begin - first, raw.rfind(b"/", begin - first, end - first))])
                begin = end
        return {whole_path(f"{decode_path(folder)}/", self.root).rstrip("/") for folder in folders}

    def find(self, paths: Iterable[str]) -> list[tuple[int, str]]:
        """Return the rows that have one of some paths, and the path of each, in order."""
        asked: set[str] = set(paths)
        stored = asked | {stored_path(path, self.root) for path in asked}
        encoded = np.array([path.encode("utf-8", "surrogateescape") for path in stored], "S")
        sought, hits = np.unique(_keys(*cut(encoded))), []
        for start in range(0, len(self.ends) if asked else 0, ROWS_AT_ONCE):
            ends = np.asarray(self.ends[start : start + ROWS_AT_ONCE])
            first = int(self.ends[start - 1]) if start else 0
            keys = _keys(self.raw[first : ends[-1]], np.diff(ends, prepend=first))
            same_key = sought[np.minimum(np.searchsorted(sought, keys), len(sought) - 1)] == keys
            rows = [(row, self[row]) for row in (start + np.flatnonzero(same_key)).tolist()]
            hits += [(row, path) for row, path in rows if path in asked]
        return hits

    def named(self, text: str) -> NDArray[np.int64]:
        """Return the rows that have this very path, or one that ends with it from some folder on: int64, ascending."""
        rows = self._ending(text, False)
        for place, letter in enumerate(text if self.root else ""):  # where the root ends within the text
            above = text[:place]
            if letter == "/" and self.root and (above == self.root or (above and self.root.endswith(f"/{above}"))):
                rows = np.union1d(rows, self._ending(_BELOW + text[place + 1 :], True))
        return rows

    def called(self, text: str) -> NDArray[np.int64]:
        """Return the rows whose whole path is this very text, be it that of a file or a name: int64, ascending."""
        return np.array([row for row in self._ending(text, True).tolist() if self[row] == text], np.int64)

    def _ending(self, text: str, alone: bool) -> NDArray[np.int64]:
        """Return the rows that are kept as this very text or, unless ``alone``, end with it from some folder on."""
        end, ends = text.encode("utf-8", "surrogateescape"), np.asarray(self.ends)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        rows = np.flatnonzero(ends - starts >= max(1, len(end)))
        for back in range(1, len(end) + 1):  # the last byte first, after which few rows remain
            rows = rows[self.raw[ends[rows] - back] == end[-back]]
        first = ends[rows] - len(end)
        whole = first == starts[rows]
        fits = whole if alone else whole | (self.raw[np.where(whole, starts[rows], first - 1)] == ord("/"))
        return rows[fits] if end else rows[:0]


def is_named(path: str, text: str) -> bool:
    """Whether this is the very path, or the end of it from some folder on."""
    return bool(text) and (path == text or path.endswith(f"/{text}"))


def path_matches(path: str, pattern: str) -> bool:
    """Whether a path, or the end of it from some folder on, is what a shell's pattern says: ``trips/*.jpg``.

    What is asked for may also be the very name of a photograph, ``IMG[1].png``, which comes first: see `is_named`.
    Patterns of `below_root` begin at no other folder than the photographs' own.
    """
    return path == pattern or fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*/{pattern}")


def below_root(pattern: str, root: str | None) -> list[str]:
    """Return patterns of whole paths, of which one matches where a pattern does from some folder below a root on.

    ``new*`` must not take every photograph of ``/home/newcomer/photos``. So what lies above the photographs is matched
    by a pattern that begins with a slash, or by the root's own name, written out: ``photos/old/*``.

    Args:
        pattern: as a shell has it.
        root: folder that all photographs lie in; None if there is none, which leaves the pattern as it is.
    """
    if root is None or pattern.startswith("/"):
        return [pattern]
    pattern = re.sub(r"\A(\*+/)+(?=.)", "", pattern, flags=re.DOTALL)  # it may begin at any folder anyway
    if pattern and not pattern.strip("*"):
        return ["*"]
    above = glob.escape(_slashed(root))
    patterns = [above + pattern] if pattern.startswith("*") else [above + pattern, f"{above}*/{pattern}"]
    for slash in re.finditer("/", pattern):
        named = pattern[: slash.start()]
        if is_pattern(named):
            break
        if _slashed(root).endswith(f"/{named}/"):
            patterns.append(above + pattern[slash.end() :])
    return patterns


def path_patterns(paths: StrPath | Iterable[StrPath]) -> list[str]:
    """Return paths and patterns that a caller names, one or several, as texts in order.

    Raises:
        HashretError: one that is neither a text nor a path.
    """
    named = several(paths, (str, bytes, os.PathLike))
    if wrong := [one for one in named if not isinstance(one, (str, bytes, os.PathLike))]:
        raise HashretError(f"a path or a pattern is a text, not {wrong[0]!r}")
    return sorted(map(os.fsdecode, named))


def is_pattern(text: str) -> bool:
    """Whether a text has what stands for more than itself in a shell's pattern."""
    return any(character in text for character in "*?[")


def common_root(folders: Iterable[str], root: str | None = None) -> str | None:
    """Return the folder that photographs lie in: ``root`` if it holds all their folders, else what these share.

    None where there are no folders, or where some are no whole paths, as names are that were given to vectors.
    """
    folders = list(folders)
    if not folders or not all(folder.startswith("/") for folder in folders):
        return None
    if root and all(_slashed(folder).startswith(_slashed(root)) for folder in folders):
        return root
    return os.path.commonpath(folders)


def readings(text: str) -> tuple[list[str], str | None]:
    """Return what a user may mean by a path or a pattern.

    A path that exists is that file alone: once ``IMG[1].png`` was removed from an index, removing it again must not
    remove ``IMG1.png``, nor another folder's.

    Returns:
        Names, of which the first that a photograph has counts; and a pattern that counts if none has any, or None.
    """
    whole = os.path.abspath(text)
    if text and os.path.lexists(text):
        return [whole, os.path.realpath(text)], None
    if text.startswith(("./", "../")):
        ups = re.match(r"(\.{1,2}/+)+", text)
        assert ups is not None
        below, above = text[ups.end() :], os.path.abspath(ups[0])
        pattern = _slashed(glob.escape(above)) + below  # brackets in the working folder's name are its own
        return [whole], pattern if is_pattern(below) else None
    return [text], text if is_pattern(text) else None


def file_key(path: str, folders: dict[str, Any]) -> tuple[Any, str]:
    """Return what identifies a file, links followed: `folder_key` of its folder, and its name there."""
    folder, name = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    return folder_key(folder, folders), name


def folder_key(folder: str, folders: dict[str, Any]) -> Any:
    """Return what identifies a folder: device and inode, or its path where there is none.

    ``folders`` keeps the keys of folders that were asked for before.
    """
    if folder not in folders:
        try:
            state = os.stat(folder)
            folders[folder] = state.st_dev, state.st_ino
        except (OSError, ValueError):
            folders[folder] = folder
    return folders[folder]


def _keys(raw: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number of the end of each path, equal where paths are: uint8, (n,) -> uint64 (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(_TAIL, np.uint8), raw]), _TAIL)
    tails = windows[np.cumsum(lengths)]
    tails[np.arange(_TAIL) < _TAIL - lengths[:, None]] = 0  # of the path before a short one
    low, high = tails.view(np.uint64).T
    keys: NDArray[np.uint64] = low ^ (high * np.uint64(0x9E3779B97F4A7C15))  # of the golden ratio: spreads the bits
    return keys
