"""Maps over photographs: levels, colours, overlays, and the scale that explains them. numpy and Pillow only.

A level is 0 where nothing is to be seen and nothing is drawn. Amber is more, blue is less, as strong as the level is
far from 0; at 1 and -1 the colour is full. The spans are fixed, so that a colour means the same number in every
picture, and a map that hardly varies hardly shows.
"""

from __future__ import annotations

import numpy as np

from .pictures import QUIET, write

MORE, LESS = (255, 140, 0), (0, 90, 255)  # told apart with any kind of colour blindness
SHARE_SPAN = 4  # full colours: a place that adds, or takes away, four times what places do on average
SCALES = {  # least level, what it means, what 1 means
    "spatial gate": (-1, "half its mean", "twice its mean, or more"),
    "adds to the bits": (-1, f"takes {SHARE_SPAN} times the mean", f"adds {SHARE_SPAN} times the mean, or more"),
    "strongest channels": (0, "silent", "as active as anywhere here"),
}
_OPAQUE = 0.75
_CONTRAST = 0.7  # of the photograph below, as in templates/results.html
_SCALE, _LEGEND = 200, 840  # widths in pixels


def gate_levels(gate):
    """Gate (h, w) -> levels on a logarithmic scale: 0 for its mean, 1 for twice the mean, -1 for half of it."""
    gate = np.asarray(gate, np.float32)
    return np.log2(np.maximum(gate, 1e-6) / gate.mean())


def share_levels(contributions):
    """Contributions (h, w) -> levels: 1 for four times the mean size of a contribution, negative for what takes."""
    contributions = np.asarray(contributions, np.float32)
    return contributions / (SHARE_SPAN * max(np.abs(contributions).mean(), 1e-12))


def peak_levels(activations):
    """Activations (h, w), none negative -> levels from 0 to 1, which the largest has."""
    activations = np.asarray(activations, np.float32)
    return activations / max(activations.max(), 1e-12)


def span(gate):
    """Smallest and largest of a gate in words, "-" where there is none."""
    return "-" if gate is None else f"{gate.min():.2f} to {gate.max():.2f}"


def layer(levels, size):
    """Levels (h, w) as a see-through RGBA image of ``size`` (width, height), enlarged smoothly (bicubic)."""
    from PIL import Image

    levels = np.clip(np.asarray(levels, np.float32), -1, 1)
    smooth = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC))
    smooth = np.clip(smooth, levels.min(), levels.max())  # bicubic overshoots
    colours = np.where((smooth > 0)[..., None], MORE, LESS)
    opacity = np.abs(smooth) * (255 * _OPAQUE)
    return Image.fromarray(np.dstack([colours, opacity.round()]).astype(np.uint8))


def overlay(photo, levels):
    """Levels (h, w) over a Pillow photograph, which they cover whole: -> RGB image of its size.

    The photograph is drawn in grey, so that all colour is the map's, and of less contrast, so that no part of it
    swallows the colours.
    """
    grey = photo.convert("L").point(lambda value: 127.5 + _CONTRAST * (value - 127.5)).convert("RGBA")
    grey.alpha_composite(layer(levels, photo.size))
    return grey.convert("RGB")


def scale(width, height, least=-1):
    """The colours of levels from ``least`` to 1 on mid-grey: RGB image."""
    from PIL import Image

    return overlay(Image.new("RGB", (width, height), "#999999"), np.linspace(least, 1, width)[None])


def legend(kinds, note):
    """What the colours say, as an RGB image: a scale for each of ``kinds``, which `SCALES` names, and a note."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (_LEGEND, 22 * len(kinds) + 34), "white")
    draw = ImageDraw.Draw(page)
    for row, kind in enumerate(kinds):
        top, (least, left, right) = 22 * row, SCALES[kind]
        write(draw, (10, top), kind, 120, QUIET)
        write(draw, (140, top), left, 160)
        page.paste(scale(_SCALE, 12, least), (300, top + 2))
        write(draw, (310 + _SCALE, top), right, 330)
    write(draw, (10, 22 * len(kinds) + 4), note, _LEGEND - 20, QUIET)
    return page
