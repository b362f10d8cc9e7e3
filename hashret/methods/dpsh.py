"""DPSH: the likelihood of pairwise labels, and quantisation."""

from __future__ import annotations

from typing import ClassVar

import torch

from .method import Method
from .similarity import pairwise_loss


class DPSH(Method):
    """Deep pairwise-supervised hashing over the pairs of a batch.

    Its authors pair each batch with a table of what the network last said of every train image. That table lags an
    epoch behind; at the learning rates of a freshly initialised head the lag makes training oscillate.
    """

    name = "dpsh"
    paper = "Li, Wang & Kang, Feature learning based deep supervised hashing with pairwise labels, IJCAI 2016"
    defaults: ClassVar[dict] = {"quantization": 0.1, "dropout": 0.0, "lr": 1e-3}  # dropout's noise drowns the pairs

    def loss(self, output, labels, rows):
        """`pairwise_loss` of the logits u plus ``quantization`` times the mean of (u - sign(u))^2. Formula (6) there,
        as means.
        """
        u = output.logits
        signs = torch.where(u >= 0, 1.0, -1.0)
        return pairwise_loss(u, labels) + self.settings.quantization * (u - signs).square().mean()
