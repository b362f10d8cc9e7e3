"""Self-contained HTML pages: one file, pictures and style inside, that opens anywhere and asks nothing of the network.

The templates are Jinja's, in `hashret/rendering/templates/`; all extend `base.html`, which holds the style, light and
dark.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path

from ..files import atomic
from ..names import shown, shown_path
from ..progress import Progress
from . import heatmaps
from .pictures import TILE, letterbox, open_small, thumbnail
from .text import distances, size

_LARGE = 160


@cache
def environment():
    """The Jinja environment of hashret's pages: what a template prints is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("hashret.rendering"),
        autoescape=True,
        finalize=_printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (shown_path, end_of_path, distances, data_uri, picture, size, file_uri)
    found.filters |= {function.__name__: function for function in filters}
    found.globals |= {"maps": maps, "scale": heatmaps.scale, "span": heatmaps.span}
    return found


def _printed(value):
    """What a template prints: text of names and labels as `shown` has it, drawings as they are."""
    return shown(value) if type(value) is str else value  # markup is another type


def end_of_path(path):
    """Folder and name of a file: what a page that is passed on may tell of a path."""
    return "/".join(Path(path).parts[-2:])


def write_page(out, template, **context):
    """Render a template of `hashret/rendering/templates/` into the file ``out``, whole or not at all."""
    text = environment().get_template(template).render(**context)
    with atomic(out) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def picture(path, size=TILE):
    """A photograph as the ``src`` of an image, ``size`` pixels a side, grey where it can no longer be read."""
    return data_uri(thumbnail(path, size))


def data_uri(image):
    """A Pillow image as the ``src`` of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, lossless=image.mode == "RGBA")  # see-through maps are smaller without loss
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


def maps(path, attribution):
    """Maps of a photograph, to lie over its `picture`: pairs of the kind and the ``src`` of a see-through image."""
    if attribution is None:
        return []
    size = open_small(path).size
    levels = {"places": heatmaps.share_levels(attribution.places)}
    if attribution.spatial is not None:
        levels["gate"] = heatmaps.gate_levels(attribution.spatial)
    return [(kind, data_uri(letterbox(heatmaps.layer(level, size), "#0000"))) for kind, level in levels.items()]


def results_page(results, out, title="hashret results", facts=None, truth=None, explained=None):
    """Write a page of queries and hits.

    Args:
        results: list of (path, list of Hit), as `hashret.search.query` returns it.
        out: file to write.
        facts: names and values for the head of the page.
        truth: labels of the queries, in their order; hits of that label get a green frame, others a red one.
        explained: a `hashret.explanation.Explanation` for each query, whose maps the page then shows on demand.
    """
    truth = truth or [None] * len(results)
    attributions = [(one.attribution, [found for _, found in one.hits]) for one in explained or ()]
    attributions = attributions or [(None, [None] * len(hits)) for _, hits in results]
    rows = [
        (path, label, own, list(zip(hits, found, strict=True)))
        for (path, hits), label, (own, found) in zip(results, truth, attributions, strict=True)
    ]
    gates = bool(explained) and explained[0].attribution.spatial is not None
    kinds = ["places", *(["gate"] if gates else [])] if explained else []
    write_page(out, "results.html", title=title, facts=facts or {}, rows=rows, kinds=kinds)
