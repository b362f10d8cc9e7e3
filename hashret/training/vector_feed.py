"""What the training loop reads where vectors are given: the vectors themselves, in the place of feature maps."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bits import Positions
from ..data import VectorSource
from ..data.embeddings import ROWS_AT_ONCE
from ..models.heads import Standardize
from ..models.network import HashNet
from ..vectors import are_unit, scaled
from .feed import FeatureFeed, not_empty

_MOST_NUMBERS = 2**26  # that a shallow method is fitted to, of a sample where there are more vectors: 256 MiB
_LEAST_ROWS = 10_000  # but at least so many vectors

_log = logging.getLogger("hashret")


class VectorFeed(FeatureFeed):
    """Vectors as feature maps of one cell. They are centred by what is learned from, since all numbers of features
    behind a ReLU, say, are positive, and bits around zero would all be one.

    Args:
        source: the vectors.
        metric: one of `hashret.vectors.METRICS`, by which they are compared.
        seed: of what the sample for centring and shallow methods is drawn by.
        device: where the head computes.

    Attributes:
        meta: what the checkpoint says of the vectors.
    """

    def __init__(self, source: VectorSource, metric: str, seed: int, device: torch.device) -> None:
        self.source, self.metric, self.seed, self.device, self.module = source, metric, seed, device, None
        self.views = 0
        usable = np.setdiff1d(np.arange(len(source)), [*source.skipped])
        self._usable: Positions = usable
        sample = self.source.read(self.to_fit(not_empty(usable)))
        self.meta: dict[str, Any] = {"metric": metric, "unit_length": are_unit(sample)}
        length = "unit length" if self.meta["unit_length"] else "any length"
        _log.info(
            "%s: %d vectors of %d numbers and %s, compared by %s and centred by their mean", source.spec, len(source),
            source.width, length, metric,
        )  # fmt: skip

    def readable(self) -> Positions:
        """Return the rows that hold no NaN and no infinity."""
        return self._usable

    def to_fit(self, source_rows: Positions) -> Positions:
        """Return the rows that a shallow method is fitted to: all, or a sample where that fits into memory better."""
        most = max(_LEAST_ROWS, _MOST_NUMBERS // self.source.width)
        if len(source_rows) <= most:
            return source_rows
        return np.sort(np.random.default_rng(self.seed).choice(source_rows, most, replace=False))

    def standardize(self, net: HashNet, source_rows: Positions) -> None:
        """Centre and scale what a perceptron reads by the rows that are learned from, or a sample of these."""
        if isinstance(net.head.attention, Standardize):
            net.head.attention.set(self.descriptors(self.to_fit(source_rows)))

    def descriptors(self, source_rows: Positions) -> Tensor:
        """Return what the shallow methods hash: float32 (n, width), of unit length where the cosine compares."""
        return self._read(source_rows)[:, :, 0, 0]

    def _load(self) -> None:
        """Leave the vectors where they are, a mapped file perhaps: a batch of them is small."""

    def _read(self, source_rows: Positions) -> Tensor:
        blocks = [
            scaled(self.source.read(source_rows[start : start + ROWS_AT_ONCE]), self.metric)
            for start in range(0, len(source_rows), ROWS_AT_ONCE)
        ]
        read = np.concatenate([np.zeros((0, self.source.width), np.float32), *blocks])
        return torch.from_numpy(read)[:, :, None, None].to(self.device)
