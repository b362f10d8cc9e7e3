"""Perceptual hashes of pictures, which outlast turning, mirroring, borders and small crops.

The hash of a window of a picture is the signs of the 63 lowest frequencies of its discrete cosine transform, as in
Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010. Signs do not change with brightness
and contrast. Mirroring a picture changes the signs of every other frequency, and a quarter turn exchanges rows and
columns: so each window is brought to the one of its eight orientations in which the lowest frequencies along the rows
and columns are positive, and the larger one lies along the rows. Where it is in doubt which that is, a window is asked
for in each of those in question.

Borders are cut off: the *content* of a picture is what lies within even margins. What was cropped from a photograph is
found since windows of each photograph are asked for, too: the content without a tenth or a twentieth at either edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..bits import Codes, Positions, pack
from .pictures import SIDE, Floats

Windows = npt.NDArray[np.float64]  # top, bottom, left and right of each as fractions of the sides, (n, 4)
Orientations = npt.NDArray[np.uint8]  # (n,), of the bits below: first flipped, then transposed

FLIPPED_X, FLIPPED_Y, TRANSPOSED = 1, 2, 4
WHOLE = (0.0, 1.0, 0.0, 1.0)
CROPS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.05, 0.95), (0.1, 0.9))  # along an axis; the first crops nothing
_FREQUENCIES = 8
_IN_DOUBT = 0.1  # of the length of all frequencies: up to which the sign of one may be another in a copy
_EVEN, _SAME = 4.0, 6.0  # grey levels within a row of a border, and between its rows
_WIDEST = 0.4  # of a side: a border
_ALTERNATE = np.where(np.arange(_FREQUENCIES) % 2, np.float32(-1), np.float32(1))


class WindowCodes(NamedTuple):
    """Codes of windows of pictures, (m, 8) packed; of each the item, the window (m, 4) and the orientation."""

    items: Positions
    windows: Windows
    orientations: Orientations
    codes: Codes

    def take(self, positions: Positions) -> WindowCodes:
        """Return some of them."""
        return WindowCodes(
            self.items[positions], self.windows[positions], self.orientations[positions], self.codes[positions]
        )


def content(grey: Floats) -> Windows:
    """Return the window within the even margins of each picture (n, 64, 64), to a fraction of a pixel."""
    top, bottom = _margins(grey.mean(2), grey.std(2))
    row = np.arange(SIDE)
    inside = (row >= np.ceil(top)[:, None]) & (row < SIDE - np.ceil(bottom)[:, None])
    weight = (inside / inside.sum(1, keepdims=True))[:, None, :].astype(np.float32)
    mean = (weight @ grey)[:, 0]
    variance = (weight @ np.square(grey - mean[:, None]))[:, 0]
    left, right = _margins(mean, np.sqrt(variance))
    return np.stack([top, SIDE - bottom, left, SIDE - right], 1) / SIDE


def _margins(mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Return how many rows at either end are of a border, (n,) each: mean and deviation of each row, (n, 64)."""
    return _margin(mean, deviation), _margin(mean[:, ::-1], deviation[:, ::-1])


def _margin(mean: Floats, deviation: Floats) -> Floats:
    step = np.abs(mean - mean[:, :1])
    border = np.cumprod((deviation < _EVEN) & (step < _SAME), axis=1).sum(axis=1)
    border = np.where(border <= _WIDEST * SIDE, border, 0)
    item = np.arange(len(mean))
    # The border may end within the next row: how far that is from it, beside the row behind, says where.
    share = step[item, border] / np.maximum(step[item, border + 1], 1e-3)
    return np.where(border, border + 1 - share.clip(0, 1), 0).astype(np.float32)


def table_codes(items: Positions, grey: Floats, contents: Windows) -> WindowCodes:
    """Return the codes of pictures as they are found: one of the content and, where it has a border, of the whole."""
    bordered = _bordered(contents)
    windows = np.concatenate([contents, np.tile(WHOLE, (len(bordered), 1))])
    rows = np.concatenate([np.arange(len(items)), bordered])
    frequencies = np.concatenate([_transformed(grey, contents), _transformed(grey[bordered], windows[len(items) :])])
    _, orientations, oriented = _oriented(frequencies, 0)
    return WindowCodes(items[rows], windows, orientations, _codes(oriented))


def query_codes(items: Positions, grey: Floats, contents: Windows, crops: bool = True) -> WindowCodes:
    """Return the codes that are asked for: of the windows of each content that `CROPS` has, and of the whole picture.

    Args:
        crops: False for the content and the whole alone.
    """
    edges = CROPS if crops else CROPS[:1]
    height, width = (contents[:, [end]] - contents[:, [end - 1]] for end in (1, 3))
    first, last = np.array(edges).T
    rows = np.stack([contents[:, [0]] + first * height, contents[:, [0]] + last * height], 2)
    columns = np.stack([contents[:, [2]] + first * width, contents[:, [2]] + last * width], 2)
    along_rows = _basis(rows[..., 0], rows[..., 1]) @ grey[:, None]
    across = _basis(columns[..., 0], columns[..., 1]).swapaxes(2, 3)
    bordered = _bordered(contents)
    every = product(range(len(edges)), repeat=2)
    windows = [np.concatenate([rows[:, y], columns[:, x]], 1) for y, x in every]
    frequencies = np.matmul(along_rows[:, :, None], across[:, None], dtype=np.float32).swapaxes(0, 1).swapaxes(1, 2)
    frequencies = frequencies.reshape(-1, _FREQUENCIES, _FREQUENCIES)
    whole = np.tile(WHOLE, (len(bordered), 1))
    numbers = np.concatenate([np.tile(np.arange(len(items)), len(windows)), bordered])
    transformed = np.concatenate([frequencies, _transformed(grey[bordered], whole)])
    kept, orientations, oriented = _oriented(transformed, _IN_DOUBT)
    return WindowCodes(items[numbers[kept]], np.concatenate([*windows, whole])[kept], orientations, _codes(oriented))


def joined(blocks: Sequence[WindowCodes]) -> WindowCodes:
    """Join blocks of codes."""
    return WindowCodes(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def _bordered(contents: Windows) -> Positions:
    return np.flatnonzero((contents != WHOLE).any(axis=1))


def _basis(first: Windows, last: Windows) -> Floats:
    """Return the cosines of the lowest frequencies of windows of an axis from first to last, (...) -> (..., 8, 64)."""
    first, last = SIDE * first[..., None], SIDE * last[..., None]
    edge = np.arange(SIDE + 1)
    low, high = np.maximum(edge[:-1], first), np.minimum(edge[1:], last)
    covered, middle = np.maximum(high - low, 0) / (last - first), ((low + high) / 2 - first) / (last - first)
    angles = (np.pi * np.arange(_FREQUENCIES)[:, None] * middle[..., None, :]).astype(np.float32)
    basis: Floats = covered[..., None, :].astype(np.float32) * np.cos(angles)
    return basis


def _transformed(grey: Floats, windows: Windows) -> Floats:
    """Return the lowest frequencies of a window of each picture, (n, 8, 8): along the columns, along the rows."""
    across = _basis(windows[:, 2], windows[:, 3]).swapaxes(1, 2)
    frequencies: Floats = np.matmul(_basis(windows[:, 0], windows[:, 1]) @ grey, across, dtype=np.float32)
    return frequencies


def _oriented(frequencies: Floats, in_doubt: float) -> tuple[Positions, Orientations, Floats]:
    """Bring windows to their orientation, see the top of this module, and to others that are in doubt.

    Returns:
        The rows of ``frequencies`` (m,), the orientations (m,), and the frequencies in that orientation (m, 8, 8).
    """
    x, y = frequencies[:, 0, 1], frequencies[:, 1, 0]
    limit = in_doubt * np.sqrt(np.maximum(np.square(frequencies).sum((1, 2)) - frequencies[:, 0, 0] ** 2, 0))
    usual = FLIPPED_X * (x < 0) + FLIPPED_Y * (y < 0) + TRANSPOSED * (np.abs(y) > np.abs(x))
    doubt = {
        FLIPPED_X: np.abs(x) < limit, FLIPPED_Y: np.abs(y) < limit, TRANSPOSED: np.abs(np.abs(x) - np.abs(y)) < limit
    }  # fmt: skip
    rows, orientations = [], []
    for other in range(8):
        questioned = [doubt[bit] for bit in doubt if other & bit]
        kept = np.flatnonzero(np.logical_and.reduce(questioned)) if questioned else np.arange(len(frequencies))
        rows.append(kept)
        orientations.append((usual[kept] ^ other).astype(np.uint8))
    row, orientation = np.concatenate(rows), np.concatenate(orientations)
    oriented = frequencies[row]
    oriented *= np.where(orientation & FLIPPED_X, _ALTERNATE[:, None], np.float32(1)).T[:, None, :]
    oriented *= np.where(orientation & FLIPPED_Y, _ALTERNATE[:, None], np.float32(1)).T[:, :, None]
    turned = (orientation & TRANSPOSED) > 0
    oriented[turned] = oriented[turned].swapaxes(1, 2)
    return row, orientation, oriented


def _codes(frequencies: Floats) -> Codes:
    """Return the signs of frequencies (n, 8, 8) as packed codes, (n, 8); the mean, which is the first, has none."""
    bits = (frequencies > 0).reshape(len(frequencies), _FREQUENCIES**2)
    bits[:, 0] = False
    return pack(bits)
