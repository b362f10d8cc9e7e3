"""Every page of results, from the JSON under benchmarks/results: python -m benchmarks.pages (with matplotlib)."""

from __future__ import annotations

from . import attention, damage, duplicates, gpu, latency, readme, scale, similarity, sync, tables, vectors, words

for page in (readme, tables, attention, latency, gpu, scale, damage, duplicates, similarity, sync, vectors, words):
    page.write()
