"""Photographs in batches, decoded by worker processes beside the network."""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..bits import Positions
from ..distributed import local_world, world
from ..errors import HashretError
from .images import UnreadableImage, read_image
from .source import Source

Pixels = npt.NDArray[np.uint8]  # (3, s, s)
Transform = Callable[[int, Pixels], Pixels]
_AHEAD = 2  # batches that each worker decodes before they are asked for
Rows = TypeVar("Rows", Positions, list[int], list[str], range)


@dataclass
class Batch:
    """Decoded photographs: ``rows`` (n,) of the source, ``images`` uint8 (n, 3, s, s) or, of vectors, float32
    (n, width), and ``skipped``, pairs (row, reason) of those that could not be read.
    """

    rows: Positions
    images: npt.NDArray[Any]
    skipped: list[tuple[int, str]]


def batches(
    source: Source,
    size: int,
    row_batches: Iterable[list[int]],
    workers: int | None = None,
    transform: Transform | None = None,
    *,
    resize: str = "squeeze",
) -> Iterator[Batch]:
    """Yield a `Batch` for each list of rows in ``row_batches``, in order.

    At most two batches a worker are in memory, however many photographs there are. Where processes begin as copies of
    this one, the workers write pixels to memory that they share with it, and not through a pipe. A process that uses a
    GPU is not copied, which took 4.5 s a worker on an H100: its workers begin by "forkserver", so that a script needs
    ``if __name__ == "__main__"`` there.

    Args:
        size: side of the decoded images in pixels.
        row_batches: a list of lists of rows.
        workers: decoding processes; None for one a core, at most eight, shared among the processes of torchrun; 0 to
            decode here.
        transform: called in the worker as ``transform(row, image)`` -> image.
        resize: how photographs become squares, see `hashret.data.images.read_image`.
    """
    from torch.utils.data import DataLoader

    row_lists = list(row_batches)
    if workers is None:
        workers = min(8, max(1, (os.cpu_count() or 1) // local_world()), len(row_lists))
    heard, told = multiprocessing.Pipe(duplex=False)
    context = _context()
    shared = None if transform else _shared_images(size, row_lists, workers, context)  # it may change the shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores, which were asked for
        loader: DataLoader[Batch] = DataLoader(
            _Decoder(source, size, transform, resize, shared),  # type: ignore[arg-type]  # it has what a Dataset must
            batch_sampler=list(enumerate(row_lists)),  # type: ignore[arg-type]  # what `_Decoder` takes
            collate_fn=_same,  # type: ignore[arg-type]  # which gets what `_Decoder` returns
            num_workers=workers,
            multiprocessing_context=context if workers else None,
            prefetch_factor=_AHEAD if workers else None,
            worker_init_fn=partial(_begin, heard, told) if workers else None,
        )
        iterator = iter(loader)  # the loader waits for its processes when nothing refers to this any more
    try:
        for number, batch in enumerate(iterator):
            if shared is not None:  # which another batch will take
                batch.images = shared[number % len(shared), : len(batch.rows)].copy()
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise HashretError(
            f"a decoding process died, for want of memory perhaps ({error})", hint="try --workers 0"
        ) from None
    finally:  # a run that is interrupted does not wait for what they are decoding
        with suppress(OSError):
            os.write(told.fileno(), bytes(workers))
        told.close()
        heard.close()


def split_rows(rows: Rows, size: int) -> list[Rows]:
    """Cut a sequence of rows into lists of at most ``size``."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def batch_size(image_size: int) -> int:
    """Return how many images make a batch: 8 to 256, of at most 16 MiB of decoded pixels where that lies between them.

    Many are a multiple of 32, which the network takes at once.
    """
    most = max(8, min(256, 2**24 // (3 * image_size**2)))
    return most if most < 32 else most // 32 * 32


def _begin(heard: Connection, told: Connection, _worker: int) -> None:
    """Make a decoding process end when it is told to, or when the process that it decodes for is gone, however that
    ended. Ctrl-C, and SIGTERM under torchrun, are for that process, which ends its workers itself.
    """
    told.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if world() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end, args=(heard,), daemon=True).start()


def _end(heard: Connection) -> None:
    # A byte for each process, as several that read a longer message would take parts of it from one another.
    with suppress(OSError):
        os.read(heard.fileno(), 1)
    os._exit(0)


def _context() -> BaseContext:
    """Return how decoding processes begin."""
    import torch

    method = multiprocessing.get_start_method()
    if method == "fork" and torch.cuda.is_initialized():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        return context
    return multiprocessing.get_context(method)


def _shared_images(size: int, row_lists: list[list[int]], workers: int, context: BaseContext) -> Pixels | None:
    """Return memory for the images of each batch that may be under way, (batches, n, 3, s, s).

    None where there is none that decoding processes have in common with this one, or no such processes.
    """
    if not (workers and row_lists) or context.get_start_method() != "fork":
        return None
    shape = (_AHEAD * workers + 1, max(map(len, row_lists)), 3, size, size)
    try:
        memory = mmap.mmap(-1, math.prod(shape))  # not of /dev/shm, which containers often have little of
    except OSError:
        return None
    return np.frombuffer(memory, np.uint8).reshape(shape)


class _Decoder:
    """Dataset whose items are batches, by their number and rows; any shared memory has their pixels."""

    def __init__(
        self, source: Source, size: int, transform: Transform | None, resize: str, shared: Pixels | None
    ) -> None:
        self.source, self.size, self.transform, self.resize, self.shared = source, size, transform, resize, shared

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, numbered: tuple[int, list[int]]) -> Batch:
        number, rows = numbered
        images = [] if self.shared is None else self.shared[number % len(self.shared)]
        good: list[int] = []
        skipped: list[tuple[int, str]] = []
        for row in rows:
            try:
                image = read_image(self.source.reference(row), self.size, resize=self.resize)
            except UnreadableImage as error:
                skipped.append((int(row), str(error)))
                continue
            if isinstance(images, list):
                images.append(image if self.transform is None else self.transform(row, image))
            else:
                images[len(good)] = image
            good.append(int(row))
        apart = np.stack(images) if isinstance(images, list) and images else np.zeros((0, 3, 1, 1), np.uint8)
        return Batch(np.array(good, np.int64), apart, skipped)


def _same(batch: Batch) -> Batch:
    return batch
