"""Holding out a part of the train images, by class, and searching it, so that the test images never choose anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..bits import Codes, Labels, Positions
from ..metrics import Floats, average_precision, count_among_themselves, count_by_distance, has_label

_WHOLE = 3  # images from which on a class may give one; a smaller class would lose half of what is learned of it


@dataclass(frozen=True)
class HeldOutMap:
    """What held-out photographs find, in one search or several.

    Attributes:
        precisions: of each search, the average precision of each photograph that asks.
    """

    precisions: tuple[Floats, ...]

    @property
    def mean(self) -> float:
        """The mean of the mAP of the searches."""
        return float(np.mean([np.mean(one) for one in self.precisions]))

    @property
    def error(self) -> float:
        """The standard error of that mean: the mean of those of the searches, as the same photographs ask in all."""
        return float(np.mean([_error(one) for one in self.precisions]))

    @staticmethod
    def mean_of(several: Sequence[HeldOutMap]) -> HeldOutMap:
        """Return the means, photograph by photograph, of what the same photographs find by several codes."""
        searches = zip(*(one.precisions for one in several), strict=True)
        return HeldOutMap(tuple(np.mean(search, axis=0) for search in searches))

    def minus(self, other: HeldOutMap) -> HeldOutMap:
        """Return the differences to what the same photographs find by other codes: their error is the paired one."""
        pairs = zip(self.precisions, other.precisions, strict=True)
        return HeldOutMap(tuple(ours - theirs for ours, theirs in pairs))


def hold_out(labels: Labels, fraction: float, seed: int) -> tuple[Positions, Positions]:
    """Split photographs into those to learn from and those held out.

    Of each class, ``fraction`` of its photographs is held out, rounded. Where that is nothing, some of the small
    classes give a photograph each, the larger first and by lot, until ``fraction`` of all is reached; classes of two
    only where the others reach less than half of that. Where photographs have several labels, ``fraction`` of all is
    drawn, and those with a label that only one or two have come last. Photographs without a label are never held out,
    since nothing is relevant to them, and do not count here.

    Args:
        labels: class numbers (n,), -1 for none, or flags (n, classes).
        fraction: of all photographs with a label that is held out, one at least, and one less than all at most; 0 holds
            out none.
        seed: decides the draw.

    Returns:
        The numbers of the photographs to learn from and of those held out, both sorted.
    """
    every = np.arange(len(labels))
    labelled = np.flatnonzero(has_label(labels))
    labels, n = labels[labelled], len(labelled)
    if fraction <= 0 or not n:
        return every, np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    if labels.ndim == 1:
        drawn = _by_class(labels, fraction, rng)
    else:
        order = rng.permutation(n)
        rare = np.flatnonzero(labels.sum(axis=0) < _WHOLE)
        seldom = (labels[:, rare] != 0).any(axis=1, keepdims=True)[:, 0]
        drawn = order[np.argsort(seldom[order], kind="stable")][: min(max(1, round(fraction * n)), n - 1)]
    held = np.sort(labelled[drawn])
    return np.setdiff1d(every, held), held


def _by_class(labels: Labels, fraction: float, rng: np.random.Generator) -> Positions:
    """Return the held-out photographs where photographs have one label each."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    groups = [rng.permutation(group) for group in groups if len(group) > 1]
    sizes = np.array([len(group) for group in groups], np.int64)
    counts = np.array([min(round(fraction * size), size - 1) for size in sizes], np.int64)
    goal = max(1, round(fraction * len(labels)))
    small = np.flatnonzero(counts == 0)
    if counts.sum() + (sizes[small] >= _WHOLE).sum() >= goal / 2:
        small = small[sizes[small] >= _WHOLE]
    small = rng.permutation(small)
    small = small[np.argsort(-sizes[small], kind="stable")]
    counts[small[: max(0, goal - counts.sum())]] = 1
    held = [group[:count] for group, count in zip(groups, counts, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *held])


def held_out_map(queries: Codes, database: Codes, bits: int, labels: Labels) -> HeldOutMap:
    """Return what held-out photographs find among photographs that were learned from, and among each other.

    A database has both kinds. Codes of photographs that were learned from are mostly right whatever the epoch, so that
    these alone would hide how well others are told apart.

    Args:
        queries: packed codes of the held-out photographs (nq, w).
        database: packed codes (nb, w), of the same first, then of some that were learned from.
        bits: length of the codes.
        labels: of the database, of either form of `hashret.bits.Labels`.

    Returns:
        What both searches find, by mAP@all. Photographs without a relevant one among the held-out do not count in the
        second, which is left out where it has no queries.
    """
    held = len(queries)
    of_queries = labels[:held]
    learned = count_by_distance(queries, database[held:], of_queries, labels[held:], bits)
    found = [average_precision(learned)]
    others = count_among_themselves(queries, database[:held], of_queries, bits)
    answered = others.relevant.any(axis=1)
    if answered.any():
        found.append(average_precision(others)[answered])
    return HeldOutMap(tuple(found))


def _error(values: Floats) -> float:
    """Return the standard error of the mean of values; 0 of a single one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
