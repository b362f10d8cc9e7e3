"""Maps over photographs: levels, colours, overlays, and the scale that explains them. Needs numpy and Pillow only.

A level says how strongly a cell of a map is coloured: not at all at 0, with full colour at 1 and at -1. Positive levels
are amber, negative ones blue. The spans are fixed, so that a colour means the same number in every picture, and a map
that hardly varies hardly shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .pictures import QUIET, write

if TYPE_CHECKING:
    from PIL.Image import Image

Levels = npt.NDArray[np.float32]  # (h, w)

MORE, LESS = (255, 140, 0), (0, 90, 255)  # told apart with any kind of colour blindness
_SPAN = 4  # full colours: a cell that adds, or takes away, four times the mean
SCALES = {  # kind of map -> least level, what that means, what 1 means
    "spatial gate": (-1, "half its mean", "twice its mean, or more"),
    "adds to the bits": (-1, f"takes {_SPAN} times the mean", f"adds {_SPAN} times the mean, or more"),
    "strongest channels": (0, "silent", "as active as anywhere here"),
}
_OPAQUE = 0.75
_CONTRAST = 0.7  # of the photograph below a map, as in templates/results.html
_SCALE, _LEGEND = 200, 840  # widths in pixels


def gate_levels(gate: npt.ArrayLike) -> Levels:
    """Return the levels (h, w) of a gate (h, w) on a logarithmic scale: 0 for its mean, 1 for twice, -1 for half."""
    array = np.asarray(gate, np.float32)
    levels: Levels = np.log2(np.maximum(array, 1e-6) / array.mean())
    return levels


def contribution_levels(contributions: npt.ArrayLike) -> Levels:
    """Return the levels (h, w) of contributions (h, w): 1 for four times their mean absolute value."""
    array = np.asarray(contributions, np.float32)
    levels: Levels = array / (_SPAN * max(np.abs(array).mean(), 1e-12))
    return levels


def peak_levels(activations: npt.ArrayLike) -> Levels:
    """Return the levels (h, w) of activations (h, w), none of them negative: 1 for the largest one."""
    array = np.asarray(activations, np.float32)
    levels: Levels = array / max(array.max(), 1e-12)
    return levels


def span(gate: npt.NDArray[np.float32] | None) -> str:
    """Return the smallest and the largest value of a gate in words, "-" where there is no gate."""
    return "-" if gate is None else f"{gate.min():.2f} to {gate.max():.2f}"


def layer(levels: npt.ArrayLike, size: tuple[int, int], resize: str = "squeeze") -> Image:
    """Return levels (h, w) as a transparent RGBA image, enlarged smoothly (bicubic).

    Args:
        levels: of the square that a photograph became.
        size: width and height of the photograph in pixels.
        resize: how it became the square, see `hashret.data.images.read_image`; of a cropped one the rest stays clear.
    """
    from PIL import Image, ImageOps

    if resize == "crop":
        return ImageOps.pad(layer(levels, (min(size), min(size))), size, color="#0000")
    if resize == "pad":
        return ImageOps.fit(layer(levels, (max(size), max(size))), size)
    levels = np.clip(np.asarray(levels, np.float32), -1, 1)
    smooth = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC))
    smooth = np.clip(smooth, levels.min(), levels.max())  # bicubic overshoots
    colours = np.where((smooth > 0)[..., None], MORE, LESS)
    opacity = np.abs(smooth) * (255 * _OPAQUE)
    return Image.fromarray(np.dstack([colours, opacity.round()]).astype(np.uint8))


def overlay(photo: Image, levels: npt.ArrayLike, resize: str = "squeeze") -> Image:
    """Return an RGB image of a photograph with levels (h, w) drawn over what they are of, see `layer`.

    The photograph is drawn in grey, so that every colour is the map's, and with less contrast, so that no part of the
    photograph hides the colours.
    """
    grey = photo.convert("L").point(lambda value: 127.5 + _CONTRAST * (value - 127.5)).convert("RGBA")
    grey.alpha_composite(layer(levels, photo.size, resize))
    return grey.convert("RGB")


def scale(width: int, height: int, least: float = -1) -> Image:
    """Return an RGB image of the colours of levels from ``least`` to 1 on grey."""
    from PIL import Image

    return overlay(Image.new("RGB", (width, height), "#999999"), np.linspace(least, 1, width)[None])


def legend(kinds: Sequence[str], note: str) -> Image:
    """Return an RGB image that explains the colours: a scale for each of ``kinds``, keys of `SCALES`, and a note."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (_LEGEND, 22 * len(kinds) + 34), "white")
    draw = ImageDraw.Draw(page)
    for line, kind in enumerate(kinds):
        top, (least, left, right) = 22 * line, SCALES[kind]
        write(draw, (10, top), kind, 120, QUIET)
        write(draw, (140, top), left, 160)
        page.paste(scale(_SCALE, 12, least), (300, top + 2))
        write(draw, (310 + _SCALE, top), right, 330)
    write(draw, (10, 22 * len(kinds) + 4), note, _LEGEND - 20, QUIET)
    return page
