"""Time of scoring 10,000 queries against 50,000 codes: tie-exact mAP@all, precision, on two kinds of codes.

    python benchmarks/metrics_speed.py

"learned-like": ten class centres whose bits flip with probability 0.02; "random": the worst case, no two codes alike.
"""

from __future__ import annotations

import argparse
import time

import common
import numpy as np

from hashret.bits import pack
from hashret.metrics import average_precision, count_by_distance, precision_at, precision_within

CENTRES = np.random.default_rng(7).random((10, 256)) < 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--bits", type=int, default=48)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for codes, flips in (("learned-like", 0.02), ("random", 0.5)):
        xq, labels_q = make(rng, options.queries, options.bits, flips)
        xb, labels_b = make(rng, options.database, options.bits, flips)
        started = time.perf_counter()
        counts = count_by_distance(xq, xb, labels_q, labels_b, options.bits)
        figures = [average_precision(counts, ties).mean() for ties in ("expected", "worst", "best")]
        figures += [precision_at(counts, 100).mean(), precision_within(counts, 2).mean()]
        seconds = round(time.perf_counter() - started, 2)
        print(codes, seconds, "s", np.round(figures, 4))
        result = {"queries": options.queries, "database": options.database, "bits": options.bits, "codes": codes}
        common.save(f"metrics_{codes}", result | {"seed": 0, "seconds": {"hashret": seconds}})


def make(rng, n, bits, flips):
    """Packed codes and labels of n items."""
    labels = rng.integers(0, 10, n)
    return pack(CENTRES[labels, :bits] ^ (rng.random((n, bits)) < flips)), labels


if __name__ == "__main__":
    main()
