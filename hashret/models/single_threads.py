"""Threads that each compute with one thread of torch, for the heads that torch runs beside OpenVINO.

OpenMP's threads keep the processors busy while they wait for one another, from OpenVINO's and from threads that take a
tile of a product each. torch's number of threads cannot be lowered for a while, though: a thread takes the number of
the process when it first asks torch, and keeps it for good. So it is lowered once, in threads of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_pools: dict[int, ThreadPoolExecutor] = {}  # by their number of threads
_lock = threading.Lock()
os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of the threads


def single_threads(count: int) -> Executor:
    """Return ``count`` threads that compute with one thread of torch each, the same ones at every call.

    Args:
        count: the number of threads of torch in the calling thread, which goes on to be that of the process.
    """
    with _lock:
        if count not in _pools:
            pool, all_begun = ThreadPoolExecutor(count, "hashret-head"), threading.Barrier(count + 1)
            for _ in range(count):
                pool.submit(_begin, all_begun)
            all_begun.wait()
            torch.set_num_threads(count)  # as it was, for threads that ask torch from now on
            _pools[count] = pool
        return _pools[count]


def _begin(all_begun: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread that first asks torch later would take the number of the process
    torch.set_num_threads(1)
    all_begun.wait()


def in_threads(pool: Executor, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what a function gives for each of some items, without gradients: inference mode holds in one thread."""
    return list(pool.map(torch.inference_mode()(function), items))
