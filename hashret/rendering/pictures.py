"""Hits as a picture: a grid of queries and their hits."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from ..data.images import UnreadableImage, fit, open_rgb, resized
from ..errors import HashretError
from ..files import atomic, check_writable
from ..names import shown
from .text import distances

TILE, _GAP, _TEXT, _HEAD = 128, 10, 34, 24
QUERY, PLAIN, _GOOD, _BAD = "black", "#c8ccd2", "#2a9d5c", "#d1495b"
QUIET = "#5b6470"


@dataclass(frozen=True)
class Tile:
    """A square picture of ``TILE`` pixels a side with up to two lines below it, in a frame."""

    image: object
    caption: tuple[str, ...] = ()
    frame: str = PLAIN


def grid(results, out, truth=None):
    """Draw queries and hits into a PNG: a row a query, the query at the left.

    Args:
        results: list of (path, list of Hit), as `hashret.search.query` returns it.
        out: file to write.
        truth: labels of the queries, in their order; hits of that label get a green frame, others a red one.

    Raises:
        HashretError: ``out`` is one of the photographs themselves, or cannot be written.
    """
    for photograph in {path for query, hits in results for path in (query, *(hit.path for hit in hits))}:
        with suppress(OSError):
            if os.path.samefile(photograph, out):
                raise HashretError(f"{out} is one of the photographs that would be drawn; name another file to write")
    rows = []
    for row, (path, hits) in enumerate(results):
        label = truth[row] if truth else None
        tiles = [Tile(thumbnail(path), ("query", label or os.path.basename(path)), QUERY)]
        tiles += [Tile(thumbnail(hit.path), hit_caption(hit), hit_frame(hit, label)) for hit in hits]
        rows.append(tiles)
    save_png(sheet(rows), out)


def sheet(rows, heads=(), foot=None):
    """Tiles as one Pillow image.

    Args:
        rows: lists of `Tile`, the first of each a little apart from the others.
        heads: titles of the columns.
        foot: a Pillow image to stand below.
    """
    from PIL import Image, ImageDraw

    columns, top = max(map(len, rows), default=1), _GAP + (_HEAD if heads else 0)
    cell, line = TILE + _GAP, TILE + _TEXT + _GAP
    width, height = columns * cell + 3 * _GAP, top + len(rows) * line
    page = Image.new("RGB", (width, height + (foot.height if foot else 0)), "white")
    draw = ImageDraw.Draw(page)
    lefts = [_GAP, *(2 * _GAP + place * cell for place in range(1, columns))]
    for left, title in zip(lefts, heads, strict=False):
        write(draw, (left, _GAP), title, TILE, QUIET)
    for row, tiles in enumerate(rows):
        for left, tile in zip(lefts, tiles, strict=False):
            _paste(page, draw, tile, left, top + row * line)
    if foot:
        page.paste(foot, (0, height))
    return page


def _paste(page, draw, tile, x, y):
    draw.rectangle((x - 3, y - 3, x + TILE + 2, y + TILE + 2), fill=tile.frame)
    page.paste(tile.image, (x, y))
    for number, text in enumerate(tile.caption):
        write(draw, (x, y + TILE + 4 + 15 * number), text, TILE)


def write(draw, corner, text, width, fill="#222222"):
    """Write a line of text, cut to ``width`` pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    text = shown(text)
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
    draw.text(corner, text, fill=fill, font=font)


def save_png(image, out):
    """Write a Pillow image, whole or not at all."""
    with atomic(out) as partial:
        image.save(partial, "PNG", optimize=True)


def thumbnail(path, size=TILE):
    """A square tile of the photograph, letterboxed, ``size`` pixels a side; grey where it can no longer be read."""
    from PIL import Image

    try:
        return letterbox(open_small(path, size))
    except UnreadableImage:
        return Image.new("RGB", (size, size), "#bbbbbb")


def open_small(path, size=TILE):
    """The photograph as an RGB Pillow image, its longer side ``size`` pixels. Raises UnreadableImage."""
    from PIL import Image

    photo = open_rgb(path, at_least=size)
    return resized(photo, fit(photo.size, size), Image.Resampling.BICUBIC)


def letterbox(small, ground="#f2f2f2"):
    """What `open_small` gives, in the middle of a square."""
    from PIL import ImageOps

    return ImageOps.pad(small, (max(small.size),) * 2, color=ground)


def hit_frame(hit, label):
    """Colour of a hit's frame: green for the ``label`` of the query, red for another, grey where that is not known."""
    return PLAIN if label is None else _GOOD if hit.label == label else _BAD


def hit_caption(hit):
    """Two lines below a hit: rank and label, distances."""
    return f"{hit.rank}. {hit.label}", distances(hit)


def check_suffix(path, suffix):
    """Raise HashretError unless the file name ends in ``suffix``, since a picture is not to overwrite a photograph, and
    can be written to, which is found out before the work. None is no file to write.
    """
    if path and not str(path).lower().endswith(suffix):
        raise HashretError(f"{path} should end in {suffix}")
    if path:
        check_writable(path)
