"""Self-contained HTML pages: one file, pictures and style inside, that opens anywhere and asks nothing of the network.

The templates are Jinja's, in `hashret/templates/`; all extend `base.html`, which holds the style, light and dark.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path

from .files import atomic
from .progress import Progress
from .rendering import TILE, distances, shown_path, size, thumbnail

_LARGE = 160


@cache
def environment():
    """The Jinja environment of hashret's pages: what a template prints is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("hashret"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"shown_path": shown_path, "distances": distances, "data_uri": data_uri, "picture": picture}
    found.filters |= {"size": size, "file_uri": file_uri}
    return found


def write_page(out, template, **context):
    """Render a template of `hashret/templates/` into the file ``out``, whole or not at all."""
    text = environment().get_template(template).render(**context)
    with atomic(out) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def picture(path, size=TILE):
    """A photograph as the ``src`` of an image, ``size`` pixels a side, grey where it can no longer be read."""
    return data_uri(thumbnail(path, size))


def data_uri(image):
    """A Pillow image as the ``src`` of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(path):
    """A link to a photograph on this machine."""
    return Path(path).absolute().as_uri()


def duplicates_page(groups, out, facts=None, most=500):
    """Write a page of groups of duplicates, as `hashret.duplicates` returns them, of the first ``most`` groups."""
    copies = [photograph for group in groups for photograph in group[1:]]
    counted = {
        "groups": f"{len(groups):,}" + (f", of which {most:,} are shown" if len(groups) > most else ""),
        "to set aside": f"{len(copies):,} photographs, {sum(copy.bytes or 0 for copy in copies) / 1e6:,.1f} MB",
    }
    shown, pictured = groups[:most], []
    progress = Progress("drawing", sum(map(len, shown)), "photographs")
    for group in shown:
        pictured.append([(photograph, picture(photograph.path, _LARGE)) for photograph in group])
        progress.add(len(group))
    progress.close()
    write_page(out, "duplicates.html", title="hashret duplicates", facts=(facts or {}) | counted, groups=pictured)


def results_page(results, out, title="hashret results", facts=None, truth=None):
    """Write a page of queries and hits.

    Args:
        results: list of (path, list of Hit), as `hashret.search.query` returns it.
        out: file to write.
        facts: names and values for the head of the page.
        truth: labels of the queries, in their order; hits of that label get a green frame, others a red one.
    """
    truth = truth or [None] * len(results)
    rows = [(path, hits, label) for (path, hits), label in zip(results, truth, strict=True)]
    write_page(out, "results.html", title=title, facts=facts or {}, rows=rows)
