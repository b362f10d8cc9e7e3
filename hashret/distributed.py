"""torch.distributed where `torchrun` started several processes; plain single-process answers elsewhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta


def rank():
    """Number of this process, 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def world():
    """Number of processes, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main():
    """Whether this process is the one that talks and writes what is written once."""
    return rank() == 0


def local_device(device):
    """The CUDA device of this rank, where the device is CUDA."""
    import torch

    if device.type == "cuda" and world() > 1:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device):
    """Join the group that torchrun made (nccl on CUDA, gloo on CPU), and leave it at the end."""
    if world() == 1:
        yield
        return
    import torch.distributed as dist

    started = not dist.is_initialized()
    if started:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(days=7))  # ranks drift apart in long work
    try:
        yield
        barrier()
    finally:
        if started:
            dist.destroy_process_group()


def barrier():
    """Wait for the other processes."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier()
