"""Results to look at: a PNG grid and a self-contained HTML page of queries and their hits."""

from __future__ import annotations

import base64
import html
import io
import os

from .data.images import UnreadableImage, open_rgb
from .errors import HashretError
from .files import atomic

_TILE, _GAP, _TEXT = 128, 10, 34
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


def grid(results, out, truth=None):
    """Draw queries and hits into a PNG: a row a query, the query at the left.

    Args:
        results: list of (path, list of Hit), as `hashret.search.query` returns it.
        out: file to write.
        truth: labels of the queries, in their order; hits of that label get a green frame, others a red one.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = 1 + max((len(hits) for _, hits in results), default=0)
    cell, line = _TILE + _GAP, _TILE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * cell + 3 * _GAP, len(results) * line + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (path, hits) in enumerate(results):
        label = truth[row] if truth else None
        top = _GAP + row * line
        _paste(sheet, draw, font, path, (_GAP, top), ("query", label or os.path.basename(path)), "black")
        for place, hit in enumerate(hits, 1):
            caption = (f"{hit.rank}. {hit.label}", _distances(hit))
            _paste(sheet, draw, font, hit.path, (2 * _GAP + place * cell, top), caption, _frame(hit, label))
    with atomic(out) as partial:
        sheet.save(partial, "PNG", optimize=True)


def _paste(sheet, draw, font, path, corner, caption, frame):
    x, y = corner
    draw.rectangle((x - 3, y - 3, x + _TILE + 2, y + _TILE + 2), fill=frame)
    sheet.paste(_thumbnail(path), corner)
    for number, text in enumerate(caption):
        while text and draw.textlength(text, font=font) > _TILE:
            text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
        draw.text((x, y + _TILE + 4 + 15 * number), text, fill="#222222", font=font)


def _thumbnail(path):
    """A tile of the photograph, letterboxed; grey where it can no longer be read."""
    from PIL import Image, ImageOps

    try:
        picture = open_rgb(path, at_least=_TILE)
    except UnreadableImage:
        return Image.new("RGB", (_TILE, _TILE), "#bbbbbb")
    return ImageOps.pad(picture, (_TILE, _TILE), Image.Resampling.BICUBIC, color="#f2f2f2")


def _frame(hit, label):
    return _PLAIN if label is None else _GOOD if hit.label == label else _BAD


def _distances(hit):
    return f"{hit.hamming} bits" + ("" if hit.euclidean is None else f", {hit.euclidean:.3g}")


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ground: #fff; --text: #1d2329; --quiet: #667; --plain: #c8ccd2; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #14171a; --text: #e8eaed; --quiet: #9aa2ab; --plain: #444b53; }} }}
body {{ margin: 0 auto; max-width: 1100px; padding: 1.5rem; font: 15px/1.45 system-ui, sans-serif;
  background: var(--ground); color: var(--text); }}
h1 {{ font-size: 1.4rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1rem; margin: 2rem 0 .6rem; overflow-wrap: anywhere; font-weight: 600; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; }}
dt {{ color: var(--quiet); }} dd {{ margin: 0; }}
.row {{ display: flex; gap: 1.2rem; align-items: flex-start; flex-wrap: wrap; }}
.hits {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .8rem;
  flex: 1; min-width: 240px; margin: 0; padding: 0; list-style: none; }}
figure {{ margin: 0; }} img {{ width: 100%; max-width: 150px; aspect-ratio: 1; object-fit: contain; border-radius: 6px;
  border: 3px solid var(--frame, var(--plain)); background: #8882; box-sizing: border-box; display: block;
  image-rendering: auto; }}
figcaption {{ font-size: .8rem; color: var(--quiet); }} figcaption b {{ color: var(--text); }}
.query {{ width: 150px; --frame: var(--text); }} .good {{ --frame: #2a9d5c; }} .bad {{ --frame: #d1495b; }}
</style>
<h1>{title}</h1>
<dl>{facts}</dl>
{rows}
</html>
"""


def page(results, out, title="hashret results", facts=None, truth=None):
    """Write a self-contained HTML page of queries and hits; pictures are inside.

    Args:
        results, truth: as in `grid`.
        out: file to write.
        facts: names and values for the head of the page.
    """
    lines = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in (facts or {}).items())
    rows = [_row(path, hits, truth[i] if truth else None) for i, (path, hits) in enumerate(results)]
    text = _PAGE.format(title=_text(title), facts=lines, rows="\n".join(rows))
    with atomic(out) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _row(path, hits, label):
    items = "".join(
        f'<li><figure class="{_verdict(hit, label)}">{_picture(hit.path)}<figcaption><b>{hit.rank}</b> '
        f"{_text(hit.label)}<br>{_text(_distances(hit))}</figcaption></figure></li>"
        for hit in hits
    )
    caption = f"<figcaption>query{': ' + _text(label) if label else ''}</figcaption>"
    query = f'<figure class="query">{_picture(path)}{caption}</figure>'
    return f'<h2>{_text(shown_path(path))}</h2>\n<div class="row">{query}<ol class="hits">{items}</ol></div>'


def _verdict(hit, label):
    return "" if label is None else "good" if hit.label == label else "bad"


def _picture(path):
    buffer = io.BytesIO()
    _thumbnail(path).save(buffer, "WEBP", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    name = _text(shown_path(path))
    return f'<img src="data:image/webp;base64,{data}" alt="{name}" title="{name}" loading="lazy">'


def _text(value):
    return html.escape(str(value))


def check_suffix(path, suffix):
    """Raise HashretError unless the file name ends in ``suffix``: a picture is not to overwrite a photograph."""
    if path and not str(path).lower().endswith(suffix):
        raise HashretError(f"{path} should end in {suffix}")
