"""Hits, groups of duplicates and feature caches as lines of text."""

from __future__ import annotations

from ..names import shown, shown_path


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
    """Feature caches as lines of text, as `hashret.data.feature_cache.caches` returns them."""
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
    """Size of a `Photograph` of a group in words: "640x480", "71,204"; "-" where it cannot be read."""
    if photograph.bytes is None:
        return "-", "-"
    return f"{photograph.width}x{photograph.height}", f"{photograph.bytes:,}"


def distances(hit):
    """Both distances of a hit in words: "3 bits, 0.41"."""
    bits = "1 bit" if hit.hamming == 1 else f"{hit.hamming} bits"
    return bits + ("" if hit.euclidean is None else f", {hit.euclidean:.3g}")
