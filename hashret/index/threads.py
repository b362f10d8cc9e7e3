"""How many threads faiss takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """Let faiss take at most ``n`` threads.

    OpenMP waits for every thread, even for one that got no query, and on a busy machine that wait is long.
    """
    threads = faiss.omp_get_max_threads()  # OpenMP keeps this number for each calling thread
    faiss.omp_set_num_threads(max(1, min(n, threads)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
