"""VGGH and AM-VGGH: the hash layer is learned through a classifier on top of it. Paper, sections 1.1 and 2."""

from __future__ import annotations

import torch.nn.functional as F


class VGGH:
    """VGG16, fully connected layers, hash layer, classifier; no attention."""

    name = "vggh"
    attention = False

    @staticmethod
    def loss(values, scores, labels, quantization=0.0, smoothing=0.0):
        """Classification loss of a batch, a scalar.

        One label a photograph: cross-entropy; several: binary cross-entropy of each label.

        Args:
            values: hash-layer values (n, bits) in (0, 1).
            scores: class scores (n, classes).
            labels: (n,) int64, or (n, classes) of 0 and 1.
            quantization: weight of the mean of 4 v (1 - v), which is 0 where every value is 0 or 1; the paper
                has none.
            smoothing: label smoothing of the cross-entropy; the paper has none.
        """
        if labels.ndim == 1:
            loss = F.cross_entropy(scores, labels, label_smoothing=smoothing)
        else:
            loss = F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
        if quantization:
            loss = loss + quantization * (4 * values * (1 - values)).mean()
        return loss


class AMVGGH(VGGH):
    """VGGH with CBAM after the convolutions."""

    name = "am-vggh"
    attention = True
