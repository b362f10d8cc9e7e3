"""Heads: what turns convolution features into hash-layer logits, and those into class scores.

``fc`` is the paper's: optional CBAM, two fully connected layers, a hash layer, a classifier (figure 1). ``sliced``
gives each bit its own slice of the last features (DNNH). ``projection`` and ``kernel`` are the shallow methods',
whose parameters are fitted, not trained by gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ..bits import check_bits
from .attention import CBAM

CHANNELS = 512


class HeadOutput(NamedTuple):
    """``logits`` (n, bits): the hash layer before its sigmoid, 0 at the threshold of a bit; ``scores`` (n, classes),
    or None where the head has no classifier; ``features`` (n, width): what the hash layer reads, None where it has no
    fully connected layers before it."""

    logits: torch.Tensor
    scores: torch.Tensor | None
    features: torch.Tensor | None = None

    @property
    def values(self):
        """Hash-layer values (n, bits) in (0, 1)."""
        return torch.sigmoid(self.logits)


def make_head(kind, bits, classes, side, **options):
    """A head by its kind for features (n, 512, side, side): "fc", "sliced", "projection" or "kernel"."""
    heads = {"fc": HashHead, "sliced": SlicedHead, "projection": ProjectionHead, "kernel": KernelHead}
    return heads[kind](check_bits(bits), classes, side, **options)


class Head(nn.Module):
    """Features (n, 512, side, side) -> `HeadOutput`: ``attention``, which leaves their shape as it is, then `read`."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Identity()

    def forward(self, features):
        return self.read(self.attention(features))


class HashHead(Head):
    """Features (n, 512, side, side) -> `HeadOutput`: CBAM, two fully connected layers, hash layer, classifier.

    Args:
        bits: nodes of the hash layer.
        classes: outputs of the classifier, which reads the hash-layer values; 0 for none.
        side: places a side of the feature map.
        width: nodes of each of the two fully connected layers.
        attention: CBAM before flattening (AM-VGGH) or none (VGGH).
        gate: how CBAM's gates begin, see `CBAM`.
        dropout: after each fully connected layer, as VGG16 has it.
    """

    def __init__(self, bits, classes, side=7, width=4096, attention=True, gate="unit", dropout=0.5):
        super().__init__()
        if attention:
            self.attention = CBAM(CHANNELS, gate=gate)
        self.fc = nn.Sequential(
            nn.Flatten(),
            nn.Linear(CHANNELS * side * side, width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.hash = self.hash_layer(width, bits)
        self.classifier = nn.Linear(bits, classes) if classes else None

    def hash_layer(self, width, bits):
        return nn.Linear(width, bits)

    def read(self, attended):
        inner = self.fc(attended)
        with torch.autocast(inner.device.type, enabled=False):  # few numbers, whose last digits order the re-rank
            inner = inner.float()
            logits = self.hash(inner)
            return HeadOutput(logits, self.classifier(torch.sigmoid(logits)) if self.classifier else None, inner)


class SlicedHead(HashHead):
    """`HashHead` with DNNH's divide-and-encode module for a hash layer: ``slice_width`` features for each bit.

    Source: Lai et al., "Simultaneous feature learning and hash coding with deep neural networks", CVPR 2015, 3.2.
    """

    def __init__(self, *args, slice_width=50, **options):
        self.slice_width = slice_width
        super().__init__(*args, **options)

    def hash_layer(self, width, bits):
        return nn.Sequential(nn.Linear(width, bits * self.slice_width), DivideAndEncode(bits, self.slice_width))


class DivideAndEncode(nn.Module):
    """Each bit from its own slice alone: (n, bits * slice_width) -> (n, bits)."""

    def __init__(self, bits, slice_width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(bits, slice_width))
        self.bias = nn.Parameter(torch.zeros(bits))
        nn.init.uniform_(self.weight, -(slice_width**-0.5), slice_width**-0.5)

    def forward(self, x):
        return (x.unflatten(1, self.weight.shape) * self.weight).sum(dim=2) + self.bias


class ProjectionHead(Head):
    """Linear bits of the `descriptor`: features (n, 512, side, side) -> `HeadOutput` without scores.

    logits = (descriptor - mean) @ weight; the parameters are set by a method's ``fit``.
    """

    def __init__(self, bits, classes=0, side=7):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(CHANNELS))
        self.weight = nn.Parameter(torch.zeros(CHANNELS, bits))

    def read(self, features):
        return HeadOutput((descriptor(features) - self.mean) @ self.weight, None)


class KernelHead(Head):
    """Bits of RBF kernels on anchors: features (n, 512, side, side) -> `HeadOutput` without scores.

    logits = (exp(-|x - anchor|^2 / (2 sigma)) - mean) @ weight, x the `descriptor`. Source: Liu et al., "Supervised
    hashing with kernels", CVPR 2012, formula (2).
    """

    def __init__(self, bits, classes=0, side=7, anchors=1):
        super().__init__()
        self.bits = bits
        self.set(torch.zeros(anchors, CHANNELS), torch.ones(()))

    def set(self, anchors, sigma):
        """Take other anchors (m, 512) and kernel width; mean and weights begin at zero."""
        self.anchors, self.sigma = nn.Parameter(anchors), nn.Parameter(sigma)
        self.mean = nn.Parameter(anchors.new_zeros(len(anchors)))
        self.weight = nn.Parameter(anchors.new_zeros(len(anchors), self.bits))

    def kernel(self, x):
        """Centred kernel of descriptors with the anchors: (n, 512) -> (n, anchors)."""
        squared = torch.cdist(x, self.anchors).square()
        return torch.exp(-squared / (2 * self.sigma)) - self.mean

    def read(self, features):
        return HeadOutput(self.kernel(descriptor(features)) @ self.weight, None)


def descriptor(features):
    """What the shallow methods hash: the mean over all places, of unit length. (n, 512, h, w) -> (n, 512).

    Source: SPoC, Babenko & Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015.
    """
    return nn.functional.normalize(features.float().mean(dim=(2, 3)), dim=1)
