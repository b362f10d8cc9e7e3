"""DNNH: triplet ranking loss over divide-and-encode bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .method import Method
from .similarity import alike

MARGIN = 1.0
EPSILON = 0.4


class DNNH(Method):
    """Simultaneous feature learning and hash coding: an image must be nearer to one that is alike than to one that
    is not, by a margin of one bit."""

    name = "dnnh"
    paper = "Lai, Pan, Liu & Yan, Simultaneous feature learning and hash coding with deep neural networks, CVPR 2015"
    head = "sliced"

    def loss(self, output, labels, rows):
        """Mean over all triplets (i, i+, i-) of the batch of max(0, 1 - |F - F-|^2 + |F - F+|^2). Formula (2) there,
        F being the values after `piecewise_threshold`.
        """
        f = piecewise_threshold(output.hash_outputs)
        squared = (f[:, None] - f[None]).square().sum(dim=2)
        same = alike(labels, labels)
        positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        triplets = positive[:, :, None] & ~same[:, None, :]
        hinge = F.relu(MARGIN + squared[:, :, None] - squared[:, None, :])
        return (hinge * triplets).sum() / triplets.sum().clamp(min=1)


def piecewise_threshold(values, epsilon=EPSILON):
    """0 below 0.5 - epsilon, 1 above 0.5 + epsilon, the value itself between them. Formula (4) there."""
    return torch.where(values < 0.5 - epsilon, 0.0, torch.where(values > 0.5 + epsilon, 1.0, values))
