"""What makes training on a CPU faster, and changes nothing of what is learned but the last digits."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Parameters of glibc's mallopt and their defaults, from malloc.h and the manual page mallopt(3).
_TRIM_THRESHOLD, _TRIM_DEFAULT = -1, 128 * 1024
_MMAP_MAX, _MMAP_DEFAULT = -4, 65536
_NEVER = -1  # as a threshold for giving memory back


@contextmanager
def fast_training(module: nn.Module) -> Iterator[None]:
    """Train a module on the CPU in less time, see `freed_memory_kept` and `depthwise_in_float32`."""
    with freed_memory_kept(), depthwise_in_float32(module):
        yield


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep memory that is freed for what is allocated next, and give it back at the end.

    glibc returns large blocks, as gradients and activations are, to the kernel at once. Each step then gets the same
    memory anew, page by page and filled with zeros, which is a third of what a step of VGG16's head costs
    (`benchmarks/run/train_step.py`). Nothing is done where there is no glibc.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _MMAP_DEFAULT)
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        libc.malloc_trim(0)


@contextmanager
def depthwise_in_float32(module: nn.Module) -> Iterator[None]:
    """Let convolutions of groups of channels, as depthwise ones are, compute in float32 while they train in bfloat16.

    Gradients of depthwise ones take torch more than twice as long in bfloat16. Without gradients, as where held-out
    images are encoded, all compute as they always do, so that codes are those of the trained encoder.
    """
    depthwise = [part for part in module.modules() if isinstance(part, nn.Conv2d) and part.groups > 1]
    for convolution in depthwise:
        convolution.forward = partial(_in_float32, convolution.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for convolution in depthwise:
            del convolution.forward  # the class's own is called again


def _in_float32(forward: Any, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        result: Tensor = forward(x)
        return result
    with torch.autocast(x.device.type, enabled=False):
        result = forward(x.float())
        return result


def _glibc() -> Any:
    """Return the C library where it is glibc, or None."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
    except (OSError, AttributeError, TypeError):  # macOS and musl lack the name, Windows such a library
        return None
    return libc
