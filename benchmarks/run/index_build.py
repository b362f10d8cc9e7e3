"""What the tables over substrings cost an index: `build_index` with them and without, in turn.

    python -m benchmarks.run.index_build --work runs/build

The shards are of uniform codes of 48 bits, which repeat least, with the hash outputs that the re-rank compares. Rounds
alternate; the first also pays for memory that this process has not touched before, so medians are of the others.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret.files import write_json
from hashret.index import build_index, segment
from hashret.shards import MANIFEST, Shard, encode_paths, shard_name, write_shard

BITS, IN_A_SHARD = 48, 250_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--rounds", type=int, default=4, help="of which the first is left out")
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and indexes, removed at the end")
    common.add_results(parser)
    options = parser.parse_args()
    cells = []
    for items in options.items:
        shutil.rmtree(options.work, ignore_errors=True)
        write_shards(options.work / "shards", items)
        cells.append({"items": items} | measured(options.work, items, options.rounds))
        print(cells[-1], flush=True)
    shutil.rmtree(options.work)
    common.save("index_build", {"bits": BITS, "seed": 0, "rounds": options.rounds, "cells": cells}, options.results)


def write_shards(folder, items):
    """Write shards of uniform codes and hash outputs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    starts = range(0, items, IN_A_SHARD)
    for number, first in enumerate(starts):
        rows = np.arange(first, min(first + IN_A_SHARD, items))
        codes = rng.integers(0, 256, (len(rows), BITS // 8), np.uint8)
        paths = encode_paths([f"photographs/{row:08d}.jpg" for row in rows.tolist()])
        shard = Shard(codes, rng.random((len(rows), BITS), np.float32), rows, paths, None)
        write_shard(folder / shard_name(number), shard, bits=BITS, encoder="none", image_size=32, first_id=first)
    manifest = {"bits": BITS, "encoder": "none", "precision": "float32", "image_size": 32, "shards": len(starts)}
    write_json(folder / MANIFEST, manifest | {"classes": [], "protocol": None})


def measured(work, items, rounds):
    """Seconds of a build and bytes an item, with tables and without, and the ratio of the medians."""
    pays, seconds, size = segment.pays, {"with": [], "without": []}, {}
    for _ in range(rounds):
        for kind, times in seconds.items():
            shutil.rmtree(work / "index", ignore_errors=True)
            segment.pays = pays if kind == "with" else lambda bits, count: False
            started = time.perf_counter()
            build_index(work / "shards", work / "index")
            times.append(round(time.perf_counter() - started, 3))
            files = [path for path in (work / "index").rglob("*") if path.is_file()]
            size[kind] = round(sum(path.stat().st_size for path in files) / items, 1)
            assert kind == "without" or any(path.name.startswith("substring_") for path in files)
    segment.pays = pays
    ratio = float(np.median(seconds["with"][1:]) / np.median(seconds["without"][1:]))
    return {"seconds": seconds, "bytes_an_item": size, "ratio": round(ratio, 3)}


if __name__ == "__main__":
    main()
