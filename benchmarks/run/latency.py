"""Latency of the Hamming stage against faiss `IndexBinaryFlat` and other engines, interleaved in one run.

    python -m benchmarks.run.latency --data random:1000000 learned:1000000
    python -m benchmarks.run.latency --data runs/NAME/database --queries runs/NAME/test --name cifar10_48b
    python -m benchmarks.run.latency --data itq:1000000 --features lite0.npy --bits 64 --k 1 10 100 1000

"random": uniform codes, the worst case; "learned": ten class centres whose bits flip with probability --flips; "itq":
ITQ codes of photographs' features, float32 (n, d) in a .npy file or as "base" in the .npz of `run.features`, each
photograph as often as it takes, jittered by normal noise of --jitter times the spread of each feature, every tenth
photograph only among the queries; a folder is one of shards, whose codes are searched. Every data set gives one JSON;
one that is there is not measured again, and is refused where it was measured by other options.
Of a cell (threads, batch, k), each engine first answers the same queries, and exact ones must answer as faiss does:
distances, ids and order. Then rounds alternate between the engines, and a ratio is that of the medians of a round.
hashret searches by tables over substrings or by the compiled scan, whichever it takes to be cheaper: "hashret-tables"
and "hashret-scan" are held to one of the two.

faiss's threads spin while they wait for each other: where other work takes a core, several are slower than one. Run
with several threads on an idle machine, or with OMP_WAIT_POLICY=PASSIVE; the JSON names the policy and the load.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from benchmarks.lib import common
from hashret.bits import as_words, code_width, pack, pad, padded_width
from hashret.files import read_json
from hashret.index.distinct import as_keys, group
from hashret.index.hamming import HammingStage, has_compiled
from hashret.index.multi_index import MultiIndex, make_tables
from hashret.index.planes import bit_planes
from hashret.index.substrings import PAYS_FROM, pays
from hashret.shards import ShardFolder

common.PACKAGES += ("numba", "llvmlite", "usearch")
RESULTS = common.RESULTS / "latency"
OURS = ("hashret-faiss", "hashret-scan", "hashret-tables", "hashret")
EXACT = ("flat", "padded", *OURS, "hashret-gpu", "numpy")  # the baseline first
SAMPLE = 64  # queries that stand for a batch which would take too long
SCALED_FROM = {"flat": 2e9, "padded": 2e9, "usearch": 2e8}  # items * batch
NUMPY_PAIRS = 1e8
IVF_ITEMS, IVF_PROBES = 1_000_000, 16
HNSW_ITEMS, HNSW_LINKS = 200_000, 32
CALLS = 200  # of an engine in a round, at most
POOL = 4096  # queries drawn
BLOCK = 2**18


def main():
    options = parse()
    names = {data: options.name or default_name(data, options) for data in options.data}
    todo = {data: name for data, name in names.items() if not is_measured(name, options)}
    for data, name in todo.items():
        common.save(name, {"data": data if drawn(data)[0] else name, **measure(data, options)}, options.results)


def is_measured(name, options):
    """Whether there is a result of that name, which is not to be measured anew.

    Raises:
        SystemExit: there is one, by other options, which names do not have.
    """
    path = options.results / f"{name}.json"
    if options.overwrite or not path.exists():
        return False
    result = read_json(path, "result")
    recorded = result | {key: sorted({cell[key] for cell in result["cells"]}) for key in ("threads", "batch", "k")}
    asked = {"threads": sorted(set(options.threads)), "rounds": options.rounds, "seconds_a_cell": options.seconds}
    asked |= {"batch": sorted({min(batch, result["queries"]) for batch in options.batch})}
    asked |= {"k": sorted({min(k, result["items"]) for k in options.k}), "engines": options.engines}
    if result["kind"] == "itq":
        asked["jitter"] = options.jitter
    common.check_settings(path, recorded, asked)
    print(f"{name} is measured already")
    return True


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="random:N, learned:N, itq:N or a folder of shards")
    parser.add_argument("--queries", help="another folder of shards, the queries of a folder")
    parser.add_argument("--name", help="of the JSON, for a single data set")
    parser.add_argument("--bits", type=int, default=48, help="of drawn codes")
    parser.add_argument("--flips", type=float, default=0.01, help="probability of a flipped bit of learned-like codes")
    parser.add_argument(
        "--features", type=Path, help="of photographs, for itq:N: a .npy file, or a .npz of run.features"
    )
    parser.add_argument("--jitter", type=float, default=0.3, help="of features, for itq:N, in spreads of a feature")
    parser.add_argument("--engines", nargs="+", help="to measure beside flat; default: all")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 1000], help="queries of a call")
    parser.add_argument("--k", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="for the rounds of a cell; one is always measured")
    common.add_results(parser, RESULTS)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    if len(options.data) > 1 and (options.name or options.queries):
        parser.error("--name and --queries go with a single data set")
    if options.features is None and any(data.startswith("itq:") for data in options.data):
        parser.error("itq:N wants --features FILE")
    return options


def drawn(data):
    """ "random:1000" -> ("random", 1000); (None, None) of a folder."""
    kind, _, n = data.partition(":")
    return (kind, int(n)) if kind in ("random", "learned", "itq") and n.isdigit() else (None, None)


def default_name(data, options):
    """Name of a data set's JSON."""
    kind, n = drawn(data)
    if not kind:
        return "_".join(Path(data).resolve().parts[-2:])
    how = {"learned": f"-p{options.flips:g}", "itq": f"-{options.features.stem}" if options.features else ""}
    return f"{kind}{how.get(kind, '')}_{n}_{options.bits}b"


def load(data, options):
    """Codes of a data set: -> items packed uint8 (n, w), queries (nq, w), bits, where they are from."""
    kind, n = drawn(data)
    most = max(POOL, *options.batch)
    if kind == "itq":
        about = {"kind": kind, "features": options.features.stem, "jitter": options.jitter, "seed": 0}
        xb, xq = itq_codes(read_features(options.features), n, most, options.bits, options.jitter)
        return xb, xq, options.bits, about | {"queries_are": "other photographs"}
    if kind:
        flips = 0.5 if kind == "random" else options.flips
        xb, xq = draw(n, options.bits, flips, 0), draw(most, options.bits, flips, 1)
        return xb, xq, options.bits, {"kind": kind, "flips": flips, "seed": 0, "queries_are": "drawn like the items"}
    folder = ShardFolder(data)
    xb = np.ascontiguousarray(folder.load().codes)
    about = {"kind": "shards", "seed": 0, "queries_are": "items" if options.queries is None else "other photographs"}
    rng = np.random.default_rng(0)
    xq = xb if options.queries is None else ShardFolder(options.queries).load().codes
    return xb, xq[rng.permutation(len(xq))[:most]], folder.manifest["bits"], about


def read_features(path):
    """Features float32 (n, d) of a .npy file, or those of the database in a .npz that `run.features` wrote."""
    loaded = np.load(path)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return loaded["base"]


def draw(n, bits, flips, seed):
    """Codes around ten centres, packed uint8 (n, w); uniform ones with ``flips`` 0.5."""
    centres, rng = np.random.default_rng(7).random((10, bits)) < 0.5, np.random.default_rng(seed)
    sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK)]
    return np.concatenate(
        [pack(centres[rng.integers(0, 10, size)] ^ (rng.random((size, bits), np.float32) < flips)) for size in sizes]
    )


def itq_codes(features, items, queries, bits, jitter):
    """ITQ codes of jittered features float32 (n, d): of items, and of queries, which are other photographs."""
    import torch

    from hashret.methods import get_method
    from hashret.models.heads import ProjectionHead

    held_out = np.arange(len(features)) % 10 == 9
    known, others = features[~held_out], features[held_out]
    head = ProjectionHead(bits, 0, features.shape[1], 1)
    with torch.no_grad():
        get_method("itq")(bits, 0, {}).fit(head, torch.from_numpy(known), None, 0)
    mean, weight = head.mean.detach().numpy(), head.weight.detach().numpy()
    spread, rng = known.std(axis=0), np.random.default_rng(0)

    def codes(rows):
        noise = rng.standard_normal(rows.shape, np.float32) * (jitter * spread)
        return pack((rows + noise - mean) @ weight >= 0)

    numbers = np.resize(np.arange(len(known)), items)
    blocks = [codes(known[numbers[start : start + 2**14]]) for start in range(0, items, 2**14)]
    return np.concatenate(blocks), codes(others[rng.integers(0, len(others), queries)])


def measure(data, options):
    """All that is measured of one data set, as a dict."""
    xb, xq, bits, about = load(data, options)
    print(f"{data}: {len(xb):,} items, {len(xq):,} queries, {bits} bits", flush=True)
    faiss.omp_set_num_threads(1)
    load_before, build, notes = os.getloadavg()[0], {}, []
    table = built(build, "grouping", lambda: group(pad(xb, padded_width(bits))))
    planes = built(build, "planes", lambda: bit_planes(np.ascontiguousarray(table.codes[:, : code_width(bits)])))
    tables = None
    if has_compiled() and len(table.codes) >= PAYS_FROM:
        make_tables(table.codes[:1], bits)  # compiles what builds
        tables = built(build, "tables", lambda: make_tables(table.codes, bits))
    engines = make_engines(xb, bits, table, planes, tables, build, notes)
    if options.engines:
        engines = {name: engine for name, engine in engines.items() if name in ("flat", *options.engines)}
    for search in engines.values():
        search(xq[:1], 1)  # loads what is loaded at the first call
    parts = {"codes": table.codes, "planes": planes, "starts": table.starts, "items": table.items}
    per_item = {name: 0 if part is None else round(part.nbytes / len(xb), 3) for name, part in parts.items()}
    if tables is not None:
        size = tables.starts.nbytes + tables.numbers.nbytes + tables.rest.nbytes
        per_item["tables"] = round(size / len(xb), 3)
    result = {**about, "items": len(xb), "bits": bits, "queries": len(xq), "grouped": table.grouped}
    result |= {"distinct_codes": len(np.unique(as_keys(table.codes)))}
    if tables is not None:
        result |= {"substrings": tables.layout.lengths.tolist()}
    result |= {"build_seconds": build, "bytes_per_item": per_item | {"flat": xb.shape[1]}}
    result |= {"first_call_seconds": first_calls(table, planes, bits) if has_compiled() else None}
    result |= {"rounds": options.rounds, "seconds_a_cell": options.seconds, "calls_a_round": CALLS}
    result |= {"engines": options.engines}
    result |= {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"), "notes": notes, "cells": []}
    for threads in options.threads:
        faiss.omp_set_num_threads(threads)
        for batch in sorted({min(batch, len(xq)) for batch in options.batch}):
            for k in sorted({min(k, len(xb)) for k in options.k}):
                found = {"threads": threads, "batch": batch, "k": k, **cell(engines, len(xb), xq, batch, k, options)}
                result["cells"].append(found)
                ratios = ", ".join(f"{name} x{e['ratio'][0]:.3g}" for name, e in found["engines"].items())
                print(f"threads {threads}, batch {batch}, k {k}, rounds {found['rounds']}: {ratios}", flush=True)
    return result | {"load_average": [load_before, os.getloadavg()[0]]}


def built(seconds, name, make):
    started = time.perf_counter()
    result = make()
    seconds[name] = round(time.perf_counter() - started, 3)
    return result


def make_engines(xb, bits, table, planes, tables, build, notes):
    """Engines by name, each a function of packed queries (nq, w) and k -> distances, ids; the baseline first."""
    width = padded_width(bits)
    padded = pad(xb, width)

    def over_padded(index):
        return lambda xq, k: index.search(pad(xq, width), k)

    def made(name, index):
        built(build, name, lambda: index.add(padded if index.code_size == width else xb))
        return index

    engines = {"flat": made("flat", faiss.IndexBinaryFlat(8 * xb.shape[1])).search}
    engines["padded"] = over_padded(made("padded", faiss.IndexBinaryFlat(8 * width)))
    stage = HammingStage(table, bits, "faiss")
    built(build, "hashret-faiss", lambda: stage.flat)
    engines["hashret-faiss"] = stage.search
    if has_compiled():
        if tables is not None:
            engines["hashret-scan"] = HammingStage(table, bits, "compiled", planes=planes).warm().search
            engines["hashret-tables"] = by_tables(MultiIndex(tables, table), width)
        tables = tables if pays(bits, len(table.codes)) else None
        engines["hashret"] = HammingStage(table, bits, "compiled", planes=planes, tables=tables).warm().search
    else:
        notes.append("hashret left out: numba is not installed")
    engines["numpy"] = with_numpy(as_words(xb))
    try:
        from usearch.index import MetricKind, search

        def with_usearch(xq, k):
            threads = faiss.omp_get_max_threads()
            found = search(xb, xq, k, MetricKind.Hamming, exact=True, threads=threads, dtype="b1")
            return found.distances.reshape(len(xq), -1), found.keys.reshape(len(xq), -1)

        engines["usearch"] = with_usearch
    except ImportError:
        notes.append("usearch left out: not installed")
    if len(xb) <= IVF_ITEMS:
        coarse = faiss.IndexBinaryFlat(8 * width)
        ivf = faiss.IndexBinaryIVF(coarse, 8 * width, max(1, round(len(xb) ** 0.5)))
        ivf.nprobe, ivf.keep = IVF_PROBES, coarse
        sample = np.random.default_rng(0).permutation(len(xb))[: 64 * ivf.nlist]
        built(build, "faiss IVF, training", lambda: ivf.train(np.ascontiguousarray(padded[sample])))
        engines["faiss IVF"] = over_padded(made("faiss IVF", ivf))
    if len(xb) <= HNSW_ITEMS:
        engines["faiss HNSW"] = over_padded(made("faiss HNSW", faiss.IndexBinaryHNSW(8 * width, HNSW_LINKS)))
    words = padded.ravel()[: padded.size // 8 * 8].view(np.uint64)
    engines["scan of memory"] = lambda xq, k: (np.sum(words), None)
    return engines


def by_tables(index, width):
    """The search by tables, whatever it costs."""

    def search(xq, k):
        distances, ids, costs = index.search(pad(xq, width), k, float("inf"), faiss.omp_get_max_threads())
        assert (costs >= 0).all()
        return distances, ids

    return search


def with_numpy(words):
    """numpy's `bitwise_count` and a stable sort over codes as uint64 (n, words)."""

    def search(xq, k):
        distances, ids = np.empty((len(xq), k), np.int32), np.empty((len(xq), k), np.int64)
        for row, query in enumerate(as_words(xq)):
            counts = np.bitwise_count(words ^ query)
            distance = counts[:, 0] if counts.shape[1] == 1 else counts.sum(axis=1, dtype=np.uint16)
            ids[row] = np.argsort(distance, kind="stable")[:k]
            distances[row] = distance[ids[row]]
        return distances, ids

    return search


def cell(engines, items, xq, batch, k, options):
    """One cell: -> rounds, distinct queries of a batch, and the engines' times, ratios and recall."""
    measured, first, about, truth = {}, {}, {}, None
    for name, search in engines.items():
        if name == "numpy" and items * batch > NUMPY_PAIRS:
            continue
        large = items * batch > SCALED_FROM.get(name, np.inf)
        measured[name] = 1 if name == "scan of memory" else min(batch, SAMPLE) if large else batch
        started = time.perf_counter()
        distances, ids = search(xq[: measured[name]], k)
        first[name] = time.perf_counter() - started
        truth = (distances, ids) if truth is None else truth
        about[name] = compare(name, distances, ids, *truth)
    rounds, begun = [], time.perf_counter()
    while len(rounds) < options.rounds:
        used = time.perf_counter() - begun
        if rounds and used + used / len(rounds) > options.seconds:
            break
        names, times = list(measured), {}
        for name in names[:: -1 if len(rounds) % 2 else 1]:
            share = options.seconds / options.rounds / len(names)
            count = int(np.clip(share / first[name], 1, CALLS))
            times[name] = calls(engines[name], xq, batch, measured[name], k, count, len(rounds) * count)
        rounds.append(times)
    for name, size in measured.items():
        about[name] |= summary([times[name] for times in rounds], [times["flat"] for times in rounds], batch)
        about[name] |= {"queries_measured": size} | ({"scaled": True} if size < batch else {})
    distinct = len(np.unique(xq[:batch], axis=0))
    return {"rounds": len(rounds), "distinct_queries": distinct, "engines": about}


def compare(name, distances, ids, true_distances, true_ids):
    """Whether an answer is the baseline's, which exact engines are held to, and the recall of the others."""
    rows = min(len(distances), len(true_distances)) if ids is not None else 0
    if not rows:
        return {}
    if name not in EXACT:  # another item at the k-th distance is as good; what is missing has a huge distance
        recall = (distances[:rows] <= true_distances[:rows, -1:]).mean()
        return {"recall": round(float(recall), 4)}
    assert np.array_equal(distances[:rows], true_distances[:rows]), f"{name}: other distances"
    assert np.array_equal(ids[:rows], true_ids[:rows]), f"{name}: other items"
    return {"equal_to_flat": True}


def calls(search, xq, batch, measured, k, count, first):
    """Seconds of ``count`` calls, each with other queries, scaled to the batch where fewer are measured."""
    time.sleep(0.02)  # faiss's threads spin for a while after a search
    if count > 1:
        search(xq[:measured], k)  # to have the codes of this engine in the cache
    seconds = []
    for number in range(first, first + count):
        start = number * batch % (len(xq) - batch + 1)
        some = xq[start : start + measured]
        started = time.perf_counter()
        search(some, k)
        seconds.append((time.perf_counter() - started) * batch / measured)
    return seconds


def summary(rounds, baseline, batch):
    """Figures of an engine in a cell: seconds of its calls by round, and those of the baseline."""
    seconds = np.concatenate(rounds)
    ratios = [np.median(base) / np.median(own) for own, base in zip(rounds, baseline, strict=True)]
    p50, p95, p99 = (float(f"{1000 * value:.4g}") for value in np.percentile(seconds, (50, 95, 99)))
    result = {"ms": {"p50": p50, "p95": p95, "p99": p99}, "calls": len(seconds)}
    result |= {"queries_per_second": float(f"{batch * len(seconds) / seconds.sum():.4g}")}
    return result | {"ratio": [float(f"{f(ratios):.4g}") for f in (np.median, np.min, np.max)]}


def first_calls(table, planes, bits):
    """Seconds of a first search in a new process: compiled there, and compiled by an earlier one."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/codes.npy", table.codes)
        np.save(f"{folder}/planes.npy", planes)
        command = [sys.executable, "-c", FIRST_CALL, folder, str(bits)]
        environment = os.environ | {"NUMBA_CACHE_DIR": f"{folder}/numba"}
        runs = [subprocess.run(command, check=True, capture_output=True, text=True, env=environment) for _ in range(2)]
    return dict(zip(("compiling", "compiled before"), (float(run.stdout) for run in runs), strict=True))


FIRST_CALL = """
import sys, time
import numpy as np
from hashret.index.distinct import CodeTable
from hashret.index.hamming import HammingStage
codes, planes = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in ("codes", "planes"))
started = time.perf_counter()
HammingStage(CodeTable(codes), int(sys.argv[2]), "compiled", planes=planes).search(codes[:1], 100)
print(round(time.perf_counter() - started, 3))
"""


if __name__ == "__main__":
    main()
