"""Whether an encoder's codes tell photographs apart, or have collapsed: what training looks at before it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bits import Codes, Labels, unpack
from .metrics import Counts, average_precision, count_among_themselves, count_by_distance

QUERIES = 10  # with fewer, a mAP says little; with fewer held-out images, train images are asked among each other
_ASKED = 1000  # of these, at most
_CODES = 16  # that photographs without labels, or with several, have at least


def code_figures(codes: Codes, bits: int, labels: Labels | None = None, held: int = 0) -> dict[str, Any]:
    """Return how far codes differ, and what they find, for the training record.

    ``distinct`` codes, the ``entropy`` of their distribution in bits, and ``used_bits``, which are not constant. With
    labels, ``map``, the mAP@all of the first ``held`` images among the others, and ``chance``, that of a random order;
    where few are held out, of the others among each other.

    Args:
        codes: packed uint8 (n, w), the held-out images first.
        labels: of the same, as `hashret.metrics.is_relevant` takes them.
    """
    _, sizes = np.unique(codes, axis=0, return_counts=True)
    ones = unpack(codes, bits).mean(axis=0)
    fractions = sizes / len(codes)
    entropy = float(-(fractions @ np.log2(fractions)))
    figures: dict[str, Any] = {
        "photographs": len(codes), "distinct": len(sizes), "entropy": round(entropy, 3) + 0.0,
        "used_bits": int(((ones > 0) & (ones < 1)).sum()),
    }  # fmt: skip
    if labels is None:
        return figures
    if held >= QUERIES:
        counts = count_by_distance(codes[:held], codes[held:], labels[:held], labels[held:], bits)
    else:
        asked = slice(held, held + _ASKED)
        counts = count_among_themselves(codes[asked], codes[asked], labels[asked], bits)
    answerable = counts.relevant.any(axis=1)
    if answerable.sum() >= QUERIES:
        counts = Counts(counts.total[answerable], counts.relevant[answerable])
        figures["map"] = float(average_precision(counts).mean())
        figures["chance"] = map_by_chance(counts)
    return figures


def map_by_chance(counts: Counts, topk: int | None = None) -> float:
    """Return the mAP of a random order, of queries of which the `Counts` are known."""
    any_order = Counts(counts.total.sum(axis=1, keepdims=True), counts.relevant.sum(axis=1, keepdims=True))
    return float(average_precision(any_order, topk=topk).mean())


def collapsed(figures: Mapping[str, Any], bits: int, classes: int | None = None) -> str | None:
    """Return what is wrong with codes by their `code_figures`, or None.

    Either there are fewer codes than ``classes`` (`_CODES` where None), or a search by them is within a tenth of what
    a random order finds.
    """
    n, distinct = figures["photographs"], figures["distinct"]
    problems = []
    if distinct < min(classes or _CODES, n, max(2, 2**bits // 8)):
        of = f" of {classes} classes" if classes else ""
        problems.append(f"{n:,} photographs{of} have {distinct} distinct code{'s' if distinct > 1 else ''}")
    if "map" in figures:
        mean, chance = figures["map"], figures["chance"]
        if chance < 1 and mean - chance < 0.1 * min(chance, 1 - chance):
            problems.append(f"mAP {mean:.3f} is that of chance, {chance:.3f}")
    return " and ".join(problems) or None
