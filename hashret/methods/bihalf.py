"""Bi-half: no labels; each bit is 1 for half of a batch, and codes are as similar as the features."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option


class BiHalf(Method):
    """A linear hash layer whose bits say as much as bits can: 0 and 1 are equally frequent.

    Among all codes of a batch whose bits are so, the nearest to the logits, by optimal transport, have each bit set for
    the half with the larger logits. The gradient passes through them to the logits as it is.
    """

    name = "bihalf"
    paper = "Li & van Gemert, Deep unsupervised image hashing by maximizing bit entropy, AAAI 2021"
    head = "perceptron"
    head_options: ClassVar[dict[str, Any]] = {"hidden": 0}
    needs_labels = False
    reads_fc_features = True
    options = (Option("transport", 6.0, "pulls logits to the codes of their batch"),)
    defaults: ClassVar[dict[str, Any]] = {"lr": 1e-3, "epochs": 40}

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean over pairs of (cos(x_i, x_j) - cos(b_i, b_j))^2, plus the transport.

        x is what the hash layer reads and b the `half_and_half` of the logits u. Half of ``transport`` times the mean
        of (u - b)^2 is added, whose gradient is that of formula (9) there. Source: formulas (6) to (9) there.
        """
        assert output.fc_features is not None
        u, x = output.logits, F.normalize(output.fc_features, dim=1)
        nearest = half_and_half(u)
        codes = F.normalize(u + (nearest - u).detach(), dim=1)  # whose gradient has that of the length, too
        pairs = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
        kept = (x @ x.T - codes @ codes.T)[pairs].square().mean()
        return kept + self.chosen["transport"] / 2 * (u - nearest).square().mean()


def half_and_half(u: Tensor) -> Tensor:
    """Return codes of +1 for the larger half of each column of (n, bits) and -1 for the others."""
    ranks = u.detach().argsort(dim=0, stable=True).argsort(dim=0)
    return torch.where(ranks >= len(u) // 2, 1.0, -1.0).to(u)
