"""Laying one picture over another, to tell whether it is a copy, and how it was changed.

The window of one picture is moved and stretched until it fits a window of the other, by least squares for its four
edges, the contrast and the brightness: Lucas & Kanade, "An iterative image registration technique with an application
to stereo vision", IJCAI 1981. What then decides is above all the details: each pixel less the mean of its neighbours.
Whole pictures are alike where both show a sunset; details are alike only where one is a copy of the other, or the shot
of a moment later.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .picture_codes import FLIPPED_X, FLIPPED_Y, TRANSPOSED, Orientations, WindowCodes, Windows
from .pictures import SIDE, Floats, Pictures

_INSIDE = 0.03  # of a window at each edge, where a border may blend in, that is not compared
_COARSE, _FINE, _COLOURS = 16, 32, 8  # pixels a side in which pictures are laid over each other and compared
_TURNS, _STEP, _FARTHEST = 3, 0.04, 0.08  # of the fit; how far an edge may go at once and in all
_HOPELESS = {0: 0.5, _COARSE: 0.85}  # correlation of the whole pictures before, and after, the coarse fit
_NOISE, _COLOUR_NOISE = 0.5, 3.0  # grey levels below which details or colours say nothing
_FAINT = 2.0  # grey levels: a colour that varies less is that of a grey or toned picture
_EVEN = 2.0  # grey levels: a picture that varies less is of one tone
_WHOLE_WEIGHT, _COLOUR_WEIGHT, _TONES = 2.0, 0.75, 10.0


class Fit(NamedTuple):
    """How the pictures of pairs fit, (p,) each but for the windows (p, 4).

    Attributes:
        distances: 0 to 4: of the details, as the Euclidean distance of vectors of unit length, or, where they are
            larger, that of the whole pictures twice, or of the colours, less weighed.
        one, other: the windows of both, in the orientation of their codes, that lie over each other.
        brightness: mean of the other window as a multiple of that of the first.
        toned: whether a picture is grey or of one colour, (p, 2).
    """

    distances: Floats
    one: Windows
    other: Windows
    brightness: Floats
    toned: npt.NDArray[np.bool_]


def fit(one: Pictures, one_codes: WindowCodes, other: Pictures, other_codes: WindowCodes) -> Fit:
    """Lay windows of pictures over windows of others, (p,) pairs."""
    grey = turned(one.grey, one_codes.orientations), turned(other.grey, other_codes.orientations)
    start = _inner(turned_windows(one_codes.windows, one_codes.orientations))
    target = _inner(turned_windows(other_codes.windows, other_codes.orientations))
    windows, distances = start.copy(), np.full(len(start), np.inf, np.float32)
    brightness = np.ones(len(start), np.float32)
    toned = np.stack([is_toned(one.colour), is_toned(other.colour)], 1)
    left, halved = np.arange(len(start)), [_halved(side) for side in grey]
    for side, least in _HOPELESS.items():
        if side:
            windows[left] = _aligned(halved[0][left], windows[left], start[left], halved[1][left], target[left], side)
        x, y = _sampled(halved[0][left], windows[left], _COARSE), _sampled(halved[1][left], target[left], _COARSE)
        left = left[_correlation(x, y, _EVEN) >= least]
    windows[left] = _aligned(grey[0][left], windows[left], start[left], grey[1][left], target[left], _FINE)
    x, y = _sampled(grey[0][left], windows[left], _FINE), _sampled(grey[1][left], target[left], _FINE)
    whole = _WHOLE_WEIGHT * _distance(_correlation(x, y, _EVEN))
    far = np.maximum(whole, _distance(_correlation(_details(x), _details(y), _NOISE)))
    colours = [
        _colours(picture.colour[left], codes.orientations[left], window[left])
        for picture, codes, window in ((one, one_codes, windows), (other, other_codes, target))
    ]
    apart = _COLOUR_WEIGHT * _distance(_correlation(colours[0], colours[1], _COLOUR_NOISE))
    far = np.where(toned[left].any(axis=1), far, np.maximum(far, apart))
    means = x.mean((1, 2)), y.mean((1, 2))
    of_one_tone = np.minimum(x.std((1, 2)), y.std((1, 2))) < _EVEN
    far = np.where(of_one_tone & (np.abs(means[0] - means[1]) > _TONES), np.inf, far)
    distances[left], brightness[left] = far, (means[1] + 1) / (means[0] + 1)
    return Fit(distances, windows, target, brightness, toned)


def turned(grey: Floats, orientations: Orientations) -> Floats:
    """Bring pictures (n, s, s) to orientations (n,)."""
    grey = grey.copy()
    for bit, change in ((FLIPPED_X, np.s_[:, :, ::-1]), (FLIPPED_Y, np.s_[:, ::-1])):
        chosen = (orientations & bit) > 0
        grey[chosen] = grey[chosen][change]
    chosen = (orientations & TRANSPOSED) > 0
    grey[chosen] = grey[chosen].swapaxes(1, 2)
    return grey


def turned_windows(windows: Windows, orientations: Orientations) -> Windows:
    """Return where windows (n, 4) of pictures lie once these are `turned`."""
    windows = windows.copy()
    for bit, edges in ((FLIPPED_X, [2, 3]), (FLIPPED_Y, [0, 1])):
        chosen = np.flatnonzero(orientations & bit)[:, None]
        windows[chosen, edges] = 1 - windows[chosen, edges[::-1]]
    chosen = np.flatnonzero(orientations & TRANSPOSED)
    windows[chosen] = windows[chosen][:, [2, 3, 0, 1]]
    return windows


def _halved(grey: Floats) -> Floats:
    """Return pictures of half the size, for coarse comparisons."""
    halved: Floats = grey.reshape(len(grey), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4))
    return halved


def _inner(windows: Windows) -> Windows:
    margin = _INSIDE * (windows[:, [1, 1, 3, 3]] - windows[:, [0, 0, 2, 2]])
    return windows + margin * (1, -1, 1, -1)


def _sampled(grey: Floats, windows: Windows, side: int) -> Floats:
    """Return the means of pictures over ``side`` x ``side`` equal parts of windows, (n, side, side)."""
    size = grey.shape[1]
    across = _shares(windows[:, 2], windows[:, 3], side, size).swapaxes(1, 2)
    down = _shares(windows[:, 0], windows[:, 1], side, size)
    sampled: Floats = np.matmul(down @ grey, across, dtype=np.float32)
    return sampled


def _shares(first: Windows, last: Windows, side: int, size: int) -> Floats:
    """Return the share of each of ``size`` pixels in each part of windows of an axis, (n, side, size).

    Beyond its edges a picture goes on as at its edges.
    """
    fractions = first[:, None] + (last - first)[:, None] * (np.arange(side + 1) / side)
    edges: Floats = (size * fractions).astype(np.float32)
    covered = edges[:, :, None] - np.arange(size, dtype=np.float32)  # of each pixel, up to each edge
    np.minimum(covered[..., :-1], 1, out=covered[..., :-1])
    np.maximum(covered[..., 1:], 0, out=covered[..., 1:])
    shares: Floats = np.diff(covered, axis=1)
    shares /= (edges[:, -1:, None] - edges[:, :1, None]) / side
    return shares


def _aligned(grey: Floats, windows: Windows, start: Windows, other: Floats, target: Windows, side: int) -> Windows:
    """Move the edges of windows so that they fit the target windows of other pictures, by Gauss-Newton steps."""
    wanted = _sampled(other, target, side).reshape(len(grey), side**2, 1)
    part = ((np.arange(side) + 0.5) / side).astype(np.float32)
    for _ in range(_TURNS):
        seen = _sampled(grey, windows, side)
        height, width = ((windows[:, end] - windows[:, end - 1]).astype(np.float32)[:, None, None] for end in (1, 3))
        down, right = np.gradient(seen, axis=1) * side / height, np.gradient(seen, axis=2) * side / width
        late = part[:, None]
        columns = [down * (1 - late), down * late, right * (1 - part), right * part, seen, np.ones_like(seen)]
        jacobian = np.stack(columns, 1).reshape(len(grey), 6, side**2)
        normal = (jacobian @ jacobian.swapaxes(1, 2)).astype(np.float64)
        normal[:, np.arange(4), np.arange(4)] *= 1.01
        normal[:, np.arange(6), np.arange(6)] += 1e-3
        solved = np.linalg.solve(normal, (jacobian @ wanted).astype(np.float64))[:, :, 0]
        contrast = np.copysign(np.maximum(np.abs(solved[:, 4]), 0.1), solved[:, 4])
        windows = windows + (solved[:, :4] / contrast[:, None]).clip(-_STEP, _STEP)
        windows = windows.clip(start - _FARTHEST, start + _FARTHEST)
    return windows


def _colours(colour: Floats, orientations: Orientations, windows: Windows) -> Floats:
    """Return the colour differences (n, 2, s, s) over windows of turned pictures, each less its mean, (n, 2, 8, 8)."""
    sampled = np.stack([_sampled(turned(colour[:, n], orientations), windows, _COLOURS) for n in (0, 1)], 1)
    centred: Floats = sampled - sampled.mean((2, 3), keepdims=True)
    return centred


def _details(sampled: Floats) -> Floats:
    """Return each pixel less the mean of the 3 x 3 around it."""
    padded = np.pad(sampled, ((0, 0), (1, 1), (1, 1)), mode="edge")
    size = sampled.shape[1]
    around = sum(padded[:, y : y + size, x : x + size] for y in range(3) for x in range(3))
    details: Floats = sampled - around / np.float32(9)
    return details


def _correlation(x: Floats, y: Floats, noise: float) -> Floats:
    """Return the correlation of pairs of pictures, (p,); two that vary less than the noise correlate."""
    x, y = (values.reshape(len(values), math.prod(values.shape[1:])) for values in (x, y))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    floor = np.float32(noise**2 * x.shape[1])
    both = np.einsum("pn,pn->p", x, y) + floor
    alone = (np.einsum("pn,pn->p", x, x) + floor) * (np.einsum("pn,pn->p", y, y) + floor)
    correlation: Floats = both / np.sqrt(alone)
    return correlation


def _distance(correlation: Floats) -> Floats:
    """Return the Euclidean distance of vectors of unit length of a correlation."""
    distance: Floats = np.sqrt(np.maximum(2 - 2 * correlation, 0))
    return distance


def is_toned(colour: Floats) -> npt.NDArray[np.bool_]:
    """Whether the colours (n, 2, s, s) of a picture hardly vary."""
    toned: npt.NDArray[np.bool_] = np.sqrt(colour.var((2, 3)).sum(1)) < _FAINT
    return toned
