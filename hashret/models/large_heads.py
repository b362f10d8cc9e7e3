"""The paper's head for many photographs at a time, where its weights are more than the processor's caches hold.

VGG16's first fully connected layer has 103 million weights. Read anew for every few photographs, they take longer to
come from memory than to multiply. Here they are taken in tiles that stay in the caches until all photographs have been
multiplied with them. A product's rounding depends on its shape, so that each product is of a tile with a group of as
many photographs as ever: the numbers are the same for one photograph and for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from torch import Tensor, nn

from .heads import HashHead, HeadOutput
from .single_threads import in_threads

_TILE = 64  # nodes of a layer at a time: 6 MB of the weights of VGG16's first


def outputs_of_groups(head: HashHead, groups: Sequence[Tensor], threads: Executor) -> list[HeadOutput]:
    """Return the outputs of a head for groups of feature maps, all of one shape: float32 (m, c, h, w) each.

    Args:
        head: which is on the CPU and learns no more.
        groups: some hundred feature maps at most, since what the layers give is kept of all.
        threads: see `hashret.models.single_threads`, which take a group or a tile each.
    """
    inner = in_threads(threads, head.attention, groups)
    for layer in head.fc:
        inner = _by_tiles(layer, inner, threads) if isinstance(layer, nn.Linear) else in_threads(threads, layer, inner)
    return in_threads(threads, head.hashed, inner)


def _by_tiles(layer: nn.Linear, groups: Sequence[Tensor], threads: Executor) -> list[Tensor]:
    """Return what a layer gives for groups (m, inputs), each (m, outputs)."""
    outputs = [group.new_empty(len(group), layer.out_features) for group in groups]

    def multiply(start: int) -> None:
        nodes = slice(start, start + _TILE)
        for x, y in zip(groups, outputs, strict=True):
            y[:, nodes] = nn.functional.linear(x, layer.weight[nodes], layer.bias[nodes])

    in_threads(threads, multiply, range(0, layer.out_features, _TILE))
    return outputs
