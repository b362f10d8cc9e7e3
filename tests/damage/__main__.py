"""Damaged files by hand: python -m tests.damage --cases 10000 --out benchmarks/results/damage.json"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest has it

from damage.sandbox import run_cases, summary


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="that share the cases")
    parser.add_argument("--out", help="write the outcomes to this JSON file")
    parser.add_argument("--verbose", action="store_true", help="print every case, not only those with a fault")
    options = parser.parse_args()
    started = time.monotonic()
    end, step = options.first + options.cases, options.processes
    parts = [range(options.first + part, end, step) for part in range(step)]
    with ProcessPoolExecutor(step, get_context("spawn")) as pool:
        done = pool.map(run_cases, parts, [options.seed] * step, [options.verbose] * step)
        outcomes = sorted((outcome for part in done for outcome in part), key=lambda outcome: outcome.number)
    result = {"seed": options.seed, "seconds": round(time.monotonic() - started), **summary(outcomes)}
    print(
        {name: result[name] for name in ("cases", "answers", "faults", "slowest_seconds", "most_memory_mb", "seconds")}
    )
    if options.out:
        from benchmarks.lib.common import save

        path = Path(options.out)
        save(path.stem, result, path.parent)
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
