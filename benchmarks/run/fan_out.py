"""One index against the same codes in several processes, a shard each, and what the simulation says of them.

    python -m benchmarks.run.fan_out --flips 0.5 --work runs/fan-out

A harness to measure with, not a way to serve: every process opens the index of its shard and answers the nearest K over
a pipe; the client asks all, and merges what comes back by (distance, row). Every merged answer must be that of the one
index. Measured: one query at a time, several at once, and queries that come at random at some share of that rate. Then
`cluster.simulate` predicts the same from times measured apart: those of the searches of one shard, of empty messages
to all processes, and of merging.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import selectors
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.cluster import Cluster, drawn_from, poisson, replayed, simulate
from benchmarks.run.index_life import SHARD, claim, write_shards
from benchmarks.run.latency import draw
from hashret.files import read_json, write_json
from hashret.index import append, build_index
from hashret.shards import MANIFEST, shard_name

common.PACKAGES += ("numba",)
RESULTS = common.RESULTS / "scale"
K = 100
GRID = np.linspace(0, 1, 201)
LOADS = (0.3, 0.6, 0.8)
WARM_UP = 50  # queries that do not count
AT_ONCE = 8  # queries on their way, for the rate that can be had
MOST = 64  # queries on their way at most; more would fill the pipes, and wait here


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=40 * SHARD, help=f"a multiple of {SHARD:,} times the shards")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--flips", type=float, default=0.01, help="probability of a flipped bit; 0.5: uniform codes")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--work", type=Path, required=True, help="folder for the shards and the indexes")
    common.add_results(parser, RESULTS)
    options = parser.parse_args()
    options.bits, options.stream, options.values = 48, False, False
    claim(options.work / "shards", options.items, options, 0)
    write_shards(options.work / "shards")
    options.codes = draw(options.queries + WARM_UP, options.bits, options.flips, 1)
    result = {"items": options.items, "bits": options.bits, "flips": options.flips, "k": K, "queries": options.queries}
    result |= {"rounds": options.rounds, "at_once": AT_ONCE, "niceness": os.nice(0), "shards": {}}
    load = os.getloadavg()[0]
    truth = None
    for shards in options.shards:
        folders = build(options.work, shards, options.items)
        found, truth = measure(folders, truth, options)
        found["predicted"] = predict(shards, found)
        for run in (found["one_by_one"], found["at_once"], *found["at_random"].values()):
            del run["traces"]
        result["shards"][shards] = found
        print(shards, {name: found[name]["p50_ms"] for name in ("one_by_one", "at_once")}, flush=True)
    result |= {"segments": segments(options, truth), "load_average": [load, os.getloadavg()[0]]}
    common.save(f"fan_out_{'uniform' if options.flips == 0.5 else 'learned'}_{options.items}", result, options.results)


def build(work, shards, items):
    """Indexes of consecutive parts of the items: -> their folders."""
    folders = []
    for part in range(shards):
        folders.append(work / f"{shards}-{part}")
        build_index(link(work, shards, part, items), folders[-1], overwrite=True, values=False)
    return folders


def link(work, shards, part, items):
    """A folder with one of equal parts of the files of codes."""
    files = items // SHARD // shards
    if files * SHARD * shards != items:
        raise SystemExit(f"{items:,} items are no multiple of {SHARD:,} times {shards}")
    linked = work / "linked"
    shutil.rmtree(linked, ignore_errors=True)
    linked.mkdir()
    for number in range(files):
        os.link(work / "shards" / shard_name(part * files + number), linked / shard_name(number))
    write_json(linked / MANIFEST, read_json(work / "shards" / MANIFEST, "manifest") | {"shards": files})
    return linked


def measure(folders, truth, options):
    """All that is measured of some shards, and the answers, which are those of ``truth`` unless there is none yet."""
    rows = options.items // len(folders)
    context = multiprocessing.get_context("spawn")
    alone = context.Pool(1).apply(search_alone, (folders[0], options.codes))
    client = Client(folders, rows)
    try:
        answers = [client.ask_one(code) for code in options.codes]
        if truth is not None:
            assert all(np.array_equal(a, b) for a, b in zip(answers, truth, strict=True)), (
                "other answers than one index"
            )
        found = {"alone_quantiles": quantiles(alone[WARM_UP:]), "merge_seconds": client.merging(answers)}
        nothing = np.zeros((len(options.codes), 0), np.uint8)
        client.run(nothing, AT_ONCE)
        found["empty_per_second"] = float(f"{len(nothing) / client.seconds:.4g}")
        found["one_by_one"] = repeated(client, options, 1)
        found["at_once"] = repeated(client, options, AT_ONCE)
        found["at_random"] = {load: repeated(client, options, MOST, load, found["at_once"]) for load in LOADS}
    finally:
        client.close()
    return found, answers if truth is None else truth


def repeated(client, options, at_once, load=None, full=None):
    """Runs of all queries, and of empty messages in the same way: latency, rate, and seconds of work and of messages.

    ``load``: queries come at random, at this share of the rate that ``full`` reached. "traces", of each run, are when
    the queries came, None for one after the other, the work of each shard, and the messages' round trips.
    """
    nothing = np.zeros((len(options.codes), 0), np.uint8)
    seconds, rates, traces = [], [], []
    for number in range(options.rounds):
        arrivals = poisson(load * full["queries_per_second"], len(options.codes), seed=number) if load else None
        client.work.clear()
        seconds.append(client.run(options.codes, at_once, arrivals)[WARM_UP:])
        rates.append(len(options.codes) / client.seconds)
        traces.append((arrivals, np.stack(client.work), client.run(nothing, at_once, arrivals)))
    return figures(np.concatenate(seconds)) | {
        "queries_per_second": float(f"{np.median(rates):.4g}"),
        "work_quantiles": quantiles(np.concatenate([work.ravel() for _, work, _ in traces])),
        "empty_quantiles": quantiles(np.concatenate([trips for _, _, trips in traces])),
        "traces": traces,
    }


def segments(options, truth):
    """The same items in one index of several segments, one after the other in one process: milliseconds."""
    found = {}
    for shards in options.shards:
        folder = options.work / "segments"
        shutil.rmtree(folder, ignore_errors=True)
        for part in range(shards):
            linked = link(options.work, shards, part, options.items)
            if part:
                append(folder, linked)
            else:
                build_index(linked, folder, values=False)
        index = opened(folder)
        assert all(
            np.array_equal(np.stack([part[0] for part in index.nearest(code[None], K)]), wanted)
            for code, wanted in zip(options.codes, truth, strict=True)
        )
        found[shards] = figures(
            multiprocessing.get_context("spawn").Pool(1).apply(search_alone, (folder, options.codes))
        )
    return found


def search_alone(folder, codes):
    """Seconds of each search in a process that has the machine to itself, on one thread."""
    index, seconds = opened(folder), []
    for query in range(len(codes)):
        started = time.perf_counter()
        index.nearest(codes[query : query + 1], K)
        seconds.append(time.perf_counter() - started)
    return seconds


def opened(folder):
    import faiss

    from hashret.index import open_index

    faiss.omp_set_num_threads(1)
    return open_index(folder, "cpu", verify=False, backend="compiled").warm()


def serve(folder, offset, connection):
    """Answer queries until an empty message comes: number and code -> number, CPU seconds, distances, rows."""
    index = opened(folder)
    connection.send_bytes(b"ready")
    while message := connection.recv_bytes():
        code = np.frombuffer(message, np.uint8, offset=8)
        if not len(code):
            connection.send_bytes(message)
            continue
        started = time.process_time()  # waiting for a core is no work
        D, rows = index.nearest(code[None], K)
        seconds = np.float64(time.process_time() - started)
        connection.send_bytes(message[:8] + seconds.tobytes() + D.tobytes() + (rows + offset).tobytes())


class Client:
    """Asks all processes and merges. ``work``: CPU seconds of each search, as the processes say."""

    def __init__(self, folders, rows):
        context = multiprocessing.get_context("spawn")
        self.connections, self.processes, self.work = [], [], []
        self.selector = selectors.SelectSelector()  # epoll waits for whole milliseconds
        for number, folder in enumerate(folders):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(folder, number * rows, theirs), daemon=True)
            process.start()
            self.connections.append(ours)
            self.processes.append(process)
            self.selector.register(ours, selectors.EVENT_READ)
        assert all(connection.recv_bytes() == b"ready" for connection in self.connections)

    def send(self, number, code):
        message = np.int64(number).tobytes() + code.tobytes()
        for connection in self.connections:
            connection.send_bytes(message)

    def ask_one(self, code):
        self.send(0, code)
        return merge([connection.recv_bytes() for connection in self.connections])

    def run(self, codes, at_once, arrivals=None):
        """Ask each query once fewer than ``at_once`` are on their way, not before its time: -> seconds from then to the
        answer.
        """
        waiting, done = {}, np.empty(len(codes))
        sent = answered = 0
        begin = time.perf_counter()
        started = np.empty(len(codes)) if arrivals is None else begin + arrivals
        while answered < len(codes):
            now = time.perf_counter()
            while sent < len(codes) and len(waiting) < at_once and (arrivals is None or started[sent] <= now):
                if arrivals is None:
                    started[sent] = time.perf_counter()
                waiting[sent] = []
                self.send(sent, codes[sent])
                sent += 1
            more = arrivals is not None and sent < len(codes) and len(waiting) < at_once
            pause = max(0.0, started[sent] - time.perf_counter()) if more else None
            for key, _ in self.selector.select(pause):
                reply = key.fileobj.recv_bytes()
                number = int.from_bytes(reply[:8], "little")
                waiting[number].append(reply)
                if len(waiting[number]) == len(self.connections):
                    replies = waiting.pop(number)
                    if codes.shape[1]:
                        merge(replies)
                        self.work.append(np.array([np.frombuffer(reply, np.float64, 1, 8)[0] for reply in replies]))
                    done[number] = time.perf_counter()
                    answered += 1
        self.seconds = time.perf_counter() - begin
        return done - started

    def merging(self, answers):
        """Median seconds of merging."""
        self.send(0, np.frombuffer(bytes(6), np.uint8))
        replies, seconds = [connection.recv_bytes() for connection in self.connections], []
        for _ in answers:
            started = time.perf_counter()
            merge(replies)
            seconds.append(time.perf_counter() - started)
        return float(f"{np.median(seconds):.4g}")

    def close(self):
        for connection in self.connections:
            connection.send_bytes(b"")
        for process in self.processes:
            process.join(10)


def merge(replies):
    """Nearest K of all shards, by (distance, row): -> (2, K) int64."""
    D = np.concatenate([np.frombuffer(reply, np.int32, K, 16) for reply in replies])
    rows = np.concatenate([np.frombuffer(reply, np.int64, K, 16 + 4 * K) for reply in replies])
    keys = D.astype(np.int64) << 40 | rows
    keys.sort()
    return np.stack([keys[:K] >> 40, keys[:K] & (2**40 - 1)])


def predict(shards, found):
    """What the simulation says: this machine is one with a worker a core, at most one a shard, which the shards share.

    Messages take the cores' time, too: as much a shard as empty ones that follow each other closely. What a round trip
    of empty messages to all takes beyond that, and the merging, is added to a query's answer as a whole.

    Searches take either the CPU time that they took in the run that is predicted, in the same order ("replayed") or
    in any ("shuffled"), or as long as they do when a process has the machine to itself ("alone"), as
    `scale.py` has it.
    """
    workers = min(shards, os.cpu_count())
    messages = workers / shards / found["empty_per_second"]
    cluster = Cluster(shards, workers=workers, shards_a_machine=shards)
    alone = np.array(found["alone_quantiles"]) + messages
    full = np.array(found["at_once"]["work_quantiles"]) + messages
    services = {  # of a run's searches, and how long those take on average when there are always some to do
        "replayed": (lambda work: replayed(work + messages), full.mean()),
        "shuffled": (lambda work: drawn_from(np.sort(work, axis=None) + messages), full.mean()),
        "alone": (lambda work: drawn_from(alone), alone.mean()),
    }

    def latency(run, service):
        seconds = []
        for arrivals, work, trips in run["traces"]:
            trip = replayed(np.maximum(0, trips - 1 / found["empty_per_second"]))
            if arrivals is None:
                arrivals = np.arange(len(work)) * 100 * work.mean() * shards  # each finds all idle
            answers = simulate(cluster, arrivals, service(work), with_one_trip(trip, found["merge_seconds"]))[0]
            seconds.append(answers.max(axis=1)[WARM_UP:])
        return figures(np.concatenate(seconds))

    return {
        name: {
            "one_by_one": latency(found["one_by_one"], service),
            "at_random": {load: latency(run, service) for load, run in found["at_random"].items()},
            "queries_per_second": float(f"{workers / (shards * mean):.4g}"),
        }
        for name, (service, mean) in services.items()
    }


def with_one_trip(trip, merging):
    return lambda rng, n: np.full(n, trip(rng, 1)[0] + merging)


def figures(seconds):
    """Milliseconds: mean and percentiles."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1000
    named = {"mean_ms": np.mean(seconds) * 1000, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    return {name: float(f"{value:.4g}") for name, value in named.items()}


def quantiles(seconds):
    return [float(f"{value:.4g}") for value in np.quantile(seconds, GRID)]


if __name__ == "__main__":
    main()
