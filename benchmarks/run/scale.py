"""What an index of 10^7 to 10^10 photographs takes and gives: a capacity model and a simulation of its machines.

    python -m benchmarks.run.scale

Sizes and times come from the runs of `index_life.py` under benchmarks/results/scale/; merging is measured here. What
cannot be measured on one machine is assumed: `ASSUMED` says what. The simulation is `cluster.simulate`.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.cluster import (
    Cluster,
    answers_a_shard,
    drawn_from,
    lognormal,
    poisson,
    recall,
    simulate,
    until,
    with_pauses,
)

RESULTS = common.RESULTS / "scale"
CANDIDATES, K = 1000, 10  # of a query, before and after the re-rank
SHARD = 10_000_000  # photographs of a shard in the simulation
MEASURED = (10**7, 10**8)  # photographs of a shard in the capacity model
IMAGES = (10**7, 10**8, 10**9, 10**10)
CODES = ("codes", "uniform")  # results of which codes, learned-like and the worst case
ASSUMED = {  # name: (value, unit, why)
    "workers": (8, "cores a machine", "each answers one query at a time, as fast as the core measured here"),
    "memory": (64, "GiB a machine", "of which three quarters are for the index"),
    "load": (0.4, "of what the machines could answer", "one of two replicas can then answer for both"),
    "replicas": (2, "copies of each shard", "the least that outlives a machine"),
    "round_trip_median": (0.3e-3, "s", "within a data centre"),
    "round_trip_p99": (1.5e-3, "s", "the same, lognormal"),
    "pauses": (1e-3, "of the requests", "meet a machine that is busy with something else"),
    "pause_mean": (20e-3, "s", "exponential"),
    "machine_hour": (0.40, "$", "8 cores, 64 GiB"),
    "gpu_hour": (2.50, "$", "of one GPU that encodes"),
    "gpu_rate": (2000, "photographs a second", "at 224 px on one GPU; not measured"),
    "disk_month": (0.08, "$ a GB", "solid state"),
    "rate": (1000, "queries a second", "wanted of the whole"),
}
HOURS = 730  # of a month


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000, help="of a simulation, a quarter with 1,000 shards")
    common.add_results(parser, RESULTS)
    options = parser.parse_args()
    merging = {shards: merge_seconds(shards) for shards in (1, 10, 100, 1000)}
    result = {"assumed": ASSUMED, "candidates": CANDIDATES, "k": K, "shard": SHARD, "merging_seconds": merging}
    result["capacity"] = [capacity(images, codes) for codes in CODES for images in IMAGES]
    result["simulated"] = []
    for codes in CODES:
        for images in IMAGES:
            found = scenarios(images, codes, merging, options.queries)
            result["simulated"] += found
            for line in found:
                print({name: value for name, value in line.items() if name != "curve"}, flush=True)
    common.save("cluster", result | {"queries": options.queries, "seed": 0}, options.results)


def value(name):
    return ASSUMED[name][0]


def life(items, kind):
    """A run of `index_life.py`: kind "codes", "values" or "uniform"."""
    return json.loads((RESULTS / f"life_{items}_{kind}.json").read_text(encoding="utf-8"))


def bytes_a_photograph():
    """Bytes of each file of an index, for 10^7 photographs of 48 bits: {kind: {file: bytes}}."""
    runs = {kind: life(SHARD, kind) for kind in (*CODES, "values")}
    return {kind: {name: size / run["items"] for name, size in run["bytes"].items()} for kind, run in runs.items()}


def service(codes, candidates, shard=SHARD):
    """Seconds that a shard takes for its nearest ``candidates``, as measured: quantiles, of the next larger number.

    The slowest half per cent are left out: few samples say little of them, and pauses are assumed anyway.
    """
    measured = life(shard, codes)["search"]["seconds_by_candidates"]
    return measured[min((name for name in measured if int(name) >= candidates), key=int)][:-1]


def merge_seconds(shards):
    """Median seconds to merge what shards send: the nearest candidates by (distance, id), of these the k nearest."""
    rows, rng = answers_a_shard(CANDIDATES, shards), np.random.default_rng(0)
    D = np.sort(rng.integers(0, 20, (shards, rows)), axis=1)
    ids, euclidean = rng.integers(0, 2**40, (shards, rows)), rng.random((shards, rows), np.float32)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        keys = (D.astype(np.int64) << 40 | ids).ravel()
        near = np.argpartition(keys, CANDIDATES - 1)[:CANDIDATES]
        near[np.argsort(euclidean.ravel()[near], kind="stable")[:K]]
        times.append(time.perf_counter() - started)
    return float(f"{np.median(times):.4g}")


def capacity(images, codes):
    """Machines, bytes and dollars for so many photographs of 48 bits, in shards of the largest size measured."""
    shard = max(size for size in MEASURED if size <= images)
    sizes, shards, replicas = bytes_a_photograph(), images // shard, value("replicas")
    each = sizes[codes]
    cold = sum(each.get(name, 0) for name in ("ids.npy", "paths.bin", "path_ends.npy"))
    hot = sum(each.values()) - cold  # codes, planes, items: read by every query
    values = sizes["values"]["values.npy"]
    room = 0.75 * value("memory") * 2**30
    mean = np.mean(service(codes, answers_a_shard(CANDIDATES, shards), shard))
    rate_a_machine_of_all = value("load") * value("workers") / (shards * mean)  # were all shards on one machine
    for_rate = int(np.ceil(value("rate") / rate_a_machine_of_all))
    result = {"images": images, "codes": codes, "shard": shard}
    result |= {"hot_bytes": hot, "cold_bytes": cold, "value_bytes": values, "seconds_a_shard": float(f"{mean:.4g}")}
    for name, memory in (("codes_only", hot), ("with_values", hot + values)):
        least = max(1, int(np.ceil(images * memory / room)))
        machines = replicas * least
        disk = images * (hot + cold + (values if name == "with_values" else 0)) * replicas
        month = machines * value("machine_hour") * HOURS + disk / 1e9 * value("disk_month")
        needed = max(machines, for_rate)
        result[name] = {
            "machines_for_memory": machines, "queries_per_second": float(f"{machines * rate_a_machine_of_all:.4g}"),
            "dollars_a_month": round(month), "machines_for_rate": needed,
            "dollars_a_month_for_rate": round(month + (needed - machines) * value("machine_hour") * HOURS),
        }  # fmt: skip
    result["encoding"] = {
        "gpu_hours": round(images / value("gpu_rate") / 3600, 1),
        "dollars": round(images / value("gpu_rate") / 3600 * value("gpu_hour")),
    }
    return result


def scenarios(images, codes, merging, queries):
    """The simulation under what goes well and what does not."""
    shards, workers, load = images // SHARD, value("workers"), value("load")
    queries = queries // 4 if shards >= 1000 else queries
    work = with_pauses(
        drawn_from(service(codes, answers_a_shard(CANDIDATES, shards))), value("pauses"), value("pause_mean")
    )
    trips = lognormal(value("round_trip_median"), value("round_trip_p99"))
    mean = work(np.random.default_rng(0), 10**6).mean()
    usual, lines = None, []
    for name, replicas, hedge, dead in (
        ("two replicas", 2, None, ()),
        ("two replicas, hedged", 2, "p95", ()),
        ("one replica", 1, None, ()),
        ("one replica, a dead shard", 1, None, ((0, 0),)),
        ("two replicas, one of a shard dead", 2, None, ((0, 0),)),
        ("two replicas, hedged, one of a shard dead", 2, "p95", ((0, 0),)),
    ):
        after = None if hedge is None else usual
        cluster = Cluster(shards, replicas, workers, dead=dead, hedge_after=after)
        answers, sent = simulate(cluster, poisson(load * replicas * workers / mean, queries), work, trips)
        answers = answers[queries // 10 :] + merging[shards]
        if usual is None:  # a request is hedged when it takes longer than 95 of 100 do
            usual = float(np.quantile(answers, 0.95))
        lines.append(
            {"images": images, "codes": codes, "shards": shards, "scenario": name, "replicas": replicas}
            | {"hedge_after_ms": None if after is None else float(f"{1000 * after:.4g}")}
            | {"requests": float(f"{sent:.4g}")}
            | summary(answers)
        )
    return lines


def summary(answers):
    """Latency while waiting for all that answer, and what deadlines make of latency and recall."""
    there = np.isfinite(answers)
    slowest = np.where(there, answers, 0).max(axis=1)
    result = {"incomplete": float(f"{1 - there.all(axis=1).mean():.4g}")}
    result |= {"recall": float(f"{recall(answers, np.finfo(float).max, K).mean():.4g}")}
    if there.any():
        result |= {f"p{p}_ms": float(f"{1000 * np.percentile(slowest[slowest > 0], p):.4g}") for p in (50, 95, 99)}
    curve, finite = [], answers[np.isfinite(answers)]
    for deadline in np.geomspace(np.quantile(finite, 0.2), finite.max(), 40) if len(finite) else ():
        seconds, share = until(answers, deadline)
        found = recall(answers, deadline, K)
        curve.append(
            [1000 * deadline, 1000 * np.percentile(seconds, 99), found.mean(), np.percentile(found, 1), share.mean()]
        )
    return result | {"curve": [[float(f"{number:.5g}") for number in point] for point in curve]}


if __name__ == "__main__":
    main()
