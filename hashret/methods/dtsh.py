"""DTSH: the likelihood of triplets."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option
from .similarity import share_a_label, triplets


class DTSH(Method):
    """Triplets of a query, a similar and a dissimilar photograph: the similar one is the nearer by half of the bits."""

    name = "dtsh"
    paper = "Wang, Shi & Kitani, Deep supervised hashing with triplet labels, ACCV 2016"
    options = (
        Option("margin", 0.5, "bits by which the similar one is nearer, over all bits"),
        Option("quantization", 0.01, "pulls logits to 1 and -1"),
    )
    defaults: ClassVar[dict[str, Any]] = {"dropout": 0.0, "lr": 1e-3}  # as for DPSH

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean over triplets of log(1 + exp(-(theta_qi - theta_qj - margin bits))), and quantisation.

        theta_ij = u_i . u_j / 2 for logits u; i shares a label with q, and j does not. ``quantization`` times the mean
        of (u - sign(u))^2 is added. Source: formula (7) there, as means.
        """
        u = output.logits
        theta = u @ u.T / 2
        wanted = triplets(share_a_label(labels, labels))
        nearer = theta[:, :, None] - theta[:, None, :] - self.chosen["margin"] * self.bits
        likelihood = (F.softplus(-nearer) * wanted).sum() / wanted.sum().clamp(min=1)
        signs = torch.where(u >= 0, 1.0, -1.0)
        return likelihood + self.chosen["quantization"] * (u - signs).square().mean()
