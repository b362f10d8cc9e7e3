"""Damaged files by hand: python -m tests.damage --cases 10000 --out benchmarks/results/damage.json"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest has it

from damage.sandbox import Sandbox, summary


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the outcomes to this JSON file")
    parser.add_argument("--verbose", action="store_true", help="print every case, not only those with a fault")
    options = parser.parse_args()
    outcomes, started = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hashret-damage-") as top:
        sandbox = Sandbox(Path(top) / "cases", options.seed)
        for number in range(options.first, options.first + options.cases):
            outcome = sandbox.run(number)
            outcomes.append(outcome)
            if outcome.faults or options.verbose:
                print(f"{number} {outcome.kind} | {outcome.done} | {' '.join(outcome.arguments)[:150]!r}")
                print(
                    f"    {outcome.answer} {'; '.join(outcome.faults)} ({outcome.seconds} s, {outcome.growth_mb} MB)",
                    flush=True,
                )
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
