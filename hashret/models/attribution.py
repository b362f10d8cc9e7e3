"""Where a code comes from: what CBAM's gates weigh, and what each cell of the feature map adds to the bits.

A gate says how a cell is weighed, not what the layers behind it make of it. The contributions do: the gradient of the
hash layer's logits times the gated feature map, as in Grad-CAM (Selvaraju et al., ICCV 2017), but cell by cell and with
the sign kept. Against the bits of another photograph they say what makes the two similar, the form for retrieval of
Stylianou et al., "Visualizing deep similarity networks", WACV 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..bits import HashOutputs, Positions, binarize
from ..renamed import old_attributes
from .attention import CBAM
from .encoder import Encoder
from .heads import Head

Floats = npt.NDArray[np.float32]


@old_attributes
@dataclass(frozen=True)
class Attribution:
    """What decides the code of one photograph, on the h x w cells of its feature map of c channels.

    Attributes:
        hash_outputs: float32 (bits,), those of `Encoder.outputs`.
        agreement: sum of the logits, each times +1 where the wanted bit is 1 and -1 where it is 0. With the
            photograph's own bits it is the sum of their sizes.
        cells: first-order estimate of how much ``agreement`` falls if a cell's features were zero, float32 (h, w). The
            cells do not sum to ``agreement``; the difference comes from the biases of the layers.
        channels: the same of each channel, float32 (c,).
        strongest: numbers of the channels that add most, int64 (k,), the first adding most of all.
        activations: those channels behind the gates, float32 (k, h, w).
        spatial: gate of each cell, float32 (h, w) in (0, scale); None without attention.
        channel: gate of each channel, float32 (c,) in (0, scale); None without attention.
        resize: how the photograph became the square on which the cells lie, see `hashret.data.images.read_image`.
    """

    hash_outputs: HashOutputs
    agreement: float
    cells: Floats
    channels: Floats
    strongest: Positions
    activations: Floats
    spatial: Floats | None
    channel: Floats | None
    resize: str = "squeeze"


def attribute(
    encoder: Encoder, feature_maps: npt.NDArray[np.float16] | Tensor, code: npt.ArrayLike | None = None, k: int = 4
) -> list[Attribution]:
    """Attribute the codes of photographs to cells and channels: -> one `Attribution` a photograph.

    That costs the head forth and back; the feature maps are those that encoding needs anyway.

    Args:
        encoder: an encoder with any head.
        feature_maps: what its ``backbone`` gives, (n, c, h, w).
        code: the wanted bits, (bits,) of 0 and 1, those of another photograph; None for each photograph's own.
        k: how many of the strongest channels are kept.
    """
    batches = encoder.padded(feature_maps)
    made = (one for _, n, padded in batches for one in _attribute(encoder.head, padded, n, code, k))
    return [replace(one, resize=encoder.resize) for one in made]


def _attribute(head: Head, padded: Tensor, n: int, code: npt.ArrayLike | None, k: int) -> Iterator[Attribution]:
    """Yield the attributions of the first ``n`` of some feature maps."""
    attended, channel_gates, spatial_gates = _gated(head, padded, n)
    attended.requires_grad_()
    output = head.read(attended)
    hash_outputs = output.hash_outputs[:n].detach().float().cpu().numpy()
    signs = 2 * torch.as_tensor(binarize(hash_outputs) if code is None else code).to(output.logits) - 1
    agreement = (output.logits[:n] * signs).sum(dim=1)
    [slope] = torch.autograd.grad(agreement.sum(), attended)
    activations = attended.detach()[:n]
    contributions = activations * slope[:n]
    cells, channels = contributions.sum(dim=1), contributions.sum(dim=(2, 3))
    strongest = channels.argsort(dim=1, descending=True, stable=True)[:, :k]
    kept = activations.take_along_dim(strongest[:, :, None, None], dim=1)
    columns = [column.cpu().numpy() for column in (cells, channels, strongest, kept)]
    rows = zip(hash_outputs, agreement.tolist(), *columns, spatial_gates, channel_gates, strict=True)
    return (Attribution(*row) for row in rows)


@torch.no_grad()
def _gated(head: Head, feature_maps: Tensor, n: int) -> tuple[Tensor, Sequence[Floats | None], Sequence[Floats | None]]:
    """Return feature maps behind the attention, and the channel and spatial gates of the first n, n times None where
    the attention is no CBAM.
    """
    if not isinstance(head.attention, CBAM):
        return head.attention(feature_maps), [None] * n, [None] * n
    attended, channel, spatial = head.attention.attend(feature_maps)
    return attended, list(channel[:n].flatten(1).cpu().numpy()), list(spatial[:n].squeeze(1).cpu().numpy())
