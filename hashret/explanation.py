"""`hashret explain`: where the codes of photographs come from, as numbers and as a picture."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from .bits import binarize
from .data.batches import split_rows
from .errors import HashretError
from .files import check_output
from .models.attribution import Attribution, attribute
from .models.checkpoint import load_encoder
from .names import shown_path
from .progress import Progress, takes_quiet
from .rendering import heatmaps
from .rendering.pictures import (
    PLAIN,
    QUERY,
    Tile,
    check_suffix,
    hit_caption,
    letterbox,
    open_small,
    save_png,
    sheet,
    thumbnail,
)
from .search import Hit, Searcher, expand, nothing_read, read_query, warn_unreadable

MOST = 200  # rows of a picture
NO_GATES = "This encoder has no attention, hence no gates."
_AT_ONCE = 64


@dataclass(frozen=True)
class Explanation:
    """A photograph, the `Attribution` of its code, and its hits.

    Each hit is a pair of `hashret.search.Hit` and the attribution of its logits to the query's bits: None where the
    file can no longer be read.
    """

    path: str
    attribution: Attribution
    hits: tuple[tuple[Hit, Attribution | None], ...] = ()

    def as_dict(self):
        """The numbers as plain types, for JSON."""
        hits = [hit.as_dict() | (numbers(attribution) if attribution else {}) for hit, attribution in self.hits]
        return {"path": self.path} | numbers(self.attribution) | {"hits": hits}


@takes_quiet
def explain(
    photos,
    model="model.safetensors",
    out="explain.png",
    *,
    index=None,
    k=3,
    device="auto",
    overwrite=False,
    exclude=(),
    include=(),
    unreadable=None,
):
    """Draw where the codes of photographs come from: -> a list of `Explanation`.

    A row a photograph: the photograph, CBAM's spatial gate over it, what each place adds to its bits, the channels
    that add most. With an index, a row a hit follows, in which the places are those that make for the query's bits.

    Args:
        photos: image files; a folder stands for all images below it.
        model, device: see `hashret.models.checkpoint.load_encoder`.
        out: PNG to write.
        index: folder of an index, in whose precision the encoder then computes.
        k: hits a photograph.
        exclude, include, unreadable: see `hashret.search.query`.

    Raises:
        HashretError: no photograph that can be read, more than a picture has room for, ``out`` exists.
    """
    check_suffix(out, ".png")
    check_output(out, overwrite, "picture")
    unreadable = {} if unreadable is None else unreadable
    files = expand(photos, exclude, include, unreadable)
    rows = len(files) * (1 + k if index else 1)
    if rows > MOST:
        raise HashretError(f"{rows:,} rows are too many for a picture; name photographs and hits for {MOST} at most")
    searcher = Searcher(index, model, device) if index else None
    encoder = searcher.encoder if index else load_encoder(model, device)
    progress = Progress("explaining", rows)
    queries = _attributions(encoder, files, progress, unreadable=unreadable)
    files = [file for file, one in zip(files, queries, strict=True) if one is not None]
    queries = [one for one in queries if one is not None]
    if not queries:
        raise nothing_read(unreadable)
    answers = searcher.hits(np.stack([one.hash_outputs for one in queries]), k) if index else [[] for _ in files]
    explained = _with_hits(encoder, files, queries, answers, progress)
    save_png(picture(explained), out)
    warn_unreadable(unreadable)
    return explained


@takes_quiet
def explain_results(results, encoder):
    """Explain what `hashret.search.query` returns, by the encoder that found it: -> a list of `Explanation`."""
    progress = Progress("explaining", sum(1 + len(hits) for _, hits in results))
    paths, answers = [path for path, _ in results], [hits for _, hits in results]
    return _with_hits(encoder, paths, _attributions(encoder, paths, progress), answers, progress)


def _with_hits(encoder, paths, queries, answers, progress):
    explained = []
    for path, attribution, hits in zip(paths, queries, answers, strict=True):
        code = binarize(attribution.hash_outputs)
        found = _attributions(encoder, [hit.path for hit in hits], progress, code, unreadable={})
        explained.append(Explanation(path, attribution, tuple(zip(hits, found, strict=True))))
    progress.close()
    return explained


def _attributions(encoder, paths, progress, code=None, unreadable=None):
    """One `Attribution` a photograph. What cannot be read is an error, or, where a dict ``unreadable`` is given, added
    to it with the reason, and None.
    """
    found = []
    for some in split_rows(paths, _AT_ONCE):
        images = [read_query(path, encoder.image_size, unreadable) for path in some]
        there = [image for image in images if image is not None]
        made = iter(attribute(encoder, encoder.backbone(np.stack(there)), code) if there else ())
        found += [None if image is None else next(made) for image in images]
        progress.add(len(some))
    return found


def numbers(attribution):
    """An `Attribution` as plain types: gates and contributions by place (h lists of w numbers), strongest channels."""
    gates = (attribution.spatial, attribution.channel)
    spatial, channel = (None if gate is None else _plain(gate) for gate in gates)
    return {
        "code": "".join(map(str, binarize(attribution.hash_outputs).astype(int))),
        "agreement": round(attribution.agreement, 6),
        "contributions": _plain(attribution.cells),
        "spatial_gate": spatial,
        "channel_gate": channel,
        "channel_contributions": _plain(attribution.channels),
        "strongest_channels": attribution.strongest.tolist(),
    }


def _plain(array):
    return array.astype(np.float64).round(6).tolist()


def table(explained):
    """Explanations as lines of text: ranges of the gates, the place that adds most, the strongest channels."""
    lines = [f"{'spatial gate':<12}  {'channel gate':<12}  {'most from':<18}  {'channels':<15}  path"]
    for one in explained:
        lines.append(_line(one.attribution, shown_path(one.path)))
        lines += [_line(attribution, f"  {hit.rank}. {shown_path(hit.path)}") for hit, attribution in one.hits]
    if explained[0].attribution.spatial is None:
        lines.append(NO_GATES)
    return "\n".join(lines)


def _line(attribution, path):
    if attribution is None:
        return f"{'cannot be read':<63}  {path}"
    spatial, channel = (heatmaps.span(gate) for gate in (attribution.spatial, attribution.channel))
    row, column = np.unravel_index(attribution.cells.argmax(), attribution.cells.shape)
    most = f"row {row + 1}, column {column + 1}"
    channels = " ".join(map(str, attribution.strongest))
    return f"{spatial:<12}  {channel:<12}  {most:<18}  {channels:<15}  {path}"


def picture(explained):
    """Explanations as a Pillow image, a row a photograph and hit."""
    rows = []
    for one in explained:
        rows.append(_row(one.path, one.attribution, (os.path.basename(one.path), "query" if one.hits else ""), QUERY))
        rows += [_row(hit.path, attribution, hit_caption(hit)) for hit, attribution in one.hits]
    first = explained[0].attribution
    gated = first.spatial is not None
    kinds = list(heatmaps.SCALES)[0 if gated else 1 :]
    note = f"Maps of {len(first.cells)} x {len(first.cells)} places, enlarged smoothly."
    note += " The bits of a hit's row are the query's." if explained[0].hits else ""
    note += "" if gated else f" {NO_GATES}"
    return sheet(rows, ["photograph", *kinds], heatmaps.legend(kinds, note))


def _row(path, attribution, caption, frame=PLAIN):
    first = Tile(thumbnail(path), caption, frame)
    return [first] if attribution is None else [first, *attribution_tiles(open_small(path), attribution)]


def attribution_tiles(photo, attribution):
    """An `Attribution` over its Pillow photograph: spatial gate if there is one, contributions, strongest channels."""
    gate, places, channels = attribution.spatial, attribution.cells, attribution.channels
    maps = [(heatmaps.contribution_levels(places), contribution_caption(places))]
    if gate is not None:
        maps.insert(0, (heatmaps.gate_levels(gate), (heatmaps.span(gate), f"mean {gate.mean():.2f}")))
    added = max(channels[channels > 0].sum(), 1e-12)
    for number, activations in zip(attribution.strongest, attribution.activations, strict=True):
        of_gate = "" if gate is None else f", gate {attribution.channel[number]:.2f}"
        caption = (f"channel {number}", f"adds {channels[number] / added:.0%}{of_gate}")
        maps.append((heatmaps.peak_levels(activations), caption))
    return [Tile(letterbox(heatmaps.overlay(photo, levels)), caption) for levels, caption in maps]


def contribution_caption(places):
    """Two lines below a map of contributions (h, w): how many places give half, and what is taken away."""
    half, taken = concentration(places)
    return (f"half from {half} of {places.size}", f"{taken:.0%} taken away") if half else ("nothing added", "")


def concentration(places):
    """How many places, the largest first, give half of what all add (0 where none does), and the share of it that the
    others take away."""
    adding = -np.sort(-places[places > 0])
    if not len(adding):
        return 0, 0.0
    half = 1 + np.searchsorted(adding.cumsum(), adding.sum() / 2)
    return int(half), float(np.abs(places[places < 0]).sum() / adding.sum())
