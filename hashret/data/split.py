"""Holding out a part of the train images, by class, so that the test images never choose anything."""

from __future__ import annotations

import numpy as np


def hold_out(labels, share, seed):
    """Split rows into (train, held-out), both sorted int64; ``share`` of each class (of all rows where a photograph
    has several labels) is held out, at least one image where the class has two. ``share`` 0 holds out none.
    """
    n = len(labels)
    if share <= 0:
        return np.arange(n), np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if labels.ndim == 1 else [np.arange(n)]
    held = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in groups if len(rows) > 1]
    held = np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(n), held), held
