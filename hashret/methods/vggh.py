"""VGGH and AM-VGGH: the hash layer is learned through a classifier on top of it. Paper, sections 1.1 and 2."""

from __future__ import annotations

import torch.nn.functional as F

from .method import Method


class VGGH(Method):
    """VGG16, fully connected layers, hash layer, classifier; no attention."""

    name = "vggh"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021, without its attention"
    classifier = True

    def loss(self, output, labels, rows):
        """Classification loss: cross-entropy, or binary cross-entropy of each label where a photograph has several.

        Settings add terms that the paper has not: ``quantization`` times the mean of 4 v (1 - v), which is 0 where
        every hash-layer value v is 0 or 1; ``balance`` times the mean over bits of (2 mean(v) - 1)^2, which is 0
        where each bit is 1 for half of the batch; ``smoothing`` of the labels.
        """
        loss = classification_loss(output.scores, labels, self.settings.smoothing)
        return loss + self.regularization(output.hash_outputs)

    def regularization(self, values):
        """The terms of `loss` on the hash-layer values (n, bits) alone."""
        s, terms = self.settings, values.new_zeros(())
        if s.quantization:
            terms = terms + s.quantization * (4 * values * (1 - values)).mean()
        if s.balance:
            terms = terms + s.balance * (2 * values.mean(dim=0) - 1).square().mean()
        return terms


class AMVGGH(VGGH):
    """VGGH with CBAM after the convolutions."""

    name = "am-vggh"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021"
    attention = True


def classification_loss(scores, labels, smoothing=0.0):
    """Cross-entropy of scores (n, classes) for labels (n,), binary cross-entropy for labels (n, classes)."""
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels, label_smoothing=smoothing)
    target = labels.to(scores.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(scores, target)
