"""HTML pages in one file: pictures and style are inside, so a page opens anywhere and loads nothing from the network.

The Jinja templates in `hashret/rendering/templates/` extend `base.html`, which holds the style for light and dark; only
that of the service, which has files beside it, extends the `skeleton.html` below that.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.images import UnreadableImage
from ..files import StrPath, atomic
from ..names import shown, shown_path
from ..progress import Progress
from . import heatmaps
from .pictures import TILE, letterbox, open_small, thumbnail
from .text import distances, no_hits, similar, size

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

    from ..explanation import Explanation
    from ..hits import Hit
    from ..models.attribution import Attribution
    from ..near_duplicates.groups import Photograph

_LARGE = 160


@cache
def environment() -> Environment:
    """Return the Jinja environment of hashret's pages, which escapes what a template prints."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    jinja = Environment(
        loader=PackageLoader("hashret.rendering"),
        autoescape=True,
        finalize=_printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        shown_path, end_of_path, file_name, distances, data_uri, picture, similar, size, file_uri,
        file_uri_or_none, picture_or_reason,
    )  # fmt: skip
    jinja.filters |= {function.__name__: function for function in filters}
    jinja.globals |= {"maps": maps, "scale": heatmaps.scale, "span": heatmaps.span}
    return jinja


def _printed(value: object) -> object:
    """Return what a template prints for a value: names and labels as `shown` has them, drawings unchanged."""
    return shown(value) if type(value) is str else value  # markup is a subclass


def end_of_path(path: StrPath) -> str:
    """Return folder and name of a file, all that a page which is passed on may tell of a path."""
    return "/".join(Path(path).parts[-2:])


def file_name(path: StrPath) -> str:
    """Return the name of a file, or of the member of one."""
    return os.path.basename(str(path))


def write_page(out: StrPath, template: str, **context: object) -> None:
    """Render a template of `hashret/rendering/templates/` into a file, which is whole or not there at all."""
    text = environment().get_template(template).render(**context)
    with atomic(out) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def picture(path: StrPath, size: int = TILE) -> str:
    """Return the ``src`` of a photograph's `thumbnail`, ``size`` pixels a side."""
    return data_uri(thumbnail(path, size))


def picture_or_reason(path: StrPath, size: int = TILE) -> tuple[str | None, str]:
    """Return the same and "", or None and why there is none: the photograph is missing, or cannot be read."""
    try:
        return data_uri(letterbox(open_small(path, size))), ""
    except UnreadableImage as error:
        return None, str(error)


def data_uri(image: Image) -> str:
    """Return the ``src`` of a Pillow image."""
    buffer = io.BytesIO()
    lossless = image.mode == "RGBA"  # transparent maps are smaller without loss
    image.save(buffer, "WEBP", quality=88, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(path: StrPath) -> str:
    """Return a link to a photograph on this machine."""
    return str(path) if "://" in str(path) else Path(path).absolute().as_uri()


def file_uri_or_none(path: StrPath) -> str | None:
    """Return the same, but None for a photograph that is no file of its own, as the member of an archive."""
    return file_uri(path) if "://" in str(path) or os.path.isfile(path) else None


def duplicates_page(
    groups: Sequence[Sequence[Photograph]], out: StrPath, facts: Mapping[str, str] | None = None, most: int = 500
) -> None:
    """Write a page of the first ``most`` groups of duplicates, as `hashret.duplicates` returns them.

    Args:
        facts: names and values for the head of the page.
    """
    copies = [photograph for group in groups for photograph in group[1:]]
    counted = {
        "groups": f"{len(groups):,}" + (f", of which {most:,} are shown" if len(groups) > most else ""),
        "to set aside": f"{len(copies):,} photographs, {sum(copy.bytes or 0 for copy in copies) / 1e6:,.1f} MB",
    }
    pictured = []
    progress = Progress("drawing", sum(map(len, groups[:most])), "photographs")
    for group in groups[:most]:
        pictured.append([(photograph, picture(photograph.path, _LARGE)) for photograph in group])
        progress.add(len(group))
    progress.close()
    write_page(out, "duplicates.html", title="hashret duplicates", facts={**(facts or {}), **counted}, groups=pictured)


def maps(path: StrPath, attribution: Attribution | None) -> list[tuple[str, str]]:
    """Return the maps that lie over the `picture` of a photograph: each one's kind and the ``src`` of its image."""
    if attribution is None:
        return []
    size = open_small(path).size
    levels = {"cells": heatmaps.contribution_levels(attribution.cells)}
    if attribution.spatial is not None:
        levels["gate"] = heatmaps.gate_levels(attribution.spatial)
    layers = {kind: heatmaps.layer(level, size, attribution.resize) for kind, level in levels.items()}
    return [(kind, data_uri(letterbox(layer, "#0000"))) for kind, layer in layers.items()]


def results_page(
    results: Sequence[tuple[str, Sequence[Hit]]],
    out: StrPath,
    title: str = "hashret results",
    facts: Mapping[str, str] | None = None,
    truth: Sequence[str | None] | None = None,
    explained: Sequence[Explanation] | None = None,
    *,
    pictured: bool = True,
    unreadable: Mapping[str, str] | None = None,
) -> None:
    """Write a page of queries and hits, whose pictures link to their files. What is missing is named.

    Args:
        results: pairs of a query's path and its hits, as `hashret.search.query` returns them.
        out: file to write.
        facts: names and values for the head of the page.
        truth: labels of the queries, in their order. Hits of the query's label get a green frame, others a red one.
        explained: an `hashret.explanation.Explanation` of each query, whose maps the page then shows on demand.
        pictured: whether queries are photographs, and not words.
        unreadable: reasons why queries have no answer, by their paths.
    """
    queries: list[tuple[str, str | None, Attribution | None, list[tuple[Hit, Attribution | None]], str]] = []
    for number, (path, hits) in enumerate(results):
        label = truth[number] if truth else None
        nothing = "" if hits else no_hits(hits)
        if explained:
            queries.append((path, label, explained[number].attribution, list(explained[number].hits), nothing))
        else:
            queries.append((path, label, None, [(hit, None) for hit in hits], nothing))
    kinds = ["cells"] if explained else []
    if explained and explained[0].attribution.spatial is not None:
        kinds.append("gate")
    write_page(
        out, "results.html", title=title, facts=facts or {}, rows=queries, kinds=kinds, pictured=pictured,
        unreadable=unreadable or {},
    )  # fmt: skip
