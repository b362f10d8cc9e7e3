"""Hits, groups of duplicates and feature caches as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..names import shown, shown_path
from ..similar import nothing_so_similar

if TYPE_CHECKING:
    from ..data.feature_cache import CacheInfo
    from ..hits import Hit
    from ..near_duplicates.groups import Photograph


def table(hits: Sequence[Hit]) -> str:
    """Return hits as lines of text: rank, similarity, Hamming distance in bits, Euclidean distance, label, path."""
    if not hits:
        return no_hits(hits)
    labels = [shown(hit.label) for hit in hits]
    width = max([5, *map(len, labels)])
    lines = [f"{'rank':>4}  {'similar':>7}  {'hamming':>7}  {'euclidean':>9}  {'label':<{width}}  path"]
    for hit, label in zip(hits, labels, strict=True):
        euclidean = "-" if hit.euclidean is None else three_digits(hit.euclidean)
        similar = "-" if hit.similarity is None else f"{hit.similarity} %"
        path = shown_path(hit.path)
        lines.append(f"{hit.rank:>4}  {similar:>7}  {hit.hamming:>7}  {euclidean:>9}  {label:<{width}}  {path}")
    return "\n".join(lines)


def no_hits(hits: Sequence[Hit]) -> str:
    """Return the line that stands in the place of no hits; a `HitList` says what comes nearest."""
    least, nearest = getattr(hits, "least", None), getattr(hits, "nearest", None)
    if least is None:
        return "no photograph was found"
    line = nothing_so_similar(least, nearest.similarity if nearest else None)
    return f"{line}: {shown_path(nearest.path)}" if nearest else line


def similar(hit: Hit) -> str:
    """Return how similar a hit is: "83 % similar"; "" where that is not known."""
    return "" if hit.similarity is None else f"{hit.similarity} % similar"


def duplicates_table(groups: Sequence[Sequence[Photograph]]) -> str:
    """Return groups of duplicates, as `hashret.duplicates` finds them, as lines of text."""
    changes = any(photograph.change for group in groups for photograph in group)
    head = ("group", "keep", "hamming", "euclidean", "pixels", "bytes", "id", *["change"] * changes, "path")
    lines: list[tuple[object, ...]] = [head]
    for number, group in enumerate(groups, 1):
        for photograph in group:
            keep = "keep" if photograph.keep else ""
            euclidean = "-" if photograph.euclidean is None else three_digits(photograph.euclidean)
            change = [photograph.change or "-"] if changes else []
            file = (*size(photograph), photograph.id, *change, shown_path(photograph.path))
            lines.append((number, keep, photograph.hamming, euclidean, *file))
    return _columns(lines)


def caches_table(caches: Sequence[CacheInfo]) -> str:
    """Return feature caches, as `hashret.data.feature_cache.caches` lists them, as lines of text."""
    lines: list[tuple[object, ...]] = [("name", "photographs", "bytes", "days", "pixels", "precision", "source")]
    for cache in caches:
        source = cache.source
        if source is not None and cache.root is not None and cache.root not in source:  # "folder:." is of any folder
            source = f"{source} in {cache.root}"
        known = [shown("-" if value is None else value) for value in (cache.image_size, cache.precision, source)]
        lines.append((cache.name, f"{cache.photographs:,}", f"{cache.bytes:,}", f"{cache.days:.1f}", *known))
    return _columns(lines)


def _columns(lines: Sequence[Sequence[object]]) -> str:
    """Return the lines of a table as text, every column but the last one aligned at the right."""
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    return "\n".join("  ".join([*map(str.rjust, line, widths), line[-1]]) for line in cells)


def size(photograph: Photograph) -> tuple[str, str]:
    """Return the pixels and the bytes of a file in words: "640x480", "71,204"; "-" where it cannot be read."""
    if photograph.bytes is None:
        return "-", "-"
    return f"{photograph.width}x{photograph.height}", f"{photograph.bytes:,}"


def three_digits(distance: float) -> str:
    """Return a distance to three digits, or all before the point, none of them an exponent."""
    return f"{distance:.3g}" if distance < 999.5 else f"{distance:,.0f}"


def distances(hit: Hit | Photograph) -> str:
    """Return both distances of a hit in words: "3 bits, 0.41"."""
    bits = "1 bit" if hit.hamming == 1 else f"{hit.hamming} bits"
    return bits + ("" if hit.euclidean is None else f", {three_digits(hit.euclidean)}")
