"""How many threads faiss takes."""

from __future__ import annotations

from contextlib import contextmanager

import faiss


@contextmanager
def at_most(n):
    """Let faiss take at most n threads: one without a query is still waited for, long on a busy machine."""
    threads = faiss.omp_get_max_threads()  # OpenMP keeps this number for each calling thread
    faiss.omp_set_num_threads(max(1, min(n, threads)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
