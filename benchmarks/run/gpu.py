"""Latency of the Hamming stage on a GPU, and of an index that the GPU holds, against faiss on the GPU and the CPU.

    python -m benchmarks.run.gpu
    python -m benchmarks.run.gpu --device cpu --items 20000 --batch 1 32 --results /tmp/gpu      # a try without a GPU

It begins with a small search that must be answered as by faiss `IndexBinaryFlat`. Every data set gives one JSON, which
is written after each cell (batch, k); run again on the same machine and commit and with the same options, it goes on,
and measures anew what has no JSON. In a cell, each
engine's first answers are compared with those of faiss on the CPU, then rounds alternate between the engines; a ratio
is that of the medians of a round.

`scan_bytes` are those of the codes an engine holds, `bandwidth_share` what reading them once in the median call is of
the card's measured bandwidth, and `floor_ms` how long torch takes to add up the padded codes of all items.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time

import faiss
import numpy as np
import torch

from benchmarks.lib import common
from benchmarks.run.latency import calls, draw, summary
from hashret.bits import pad, padded_width, unpack
from hashret.files import read_json
from hashret.index import Index
from hashret.index.distinct import group
from hashret.index.hamming import HammingStage, has_compiled
from hashret.index.resident import Resident
from hashret.index.segment import Segment

common.PACKAGES += ("numba", "triton")
FLIPS = {"random": 0.5, "learned": 0.01}
PLAN = [
    *itertools.product((10**6, 10**5, 10**7), (48,), FLIPS),
    *itertools.product((10**6,), (12, 24, 64), FLIPS),
    *itertools.product((10**8,), (48,), reversed(FLIPS)),
]  # what matters most first
CANDIDATES = 1000
BASELINE = "faiss-gpu"
CHECKED = 16  # queries of a cell that are compared with the CPU's answer
SCALED_FROM = {"faiss-cpu": 2e9, "hashret-cpu": 5e10}  # items * batch that a CPU is asked at most
CALLS = 100  # of an engine in a round, at most
BLOCK = 2**18


def main():
    options = parse()
    plan = PLAN
    if options.items or options.bits or options.kinds:
        plan = itertools.product(options.items or [10**6], options.bits or [48], options.kinds or FLIPS)
    plan = [(*spec, *begun(spec, options)) for spec in plan]
    check(options.device)
    bandwidth, end = measure_bandwidth(options.device), time.perf_counter() + 60 * options.minutes
    for items, bits, kind, cells, wanted in plan:
        if time.perf_counter() + 1.2e-6 * items > end:  # drawn, copied and grouped at about that rate
            print(f"{items:,} {kind} items of {bits} bits: no time is left in this run")
            continue
        name = f"{kind}_{items}_{bits}b"
        result = {"data": kind, "flips": FLIPS[kind], "seed": 0, "items": items, "bits": bits, "cells": cells}
        result |= asked_for(options)
        if wanted:
            measure(name, result | {"bandwidth": bandwidth}, wanted, end, options)
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--items", type=int, nargs="+", help="without it, --bits and --kinds: 1e5 to 1e8, 48 bits mostly"
    )
    parser.add_argument("--bits", type=int, nargs="+")
    parser.add_argument("--kinds", nargs="+", choices=list(FLIPS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 1000, 10000])
    parser.add_argument("--k", type=int, nargs="+", default=[100, 1000], help="at most 2048, what faiss selects")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="for the rounds of a cell; one is always measured")
    parser.add_argument(
        "--most",
        type=float,
        default=2,
        help="an engine slower than this, other than the baseline, gets no larger batch",
    )
    parser.add_argument("--minutes", type=float, default=7, help="no cell begins after that")
    common.add_results(parser, common.RESULTS / "gpu")
    return parser.parse_args()


def begun(spec, options):
    """The cells of a data set that are measured, and what remains, (batch, k).

    Raises:
        SystemExit: the JSON is of another device, or by other options; or another machine or commit left cells to do.
    """
    items, bits, kind = spec
    path = options.results / f"{kind}_{items}_{bits}b.json"
    result = read_json(path, "result") if path.exists() else {"cells": []}
    common.check_settings(path, result, asked_for(options))
    done = {(cell["batch"], cell["k"]) for cell in result["cells"]}
    wanted = [cell for cell in itertools.product(sorted(options.batch), options.k) if cell not in done]
    if wanted:
        common.check_settings(path, result, {"machine": common.machine(), "commit": common.commit()})
    return result["cells"], wanted


def asked_for(options):
    """The options by which all cells of a JSON are measured, as it names them."""
    return {name: getattr(options, name) for name in ("device", "rounds", "seconds", "most")}


class Queries:
    """Codes and values of queries, cut together."""

    def __init__(self, codes, values):
        self.codes, self.values = codes, values

    def __len__(self):
        return len(self.codes)

    def __getitem__(self, some):
        return Queries(self.codes[some], self.values[some])


class HeldSegment(Segment):
    """A segment in memory."""

    def __init__(self, stage, values):
        self.stage, self.hash_outputs, self.fc_features, self.meta = stage, values, None, {"count": len(stage)}
        self.removed, self.columns = np.empty(0, np.int64), {"hash_outputs": values}


def make_values(codes, bits, seed):
    """Hash-layer values of codes: float32 (n, bits)."""
    rng, values = np.random.default_rng(seed), np.empty((len(codes), bits), np.float32)
    for start in range(0, len(codes), BLOCK):
        ones = unpack(codes[start : start + BLOCK], bits)
        values[start : start + BLOCK] = np.abs(ones - 0.4 * rng.random(ones.shape, np.float32))
    return values


def make_index(codes, bits, grouped=None):
    """An index in memory that the CPU searches, compiled where numba is installed."""
    stage = HammingStage(group(pad(codes, padded_width(bits)), grouped), bits).warm()
    return Index({"bits": bits}, [HeldSegment(stage, make_values(codes, bits, 2))])


def plain(codes, bits, device):
    """faiss's own index over all padded codes: `GpuIndexBinaryFlat`, or `IndexBinaryFlat` on the CPU."""
    index = faiss.IndexBinaryFlat(8 * padded_width(bits))
    index.add(pad(codes, padded_width(bits)))
    if device == "cuda":
        resources = faiss.StandardGpuResources()
        index = faiss.GpuIndexBinaryFlat(resources, index)
        index.keep = resources
    return lambda queries, k: index.search(pad(queries.codes, padded_width(bits)), k)


def make_engines(codes, bits, device):
    """Engines by name, each a function of `Queries` and k -> distances, rows, and Euclidean distances of a re-rank."""
    index = make_index(codes, bits)
    stage = index.segments[0].stage
    distinct = len(stage.table.codes)
    resident = Resident(index, device, few_queries=0).warm()

    def hamming(place):
        return lambda queries, k: place.search(queries.codes, k)

    def first_stage(queries, k):
        hits = resident.search(queries.codes, None, k)
        return hits.hamming, hits.positions

    def both_stages(queries, k):
        hits = resident.search(queries.codes, queries.values, k, CANDIDATES)
        return hits.hamming, hits.positions, hits.euclidean

    engines = {BASELINE: plain(codes, bits, device)}
    engines |= {"resident-hamming": first_stage, "resident": both_stages}
    engines |= {"hashret-cpu": hamming(stage), "faiss-cpu": plain(codes, bits, "cpu")}
    width = padded_width(bits)
    scan_bytes = {name: (len(codes) if name.startswith("faiss") else distinct) * width for name in engines}
    return engines, scan_bytes, index


def check(device):
    """Stop unless small searches are answered as by faiss on the CPU."""
    if device == "cuda" and not (torch.cuda.is_available() and faiss.get_num_gpus()):
        sys.exit(f"torch sees {torch.cuda.device_count()} GPUs, faiss {faiss.get_num_gpus()}: nothing to measure here")
    for kind, flips in FLIPS.items():
        codes, bits = draw(20_000, 48, flips, 0), 48
        xq = draw(50, bits, flips, 1)
        engines, _, index = make_engines(codes, bits, device)
        for name in engines:
            compare(name, engines[name], engines["faiss-cpu"], index, Queries(xq, make_values(xq, bits, 3)), 100)
        print(f"{kind} codes: {', '.join(engines)} answer as faiss on the CPU", flush=True)


def compare(name, search, truth, index, queries, k):
    """Stop unless an engine answers as faiss on the CPU, plain faiss on the GPU up to the order at equal distances."""
    found, (D, rows) = search(queries, k), truth(queries, k)
    if len(found) == 3:
        hits = index.search(queries.codes, queries.values, k, CANDIDATES)
        same = np.allclose(found[2], hits.euclidean, atol=1e-5)
    else:
        same = np.array_equal(found[0], D) and (name == BASELINE or np.array_equal(found[1], rows))
    if not same:
        sys.exit(f"{name} answers otherwise than faiss on the CPU: k {k}, {len(queries)} queries, {index.bits} bits")


def measure(name, result, wanted, end, options):
    """Cells of a data set, saved one by one."""
    items, bits, flips = result["items"], result["bits"], result["flips"]
    print(f"{name}: drawing", flush=True)
    codes, xq = draw(items, bits, flips, 0), draw(2 * max(options.batch), bits, flips, 1)
    queries = Queries(xq, make_values(xq, bits, 3))
    started = time.perf_counter()
    engines, scan_bytes, index = make_engines(codes, bits, options.device)
    table = index.segments[0].stage.table
    result |= {"grouped": table.grouped, "codes_held": len(table.codes)}
    result |= {"build_seconds": round(time.perf_counter() - started, 2), "queries_are": "drawn like the items"}
    result |= {"candidates": CANDIDATES, "scan_bytes": scan_bytes, "cpu_threads": faiss.omp_get_max_threads()}
    result |= {"compiled": has_compiled(), "floor_ms": floor(pad(codes, padded_width(bits)), options.device)}
    for batch, k in wanted:
        if time.perf_counter() > end:
            print(f"{name}: no time is left in this run")
            return
        too_slow = {
            engine
            for cell in result["cells"]
            for engine, figures in cell["engines"].items()
            if engine != BASELINE and cell["k"] == k and figures["ms"]["p50"] > 1000 * options.most
        }
        some = {engine: search for engine, search in engines.items() if engine not in too_slow}
        for engine, search in some.items():
            compare(engine, search, engines["faiss-cpu"], index, queries[: min(batch, CHECKED)], k)
        found = cell(some, items, queries, batch, k, options)
        for engine, figures in found["engines"].items():
            rate = scan_bytes[engine] / figures["ms"]["p50"] * 1000
            figures["bandwidth_share"] = float(f"{rate / result['bandwidth']['sum']:.3g}")
        result["cells"].append({"batch": batch, "k": k, **found})
        common.save(name, result, options.results)
        figures = (f"{e} {f['ms']['p50']:g} (x{f['ratio'][0]:.3g})" for e, f in found["engines"].items())
        print(f"{name}, batch {batch}, k {k}, ms: {', '.join(figures)}", flush=True)


def cell(engines, items, queries, batch, k, options):
    """One cell: -> rounds, and the engines' times and ratios to the baseline."""
    measured, first, rounds = {}, {}, []
    for name, search in engines.items():
        limit = SCALED_FROM.get(name)
        measured[name] = min(batch, max(1, int(limit / items))) if limit else batch
        for _ in range(2):  # the first may allocate memory
            started = time.perf_counter()
            search(queries[: measured[name]], k)
            first[name] = time.perf_counter() - started
            if first[name] > 0.1:
                break
    begun = time.perf_counter()
    while len(rounds) < options.rounds:
        used = time.perf_counter() - begun
        if rounds and used + used / len(rounds) > options.seconds:
            break
        times = {}
        for name in list(engines)[:: -1 if len(rounds) % 2 else 1]:
            share = options.seconds / options.rounds / len(engines)
            count = int(np.clip(share / first[name], 1, CALLS))
            times[name] = calls(engines[name], queries, batch, measured[name], k, count, len(rounds) * count)
        rounds.append(times)
    about = {}
    for name, size in measured.items():
        about[name] = summary([times[name] for times in rounds], [times[BASELINE] for times in rounds], batch)
        about[name] |= {"queries_measured": size} | ({"scaled": True} if size < batch else {})
    return {"rounds": len(rounds), "ratio_to": BASELINE, "engines": about}


def measure_bandwidth(device, size=2**31):
    """Bytes a second of a large copy within the device's memory, read and written, and of a sum over it."""
    if device == "cpu":
        size = 2**28
    a = torch.zeros(size // 8, dtype=torch.int64, device=device)
    b = torch.empty_like(a)
    rates = {"copy": 2 * size / seconds(lambda: b.copy_(a), device), "sum": size / seconds(lambda: a.sum(), device)}
    print(f"bandwidth: {', '.join(f'{name} {rate / 1e9:.0f} GB/s' for name, rate in rates.items())}", flush=True)
    return {name: float(f"{rate:.4g}") for name, rate in rates.items()}


def floor(padded, device):
    """Milliseconds of a sum over codes on the device."""
    whole = padded.ravel()[: padded.size // 8 * 8].view(np.int64)
    codes = torch.from_numpy(whole).to(device)
    return float(f"{1000 * seconds(lambda: codes.sum(), device):.4g}")


def seconds(function, device, times=20):
    """Median of several runs."""
    found = []
    for _ in range(times + 3):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return float(np.median(found[3:]))


if __name__ == "__main__":
    main()
