"""VGGH and AM-VGGH: the hash layer is learned through a classifier on top of it. Paper, sections 1.1 and 2."""

from __future__ import annotations

import torch.nn.functional as F

from .method import Method


class VGGH(Method):
    """VGG16, fully connected layers, hash layer, classifier; no attention."""

    name = "vggh"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021, without its attention"

    def loss(self, output, labels, rows):
        """Classification loss: cross-entropy, or binary cross-entropy of each label where a photograph has several.

        Settings add terms that the paper has not: ``quantization`` times the mean of 4 v (1 - v), which is 0 where
        every hash-layer value v is 0 or 1; ``balance`` times the mean over bits of (2 mean(v) - 1)^2, which is 0
        where each bit is 1 for half of the batch; ``smoothing`` of the labels.
        """
        s, values = self.settings, output.values
        if labels.ndim == 1:
            loss = F.cross_entropy(output.scores, labels, label_smoothing=s.smoothing)
        else:
            target = labels.to(output.scores.dtype) * (1 - s.smoothing) + s.smoothing / 2
            loss = F.binary_cross_entropy_with_logits(output.scores, target)
        if s.quantization:
            loss = loss + s.quantization * (4 * values * (1 - values)).mean()
        if s.balance:
            loss = loss + s.balance * (2 * values.mean(dim=0) - 1).square().mean()
        return loss


class AMVGGH(VGGH):
    """VGGH with CBAM after the convolutions."""

    name = "am-vggh"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021"
    attention = True
