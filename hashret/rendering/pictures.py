"""Pictures of photographs: grids of queries and their hits, sheets of tiles, thumbnails."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.images import UnreadableImage, fit, open_rgb, resized
from ..data.in_memory import Held
from ..errors import HashretError
from ..files import StrPath, atomic, check_writable
from ..names import shown
from .text import distances, no_hits

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from ..hits import Hit

TILE, _GAP, _TEXT, _HEAD = 128, 10, 34, 24
QUERY, PLAIN, _GOOD, _BAD = "black", "#c8ccd2", "#2a9d5c", "#d1495b"
QUIET = "#5b6470"


@dataclass(frozen=True)
class Tile:
    """A square picture of ``TILE`` pixels a side in a frame, with up to two lines of text below it."""

    image: Image
    caption: tuple[str, ...] = ()
    frame: str = PLAIN


def grid(
    results: Sequence[tuple[str, Sequence[Hit]]],
    out: StrPath,
    truth: Sequence[str | None] | None = None,
    *,
    pictured: bool = True,
) -> None:
    """Draw queries and hits into a PNG. Each line shows a query at the left and its hits beside it.

    Args:
        results: pairs of a query's path and its hits, as `hashret.search.query` returns them.
        out: file to write.
        truth: labels of the queries, in their order. Hits of the query's label get a green frame, others a red one.
        pictured: whether queries are photographs; those in words are written out, and so is that nothing was found.

    Raises:
        HashretError: ``out`` is one of the photographs themselves, or cannot be written.
    """
    for photograph in {path for query, hits in results for path in (query, *(hit.path for hit in hits))}:
        with suppress(OSError):
            if os.path.samefile(photograph, out):
                raise HashretError(f"{out} is one of the photographs that would be drawn; name another file to write")
    lines = []
    for (path, hits), label in zip(results, truth or [None] * len(results), strict=True):
        if pictured:
            tiles = [Tile(thumbnail(path), ("query", label or os.path.basename(path)), QUERY)]
        else:
            tiles = [Tile(in_words(path), ("query",), QUERY)]
        if not hits:
            tiles.append(Tile(in_words(no_hits(hits).partition(": ")[0])))
        tiles += [Tile(thumbnail(hit.path), hit_caption(hit), hit_frame(hit, label)) for hit in hits]
        lines.append(tiles)
    save_png(sheet(lines), out)


def in_words(text: str) -> Image:
    """Return a white square of `TILE` pixels a side with a text in its middle, on as many lines as it needs."""
    from PIL import Image, ImageDraw

    square = Image.new("RGB", (TILE, TILE), "white")
    lines = textwrap.wrap(shown(text), 18)[:7]
    for number, line in enumerate(lines):
        write(ImageDraw.Draw(square), (8, TILE // 2 + 16 * number - 8 * len(lines)), line, TILE - 16)
    return square


def sheet(lines: Sequence[Sequence[Tile]], heads: Sequence[str] = (), foot: Image | None = None) -> Image:
    """Arrange tiles in one RGB image.

    Args:
        lines: tiles side by side; the first of each line stands a little apart from the others.
        heads: titles of the columns.
        foot: an image to stand below.
    """
    from PIL import Image, ImageDraw

    columns, top = max(map(len, lines), default=1), _GAP + (_HEAD if heads else 0)
    column_width, line_height = TILE + _GAP, TILE + _TEXT + _GAP
    width, height = columns * column_width + 3 * _GAP, top + len(lines) * line_height
    page = Image.new("RGB", (width, height + (foot.height if foot else 0)), "white")
    draw = ImageDraw.Draw(page)
    lefts = [_GAP, *(2 * _GAP + column * column_width for column in range(1, columns))]
    for left, title in zip(lefts, heads, strict=False):
        write(draw, (left, _GAP), title, TILE, QUIET)
    for number, tiles in enumerate(lines):
        for left, tile in zip(lefts, tiles, strict=False):
            _paste(page, draw, tile, left, top + number * line_height)
    if foot:
        page.paste(foot, (0, height))
    return page


def _paste(page: Image, draw: ImageDraw, tile: Tile, x: int, y: int) -> None:
    draw.rectangle((x - 3, y - 3, x + TILE + 2, y + TILE + 2), fill=tile.frame)
    page.paste(tile.image, (x, y))
    for number, text in enumerate(tile.caption):
        write(draw, (x, y + TILE + 4 + 15 * number), text, TILE)


def write(draw: ImageDraw, corner: tuple[int, int], text: str, width: int, fill: str = "#222222") -> None:
    """Write a line of text, cut to ``width`` pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    text = shown(text)
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
    draw.text(corner, text, fill=fill, font=font)


def save_png(image: Image, out: StrPath) -> None:
    """Write a Pillow image as a PNG; the file is whole or not there at all."""
    with atomic(out) as partial:
        image.save(partial, "PNG", optimize=True)


def thumbnail(path: StrPath | Held, size: int = TILE) -> Image:
    """Return a photograph in a square of ``size`` pixels a side; a grey square where it can no longer be read."""
    from PIL import Image

    try:
        return letterbox(open_small(path, size))
    except UnreadableImage:
        return Image.new("RGB", (size, size), "#bbbbbb")


def open_small(path: StrPath | Held, size: int = TILE) -> Image:
    """Open a photograph as an RGB Pillow image whose longer side has ``size`` pixels.

    Raises:
        UnreadableImage: the file is gone or no image that can be read.
    """
    from PIL import Image

    photo = open_rgb(path, at_least=size)
    return resized(photo, fit(photo.size, size), Image.Resampling.BICUBIC)


def letterbox(small: Image, ground: str = "#f2f2f2") -> Image:
    """Return an image in the middle of a square with its longer side."""
    from PIL import ImageOps

    return ImageOps.pad(small, (max(small.size),) * 2, color=ground)


def hit_frame(hit: Hit, label: str | None) -> str:
    """Return the colour of a hit's frame: green for the query's label, red for another, grey without a label."""
    return PLAIN if label is None else _GOOD if hit.label == label else _BAD


def hit_caption(hit: Hit) -> tuple[str, str]:
    """Return the two lines below a hit: rank and label, then both distances."""
    return f"{hit.rank}. {hit.label}", distances(hit)


def check_suffix(path: StrPath | None, suffix: str) -> None:
    """Check before the work that a file to write ends in ``suffix`` and can be written; None is no file to write.

    A picture or page under another suffix could overwrite a photograph.

    Raises:
        HashretError: the name ends otherwise, or the file cannot be written.
    """
    if path:
        if not str(path).lower().endswith(suffix):
            raise HashretError(f"{path} should end in {suffix}")
        check_writable(path)
