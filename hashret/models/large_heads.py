"""The paper's head for many photographs at a time, where its weights are more than the processor's caches hold.

VGG16's first fully connected layer has 103 million weights. Read anew for every few photographs, they take longer to
come from memory than to multiply. Here they are taken in tiles that stay in the caches until all photographs have been
multiplied with them.

A photograph must have the same numbers alone and among others. A product's rounding depends on its shape, so that each
product is of a tile with a group of as many photographs as ever. One product of all groups is faster: VGG16's head
takes 0.6 of the time. It is used where its rows are, bit for bit, those of the groups' own products. Many libraries add
the terms of a number in an order that does not depend on the number of rows, but none promises that: it is tried.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Executor

import torch
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
    rows = len(groups[0])
    starts = range(0, layer.out_features, _TILE)
    tiles = {min(_TILE, layer.out_features - start) for start in starts}
    shapes = [(layer.in_features, tile, rows, len(groups)) for tile in tiles] if len(groups) > 1 else []
    together = all(in_threads(threads, _are_as_alone, shapes))
    multiplied = [torch.cat(list(groups))] if together else groups
    outputs = [x.new_empty(len(x), layer.out_features) for x in multiplied]

    def multiply(start: int) -> None:
        nodes = slice(start, start + _TILE)
        for x, y in zip(multiplied, outputs, strict=True):
            y[:, nodes] = nn.functional.linear(x, layer.weight[nodes], layer.bias[nodes])

    in_threads(threads, multiply, starts)
    return list(outputs[0].split(rows)) if together else outputs


@functools.cache
def _are_as_alone(shape: tuple[int, int, int, int]) -> bool:
    """Whether the product of a tile with several groups has the rows of the products with each group, bit for bit.

    Args:
        shape: inputs and nodes of the tile, rows of a group, number of groups.
    """
    inputs, nodes, rows, groups = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups * rows, inputs, generator=generator)
    weight, bias = (torch.randn(nodes, *more, generator=generator) for more in ((inputs,), ()))
    alone = [nn.functional.linear(group, weight, bias) for group in x.split(rows)]
    return torch.equal(nn.functional.linear(x, weight, bias), torch.cat(alone))
