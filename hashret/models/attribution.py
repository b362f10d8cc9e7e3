"""Where a code comes from: what CBAM's gates weigh, and what each place of a photograph adds to the bits.

A gate says how a place is weighed, not what the layers behind it make of it. The contributions do: the gradient of the
hash layer's logits times the features that pass the gates, as in Grad-CAM (Selvaraju et al., ICCV 2017), but place by
place and with the sign kept. Against the bits of another photograph they say what the two are alike by, the form for
retrieval of Stylianou et al., "Visualizing deep similarity networks", WACV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..bits import binarize
from .attention import CBAM


@dataclass(frozen=True)
class Attribution:
    """What decides the code of one photograph, on the h x w places of the last feature map.

    Attributes:
        values: hash-layer values, float32 (bits,), those of `Encoder.outputs`.
        agreement: sum of the logits, each times +1 where the wanted bit is 1 and -1 where it is 0. With the
            photograph's own bits it is the sum of their sizes.
        contributions: part of ``agreement`` that each channel adds at each place, float32 (512, h, w): what would be
            lost, to first order, were it silent. The biases of the layers add the rest.
        activations: the features behind the gates, float32 (512, h, w).
        spatial: gate of each place, float32 (h, w) in (0, scale); None without attention.
        channel: gate of each channel, float32 (512,) in (0, scale); None without attention.
    """

    values: np.ndarray
    agreement: float
    contributions: np.ndarray
    activations: np.ndarray
    spatial: np.ndarray | None
    channel: np.ndarray | None

    @property
    def places(self):
        """Contribution of each place, all channels together: float32 (h, w)."""
        return self.contributions.sum(axis=0)

    @property
    def channels(self):
        """Contribution of each channel, all places together: float32 (512,)."""
        return self.contributions.sum(axis=(1, 2))

    def strongest(self, k=4):
        """Numbers of the ``k`` channels that add most, largest first."""
        return np.argsort(-self.channels, kind="stable")[:k]


def attribute(encoder, features, code=None):
    """Attribute the codes of photographs to channels and places: -> a list of `Attribution`.

    Costs the head forth and back; the convolutions are those that encoding needs anyway.

    Args:
        encoder: an `hashret.models.encoder.Encoder`, with any head.
        features: what its ``convolutions`` give, (n, 512, h, w).
        code: the wanted bits, (bits,) of 0 and 1, those of another photograph; None for each one's own.
    """
    return [row for _, n, padded in encoder.padded(features) for row in _attribute(encoder.head, padded, n, code)]


def _attribute(head, padded, n, code):
    attended, channel, spatial = _gated(head, padded, n)
    attended.requires_grad_()
    output = head.read(attended)
    values = output.values[:n].detach().float().cpu().numpy()
    signs = 2 * torch.as_tensor(binarize(values) if code is None else code).to(output.logits) - 1
    agreement = (output.logits[:n] * signs).sum(dim=1)
    [slope] = torch.autograd.grad(agreement.sum(), attended)
    activations = attended.detach()[:n]
    contributions = (activations * slope[:n]).cpu().numpy()
    rows = zip(values, agreement.tolist(), contributions, activations.cpu().numpy(), spatial, channel, strict=True)
    return [Attribution(*row) for row in rows]


@torch.no_grad()
def _gated(head, features, n):
    """The features behind the gates, and both gates of the first n photographs, n times None without attention."""
    if not isinstance(head.attention, CBAM):
        return features, [None] * n, [None] * n
    attended, channel, spatial = head.attention.attend(features)
    return attended, channel[:n].flatten(1).cpu().numpy(), spatial[:n].squeeze(1).cpu().numpy()
