"""Tables of the runs of `benchmarks.run.gpu`, from their JSON and nothing else: benchmarks/gpu.md.

python -m benchmarks.pages.gpu
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

RESULTS = common.RESULTS / "gpu"
PAGE = common.TOP / "benchmarks" / "gpu.md"
ENGINES = ("faiss-gpu", "hashret-gpu", "resident-hamming", "resident", "hashret-cpu", "faiss-cpu")


def write(results: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page ``target`` from the runs in the folder ``results``."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")]
    runs.sort(key=lambda run: (run["data"], run["bits"], run["items"]))
    target.write_text("\n\n".join([HEAD, *map(section, runs), provenance(runs)]) + "\n", encoding="utf-8")
    print(f"-> {target}")


def section(run: dict[str, Any]) -> str:
    """Return the table of one data set."""
    codes = "uniform codes" if run["data"] == "random" else f"learned-like codes, p {run['flips']:g}"
    lines = table_head(["batch", "k", *(f"{name}, ms" for name in ENGINES), "share of bandwidth, faiss-gpu"])
    for cell in run["cells"]:
        engines = cell["engines"]
        times = [time(engines[name]) if name in engines else "" for name in ENGINES]
        lines.append(row([cell["batch"], cell["k"], *times, f"{engines['faiss-gpu']['bandwidth_share']:.1g}"]))
    return (
        f"## {codes}, {run['items']:,} items, {run['bits']} bits\n\n"
        f"{run['codes_held']:,} codes are compared by hashret, {run['items']:,} by faiss. The card adds up the padded "
        f"codes of all items in {run['floor_ms']:g} ms.\n\n" + "\n".join(lines)
    )


def time(engine: dict[str, Any]) -> str:
    """Return the median milliseconds of a call to three digits, and the mark of one that is scaled."""
    median = engine["ms"]["p50"]
    text = f"{median:,.0f}" if median >= 100 else f"{median:.3g}"
    return text + (" *" if engine.get("scaled") else "")


def provenance(runs: list[dict[str, Any]]) -> str:
    """Return where the runs were made, in words."""
    versions = {name: sorted({run["versions"][name] for run in runs}) for name in ("torch", "faiss-gpu", "numba")}
    named = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    seeds = ", ".join(sorted({str(run["seed"]) for run in runs}))
    threads = " and ".join(sorted({str(run["cpu_threads"]) for run in runs}))
    return f"{made_on(runs)} Seed {seeds}. {threads} threads of the CPU. {named}."


HEAD = """# Hamming search on a GPU

Every engine answers the same queries; median milliseconds of a call, rounds alternating between the engines. The first
answers of every cell were compared with those of `IndexBinaryFlat`.

- **faiss-gpu**: `faiss.GpuIndexBinaryFlat` over the padded codes of all items, ties in any order.
- **hashret-gpu**: the Hamming stage with the same over distinct codes, ties in the order of the ids.
- **resident-hamming**, **resident**: the index that the card holds, without the re-rank and with 1,000 candidates.
- **hashret-cpu**: the compiled scan on the cores of the same machine; **faiss-cpu**: `IndexBinaryFlat` on them.

**What they show.** The compiled scan on the CPU answers single queries and small batches sooner than any path through
the card, and on codes that repeat, large batches, too: faiss's kernel for binary codes reads memory at a ten-thousandth
of what the card can, and a call through torch takes one to three milliseconds before it begins. faiss's kernel,
whose ties come in any order, is ahead in most cells where codes are all different and 1,000 queries or more come at
once; what hashret makes of it on the card, in a few of these. \\*: measured on part of the batch and scaled to it.
Made by `benchmarks/pages/gpu.py` from `benchmarks/results/gpu/`, which `benchmarks/run/gpu.py` writes."""


if __name__ == "__main__":
    write()
