"""Time of scoring 10,000 queries against 50,000 codes, against a plain loop over the queries, on two kinds of codes.

    python -m benchmarks.run.metrics_speed

"learned-like": ten class centres whose bits flip with probability 0.02; "random": the worst case, no two codes alike.
The plain loop sorts the distances of a query, those of alike items behind the others at the same distance, and sums
the precision at each hit: mAP@all in the worst order of ties, a figure that both must agree on. hashret gives the
expected, worst and best order, precision@100 and precision within radius 2 in its time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from benchmarks.lib import common
from hashret.bits import pack
from hashret.metrics import average_precision, count_by_distance, precision_at, precision_within

CENTRES = np.random.default_rng(7).random((10, 256)) < 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    common.add_results(parser)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for codes, flips in (("learned-like", 0.02), ("random", 0.5)):
        xq, labels_q = make(rng, options.queries, options.bits, flips)
        xb, labels_b = make(rng, options.database, options.bits, flips)
        rounds = []
        for _ in range(options.rounds):
            ours = timed(score, xq, xb, labels_q, labels_b, options.bits)
            plain = timed(plain_loop, xq, xb, labels_q, labels_b)
            assert abs(ours[1]["worst"] - plain[1]) < 1e-9
            rounds.append((ours[0], plain[0]))
            print(codes, f"hashret {ours[0]:.2f} s, plain {plain[0]:.2f} s", ours[1], flush=True)
        names = ("hashret", "plain")
        seconds = {
            name: sorted(column)[len(rounds) // 2]
            for name, column in zip(names, zip(*rounds, strict=True), strict=True)
        }
        ratios = [plain / ours for ours, plain in rounds]
        result = {"queries": options.queries, "database": options.database, "bits": options.bits, "codes": codes}
        result["flips"] = flips
        result |= {"seed": 0, "seconds": {name: round(value, 2) for name, value in seconds.items()}}
        result |= {"ratio": [round(f(ratios), 1) for f in (statistics.median, min, max)], "map": ours[1]}
        common.save(f"metrics_{codes}", result, options.results)


def timed(function, *args):
    started = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - started, result


def score(xq, xb, labels_q, labels_b, bits):
    """mAP@all by order of ties, through hashret; precision is computed, too, since a user gets both."""
    counts = count_by_distance(xq, xb, labels_q, labels_b, bits)
    precision_at(counts, 100), precision_within(counts, 2)
    return {ties: float(average_precision(counts, ties).mean()) for ties in ("expected", "worst", "best")}


def plain_loop(xq, xb, labels_q, labels_b):
    """mAP@all in the worst order of ties, query by query."""
    scores = []
    ranks = np.arange(1, len(xb) + 1)
    for i in range(len(xq)):
        distance = np.bitwise_count(xq[i] ^ xb).sum(axis=1)
        relevant = labels_b == labels_q[i]
        found = relevant[np.argsort(2 * distance.astype(np.int64) + relevant)]
        scores.append((np.cumsum(found) / ranks)[found].mean())
    return float(np.mean(scores))


def make(rng, n, bits, flips):
    """Packed codes and labels of n items."""
    labels = rng.integers(0, 10, n)
    return pack(CENTRES[labels, :bits] ^ (rng.random((n, bits)) < flips)), labels


if __name__ == "__main__":
    main()
