"""DPSH: the likelihood of pairwise labels, and quantisation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option
from .similarity import pairwise_loss


class DPSH(Method):
    """Deep pairwise-supervised hashing over the pairs of a batch.

    Its authors pair each batch with a table of what the network last said of every train image. That table lags an
    epoch behind; at the learning rates of a freshly initialised head the lag makes training oscillate.
    """

    name = "dpsh"
    backbone = "vgg16"
    paper = "Li, Wang & Kang, Feature learning based deep supervised hashing with pairwise labels, IJCAI 2016"
    options = (Option("quantization", 0.1, "pulls logits to 1 and -1"),)
    defaults: ClassVar[dict[str, Any]] = {"dropout": 0.0, "lr": 1e-3}  # dropout's noise drowns the pairs

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return `pairwise_loss` of the logits u plus ``quantization`` times the mean of (u - sign(u))^2.

        Source: formula (6) there, as means.
        """
        u = output.logits
        signs = torch.where(u >= 0, 1.0, -1.0)
        return pairwise_loss(u, labels) + self.chosen["quantization"] * (u - signs).square().mean()
