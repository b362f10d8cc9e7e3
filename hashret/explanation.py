"""`hashret explain`: where the codes of photographs come from, as numbers and as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .bits import binarize
from .data.batches import split_rows
from .data.in_memory import Held, Photo
from .errors import HashretError
from .files import StrPath, check_output
from .hits import Hit
from .models.attribution import Attribution, attribute
from .models.checkpoint import load_encoder
from .models.encoder import Encoder
from .names import shown_path
from .opening import find_model
from .places import find_index
from .progress import Progress, takes_quiet
from .queries import expand, nothing_read, read_query, warn_unreadable
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
from .results import Result
from .search import Searcher

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 200  # lines of a picture
NO_GATES = "This encoder has no attention, hence no gates."
_AT_ONCE = 64


@dataclass(frozen=True)
class Explanation(Result):
    """Where the code of a photograph comes from.

    Attributes:
        path: the photograph.
        attribution: the attribution of its code.
        hits: its hits, each with the attribution of its logits to the query's bits: None where the file can no longer
            be read.
    """

    path: str
    attribution: Attribution
    hits: tuple[tuple[Hit, Attribution | None], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        hits = [hit.as_dict() | (numbers(attribution) if attribution else {}) for hit, attribution in self.hits]
        return {"path": self.path} | numbers(self.attribution) | {"hits": hits}


@takes_quiet
def explain(
    photos: Photo | Iterable[Photo],
    model: StrPath | None = None,
    out: StrPath = "explain.png",
    *,
    index: StrPath | None = None,
    k: int = 3,
    device: str = "auto",
    overwrite: bool = False,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    unreadable: dict[str, str] | None = None,
) -> list[Explanation]:
    """Draw where the codes of photographs come from.

    Each line shows a photograph, CBAM's spatial gate over it, what each cell of the feature map adds to its bits, and
    the channels that add most. With an index, a line for each hit follows, whose map shows what adds to the query's
    bits.

    Args:
        photos: image files, one or several, of which a folder stands for all images below it; or Pillow images, arrays
            of pixels or open files, see `hashret.data.in_memory.photographs`.
        model: checkpoint; None for the one of `hashret.opening.find_model`.
        device: see `hashret.models.checkpoint.load_encoder`.
        out: PNG to write.
        index: folder of an index; the encoder then computes in the number format that the index was made in.
        k: hits a photograph.
        exclude, include, unreadable: see `hashret.search.query`.

    Raises:
        HashretError: no photograph that can be read, more than a picture has room for, ``out`` exists.
    """
    check_suffix(out, ".png")
    check_output(out, overwrite, "picture")
    unreadable = {} if unreadable is None else unreadable
    files = expand(photos, exclude, include, unreadable)
    lines = len(files) * (1 + k if index else 1)
    if lines > MOST:
        hint = f"name photographs and hits for {MOST} at most"
        raise HashretError(f"{lines:,} rows are too many for a picture", hint=hint)
    searcher = Searcher(index, model, device) if index else None
    encoder = searcher.encoder if searcher else load_encoder(find_model(model, find_index()), device)
    if encoder.vector_width:
        raise HashretError("this encoder is of vectors, which are no picture that could be explained")
    progress = Progress("explaining", lines)
    attributions = _attributions(encoder, files, progress, unreadable=unreadable)
    readable = [(file, one) for file, one in zip(files, attributions, strict=True) if one is not None]
    if not readable:
        raise nothing_read(unreadable)
    queries = [one for _, one in readable]
    answers: Sequence[Sequence[Hit]] = [()] * len(queries)
    if searcher:
        answers = searcher.hits(np.stack([one.hash_outputs for one in queries]), k)
    explained = _with_hits(encoder, [str(file) for file, _ in readable], queries, answers, progress)
    save_png(picture(explained, {str(file): file for file, _ in readable}), out)
    warn_unreadable(unreadable)
    return explained


@takes_quiet
def explain_results(results: Sequence[tuple[str, Sequence[Hit]]], encoder: Encoder) -> list[Explanation]:
    """Explain what `hashret.search.query` returns, by the encoder that found it."""
    progress = Progress("explaining", sum(1 + len(hits) for _, hits in results))
    paths, answers = [path for path, _ in results], [hits for _, hits in results]
    queries = [one for one in _attributions(encoder, paths, progress) if one is not None]
    return _with_hits(encoder, paths, queries, answers, progress)


def _with_hits(
    encoder: Encoder,
    paths: Sequence[str],
    queries: Sequence[Attribution],
    answers: Iterable[Sequence[Hit]],
    progress: Progress,
) -> list[Explanation]:
    explained = []
    for path, attribution, hits in zip(paths, queries, answers, strict=True):
        code = binarize(attribution.hash_outputs)
        of_hits = _attributions(encoder, [hit.path for hit in hits], progress, code, unreadable={})
        explained.append(Explanation(path, attribution, tuple(zip(hits, of_hits, strict=True))))
    progress.close()
    return explained


def _attributions(
    encoder: Encoder,
    paths: Sequence[str | Held],
    progress: Progress,
    code: npt.NDArray[np.bool_] | None = None,
    unreadable: dict[str, str] | None = None,
) -> list[Attribution | None]:
    """Return an attribution for each photograph.

    A photograph that cannot be read is an error, or, where a dict ``unreadable`` is given, is added to it with the
    reason, and has None.
    """
    attributions: list[Attribution | None] = []
    for block in split_rows(range(len(paths)), _AT_ONCE):
        images = [read_query(paths[number], encoder, unreadable) for number in block]
        readable = [image for image in images if image is not None]
        made = iter(attribute(encoder, encoder.backbone(np.stack(readable)), code) if readable else ())
        attributions += [None if image is None else next(made) for image in images]
        progress.add(len(block))
    return attributions


def numbers(attribution: Attribution) -> dict[str, Any]:
    """Return an attribution as JSON: gates and contributions by cell (h lists of w numbers), strongest channels."""
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


def _plain(array: npt.NDArray[np.floating]) -> Any:
    return array.astype(np.float64).round(6).tolist()


def table(explained: Sequence[Explanation]) -> str:
    """Return explanations as lines of text: ranges of the gates, the cell that adds most, the strongest channels."""
    lines = [f"{'spatial gate':<12}  {'channel gate':<12}  {'most from':<18}  {'channels':<15}  path"]
    for one in explained:
        lines.append(_line(one.attribution, shown_path(one.path)))
        lines += [_line(attribution, f"  {hit.rank}. {shown_path(hit.path)}") for hit, attribution in one.hits]
    if explained[0].attribution.spatial is None:
        lines.append(NO_GATES)
    return "\n".join(lines)


def _line(attribution: Attribution | None, path: str) -> str:
    if attribution is None:
        return f"{'cannot be read':<63}  {path}"
    spatial, channel = (heatmaps.span(gate) for gate in (attribution.spatial, attribution.channel))
    row, column = np.unravel_index(attribution.cells.argmax(), attribution.cells.shape)
    most = f"row {row + 1}, column {column + 1}"
    channels = " ".join(map(str, attribution.strongest))
    return f"{spatial:<12}  {channel:<12}  {most:<18}  {channels:<15}  {path}"


def picture(explained: Sequence[Explanation], photos: Mapping[str, str | Held] | None = None) -> Image:
    """Return explanations as an image with a line for each photograph and hit.

    Args:
        photos: where photographs that go by a name are, which those in memory have to be given.
    """
    lines = []
    for one in explained:
        caption = os.path.basename(one.path), "query" if one.hits else ""
        lines.append(_tiles((photos or {}).get(one.path, one.path), one.attribution, caption, QUERY))
        lines += [_tiles(hit.path, attribution, hit_caption(hit)) for hit, attribution in one.hits]
    first = explained[0].attribution
    gated = first.spatial is not None
    kinds = list(heatmaps.SCALES)[0 if gated else 1 :]
    note = f"Maps of {len(first.cells)} x {len(first.cells)} cells, enlarged smoothly."
    note += " The bits of a hit's row are the query's." if explained[0].hits else ""
    note += "" if gated else f" {NO_GATES}"
    return sheet(lines, ["photograph", *kinds], heatmaps.legend(kinds, note))


def _tiles(
    path: str | Held, attribution: Attribution | None, caption: tuple[str, ...], frame: str = PLAIN
) -> list[Tile]:
    first = Tile(thumbnail(path), caption, frame)
    return [first] if attribution is None else [first, *attribution_tiles(open_small(path), attribution)]


def attribution_tiles(photo: Image, attribution: Attribution) -> list[Tile]:
    """Return an attribution over its photograph: spatial gate if there is one, contributions, strongest channels."""
    gate, cells, channels = attribution.spatial, attribution.cells, attribution.channels
    maps = [(heatmaps.contribution_levels(cells), contribution_caption(cells))]
    if gate is not None:
        maps.insert(0, (heatmaps.gate_levels(gate), (heatmaps.span(gate), f"mean {gate.mean():.2f}")))
    added = max(channels[channels > 0].sum(), 1e-12)
    for number, activations in zip(attribution.strongest, attribution.activations, strict=True):
        of_gate = "" if attribution.channel is None else f", gate {attribution.channel[number]:.2f}"
        caption = (f"channel {number}", f"adds {channels[number] / added:.0%}{of_gate}")
        maps.append((heatmaps.peak_levels(activations), caption))
    return [Tile(letterbox(heatmaps.overlay(photo, levels, attribution.resize)), caption) for levels, caption in maps]


def contribution_caption(contributions: npt.NDArray[np.float32]) -> tuple[str, str]:
    """Return two lines for a map of contributions (h, w): how many cells give half, and what is taken away."""
    half, taken = concentration(contributions)
    return (f"half from {half} of {contributions.size}", f"{taken:.0%} taken away") if half else ("nothing added", "")


def concentration(contributions: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Return how concentrated contributions (h, w) are.

    Returns:
        How many cells, the largest first, give half of what all positive ones add, 0 where none does; and the fraction
        of that sum that the negative ones take away.
    """
    adding = -np.sort(-contributions[contributions > 0])
    if not len(adding):
        return 0, 0.0
    half = 1 + np.searchsorted(adding.cumsum(), adding.sum() / 2)
    return int(half), float(np.abs(contributions[contributions < 0]).sum() / adding.sum())
