"""Drawn queries over drawn small indexes: do all exact engines answer as faiss `IndexBinaryFlat` does?

    python -m benchmarks.run.exact_fuzz --queries 1000000

Codes are of 8 to 256 bits in steps of 4 and of one of five kinds: uniform, clumped around centres, all in one bucket of
a table, near the edge at which the search by tables may stop, and few codes many times. Tables are cut in each way that
is allowed, not only in the best one. Distances, items and their order are compared for k = 1 to all items; a wrong
answer ends the run with what makes it again. The JSON says how many queries each engine answered.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import faiss
import numpy as np

from benchmarks.lib import common
from hashret.bits import pack, pad, padded_width
from hashret.index.distinct import group
from hashret.index.hamming import HammingStage
from hashret.index.multi_index import MultiIndex, make_tables
from hashret.index.substrings import Layout

KINDS = ("uniform", "clumped", "one bucket", "edge", "repeated")
QUERIES = 100  # of an index
_LONGEST_HERE = 14  # bits of a substring: longer ones have more buckets than these indexes have codes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    common.add_results(parser)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    started, number = time.perf_counter(), 0
    asked, by_kind, by_engine, widths = 0, Counter(), Counter(), Counter()
    while asked < options.queries:
        rng = np.random.default_rng([options.seed, number])
        kind, bits = KINDS[number % len(KINDS)], int(rng.integers(2, 65)) * 4
        xb, xq = draw(kind, bits, rng)
        k = int(rng.choice([1, 10, 100, len(xb)]))
        for engine, answers in answered(xb, xq, bits, min(k, len(xb)), rng).items():
            by_engine[engine] += answers
        asked, number = asked + len(xq), number + 1
        by_kind[kind] += len(xq)
        widths[bits] += len(xq)
        if number % 1000 == 0:
            print(f"{asked:,} queries, {number:,} indexes, {time.perf_counter() - started:.0f} s", flush=True)
    result = {"seed": options.seed, "queries": asked, "indexes": number, "widths": len(widths)}
    result |= {"by_kind": dict(by_kind), "by_engine": dict(by_engine), "wrong": 0}
    common.save("exact_fuzz", result | {"seconds": round(time.perf_counter() - started)}, options.results)


def draw(kind, bits, rng):
    """Codes of a kind: items packed uint8 (n, w), at most 2,000, and queries (100, w)."""
    n = int(rng.integers(1, 2001))
    if kind == "repeated":
        few = rng.random((int(rng.integers(1, 30)), bits)) < 0.5
        items, queries = few[rng.integers(0, len(few), n)], few[rng.integers(0, len(few), QUERIES)]
    elif kind == "one bucket":  # but for the last substring
        items, queries = np.zeros((n, bits), bool), np.zeros((QUERIES, bits), bool)
        some = max(1, bits // 4)
        items[:, -some:], queries[:, -some:] = rng.random((n, some)) < 0.5, rng.random((QUERIES, some)) < 0.5
    elif kind == "edge":  # as many bits of each substring differ as the search has read when it asks whether to stop
        centre = rng.random(bits) < 0.5
        queries = np.tile(centre, (QUERIES, 1))
        items = centre ^ (rng.random((n, bits)) < rng.choice([0.5, 1, 2, 3], (n, 1)) * 4 / bits)
    else:
        flips = 0.5 if kind == "uniform" else rng.choice([0.01, 0.05, 0.1])
        centres = rng.random((5, bits)) < 0.5
        items, queries = (
            centres[rng.integers(0, 5, size)] ^ (rng.random((size, bits)) < flips) for size in (n, QUERIES)
        )
    return pack(items), pack(queries)


def answered(xb, xq, bits, k, rng):
    """Ask all engines, and stop at the first wrong answer: -> how many queries each of them answered."""
    flat = faiss.IndexBinaryFlat(8 * xb.shape[1])
    flat.add(xb)
    D, I = flat.search(xq, k)

    def check(name, distances, items, which=slice(None)):
        right = np.array_equal(distances, D[which]) and np.array_equal(items, I[which])
        assert right, f"{name} answers otherwise: {bits} bits, k {k}, {len(xb)} items"

    table = group(pad(xb, padded_width(bits)), bool(rng.integers(2)))
    fewest = -(-bits // _LONGEST_HERE)
    layout = Layout.of(bits, int(rng.integers(fewest, max(fewest, bits // 4) + 1)))
    tables = make_tables(table.codes, bits, layout)
    index = MultiIndex(tables, table)
    check("tables", *index.search(xq, k, float("inf"))[:2])
    budget = float(10 ** rng.uniform(2, 6))
    distances, items, costs = index.search(xq, k, budget)
    done = costs >= 0  # the others were not answered
    check("tables within a budget", distances[done], items[done], done)
    chosen = HammingStage(table, bits, "compiled", tables=tables)
    check("compiled", *chosen.search(xq, k))
    check("faiss", *HammingStage(table, bits, "faiss").search(xq, k))
    radius = int(D[0, -1])
    for query, distances, items in chosen.within(xq[:1], radius):
        inside = D[query] <= radius
        assert np.array_equal(items[: inside.sum()], I[query][inside]), f"radius {radius}, {bits} bits"
        assert np.array_equal(distances[: inside.sum()], D[query][inside])
    counts = {"tables": len(xq), "tables within a budget": int(done.sum()), "compiled": len(xq), "faiss": len(xq)}
    return counts | {"tables within a radius": 1}


if __name__ == "__main__":
    main()
