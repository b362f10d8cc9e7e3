"""Several processes, as `torchrun` starts them: which one this is, waiting for each other, and ending together.

Hours of work may lie between two waits, so the processes wait through torchrun's key-value store and not by a
collective operation, whose time limit would have to be as long. Every few seconds each process adds to a count of its
own in the store. A process that waits sees by these counts that the others live, and ends when one no longer does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from .errors import HashretError

if TYPE_CHECKING:
    import torch

_BEAT = 2  # seconds between two signs of life
_SILENCE = 60  # seconds without one after which a process counts as lost
_START = 600  # the same for the first one: imports from a network drive take long
_STEP = timedelta(minutes=30)  # limit of a collective operation, which all enter at about the same time
_LOST = "a process of this run was lost, or the run was stopped; start it again to go on, hashret train with --resume"

if int(os.environ.get("WORLD_SIZE", 1)) > 1:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # warnings of a lost process come with stack traces


def rank() -> int:
    """Return the number of this process, 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Return the number of processes, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_world() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process is the one that talks and writes what is written once."""
    return rank() == 0


def local_device(device: torch.device) -> torch.device:
    """Return the CUDA device of this rank, where the device is CUDA."""
    import torch

    if device.type == "cuda" and world() > 1:
        number = int(os.environ.get("LOCAL_RANK", 0))
        if number >= torch.cuda.device_count():
            raise HashretError(f"{local_world()} processes share {torch.cuda.device_count()} GPUs; start one a GPU")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


class SaidElsewhereError(HashretError):
    """This run failed, and another of its processes has said why."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that torchrun made (nccl on CUDA, gloo on CPU), and leave it at the end; also a decorator.

    Raises:
        HashretError: a process of the group failed or was lost; all raise then, all but one `SaidElsewhereError`.
    """
    global _group
    if world() == 1 or _group:
        yield
        return
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    started = not dist.is_initialized()
    group = None
    try:
        _group = group = _Group()
        with _on_termination():
            barrier()
            if started:
                dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_STEP)
            yield
            barrier()
    except BaseException as error:
        if group and not group.is_first_to_fail():
            raise SaidElsewhereError("another process of this run has said what went wrong") from None
        if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise HashretError(_LOST) from None
        raise
    else:
        if started:
            dist.destroy_process_group()
    finally:
        _group = None
        if group:
            group.leave()


def barrier() -> None:
    """Wait for the other processes, as long as they live.

    Raises:
        HashretError: one of them failed, or has given no sign of life for a minute.
    """
    if _group:
        _group.wait()


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process do something before the others do."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


class _Group:
    """The processes of a run, seen through the store of torchrun."""

    def __init__(self) -> None:
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store = next(rendezvous("env://", timeout=timedelta(seconds=_START)))[0]
        store.set_timeout(timedelta(seconds=_SILENCE))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        self.store = PrefixStore(f"hashret {attempt} {next(_numbers)}", store)
        self.waits = 0
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        try:
            while True:
                self.store.add(f"alive {rank()}", 1)
                if self.closed.wait(_BEAT):
                    return
        except RuntimeError:  # the store is gone; the next wait says so
            return

    def wait(self) -> None:
        """Wait until all have come as far as this."""
        self.waits += 1
        key = f"wait {self.waits}"
        signs = dict.fromkeys(range(world()), (0, time.monotonic()))
        arrived, pause, looked = self.store.add(key, 1), 0.005, time.monotonic()
        while arrived < world():
            time.sleep(pause)
            pause = min(0.2, 1.5 * pause)
            if self.store.add("failed", 0):
                raise HashretError(_LOST)
            if time.monotonic() - looked > _BEAT:
                looked = time.monotonic()
                signs = {other: self._look(other, *sign) for other, sign in signs.items()}
            arrived = self.store.add(key, 0)

    def _look(self, other: int, signs: int, since: float) -> tuple[int, float]:
        """Count the signs of life of another process: -> (signs, since when there are so many)."""
        now: int = self.store.add(f"alive {other}", 0)
        if now != signs:
            return now, time.monotonic()
        if time.monotonic() - since > (_SILENCE if signs else _START):
            raise HashretError(f"process {other} of {world()} gives no sign of life; {_LOST}")
        return signs, since

    def is_first_to_fail(self) -> bool:
        """Whether no other process has failed before; from now on, none waits any more."""
        try:
            return bool(self.store.add("failed", 1) == 1)
        except RuntimeError:  # gone, with the process that held it
            return True

    def leave(self) -> None:
        """End the signs of life; without torchrun the main process holds the store, and lets the others go first."""
        self.closed.set()
        self.thread.join(_BEAT)
        with suppress(RuntimeError):
            gone, end = self.store.add("left", 1), time.monotonic() + 2 * _BEAT
            while is_main() and "TORCHELASTIC_RUN_ID" not in os.environ and gone < world() and time.monotonic() < end:
                time.sleep(0.01)
                gone = self.store.add("left", 0)


_group: _Group | None = None
_numbers = count()


@contextmanager
def _on_termination() -> Iterator[None]:
    """Let the SIGTERM that torchrun sends to the others when one is lost be an error, so that all is cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise HashretError(_LOST)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
