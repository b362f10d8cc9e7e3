"""What the re-rank is worth: mAP@all and precision@k with it and without, by code length, candidates and features.

    python -m benchmarks.run.rerank RUN [RUN ...]

RUN is a folder that `tables.py --keep` left: test/ and index/. Writes results/rerank_PROTOCOL.json for each protocol,
which `pages/tables.py` makes a table of. Runs of other names that such a file has stay there, by the commit that they
name.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from benchmarks.lib import common
from hashret import evaluate
from hashret.files import read_json

CANDIDATES = (100, 1000, 5000)
CHOICES = ("values", "directions")  # what the paper compares, and what hashret does by default


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    common.add_results(parser)
    options = parser.parse_args()
    for run in options.runs:
        record = read_json(run / "model.json", "training record")
        row = {key: record[key] for key in ("method", "bits", "seed", "image_size", "finetune", "width", "arch")}
        row |= {"run": run.name, "reranked": {by: {} for by in CHOICES}}
        for by, candidates in itertools.product(CHOICES, CANDIDATES):
            result = evaluate(run / "test", run / "index", candidates=candidates, rerank_by=by).as_dict()
            row["reranked"][by][str(candidates)] = result["reranked"]
        row |= {"hamming": {key: result["hamming"][key] for key in ("map", "precision_at")}}
        row |= {"protocol": result["protocol"], "split_sha256": result["split_sha256"]}
        print(run.name, row["hamming"]["precision_at"]["10"], row["reranked"]["directions"]["1000"], flush=True)
        add(row, options.results)


def add(row, results):
    """Add a run to the JSON of its protocol, in place of one of its name."""
    name = f"rerank_{row['protocol']}"
    runs = common.kept(results / f"{name}.json", "runs")
    runs = [run for run in runs if run["run"] != row["run"]]
    provenance = {key: value for key, value in common.surroundings().items() if key in common.PROVENANCE}
    common.save(name, {"protocol": row["protocol"], "runs": [*runs, row | provenance]}, results)


if __name__ == "__main__":
    main()
