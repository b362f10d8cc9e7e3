"""DPSH: the likelihood of pairwise labels, and quantisation."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from .method import Method
from .pairs import alike


class DPSH(Method):
    """Deep pairwise-supervised hashing over the pairs of a batch.

    Its authors pair each batch with a table of what the network last said of every train image. That table lags an
    epoch behind; at the learning rates of a freshly initialised head the lag makes training oscillate.
    """

    name = "dpsh"
    paper = "Li, Wang & Kang, Feature learning based deep supervised hashing with pairwise labels, IJCAI 2016"
    defaults: ClassVar[dict] = {"quantization": 0.1, "dropout": 0.0, "lr": 1e-3}  # dropout's noise drowns the pairs

    def loss(self, output, labels, rows):
        """Negative log-likelihood of the pairs, -mean(s theta - log(1 + e^theta)) with theta = u_i . u_j / 2, plus
        ``quantization`` times the mean of (u - sign(u))^2. Formulas (2) and (6) there, as means; u are the logits.
        """
        u = output.logits
        theta = u @ u.T / 2
        s = alike(labels, labels).to(u.dtype)
        pairs = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
        likelihood = (s * theta - F.softplus(theta))[pairs].mean()
        signs = torch.where(u >= 0, 1.0, -1.0)
        return -likelihood + self.settings.quantization * (u - signs).square().mean()
