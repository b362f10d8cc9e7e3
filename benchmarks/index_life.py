"""The life of an index: build, open, answer, add, remove, compact; seconds and memory.

    python benchmarks/index_life.py --items 1000000 --work runs/index

Learned-like codes (ten centres, each bit flipped with probability 0.01) with values and paths are written as shards,
once; then each step runs in a process of its own, so that its time starts cold and its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np

from hashret.bits import binarize, pack
from hashret.files import write_json
from hashret.shards import MANIFEST, Shard, encode_paths, shard_name, write_shard

SHARD = 2**18
CENTRES, FLIPS = 10, 0.01
STEPS = ("build", "open", "search", "append", "remove", "compact")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--work", type=Path, required=True, help="folder for the shards and the index")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(globals()[options.step](options.work) | {"peak_memory_mb": peak()}))
        return
    write_shards(options.work / "shards", options.items, options.bits, 0)
    write_shards(options.work / "more", 1000, options.bits, 1)
    shutil.rmtree(options.work / "index", ignore_errors=True)
    result = {"items": options.items, "bits": options.bits, "data": f"learned-like, {CENTRES} centres, flips {FLIPS}"}
    result["baseline_memory_mb"] = run(options, None)["peak_memory_mb"]
    for step in STEPS:
        result[step] = run(options, step)
        print(step, result[step], flush=True)
    files = list((options.work / "index").rglob("*.*"))
    result["index_mb"] = round(sum(file.stat().st_size for file in files if file.is_file()) / 2**20, 1)
    common.save(f"index_life_{options.items}", result | {"seed": 0}, options.results)


def run(options, step):
    """A step in a new process: -> what it printed. Without a step: what importing alone takes."""
    if step is None:
        code = "import resource, hashret.index; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return {"peak_memory_mb": int(done.stdout)}
    command = [sys.executable, __file__, "--work", str(options.work), "--step", step]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def peak():
    """Most memory this process held, in MB, pages of mapped files among it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_shards(folder, items, bits, seed):
    """Shards of learned-like codes, unless they are there."""
    if (folder / MANIFEST).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    centres = np.random.default_rng(7).random((CENTRES, bits)) < 0.5
    for number, start in enumerate(range(0, items, SHARD)):
        rng = np.random.default_rng((seed, number))
        n = min(SHARD, items - start)
        ones = centres[rng.integers(0, CENTRES, n)] ^ (rng.random((n, bits), np.float32) < FLIPS)
        values = np.abs(ones - 0.4 * rng.random((n, bits), np.float32))
        paths = encode_paths([f"photos{seed}/{start + i:09d}.jpg" for i in range(n)])
        shard = Shard(pack(binarize(values)), values, np.arange(start, start + n), paths)
        write_shard(folder / shard_name(number), shard, bits=bits, encoder="e", image_size=224, first_id=start)
    meta = {"bits": bits, "encoder": "e", "precision": "float32", "image_size": 224, "classes": [], "protocol": None}
    write_json(folder / MANIFEST, meta | {"shards": number + 1})


def timed(function, *arguments, **options):
    started = time.perf_counter()
    result = function(*arguments, **options)
    return result, round(time.perf_counter() - started, 4)


def build(work):
    from hashret.index import build_index

    meta, seconds = timed(build_index, work / "shards", work / "index", overwrite=True)
    size = sum(file["bytes"] for file in meta["segments"][0]["files"].values())
    return {"seconds": seconds, "index_mb": round(size / 2**20, 1), "distinct_codes": meta["segments"][0]["codes"]}


def open(work):
    from hashret.index import open_index

    times = [timed(open_index, work / "index", "cpu", verify=False)[1] for _ in range(5)]
    return {"seconds_first": times[0], "seconds_again": sorted(times[1:])[1]}


def search(work):
    """The whole path of a query that is encoded: 1,000 Hamming candidates, re-rank, ids and paths of ten hits."""
    from hashret.index import open_index

    index = open_index(work / "index", "cpu", verify=False).warm()
    rng = np.random.default_rng(3)
    rows = rng.integers(0, len(index), 1000)
    xq = np.clip(np.asarray(index.values[rows]) + rng.normal(0, 0.05, (1000, index.bits)), 0, 1).astype(np.float32)
    codes, times = pack(binarize(xq)), []
    for query in range(1000):
        started = time.perf_counter()
        hits = index.search(codes[query : query + 1], xq[query : query + 1], k=10, candidates=1000)
        found = [(int(index.ids[row]), index.path(row)) for row in hits.rows[0]]
        times.append(time.perf_counter() - started)
        assert len(found) == 10
    first, times = times[0], np.array(times[100:]) * 1000
    return {"first_ms": round(first * 1000, 3)} | {
        f"p{p}_ms": round(float(np.percentile(times, p)), 3) for p in (50, 95, 99)
    }


def append(work):
    from hashret.index import append

    count, seconds = timed(append, work / "index", work / "more")
    return {"photographs": count, "seconds": seconds}


def remove(work):
    from hashret.index import remove

    count, seconds = timed(remove, work / "index", range(0, 5000, 10))
    return {"photographs": count, "seconds": seconds}


def compact(work):
    from hashret.index import compact

    (count, before, after), seconds = timed(compact, work / "index")
    return {"photographs": count, "seconds": seconds, "mb_before": before >> 20, "mb_after": after >> 20}


if __name__ == "__main__":
    main()
