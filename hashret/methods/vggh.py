"""VGGH and AM-VGGH: the hash layer is learned through a classifier on top of it. Paper, sections 1.1 and 2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option

QUANTIZATION = Option("quantization", 0.0, "pulls hash outputs to 0 and 1")
BALANCE = Option("balance", 0.0, "pulls each bit to 1 for half of a batch")
SMOOTHING = Option("smoothing", 0.0, "of the labels", high=1.0)
# With several labels, few steps at the rate of the rest leave the classifier of a short code near its start, and the
# codes unlearned.
CLASSIFIER_RATE = Option("classifier_rate", 1.0, "the classifier's learning rate over --lr", several_labels=30.0)


class VGGH(Method):
    """VGG16, fully connected layers, hash layer, classifier; no attention."""

    name = "vggh"
    backbone = "vgg16"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021, without its attention"
    classifier = True
    options = (QUANTIZATION, BALANCE, SMOOTHING, CLASSIFIER_RATE)

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the classification loss, of each label where photographs have several.

        Options add terms that the paper does not have: ``quantization`` times the mean of 4 v (1 - v), which is 0
        where every hash output v is 0 or 1; ``balance`` times the mean over bits of (2 mean(v) - 1)^2, which is 0
        where each bit is 1 for half of the batch; ``smoothing`` of the labels.
        """
        assert output.scores is not None
        loss = classification_loss(output.scores, labels, self.chosen["smoothing"])
        return loss + self.regularization(output.hash_outputs)

    def regularization(self, hash_outputs: Tensor) -> Tensor:
        """Return the terms of `loss` that depend on the hash outputs (n, bits) alone."""
        quantization, balance = self.chosen["quantization"], self.chosen["balance"]
        terms = hash_outputs.new_zeros(())
        if quantization:
            terms = terms + quantization * (4 * hash_outputs * (1 - hash_outputs)).mean()
        if balance:
            terms = terms + balance * (2 * hash_outputs.mean(dim=0) - 1).square().mean()
        return terms


class AMVGGH(VGGH):
    """VGGH with CBAM after the convolutions."""

    name = "am-vggh"
    paper = "Jin & Zeng, Deep hash image retrieval method based on attention model, 2021"
    attention = True


def classification_loss(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of scores (n, classes) for labels (n,), the binary one for labels (n, classes)."""
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels, label_smoothing=smoothing)
    target = labels.to(scores.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(scores, target)
