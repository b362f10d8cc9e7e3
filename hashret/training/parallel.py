"""Training shared by several processes, with the result of one: the same batches, the same dropout, the same loss.

Each process takes its part of a batch through the network and tells the others what came out. All then take the loss
of the whole batch, since it may compare photographs with each other, and let it flow back through their own part.
The sum of these gradients is that of one process on the whole batch, up to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..bits import HashOutputs, Positions
from ..distributed import barrier, is_main, rank, world
from ..models.heads import HeadOutput


class BatchShard:
    """The part of each batch that this process computes: every n-th photograph; all where the process is alone.

    Attributes:
        batch_size: photographs in the whole batch.
        positions: where the photographs that this process computes stand in the batch.
    """

    def __init__(self) -> None:
        self.batch_size = 0
        self.positions: Positions = np.zeros(0, np.int64)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return the module as all processes train it together; its gradient is the sum of theirs."""
        if world() == 1:
            return module
        _share_dropout(module, self)
        if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
            if next(module.parameters()).is_cuda:
                nn.SyncBatchNorm.convert_sync_batchnorm(module)
            elif is_main():
                warnings.warn("on a CPU, each process normalizes by its own part of the batch", stacklevel=2)
        barrier()
        return DistributedDataParallel(module)

    def of(self, batch: Positions) -> Positions:
        """Return this process's part of a batch, or of any other list of source rows."""
        return batch[rank() :: world()]

    def take(self, batch: Positions, readable: Positions) -> None:
        """Record which photographs of a batch this process computes: those of `of(batch)` that could be read.

        Where none could, the process computes a blank image, so that all keep step.
        """
        self.batch_size, self.positions = len(batch), np.flatnonzero(np.isin(batch, readable))

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


class SharedDropout(nn.Dropout):
    """Dropout that every process draws for the whole batch, from the same seed, to apply its part."""

    def __init__(self, p: float, shard: BatchShard) -> None:
        super().__init__(p)
        self.shard = shard

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        drawn = F.dropout(x.new_ones(self.shard.batch_size, *x.shape[1:]), self.p)
        return x * drawn[self.shard.positions] if len(self.shard.positions) else x


def _share_dropout(module: nn.Module, shard: BatchShard) -> None:
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, SharedDropout(child.p, shard))
