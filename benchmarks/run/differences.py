"""How far mAP of the same codes lies apart by what is counted: the variants in use, on a run of `tables.py --keep`.

    python -m benchmarks.run.differences RUN [RUN ...]

RUN is a folder of codes (database/, test/) that `tables.py --keep` left for cifar10-1. `pages/tables.py` makes
docs/figures.md of the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret.bits import hamming
from hashret.data.protocols import PROTOCOLS, parse_rows
from hashret.metrics import average_precision, average_precision_by_index, count_by_distance, is_relevant
from hashret.shards import ShardFolder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    common.add_results(parser)
    options = parser.parse_args()
    for run in options.runs:
        q, d = ShardFolder(run / "test"), ShardFolder(run / "database")
        bits = q.manifest["bits"]
        figures = variants(q.load(), d.load(), bits, d.manifest["protocol"]["name"])
        print(run.name, {name: round(value, 4) for name, value in figures.items()})
        common.save(
            f"differences_{run.name}",
            {"run": run.name, "bits": bits, "split_sha256": d.manifest["protocol"]["split"], "map": figures},
            options.results,
        )


def variants(q, d, bits, protocol):
    """mAP of the same codes in every way that is in use: -> dict."""
    counts = count_by_distance(q.codes, d.codes, q.labels, d.labels, bits)
    found = {f"{ties} order of ties": average_precision(counts, ties).mean() for ties in ("expected", "worst", "best")}
    found["ties in database order (by set, class, name)"] = by_index(q, d, np.arange(len(d)))
    # A database in the order of its classes, as class folders give it: the classes that come first are favoured.
    found["ties in database order, by class"] = by_index(q, d, np.argsort(d.labels, kind="stable"))
    found["ties in database order, shuffled"] = by_index(q, d, np.random.default_rng(0).permutation(len(d)))
    found["the last database item dropped"] = by_index(q, d, np.arange(len(d) - 1))
    found["mAP@1000, divided by min(relevant, 1000)"] = average_precision(counts, topk=1000).mean()
    found["mAP@1000, divided by the hits among 1000"] = divided_by_hits(q, d, 1000)
    found["mAP@5000, divided by the hits among 5000"] = divided_by_hits(q, d, 5000)
    record = PROTOCOLS[protocol].protocol_file[0]
    is_train = np.isin(parse_rows(record["database"])[d.ids], parse_rows(record["train"]))
    found["database without the train images"] = expected(q, d.codes[~is_train], d.labels[~is_train], bits)
    found["queries in the database, too"] = expected(
        q, np.concatenate([d.codes, q.codes]), np.concatenate([d.labels, q.labels]), bits
    )
    return {name: float(value) for name, value in found.items()}


def expected(q, codes, labels, bits):
    return average_precision(count_by_distance(q.codes, codes, q.labels, labels, bits)).mean()


def by_index(q, d, order):
    return average_precision_by_index(q.codes, d.codes[order], q.labels, d.labels[order]).mean()


def divided_by_hits(q, d, topk):
    """Mean over queries of the sum of precision at each hit among the first ``topk``, over the number of these hits."""
    scores = []
    for i in range(len(q)):
        first = np.argsort(hamming(q.codes[i : i + 1], d.codes)[0], kind="stable")[:topk]
        ranks = np.flatnonzero(is_relevant(q.labels[i : i + 1], d.labels[first])[0]) + 1
        scores.append((np.arange(1, len(ranks) + 1) / ranks).mean() if len(ranks) else 0.0)
    return np.mean(scores)


if __name__ == "__main__":
    main()
