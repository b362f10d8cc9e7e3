"""Hits as lines of text, and as a picture: a grid of queries and their hits. For pages see `hashret.pages`."""

from __future__ import annotations

import os

from .data.images import UnreadableImage, open_rgb
from .errors import HashretError
from .files import atomic

TILE, _GAP, _TEXT = 128, 10, 34
_GOOD, _BAD, _PLAIN = "#2a9d5c", "#d1495b", "#c8ccd2"


def shown_path(path):
    """A path as a reader wants it: relative below the working folder, else whole."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def table(hits):
    """Hits as lines of text: rank, Hamming distance in bits, Euclidean distance, label, path."""
    width = max([5, *(len(hit.label) for hit in hits)])
    lines = [f"{'rank':>4}  {'hamming':>7}  {'euclidean':>9}  {'label':<{width}}  path"]
    for hit in hits:
        euclidean = "-" if hit.euclidean is None else f"{hit.euclidean:.3g}"
        path = shown_path(hit.path)
        lines.append(f"{hit.rank:>4}  {hit.hamming:>7}  {euclidean:>9}  {hit.label:<{width}}  {path}")
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


def grid(results, out, truth=None):
    """Draw queries and hits into a PNG: a row a query, the query at the left.

    Args:
        results: list of (path, list of Hit), as `hashret.search.query` returns it.
        out: file to write.
        truth: labels of the queries, in their order; hits of that label get a green frame, others a red one.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = 1 + max((len(hits) for _, hits in results), default=0)
    cell, line = TILE + _GAP, TILE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * cell + 3 * _GAP, len(results) * line + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (path, hits) in enumerate(results):
        label = truth[row] if truth else None
        top = _GAP + row * line
        _paste(sheet, draw, font, path, (_GAP, top), ("query", label or os.path.basename(path)), "black")
        for place, hit in enumerate(hits, 1):
            caption = (f"{hit.rank}. {hit.label}", distances(hit))
            _paste(sheet, draw, font, hit.path, (2 * _GAP + place * cell, top), caption, _frame(hit, label))
    with atomic(out) as partial:
        sheet.save(partial, "PNG", optimize=True)


def _paste(sheet, draw, font, path, corner, caption, frame):
    x, y = corner
    draw.rectangle((x - 3, y - 3, x + TILE + 2, y + TILE + 2), fill=frame)
    sheet.paste(thumbnail(path), corner)
    for number, text in enumerate(caption):
        while text and draw.textlength(text, font=font) > TILE:
            text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
        draw.text((x, y + TILE + 4 + 15 * number), text, fill="#222222", font=font)


def thumbnail(path, size=TILE):
    """A square tile of the photograph, letterboxed, ``size`` pixels a side; grey where it can no longer be read."""
    from PIL import Image, ImageOps

    try:
        picture = open_rgb(path, at_least=size)
    except UnreadableImage:
        return Image.new("RGB", (size, size), "#bbbbbb")
    return ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, color="#f2f2f2")


def _frame(hit, label):
    return _PLAIN if label is None else _GOOD if hit.label == label else _BAD


def distances(hit):
    """Both distances of a hit in words: "3 bits, 0.41"."""
    return f"{hit.hamming} bits" + ("" if hit.euclidean is None else f", {hit.euclidean:.3g}")


def check_suffix(path, suffix):
    """Raise HashretError unless the file name ends in ``suffix``: a picture is not to overwrite a photograph."""
    if path and not str(path).lower().endswith(suffix):
        raise HashretError(f"{path} should end in {suffix}")
