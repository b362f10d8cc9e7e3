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
        places: part of ``agreement`` that each place adds, float32 (h, w): what would be lost, to first order, were
            its features zero. What the places leave is due to the biases of the layers.
        channels: the same of each channel, float32 (512,).
        strongest: numbers of the channels that add most, int64 (k,), the first adding most of all.
        activations: those channels behind the gates, float32 (k, h, w).
        spatial: gate of each place, float32 (h, w) in (0, scale); None without attention.
        channel: gate of each channel, float32 (512,) in (0, scale); None without attention.
    """

    values: np.ndarray
    agreement: float
    places: np.ndarray
    channels: np.ndarray
    strongest: np.ndarray
    activations: np.ndarray
    spatial: np.ndarray | None
    channel: np.ndarray | None


def attribute(encoder, features, code=None, k=4):
    """Attribute the codes of photographs to places and channels: -> a list of `Attribution`.

    Costs the head forth and back; the convolutions are those that encoding needs anyway.

    Args:
        encoder: an `hashret.models.encoder.Encoder`, with any head.
        features: what its ``convolutions`` give, (n, 512, h, w).
        code: the wanted bits, (bits,) of 0 and 1, those of another photograph; None for each one's own.
        k: how many of the strongest channels are kept.
    """
    return [row for _, n, padded in encoder.padded(features) for row in _attribute(encoder.head, padded, n, code, k)]


def _attribute(head, padded, n, code, k):
    attended, channel, spatial = _gated(head, padded, n)
    attended.requires_grad_()
    output = head.read(attended)
    values = output.values[:n].detach().float().cpu().numpy()
    signs = 2 * torch.as_tensor(binarize(values) if code is None else code).to(output.logits) - 1
    agreement = (output.logits[:n] * signs).sum(dim=1)
    [slope] = torch.autograd.grad(agreement.sum(), attended)
    activations = attended.detach()[:n]
    contributions = activations * slope[:n]
    places, channels = contributions.sum(dim=1), contributions.sum(dim=(2, 3))
    strongest = channels.argsort(dim=1, descending=True, stable=True)[:, :k]
    kept = activations.take_along_dim(strongest[:, :, None, None], dim=1)
    columns = [column.cpu().numpy() for column in (places, channels, strongest, kept)]
    return [Attribution(*row) for row in zip(values, agreement.tolist(), *columns, spatial, channel, strict=True)]


@torch.no_grad()
def _gated(head, features, n):
    """The features behind the gates, and both gates of the first n photographs, n times None without attention."""
    if not isinstance(head.attention, CBAM):
        return features, [None] * n, [None] * n
    attended, channel, spatial = head.attention.attend(features)
    return attended, channel[:n].flatten(1).cpu().numpy(), spatial[:n].squeeze(1).cpu().numpy()
