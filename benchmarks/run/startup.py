"""Time of `hashret --help` and of `hashret query` of one photograph, against importing torch and faiss alone.

    python -m benchmarks.run.startup --work runs/64 --photo photo.jpg
    python -m benchmarks.run.startup --work runs/64 --photo photo.jpg --against ../before

--work is a folder in which benchmarks/run/full_run.py has run, or any other that holds the checkpoint, its record and
the index. --against is a checkout of another commit, whose query of the same index is timed in the same rounds. Rounds
alternate, behind one that fills caches; seconds are CPU time of the process with its children, and wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.lib import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=7)
    common.add_results(parser)
    options = parser.parse_args()
    photo = str(options.photo.resolve())
    commands = {
        "import torch, faiss": [sys.executable, "-c", "import torch, faiss"],
        "hashret --help": [sys.executable, "-m", "hashret", "--help"],
        "hashret query": [sys.executable, "-m", "hashret", "query", photo],
    }
    packages = dict.fromkeys(commands, common.TOP)
    if options.against:
        for verb in ("--help", "query"):
            commands[f"before: hashret {verb}"] = commands[f"hashret {verb}"]
            packages[f"before: hashret {verb}"] = options.against.resolve()
    times = {name: [] for name in commands}
    for number in range(options.rounds + 1):  # the first fills the disk cache
        for name, command in commands.items():
            took = run(command, options.work, packages[name])
            if number:
                times[name].append(took)
    medians = {
        name: {"cpu_s": median(cpu for cpu, _ in took), "wall_s": median(wall for _, wall in took)}
        for name, took in times.items()
    }

    def ratio(name, other, figure=1):
        ratios = [own[figure] / base[figure] for own, base in zip(times[name], times[other], strict=True)]
        return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}

    checkpoint = (options.work / "model.safetensors").stat().st_size
    result = {"rounds": options.rounds, "checkpoint_mb": round(checkpoint / 1e6), "medians": medians}
    record, index = (json.loads((options.work / name).read_text()) for name in ("model.json", "index/index.json"))
    result |= {name: record[name] for name in ("arch", "method", "bits", "image_size", "seed")}
    result |= {"precision": index["precision"], "photographs": index["count"]}
    result["query_to_imports_wall"] = ratio("hashret query", "import torch, faiss")
    if options.against:
        head = subprocess.check_output(["git", "-C", options.against, "rev-parse", "--short", "HEAD"], text=True)
        result["against_commit"] = head.strip()
        for verb in ("--help", "query"):
            names = f"hashret {verb}", f"before: hashret {verb}"
            result[f"{verb.strip('-')}_to_before"] = {"wall": ratio(*names), "cpu": ratio(*names, 0)}
    print(result)
    common.save(f"startup_{options.work.name}", result, options.results)


def median(values):
    return round(statistics.median(values), 3)


def run(command, folder, package):
    """(CPU seconds, wall seconds) of a command that imports the package of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(package)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have the bytecode
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return round(cpu, 3), round(time.perf_counter() - started, 3)


if __name__ == "__main__":
    main()
