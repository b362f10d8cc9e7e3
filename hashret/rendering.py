"""Hits as lines of text, and as a picture: a grid of queries and their hits. For pages see `hashret.pages`."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from .data.images import UnreadableImage, fit, open_rgb, resized
from .errors import HashretError
from .files import atomic, check_writable
from .names import shown, shown_path

TILE, _GAP, _TEXT, _HEAD = 128, 10, 34, 24
QUERY, PLAIN, _GOOD, _BAD = "black", "#c8ccd2", "#2a9d5c", "#d1495b"
QUIET = "#5b6470"


def table(hits):
    """Hits as lines of text: rank, Hamming distance in bits, Euclidean distance, label, path."""
    labels = [shown(hit.label) for hit in hits]
    width = max([5, *map(len, labels)])
    lines = [f"{'rank':>4}  {'hamming':>7}  {'euclidean':>9}  {'label':<{width}}  path"]
    for hit, label in zip(hits, labels, strict=True):
        euclidean = "-" if hit.euclidean is None else f"{hit.euclidean:.3g}"
        path = shown_path(hit.path)
        lines.append(f"{hit.rank:>4}  {hit.hamming:>7}  {euclidean:>9}  {label:<{width}}  {path}")
    return "\n".join(lines)


def duplicates_table(groups):
    """Groups of duplicates as lines of text, as `hashret.duplicates` returns them; the first of a group is kept."""
    rows = [("group", "keep", "hamming", "euclidean", "pixels", "bytes", "id", "path")]
    for number, group in enumerate(groups, 1):
        for photograph in group:
            keep = "keep" if photograph.keep else ""
            euclidean = "-" if photograph.euclidean is None else f"{photograph.euclidean:.3g}"
            where = photograph.id, shown_path(photograph.path)
            rows.append((number, keep, photograph.hamming, euclidean, *size(photograph), *where))
    return _columns(rows)


def caches_table(caches):
    """Feature caches as lines of text, as `hashret.features.caches` returns them."""
    rows = [("name", "photographs", "bytes", "days", "pixels", "precision", "source")]
    for cache in caches:
        known = [shown("-" if value is None else value) for value in (cache.image_size, cache.precision, cache.source)]
        rows.append((cache.name, f"{cache.photographs:,}", f"{cache.bytes:,}", f"{cache.days:.1f}", *known))
    return _columns(rows)


def _columns(rows):
    """Rows of a table as lines of text, right-aligned but for the last column."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in rows
    )


def size(photograph):
    """Size of a `hashret.near_duplicates.Photograph` in words: "640x480", "71,204"; "-" where it cannot be read."""
    if photograph.bytes is None:
        return "-", "-"
    return f"{photograph.width}x{photograph.height}", f"{photograph.bytes:,}"


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


def distances(hit):
    """Both distances of a hit in words: "3 bits, 0.41"."""
    bits = "1 bit" if hit.hamming == 1 else f"{hit.hamming} bits"
    return bits + ("" if hit.euclidean is None else f", {hit.euclidean:.3g}")


def check_suffix(path, suffix):
    """Raise HashretError unless the file name ends in ``suffix``, since a picture is not to overwrite a photograph, and
    can be written to, which is found out before the work. None is no file to write.
    """
    if path and not str(path).lower().endswith(suffix):
        raise HashretError(f"{path} should end in {suffix}")
    if path:
        check_writable(path)
