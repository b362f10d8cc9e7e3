"""Photographs that wait are encoded as one batch, by one thread beside the event loop.

Nothing waits for company: a photograph that finds the encoder idle is encoded at once, and those that come meanwhile
make the next batch. Under load batches grow by themselves, and a batch costs less than its photographs one by one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..models.encoder import Encoder


class Busy(Exception):
    """More photographs wait than the service keeps in memory."""


@dataclass(frozen=True)
class Encoded:
    """An encoded photograph.

    Attributes:
        hash_outputs: outputs of the hash layer, float32 (bits,).
        feature_map: output of the backbone, float16 (c, h, w).
        seconds: time that the batch took, without the wait for it.
    """

    hash_outputs: npt.NDArray[np.float32]
    feature_map: npt.NDArray[np.float16]
    seconds: float


@dataclass
class _Job:
    encoder: Encoder
    pixels: npt.NDArray[np.uint8]
    future: Future[Encoded] = field(default_factory=Future)


class Batcher:
    """Encodes photographs in batches.

    Args:
        most: photographs a batch.
        waiting: photographs that may wait; one more is refused.
        on_batch: called with the size of each batch, in the encoding thread.
    """

    def __init__(self, most: int = 32, waiting: int = 256, on_batch: Callable[[int], None] = lambda size: None) -> None:
        self.most, self.waiting, self.on_batch = most, waiting, on_batch
        self.jobs: deque[_Job] = deque()
        self.changed, self.closed = threading.Condition(), False
        self.thread = threading.Thread(target=self._work, name="hashret-encode", daemon=True)
        self.thread.start()

    async def encode(self, encoder: Encoder, pixels: npt.NDArray[np.uint8]) -> Encoded:
        """Encode a decoded photograph, uint8 (3, s, s).

        Raises:
            Busy: too many others wait.
            Exception: whatever the encoder raised on the batch.
        """
        job = _Job(encoder, pixels)
        with self.changed:
            if len(self.jobs) >= self.waiting or self.closed:
                raise Busy
            self.jobs.append(job)
            self.changed.notify()
        return await asyncio.wrap_future(job.future)

    def close(self) -> None:
        """Encode the photographs that wait, then end the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def _work(self) -> None:
        while batch := self._next():
            wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]  # others hung up
            if wanted:
                self._encode(wanted)

    def _next(self) -> list[_Job]:
        """Return the next batch, all for one encoder: for a while after the index was replaced there are two."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closed)
            batch: list[_Job] = []
            while self.jobs and len(batch) < self.most and (not batch or self.jobs[0].encoder is batch[0].encoder):
                batch.append(self.jobs.popleft())
            return batch

    def _encode(self, jobs: list[_Job]) -> None:
        started, encoder = time.perf_counter(), jobs[0].encoder
        try:
            computed = encoder.backbone(np.stack([job.pixels for job in jobs]))
            hash_outputs, _ = encoder.outputs(computed)
            feature_maps = computed.cpu().numpy()
        except Exception as error:  # the thread must live; each request answers for itself
            for job in jobs:
                job.future.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self.on_batch(len(jobs))
        for job, outputs, feature_map in zip(jobs, hash_outputs, feature_maps, strict=True):
            job.future.set_result(Encoded(outputs, feature_map, seconds))
