"""All pairs of codes within a radius, against faiss range search and a blocked comparison of all in numpy.

    python -m benchmarks.run.duplicates --items 100000 1000000

Codes are uniform or learned-like, around ten centres, and each is there once. Three ways find all their pairs:
`pairs_within`, which chooses by cost; faiss `IndexBinaryFlat.range_search` of every code; and numpy's `bitwise_count`,
a block of codes at a time. The latter two find each pair from both sides, and take time in proportion to the queries:
where all would take too long, a share of the codes is asked for and the time scaled. What they find of these must be
what `pairs_within` found. Rounds alternate between the ways, and a ratio is that of one round.
"""

from __future__ import annotations

import argparse
import os
import time

import faiss
import numpy as np

from benchmarks.lib import common
from benchmarks.run.latency import draw
from hashret.bits import as_words, pad, padded_width
from hashret.index.distinct import group
from hashret.near_duplicates.code_pairs import pairs_within, plan

FLIPS = {"uniform": 0.5, "learned-like": 0.01, "spread": 0.05}
PAIRS = {"faiss": 5e9, "numpy": 1e9}  # comparisons of a round, at most
QUERIES, COLUMNS = 512, 2**12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--radius", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--codes", nargs="+", choices=FLIPS, default=list(FLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    common.add_results(parser)
    options = parser.parse_args()
    load_before, cells = os.getloadavg()[0], []
    for kind in options.codes:
        for items in options.items:
            codes = group(draw(items, options.bits, FLIPS[kind], 0), grouped=True).codes
            for radius in options.radius:
                cell = {"codes": kind, "flips": FLIPS[kind], "items": items, "distinct": len(codes), "radius": radius}
                cells.append(cell | measure(codes, options.bits, radius, options.rounds))
                print(cells[-1], flush=True)
    result = {"bits": options.bits, "rounds": options.rounds, "seed": 0, "threads": faiss.omp_get_max_threads()}
    result |= {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"), "load_average": [load_before, os.getloadavg()[0]]}
    common.save("duplicates", result | {"cells": cells}, options.results)


def measure(codes, bits, radius, rounds):
    """One cell: seconds of each way in each round, and their ratios."""
    blocks = plan(codes, radius)
    flat = faiss.IndexBinaryFlat(8 * padded_width(bits))
    flat.add(pad(codes, padded_width(bits)))
    order = np.random.default_rng(1).permutation(len(codes))
    asked = {name: order[: max(1, min(len(codes), int(pairs / len(codes))))] for name, pairs in PAIRS.items()}
    ways = {
        "hashret": lambda: with_hashret(codes, radius, asked["numpy"]),
        "faiss": lambda: with_faiss(flat, pad(codes, padded_width(bits)), radius, asked["faiss"]),
        "numpy": lambda: with_numpy(as_words(codes), radius, asked["numpy"]),
    }
    seconds, found = {name: [] for name in ways}, {}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            found[name] = ways[name]()
            taken = time.perf_counter() - started
            seconds[name].append(taken * len(codes) / len(asked[name]) if name in asked else taken)
    total, of_asked = found["hashret"]
    assert of_asked == found["numpy"], "other pairs than by comparing all"
    if len(asked["faiss"]) == len(codes):
        assert 2 * total == found["faiss"]
    result = {"pairs": total, "way": "all compared" if blocks is None else f"{len(blocks)} blocks"}
    result |= {"asked": {name: len(rows) for name, rows in asked.items()}, "checked_neighbours": of_asked}
    result |= {"seconds": {name: sorted(round(taken, 4) for taken in times) for name, times in seconds.items()}}
    for name in asked:
        ratios = sorted(slow / fast for slow, fast in zip(seconds[name], seconds["hashret"], strict=True))
        result[f"{name}_ratio"] = [round(ratios[len(ratios) // 2], 2), round(ratios[0], 2), round(ratios[-1], 2)]
    return result


def with_hashret(codes, radius, asked):
    """-> how many pairs, and how many neighbours some codes have in them."""
    total, of_asked, chosen = 0, 0, np.zeros(len(codes), bool)
    chosen[asked] = True
    for I, J, _ in pairs_within(codes, radius):
        total += len(I)
        of_asked += np.count_nonzero(chosen[I]) + np.count_nonzero(chosen[J])
    return total, int(of_asked)


def with_faiss(flat, codes, radius, asked):
    """-> how many others are within the radius of the codes asked for."""
    found = 0
    for start in range(0, len(asked), QUERIES):
        ends, _, _ = flat.range_search(codes[asked[start : start + QUERIES]], radius + 1)
        found += int(ends[-1])
    return found - len(asked)


def with_numpy(words, radius, asked):
    """The same by comparing blocks."""
    found = 0
    for start in range(0, len(asked), QUERIES):
        queries = words[asked[start : start + QUERIES]]
        for first in range(0, len(words), COLUMNS):
            D = np.zeros((len(queries), min(COLUMNS, len(words) - first)), np.uint16)
            for word in range(words.shape[1]):
                D += np.bitwise_count(queries[:, word, None] ^ words[None, first : first + COLUMNS, word])
            found += int(np.count_nonzero(radius >= D))
    return found - len(asked)


if __name__ == "__main__":
    main()
