"""DNNH: triplet ranking loss over divide-and-encode bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method
from .similarity import share_a_label, triplets

MARGIN = 1.0
EPSILON = 0.4


class DNNH(Method):
    """Simultaneous feature learning and hash coding by triplets.

    A photograph must be nearer to one of its label than to one of another, by a margin of one bit.
    """

    name = "dnnh"
    backbone = "vgg16"
    paper = "Lai, Pan, Liu & Yan, Simultaneous feature learning and hash coding with deep neural networks, CVPR 2015"
    head = "sliced"

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean over all triplets (i, i+, i-) of the batch of max(0, 1 - |F - F-|^2 + |F - F+|^2).

        F are the hash outputs after `piecewise_threshold`. Source: formula (2) there.
        """
        f = piecewise_threshold(output.hash_outputs)
        squared = (f[:, None] - f[None]).square().sum(dim=2)
        wanted = triplets(share_a_label(labels, labels))
        hinge = F.relu(MARGIN + squared[:, :, None] - squared[:, None, :])
        return (hinge * wanted).sum() / wanted.sum().clamp(min=1)


def piecewise_threshold(hash_outputs: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return 0 for outputs below 0.5 - epsilon, 1 above 0.5 + epsilon, those between unchanged. Formula (4) there."""
    low, high = hash_outputs < 0.5 - epsilon, hash_outputs > 0.5 + epsilon
    return torch.where(low, 0.0, torch.where(high, 1.0, hash_outputs))
