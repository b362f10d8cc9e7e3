"""Paths of an index: one after the other in `paths.bin`, and where each ends in `path_ends.npy`."""

from __future__ import annotations

import fnmatch
import os

import numpy as np

from ..shards import decode_path
from .arrays import ascends
from .distinct import damaged_table

_LONGEST = 2**16  # bytes of a path; Linux has them to 4,096
_TAIL = 16  # bytes from the end of a path that are compared first: paths of photographs begin alike
_ROWS_AT_ONCE = 2**18


def cut(paths):
    """Fixed-length bytes (n,) -> the paths one after the other, uint8, and the length of each, int64 (n,)."""
    lengths = np.char.str_len(paths).astype(np.int64)
    raw = np.ascontiguousarray(paths).view(np.uint8).reshape(len(paths), paths.itemsize)
    return raw[np.arange(paths.itemsize) < lengths[:, None]], lengths


class Paths:
    """The paths of a segment, ``raw`` uint8 and ``ends`` int64 (n,), memory maps mostly; ``paths[row]`` is text.

    ``ends`` are compared with ``raw`` when they are used: of the paths asked for, or once all, where all are looked at.
    """

    def __init__(self, raw, ends):
        self.raw, self._ends, self._are_checked = raw, ends, False

    def __getitem__(self, row):
        start, end = int(self._ends[row - 1]) if row else 0, int(self._ends[row])
        if not (0 <= start <= end <= len(self.raw) and end - start <= _LONGEST):
            raise damaged_table("path_ends.npy")
        path = decode_path(self.raw[start:end])
        if "\0" in path:  # which no file is called, and the system refuses in its own way
            raise damaged_table("paths.bin")
        return path

    @property
    def last(self):
        """Where the last path ends."""
        return int(self._ends[-1])

    @property
    def ends(self):
        """Where each path ends in ``raw``, int64 (n,)."""
        if not self._are_checked:
            if not ascends(self._ends, 0, len(self.raw)):
                raise damaged_table("path_ends.npy")
            self._are_checked = True
        return self._ends

    def cut(self, rows):
        """The paths of some rows, as `cut` has them."""
        ends = self.ends[rows]
        lengths = ends - np.where(rows > 0, self.ends[rows - 1], 0)
        places = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        return np.asarray(self.raw[places]), lengths

    def folders(self):
        """The folders that the photographs are in, as a set."""
        found = set()
        for start in range(0, len(self.ends), _ROWS_AT_ONCE):
            first = begin = int(self.ends[start - 1]) if start else 0
            ends = self.ends[start : start + _ROWS_AT_ONCE].tolist()
            raw = self.raw[first : ends[-1]].tobytes()
            for end in ends:
                found.add(raw[begin - first : max(begin - first, raw.rfind(b"/", begin - first, end - first))])
                begin = end
        return set(map(decode_path, found))

    def find(self, paths):
        """Which rows have one of some paths: -> (row int, path) of each, in order."""
        wanted = np.unique(_keys(*cut(np.array([path.encode("utf-8", "surrogateescape") for path in paths], "S"))))
        paths, found = set(paths), []
        for start in range(0, len(self.ends) if paths else 0, _ROWS_AT_ONCE):
            ends = np.asarray(self.ends[start : start + _ROWS_AT_ONCE])
            first = int(self.ends[start - 1]) if start else 0
            keys = _keys(self.raw[first : ends[-1]], np.diff(ends, prepend=first))
            near = wanted[np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)] == keys
            rows = [(row, self[row]) for row in (start + np.flatnonzero(near)).tolist()]
            found += [(row, path) for row, path in rows if path in paths]
        return found

    def named(self, text):
        """Which rows have this very path, or one that ends with it from some folder on: -> int64 (m,), ascending."""
        text, ends = text.encode("utf-8", "surrogateescape"), np.asarray(self.ends)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        rows = np.flatnonzero(ends - starts >= max(1, len(text)))
        for place in range(1, len(text) + 1):  # the last byte first, after which few rows are left
            rows = rows[self.raw[ends[rows] - place] == text[-place]]
        first = ends[rows] - len(text)
        whole = first == starts[rows]
        return rows[whole | (self.raw[np.where(whole, starts[rows], first - 1)] == ord("/"))] if text else rows[:0]


def is_named(path, text):
    """Whether this is the very path, or the end of it from some folder on."""
    return bool(text) and (path == text or path.endswith(f"/{text}"))


def path_matches(path, pattern):
    """Whether a path, or the end of it from some folder on, is what a shell's pattern says: ``trips/*.jpg``.

    What is asked for may also be the very name of a photograph, ``IMG[1].png``, which comes first: see `is_named`.
    """
    return path == pattern or fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*/{pattern}")


def readings(text):
    """What a user may mean by a path or a pattern: -> names, of which the first that a photograph has counts, and the
    pattern that it is where none has one, else None.

    What is here is that file alone: once ``IMG[1].png`` was removed from an index, removing it again must not remove
    ``IMG1.png``, nor another folder's.
    """
    whole = os.path.abspath(text)
    if text and os.path.lexists(text):
        return [whole, os.path.realpath(text)], None
    text = whole if text.startswith(("./", "../")) else text
    return [text], text if any(character in text for character in "*?[") else None


def file_key(path, folders):
    """What identifies a file, links followed: `folder_key` of its folder, and its name there."""
    folder, name = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    return folder_key(folder, folders), name


def folder_key(folder, folders):
    """What identifies a folder, device and inode; its path where it is not there. ``folders`` keeps what was asked."""
    if folder not in folders:
        try:
            found = os.stat(folder)
            folders[folder] = found.st_dev, found.st_ino
        except (OSError, ValueError):
            folders[folder] = folder
    return folders[folder]


def _keys(raw, lengths):
    """A number of the end of each path, equal where paths are: uint8, (n,) -> uint64 (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(_TAIL, np.uint8), raw]), _TAIL)
    tails = windows[np.cumsum(lengths)]
    tails[np.arange(_TAIL) < _TAIL - lengths[:, None]] = 0  # of the path before a short one
    low, high = tails.view(np.uint64).T
    return low ^ (high * np.uint64(0x9E3779B97F4A7C15))
