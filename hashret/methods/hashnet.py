"""HashNet: weighted pairs of outputs that a growing slope turns into signs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option
from .similarity import common_labels, pair_weights, share_a_label

SHARPNESS = 10.0  # of the likelihood, over the bits, as in the authors' code


class HashNet(Method):
    """Likelihood of pairs, of which the rare kind weighs more, under tanh(beta u) with beta growing.

    The slope replaces a quantisation term: a large beta makes tanh the sign that the codes are.
    """

    name = "hashnet"
    paper = "Cao, Long, Wang & Yu, HashNet: deep learning to hash by continuation, ICCV 2017"
    options = (Option("beta", 10.0, "slope of tanh in the last epoch; it is 1 in the first", low=1.0),)
    defaults: ClassVar[dict[str, Any]] = {"dropout": 0.0, "lr": 1e-3}  # as for DPSH

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean over pairs of w (log(1 + exp(theta)) - s theta), theta = 10 / bits z_i . z_j.

        z are tanh(beta u) of the logits u, s whether two photographs share a label, and w the `pair_weights`, times
        the `common_labels` of similar pairs. Source: formula (4) there.
        """
        z = torch.tanh(self.slope() * output.logits)
        theta = SHARPNESS / self.bits * z @ z.T
        similar = share_a_label(labels, labels)
        weights = pair_weights(similar).to(theta.dtype)
        if labels.ndim == 2:
            weights = weights * torch.where(similar, common_labels(labels).to(theta.dtype), 1.0)
        pairs = len(z) * (len(z) - 1)
        return (weights * (F.softplus(theta) - similar * theta)).sum() / pairs

    def slope(self) -> float:
        """Return beta, which grows from 1 by the same factor each epoch."""
        return float(self.chosen["beta"] ** self.progress)
