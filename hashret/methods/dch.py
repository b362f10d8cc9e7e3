"""DCH: a Cauchy likelihood of pairs, which draws similar photographs into a small Hamming ball."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option
from .similarity import pair_weights, share_a_label

_NEAREST = 1e-6  # bits; the distance of two dissimilar photographs never counts as less, as its logarithm is taken


class DCH(Method):
    """Pairs by the Cauchy distribution of their distance.

    Its probability falls fastest near the distance 0, where a sigmoid of inner products is flat. So similar pairs that
    are some bits apart are still pulled together.
    """

    name = "dch"
    paper = "Cao, Long, Liu & Wang, Deep Cauchy hashing for Hamming space retrieval, CVPR 2018"
    options = (
        Option("gamma", 20.0, "distance in bits at which a pair is as likely similar as not", low=1e-3),
        Option("quantization", 0.1, "pulls hash outputs to 0 and 1"),
    )
    defaults: ClassVar[dict[str, Any]] = {"dropout": 0.0, "lr": 1e-3}  # as for DPSH

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean over pairs of w (s log(1 + d / gamma) + (1 - s) log(1 + gamma / d)), and quantisation.

        d is the distance bits / 2 (1 - cos(h_i, h_j)) of the outputs h = 2 v - 1, s whether two photographs share a
        label, w the `pair_weights`; ``quantization`` times the mean of log(1 + d(|h|, 1) / gamma) is added.
        Source: formulas (6) to (8) there, the first two in one.
        """
        gamma, h = self.chosen["gamma"], 2 * output.hash_outputs - 1
        unit = F.normalize(h, dim=1)
        distance = (self.bits / 2 * (1 - unit @ unit.T)).clamp(min=_NEAREST)
        similar = share_a_label(labels, labels)
        likelihood = torch.where(similar, (distance / gamma).log1p(), (gamma / distance).log1p())
        terms: Tensor = likelihood * pair_weights(similar)
        corner = self.bits / 2 * (1 - unit.abs().sum(dim=1) / self.bits**0.5)
        quantization: Tensor = (corner.clamp(min=0) / gamma).log1p().mean()
        return terms.sum() / (len(h) * (len(h) - 1)) + self.chosen["quantization"] * quantization
