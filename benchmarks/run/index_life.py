"""The life of an index: build, open, answer, add, remove, compact; seconds, memory and bytes of each file.

    python -m benchmarks.run.index_life --items 1000000 --work runs/index
    python -m benchmarks.run.index_life --items 100000000 --stream --no-values --work runs/index

Learned-like codes (ten centres, each bit flipped with probability --flips, 0.5 for uniform ones) with values and paths
are written as shards, once; then each step runs in a process of its own, so that its time starts cold and its peak
memory is its own. With --stream, another process writes each shard when the build asks for it, which is not counted,
and the shard is removed afterwards: the disk then holds the index and one shard.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret.bits import binarize, pack, unpack
from hashret.files import read_json, write_json
from hashret.shards import MANIFEST, Shard, ShardFolder, encode_paths, shard_name, write_shard

SHARD = 2**18
CENTRES = 10
SECONDS = 15  # of searching with a number of candidates, once there are 300 times
CANDIDATES = (1000, 153, 32, 11)  # what is usual, and what 10, 100 and 1,000 shards are asked for
STEPS = ("build", "open", "search", "append", "remove", "compact")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--work", type=Path, required=True, help="folder for the shards and the index")
    parser.add_argument("--flips", type=float, default=0.01, help="probability of a flipped bit")
    parser.add_argument("--no-values", dest="values", action="store_false", help="an index of codes alone")
    parser.add_argument("--stream", action="store_true", help="write each shard when it is read, and remove it")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--name", help="of the JSON; needed with other --bits or --flips than those of the page")
    common.add_results(parser, common.RESULTS / "scale")
    options = parser.parse_args()
    if options.step:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        result = globals()[options.step](options.work) | {"peak_memory_mb": common.peak_memory()}
        print(json.dumps(result | {"major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults}))
        return
    name = options.name or default_name(options)
    if name is None:
        parser.error("codes of other --bits than 48, or other --flips than 0.01 and 0.5, want a --name")
    for folder, items, seed in (("shards", options.items, 0), ("more", 1000, 1)):
        claim(options.work / folder, items, options, seed)
        if seed or not options.stream:
            write_shards(options.work / folder)
    shutil.rmtree(options.work / "index", ignore_errors=True)
    result = {"items": options.items, "bits": options.bits, "flips": options.flips, "values": options.values}
    result |= {"data": f"learned-like, {CENTRES} centres, flips {options.flips}", "streamed": options.stream}
    result["baseline_memory_mb"] = run(options, None)["peak_memory_mb"]
    for step in options.steps:
        result[step] = run(options, step)
        print(
            step, {name: value for name, value in result[step].items() if name != "seconds_by_candidates"}, flush=True
        )
        if step == "build":
            result["bytes"] = {
                file.name: file.stat().st_size for file in sorted((options.work / "index/000001").iterdir())
            }
    files = list((options.work / "index").rglob("*.*"))
    result["index_mb"] = round(sum(file.stat().st_size for file in files if file.is_file()) / 2**20, 1)
    common.save(name, result | {"seed": 0}, options.results)


def default_name(options):
    """Name of the JSON by which `pages/scale.py` knows what it is of; None where that page has no name for it."""
    kind = {0.01: "", 0.5: "uniform"}.get(options.flips)
    if kind is None or options.bits != 48:
        return None
    kept = "values" if options.values else "" if kind else "codes"
    return f"life_{options.items}_{'-'.join(filter(None, (kind, kept)))}"


def run(options, step):
    """A step in a new process: -> what it printed. Without a step: what importing alone takes."""
    if step is None:
        code = "import hashret.index; from benchmarks.lib.common import peak_memory; print(peak_memory())"
        return {"peak_memory_mb": int(printed([sys.executable, "-c", code]))}
    command = [sys.executable, "-m", "benchmarks.run.index_life", "--work", str(options.work), "--step", step]
    return json.loads(printed(command).splitlines()[-1])


def printed(command):
    """What a command prints; what it says on stderr is not held back, and this process ends with it where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=common.TOP)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def claim(folder, items, options, seed, first=0):
    """Say what shards a folder is to hold, of all there could be those from ``first`` on, and clear out others."""
    manifest = {
        "bits": options.bits, "encoder": "e", "precision": "float32", "image_size": 224, "classes": [],
        "protocol": None, "shards": -(-items // SHARD), "items": items, "flips": options.flips, "seed": seed,
        "first": first, "stream": options.stream, "index_values": options.values,
    }  # fmt: skip
    if not (folder / MANIFEST).exists() or read_json(folder / MANIFEST, "manifest") != manifest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / MANIFEST, manifest)


def write_shards(folder):
    """The shards of a folder that are not there."""
    manifest = read_json(folder / MANIFEST, "manifest")
    for number in range(manifest["shards"]):
        if not (folder / shard_name(number)).exists():
            write_one(folder, number, manifest)


def write_one(folder, number, manifest):
    """A shard of learned-like codes."""
    start, bits, seed = number * SHARD, manifest["bits"], manifest["seed"]
    rng = np.random.default_rng((seed, manifest["first"] + number))
    centres = np.random.default_rng(7).random((CENTRES, bits)) < 0.5
    n = min(SHARD, manifest["items"] - start)
    ones = centres[rng.integers(0, CENTRES, n)] ^ (rng.random((n, bits), np.float32) < manifest["flips"])
    values = np.abs(ones - 0.4 * rng.random((n, bits), np.float32))
    paths = encode_paths([f"photos{seed}/{start + i:09d}.jpg" for i in range(n)])
    shard = Shard(pack(binarize(values)), values, np.arange(start, start + n), paths)
    write_shard(folder / shard_name(number), shard, bits=bits, encoder="e", image_size=224, first_id=start)


class Stream(ShardFolder):
    """A folder whose shards are there while they are read; ``waited`` seconds for them to be written.

    The first is there from the beginning, since a build asks it for its columns before it reads the shards.
    """

    waited = 0.0

    def __init__(self, folder):
        self.folder, self.manifest = Path(folder), read_json(Path(folder) / MANIFEST, "manifest")
        self.writer = ProcessPoolExecutor(1)
        self.write(0)

    def write(self, number):
        """Have a shard written that is not there."""
        started = time.perf_counter()
        if not self.shard_path(number).exists():
            self.writer.submit(write_one, self.folder, number, self.manifest).result()
        Stream.waited += time.perf_counter() - started

    def __iter__(self):
        for number in range(self.manifest["shards"]):
            self.write(number)
            yield self.read(number)
            self.shard_path(number).unlink()


def timed(function, *arguments, **options):
    started = time.perf_counter()
    result = function(*arguments, **options)
    return result, round(time.perf_counter() - started, 4)


def build(work):
    from hashret.index import build_index, changes

    manifest = read_json(work / "shards" / MANIFEST, "manifest")
    if manifest["stream"]:
        changes.ShardFolder = Stream
    values = manifest["index_values"]
    built, seconds = timed(build_index, work / "shards", work / "index", overwrite=True, values=values)
    [segment] = built.meta["segments"]
    size = sum(file["bytes"] for file in segment["files"].values())
    seconds = round(seconds - Stream.waited, 4)
    return {"seconds": seconds, "index_mb": round(size / 2**20, 1), "distinct_codes": segment["codes"]}


def open(work):
    from hashret.index import open_index

    times = [timed(open_index, work / "index", "cpu", verify=False)[1] for _ in range(5)]
    return {"seconds_first": times[0], "seconds_again": sorted(times[1:])[1]}


def search(work):
    """The whole path of a query that is encoded: 1,000 Hamming candidates, re-rank, ids and paths of ten hits.

    The re-rank is by values, or where the index keeps none, asymmetric. ``seconds_by_candidates``: the time's 201
    quantiles from the least to the most. On one thread, as a machine is that answers a query on each core.
    """
    import faiss

    from hashret.index import open_index

    faiss.omp_set_num_threads(1)
    index = open_index(work / "index", "cpu", verify=False).warm()
    rng = np.random.default_rng(3)
    rows = rng.integers(0, len(index), 1000)
    if index.hash_outputs is None:
        values, by = unpack(np.stack([index.code(row) for row in rows]), index.bits), "asymmetric"
    else:
        values, by = np.asarray(index.hash_outputs[rows]), "values"
    xq = np.clip(values + rng.normal(0, 0.05, (1000, index.bits)), 0, 1).astype(np.float32)
    codes, quantiles = pack(binarize(xq)), {}
    for candidates in CANDIDATES:
        times = []
        for query in range(1000):
            started = time.perf_counter()
            some = slice(query, query + 1)
            hits = index.search(codes[some], xq[some], k=10, candidates=candidates, rerank_by=by)
            found = [(int(index.ids[row]), index.path(row)) for row in hits.positions[0]]
            times.append(time.perf_counter() - started)
            assert len(found) == 10
            if query >= 300 and sum(times) > SECONDS:
                break
        if candidates == CANDIDATES[0]:
            first, usual = times[0], np.array(times[100:]) * 1000
        seconds = np.quantile(times[100:], np.linspace(0, 1, 201))
        quantiles[candidates] = [float(f"{value:.4g}") for value in seconds]
    return (
        {"rerank_by": by, "first_ms": round(first * 1000, 3)}
        | {f"p{p}_ms": round(float(np.percentile(usual, p)), 3) for p in (50, 95, 99)}
        | {"seconds_by_candidates": quantiles}
    )


def append(work):
    from hashret.index import append

    count, seconds = timed(append, work / "index", work / "more")
    return {"photographs": count, "seconds": seconds}


def remove(work):
    from hashret.index import remove

    items = read_json(work / "shards" / MANIFEST, "manifest")["items"]
    removed, seconds = timed(remove, work / "index", range(0, min(5000, items), 10))
    return {"photographs": removed.count, "seconds": seconds}


def compact(work):
    from hashret.index import compact

    done, seconds = timed(compact, work / "index")
    sizes = {"mb_before": done.bytes_before >> 20, "mb_after": done.bytes_after >> 20}
    return {"photographs": done.count, "seconds": seconds, **sizes}


if __name__ == "__main__":
    main()
