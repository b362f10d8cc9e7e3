"""What the re-rank is worth: mAP@all and precision@k with it and without, by code length, candidates and features.

    python -m benchmarks.run.rerank RUN [RUN ...]

RUN is a folder that `tables.py --keep` left: test/ and index/. Writes results/rerank_PROTOCOL.json, which
`pages/tables.py` makes a table of.
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
    options = parser.parse_args()
    runs = []
    for run in options.runs:
        record = read_json(run / "model.json", "training record")
        row = {key: record[key] for key in ("method", "bits", "seed", "image_size", "finetune", "width")}
        row |= {"run": run.name, "reranked": {by: {} for by in CHOICES}}
        for by, candidates in itertools.product(CHOICES, CANDIDATES):
            result = evaluate(run / "test", run / "index", candidates=candidates, rerank_by=by).as_dict()
            row["reranked"][by][str(candidates)] = result["reranked"]
        row |= {"hamming": {key: result["hamming"][key] for key in ("map", "precision_at")}}
        row |= {"protocol": result["protocol"], "split_sha256": result["split_sha256"]}
        runs.append(row)
        print(run.name, row["hamming"]["precision_at"]["10"], row["reranked"]["directions"]["1000"], flush=True)
    common.save(f"rerank_{runs[0]['protocol']}", {"protocol": runs[0]["protocol"], "runs": runs})


if __name__ == "__main__":
    main()
