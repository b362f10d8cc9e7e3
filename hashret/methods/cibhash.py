"""CIBHash: no labels; two augmented views of a photograph get one code, apart from those of all others."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option


class CIBHash(Method):
    """Contrastive learning of the codes themselves.

    What two views of a photograph share is what the photograph shows, and what differs is where it was cropped and how
    it was lit. A code that tells a photograph's views from those of others therefore keeps the former. The views of
    each photograph are prepared once, as pooled features of the frozen backbone.
    """

    name = "cibhash"
    paper = (
        "Qiu, Su, Ou, Yu & Chen, Unsupervised hashing with contrastive information bottleneck, IJCAI 2021, on views of "
        "frozen features"
    )
    head = "perceptron"
    needs_labels = False
    views = 8
    options = (
        Option("temperature", 0.5, "divides the cosines of the codes; 0.3 in the paper", low=1e-3),
        Option("bottleneck", 1e-3, "weight of the divergence between the bits' chances in two views"),
    )
    defaults: ClassVar[dict[str, Any]] = {"lr": 1e-3, "epochs": 40}

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the contrastive loss of the codes plus ``bottleneck`` times the divergence.

        The first half of the batch are views of the photographs that the second half shows, too. The contrastive loss
        is the mean over views of -log(exp(cos(b, b+) / t) / sum exp(cos(b, b') / t)) for codes b of +1 and -1, b+ the
        other view and b' all other codes, and temperature t. Its gradient passes through the sign to the chance v of
        each bit, a hash output. The divergence is that of Kullback & Leibler between the chances in both views, either
        way round, the second of each as a constant. Source: section 3 there and its authors' code.
        """
        u, v = output.logits, output.hash_outputs
        codes = v + (torch.where(u >= 0, 1.0, -1.0) - v).detach()
        unit = F.normalize(codes, dim=1)
        cosine = unit @ unit.T / self.chosen["temperature"]
        cosine = cosine.masked_fill(torch.eye(len(u), dtype=torch.bool, device=u.device), float("-inf"))
        partner = torch.arange(len(u), device=u.device).roll(len(u) // 2)
        other = u[partner].detach()
        divergence = v * (F.logsigmoid(u) - F.logsigmoid(other)) + (1 - v) * (F.logsigmoid(-u) - F.logsigmoid(-other))
        return F.cross_entropy(cosine, partner) + self.chosen["bottleneck"] * divergence.sum(dim=1).mean()
