"""Photographs that wait are encoded as one batch, by one thread beside the event loop.

Nothing waits for company: a photograph that finds the encoder idle is encoded at once, and those that come meanwhile
make the next batch. Under load batches grow by themselves, and a batch costs less than its photographs one by one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Busy(Exception):
    """More photographs wait than are to be kept in memory."""


@dataclass(frozen=True)
class Encoded:
    """A photograph's ``values`` float32 (bits,), its convolution ``features`` float16 (c, h, w), and the ``seconds``
    that its batch took when it was its turn.
    """

    values: np.ndarray
    features: np.ndarray
    seconds: float


@dataclass
class _Job:
    encoder: Any
    pixels: np.ndarray
    future: Future = field(default_factory=Future)


class Batcher:
    """Encodes photographs in batches.

    Args:
        most: photographs a batch.
        waiting: photographs that may wait; one more is refused.
        on_batch: called with the size of each batch, in the encoding thread.
    """

    def __init__(self, most=32, waiting=256, on_batch=lambda size: None):
        self.most, self.waiting, self.on_batch = most, waiting, on_batch
        self.jobs, self.changed, self.closed = deque(), threading.Condition(), False
        self.thread = threading.Thread(target=self._work, name="hashret-encode", daemon=True)
        self.thread.start()

    async def encode(self, encoder, pixels):
        """A decoded photograph uint8 (3, s, s) -> `Encoded`. Raises Busy, or what the encoder raises."""
        job = _Job(encoder, pixels)
        with self.changed:
            if len(self.jobs) >= self.waiting or self.closed:
                raise Busy
            self.jobs.append(job)
            self.changed.notify()
        return await asyncio.wrap_future(job.future)

    def close(self):
        """Encode what waits, then end."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def _work(self):
        while batch := self._next():
            wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]  # others hung up
            if wanted:
                self._encode(wanted)

    def _next(self):
        """The next batch, all for one encoder: a service whose index was replaced has photographs for both."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.closed)
            batch = []
            while self.jobs and len(batch) < self.most and (not batch or self.jobs[0].encoder is batch[0].encoder):
                batch.append(self.jobs.popleft())
            return batch

    def _encode(self, jobs):
        started, encoder = time.perf_counter(), jobs[0].encoder
        try:
            features = encoder.convolutions(np.stack([job.pixels for job in jobs]))
            values, _ = encoder.outputs(features)
            features = features.cpu().numpy()
        except Exception as error:  # the thread must live; each request answers for itself
            for job in jobs:
                job.future.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self.on_batch(len(jobs))
        for job, row, feature in zip(jobs, values, features, strict=True):
            job.future.set_result(Encoded(row, feature, seconds))
