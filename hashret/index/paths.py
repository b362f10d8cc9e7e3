"""Paths of an index: one after the other in `paths.bin`, and where each ends in `path_ends.npy`."""

from __future__ import annotations

import numpy as np

from ..shards import decode_path

_TAIL = 16  # bytes from the end of a path that are compared first: paths of photographs begin alike
_ROWS_AT_ONCE = 2**18


def cut(paths):
    """Fixed-length bytes (n,) -> the paths one after the other, uint8, and the length of each, int64 (n,)."""
    lengths = np.char.str_len(paths).astype(np.int64)
    raw = np.ascontiguousarray(paths).view(np.uint8).reshape(len(paths), paths.itemsize)
    return raw[np.arange(paths.itemsize) < lengths[:, None]], lengths


class Paths:
    """The paths of a segment, ``raw`` uint8 and ``ends`` int64 (n,), memory maps mostly; ``paths[row]`` is text."""

    def __init__(self, raw, ends):
        self.raw, self.ends = raw, ends

    def __getitem__(self, row):
        return decode_path(self.raw[self.ends[row - 1] if row else 0 : self.ends[row]])

    def cut(self, rows):
        """The paths of some rows, as `cut` has them."""
        ends = self.ends[rows]
        lengths = ends - np.where(rows > 0, self.ends[rows - 1], 0)
        places = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        return np.asarray(self.raw[places]), lengths

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


def _keys(raw, lengths):
    """A number of the end of each path, equal where paths are: uint8, (n,) -> uint64 (n,)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(_TAIL, np.uint8), raw]), _TAIL)
    tails = windows[np.cumsum(lengths)]
    tails[np.arange(_TAIL) < _TAIL - lengths[:, None]] = 0  # of the path before a short one
    low, high = tails.view(np.uint64).T
    return low ^ (high * np.uint64(0x9E3779B97F4A7C15))
