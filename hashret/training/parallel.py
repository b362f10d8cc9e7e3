"""Training shared by several processes, with the result of one: the same batches, the same dropout, the same loss.

Each process takes its part of a batch through the network and tells the others what came out. All then take the loss
of the whole batch, since it may compare photographs with each other, and let it flow back through their own part.
The sum of these gradients is that of one process on the whole batch, up to rounding.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..distributed import barrier, is_main, rank, world
from ..models.heads import HeadOutput


class Share:
    """The part of each batch that this process computes: of row numbers, every n-th; all where it is alone."""

    def parallel(self, module):
        """The module as all processes train it together; its gradient is the sum of theirs."""
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

    def of(self, batch):
        """This process's part of a batch, as it is of any list of rows."""
        return batch[rank() :: world()]

    def take(self, batch, rows):
        """Note that of a batch the photographs ``rows`` go through the network here: those of `of` that are readable.

        Without any, a blank image takes their place, so that the processes keep step.
        """
        self.size, self.places = len(batch), np.flatnonzero(np.isin(batch, rows))

    def gathered(self, output, batch):
        """What all processes computed of a batch: this one's `HeadOutput` -> that of the batch, its readable rows."""
        if world() == 1:
            return output, batch[self.places]
        columns = output.logits if output.scores is None else torch.cat([output.logits, output.scores], dim=1)
        own = columns.new_zeros(self.size, columns.shape[1] + 1)  # the last says which rows are there
        own[self.places, :-1] = columns[: len(self.places)]
        own[self.places, -1] = 1
        whole = own.detach().clone()
        dist.all_reduce(whole)
        there = whole[:, -1] > 0
        whole = (own + (whole - own.detach()))[there, :-1]  # own rows keep their gradient
        bits = output.logits.shape[1]
        scores = None if output.scores is None else whole[:, bits:]
        return HeadOutput(whole[:, :bits], scores), batch[there.cpu().numpy()]

    def backward(self, loss):
        """Gradients of a loss that all processes have computed; `DistributedDataParallel` takes their mean."""
        (loss * world()).backward()

    def computed(self, rows, compute, width):
        """An array with a line for each of some rows: ``compute(rows)`` -> float32 (n, width), shared by all."""
        if world() == 1:
            return compute(rows)
        whole, mine = torch.zeros(len(rows), width), self.of(rows)
        if len(mine):
            whole[rank() :: world()] = torch.from_numpy(compute(mine))
        dist.all_reduce(whole)
        return whole.numpy()


class SharedDropout(nn.Dropout):
    """Dropout that is drawn for the whole batch, from generators in the same state, of which each process takes its
    part.
    """

    def __init__(self, p, share):
        super().__init__(p)
        self.share = share

    def forward(self, x):
        if not self.training:
            return x
        drawn = F.dropout(x.new_ones(self.share.size, *x.shape[1:]), self.p)
        return x * drawn[self.share.places] if len(self.share.places) else x


def _share_dropout(module, share):
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, SharedDropout(child.p, share))
