"""Photographs in batches, decoded by worker processes beside the network."""

from __future__ import annotations

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

    At most two batches a worker are in memory, however many photographs there are.

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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores, which were asked for
        loader: DataLoader[Batch] = DataLoader(
            _Decoder(source, size, transform, resize),  # type: ignore[arg-type]  # it has what a Dataset must have
            batch_sampler=row_lists,
            collate_fn=_collate,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            worker_init_fn=partial(_begin, heard, told) if workers else None,
        )
        iterator = iter(loader)  # the loader waits for its processes when nothing refers to this any more
    try:
        yield from iterator
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
    """Return how many images make a batch: 8 to 256, of 16 MiB of decoded pixels where that lies between them."""
    return max(8, min(256, 2**24 // (3 * image_size**2)))


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


class _Decoder:
    """Dataset whose items are pixels, or the reason why there are none."""

    def __init__(self, source: Source, size: int, transform: Transform | None, resize: str) -> None:
        self.source, self.size, self.transform, self.resize = source, size, transform, resize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> tuple[int, Pixels | str]:
        try:
            image = read_image(self.source.reference(row), self.size, resize=self.resize)
        except UnreadableImage as error:
            return int(row), str(error)
        return int(row), image if self.transform is None else self.transform(row, image)


def _collate(items: list[tuple[int, Pixels | str]]) -> Batch:
    good = [(row, image) for row, image in items if not isinstance(image, str)]
    return Batch(
        rows=np.array([row for row, _ in good], np.int64),
        images=np.stack([image for _, image in good]) if good else np.zeros((0, 3, 1, 1), np.uint8),
        skipped=[(row, reason) for row, reason in items if isinstance(reason, str)],
    )
