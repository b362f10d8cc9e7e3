"""What the words of ``query --least`` find: of the photographs at least so similar, how many share a label.

    python -m benchmarks.run.similarity_levels --runs runs/am-vggh+ runs/itq

Each folder holds model.safetensors, index/ and codes-test/ of one encoder, as `hashret train`, `encode` and
`build-index` leave them, all of one data set. Every photograph of codes-test is a query. Writes
results/similarity_levels.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret.bits import unpack
from hashret.evaluation import open_evaluation_set
from hashret.models.metadata import read_meta
from hashret.similar import LEVELS, bits_within


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    common.add_results(parser)
    options = parser.parse_args()
    common.save("similarity_levels", {"runs": [levels_of(run) for run in options.runs]}, options.results)


def levels_of(run):
    """Count pairs of a query and a photograph by level: -> a dict of figures."""
    asked = open_evaluation_set(run / "codes-test", run / "index", run / "model.safetensors", device="cpu")
    bits = asked.index.bits
    queries, database = (
        unpack(np.asarray(codes), bits).astype(np.float32) for codes in (asked.queries.codes, asked.codes)
    )
    differing = np.rint(queries @ (1 - database.T) + (1 - queries) @ database.T).astype(int)
    relevant = relevance(asked.query_labels, asked.labels)
    found = {
        "method": read_meta(run / "model.safetensors")["method"], "bits": bits, "queries": len(queries),
        "photographs": len(database), "share of all pairs with a label in common": float(relevant.mean()), "levels": {},
    }  # fmt: skip
    for word in LEVELS:
        near = differing <= bits_within(word, bits)
        found["levels"][word] = {
            "within bits": bits_within(word, bits), "share with a label in common": float(relevant[near].mean()),
            "share of those found": float(near[relevant].mean()), "hits a query": float(near.sum(axis=1).mean()),
            "queries without a hit": float((~near.any(axis=1)).mean()),
        }  # fmt: skip
    print(found, flush=True)
    return found


def relevance(queries, database):
    """Whether a query and a photograph share a label, bool (nq, nb)."""
    if queries.ndim == 1:
        return queries[:, None] == database[None]
    return queries.astype(np.float32) @ database.T.astype(np.float32) > 0


if __name__ == "__main__":
    main()
