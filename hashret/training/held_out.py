"""Holding out a part of the train images, by class, so that the test images never choose anything."""

from __future__ import annotations

import numpy as np

_WHOLE = 3  # images from which on a class may give one; a smaller class would lose half of what is learned of it


def hold_out(labels, share, seed):
    """Split rows into (train, held-out), both sorted int64: about ``share`` of all rows is held out, one at least.

    Of a class as much is held out as ``share`` of it rounds to. Where that is nothing, some of the small classes give
    an image each, the larger first and by lot, until ``share`` of all is reached; classes of two only where the others
    reach less than half of that. Where photographs have several labels, ``share`` of all rows is drawn, and those with
    a label that only one or two have come last. ``share`` 0 holds out none.
    """
    n = len(labels)
    if share <= 0:
        return np.arange(n), np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    if labels.ndim == 1:
        drawn = _by_class(labels, share, rng)
    else:
        order = rng.permutation(n)
        seldom = labels[:, labels.sum(axis=0) < _WHOLE].any(axis=1)
        drawn = order[np.argsort(seldom[order], kind="stable")][: max(1, round(share * n)) if n > 1 else 0]
    held = np.sort(drawn)
    return np.setdiff1d(np.arange(n), held), held


def _by_class(labels, share, rng):
    """Held-out rows where photographs have one label each."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    groups = [rng.permutation(rows) for rows in groups if len(rows) > 1]
    sizes = np.array([len(rows) for rows in groups], np.int64)
    counts = np.array([min(round(share * size), size - 1) for size in sizes], np.int64)
    wanted = max(1, round(share * len(labels)))
    small = np.flatnonzero(counts == 0)
    if counts.sum() + (sizes[small] >= _WHOLE).sum() >= wanted / 2:
        small = small[sizes[small] >= _WHOLE]
    small = rng.permutation(small)
    small = small[np.argsort(-sizes[small], kind="stable")]
    counts[small[: max(0, wanted - counts.sum())]] = 1
    held = [rows[:count] for rows, count in zip(groups, counts, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *held])
