"""Training shared by several processes, with the result of one: the same batches, the same dropout, the same loss.

Each process takes its part of a batch through the network and tells the others what came out. All then take the loss
of the whole batch, since it may compare photographs with each other, and let it flow back through their own part.
The sum of these gradients is that of one process on the whole batch, up to rounding.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..bits import HashOutputs, Positions
from ..distributed import barrier, is_main, rank, world
from ..models.heads import HeadOutput


class BatchShard:
    """The part of each batch that this process computes: every n-th photograph; all where the process is alone.

    Attributes:
        batch_size: photographs in the whole batch.
        positions: where the photographs that this process computes stand in the batch.
        normalizes_alone: whether layers normalize by what this process computes alone.
    """

    def __init__(self) -> None:
        self.batch_size = 0
        self.positions: Positions = np.zeros(0, np.int64)
        self.normalizes_alone = False

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return the module as all processes train it together; its gradient is the sum of theirs.

        Its layers stay the same objects, which other modules may have, too, and only compute otherwise.
        """
        if world() == 1:
            return module
        share_dropout(module, self)
        if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
            if next(module.parameters()).is_cuda:
                synchronize_normalization(module)
            else:
                self.normalizes_alone = True
                if is_main():
                    warnings.warn("on a CPU, each process normalizes by its own part of the batch", stacklevel=2)
        barrier()
        # Networks of others may have parameters that their feature map does not depend on.
        return DistributedDataParallel(module, find_unused_parameters=True)

    def of(self, batch: Positions) -> Positions:
        """Return this process's part of a batch, or of any other list of source rows."""
        return batch[rank() :: world()]

    def take(self, batch: Positions, readable: Positions) -> None:
        """Record which photographs of a batch this process computes: those of `of(batch)` that could be read.

        Where none could, the process computes a blank image, so that all keep step.
        """
        self.batch_size, self.positions = len(batch), np.flatnonzero(np.isin(batch, readable))

    def padded(self, inputs: Tensor) -> Tensor:
        """Return the input of the module, twice where it is a single photograph that normalization would refuse.

        The mean over a feature map of one cell and one photograph is no mean. `gathered` takes the first output.
        """
        return inputs.repeat(2, 1, 1, 1) if self.normalizes_alone and len(inputs) == 1 else inputs

    def gathered(self, output: HeadOutput, batch: Positions) -> tuple[HeadOutput, Positions]:
        """Gather what all processes computed of a batch.

        Returns:
            The output for the photographs of the batch that could be read, and their source rows.
        """
        if world() == 1:
            return output, batch[self.positions]
        fields = {name: tensor for name, tensor in output._asdict().items() if tensor is not None}
        columns = torch.cat([*fields.values()], dim=1)
        own = columns.new_zeros(self.batch_size, columns.shape[1] + 1)  # the last column marks those that were read
        own[self.positions, :-1] = columns[: len(self.positions)]
        own[self.positions, -1] = 1
        whole = own.detach().clone()
        dist.all_reduce(whole)
        read = whole[:, -1] > 0
        whole = (own + (whole - own.detach()))[read, :-1]  # own photographs keep their gradient
        parts = whole.split([tensor.shape[1] for tensor in fields.values()], dim=1)
        return output._replace(**dict(zip(fields, parts, strict=True))), batch[read.cpu().numpy()]

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss that all processes share; `DistributedDataParallel` takes their mean."""
        (loss * world()).backward()

    def computed(self, source_rows: Positions, compute: Callable[[Positions], HashOutputs], width: int) -> HashOutputs:
        """Return ``compute(source_rows)``, float32 (n, width), to which each process adds its part."""
        if world() == 1:
            return compute(source_rows)
        whole, mine = torch.zeros(len(source_rows), width), self.of(source_rows)
        if len(mine):
            whole[rank() :: world()] = torch.from_numpy(compute(mine))
        dist.all_reduce(whole)
        return whole.numpy()


def share_dropout(module: nn.Module, shard: BatchShard) -> None:
    """Let every process draw the dropout of a module for the whole batch, from the same seed, to apply its part."""
    for layer in module.modules():
        if type(layer) is nn.Dropout and layer.p > 0:
            layer.forward = partial(_shared_dropout, layer, shard)  # type: ignore[method-assign]


def _shared_dropout(layer: nn.Dropout, shard: BatchShard, x: Tensor) -> Tensor:
    """Apply a layer's dropout to this process's part of a batch.

    A photograph may have several rows, one after the other, as the windows of a transformer are. Where rows are no
    photographs, the process draws for itself.
    """
    if not layer.training:
        return x
    of_each, more = divmod(len(x), max(1, len(shard.positions)))
    if more:
        return F.dropout(x, layer.p)
    whole = x.new_ones(shard.batch_size * of_each, *x.shape[1:])
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):  # numbers are drawn in the order of memory
        whole = whole.contiguous(memory_format=torch.channels_last)
    drawn = F.dropout(whole, layer.p)
    rows = (shard.positions[:, None] * of_each + np.arange(of_each)).ravel()
    return x * drawn[rows] if len(rows) else x


def synchronize_normalization(module: nn.Module) -> None:
    """Let each batch normalization of a module normalize by what all processes compute."""
    timm: Any = sys.modules.get("timm")  # whose own layers have an activation that torch would leave out
    convert = timm.layers.convert_sync_batchnorm if timm else nn.SyncBatchNorm.convert_sync_batchnorm
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            layer.forward = partial(_synchronized, layer, convert(layer))  # type: ignore[method-assign]


def _synchronized(layer: nn.Module, synchronized: Any, x: Tensor) -> Tensor:
    """Compute a layer as the layer that shares its tensors and normalizes by what all processes compute."""
    normalized: Tensor = synchronized.train(layer.training)(x)
    return normalized
