"""Tables of the runs of `benchmarks.run.gpu`, from their JSON and nothing else: benchmarks/gpu.md.

python -m benchmarks.pages.gpu
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

RESULTS = common.RESULTS / "gpu"
PAGE = common.TOP / "benchmarks" / "gpu.md"
ENGINES = ("faiss-gpu", "resident-hamming", "resident", "hashret-cpu", "faiss-cpu")  # of those that were measured
OUR_GPU = ("resident-hamming", "resident")
GPU, CPU = ("faiss-gpu", *OUR_GPU), ("hashret-cpu", "faiss-cpu")
SMALL, LARGE = 32, 1000  # batches that are small at most, and large at least


def write(results: Path = RESULTS, target: Path = PAGE) -> None:
    """Write the page ``target`` from the runs in the folder ``results``."""
    target.write_text(page(load(results)), encoding="utf-8")
    print(f"-> {target}")


def load(results: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all runs, by data, length of code and number of items."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")]
    return sorted(runs, key=lambda run: (run["data"], run["bits"], run["items"]))


def page(runs: list[dict[str, Any]]) -> str:
    """Return the Markdown page."""
    return "\n\n".join([HEAD, shown(runs), *map(section, runs), provenance(runs)]) + "\n"


def shown(runs: list[dict[str, Any]]) -> str:
    """Return what the cells show, counted."""
    small = [times(cell) for run in runs for cell in run["cells"] if cell["batch"] <= SMALL]
    repeated, different = (
        [times(cell) for run in runs if run["grouped"] == grouped for cell in run["cells"] if cell["batch"] >= LARGE]
        for grouped in (True, False)
    )
    return (
        f"**What they show.** Of the {len(small)} cells of batches up to {SMALL}, the compiled scan on the CPU answers "
        f"sooner than any path through the card in {ahead(small, ('hashret-cpu',), GPU)}. Of the {len(repeated)} cells "
        f"of {LARGE:,} queries or more over codes that repeat, it does so in "
        f"{ahead(repeated, ('hashret-cpu',), GPU)}. Of the {len(different)} cells of as many queries over codes that "
        f"are all different, a path through the card is the fastest of all in {ahead(different, GPU, CPU)}: faiss's "
        f"kernel, whose ties come in any order, in {ahead(different, ('faiss-gpu',), (*OUR_GPU, *CPU))}; there the CPU "
        f"answers sooner than what hashret has on the card in {ahead(different, ('hashret-cpu',), OUR_GPU)}. faiss's "
        "kernel for binary codes reads memory at a ten-thousandth of what the card can, and a call through torch takes "
        "one to three milliseconds before it begins."
    )


def times(cell: dict[str, Any]) -> dict[str, float]:
    """Return the median milliseconds of a call by engine."""
    return {name: figures["ms"]["p50"] for name, figures in cell["engines"].items() if name in ENGINES}


def ahead(cells: list[dict[str, float]], ours: Sequence[str], others: Sequence[str]) -> int:
    """Return in how many cells the fastest of some engines is faster than all others that were measured there."""

    def fastest(cell: dict[str, float], names: Sequence[str]) -> float:
        return min((cell[name] for name in names if name in cell), default=math.inf)

    return sum(fastest(cell, ours) < fastest(cell, others) for cell in cells)


def section(run: dict[str, Any]) -> str:
    """Return the table of one data set."""
    codes = "uniform codes" if run["data"] == "random" else f"learned-like codes, p {run['flips']:g}"
    lines = table_head(["batch", "k", *(f"{name}, ms" for name in ENGINES), "share of bandwidth, faiss-gpu"])
    for cell in run["cells"]:
        engines = cell["engines"]
        cells = [time(engines[name]) if name in engines else "" for name in ENGINES]
        share = f"{engines['faiss-gpu']['bandwidth_share']:.1g}" if "faiss-gpu" in engines else ""
        lines.append(row([cell["batch"], cell["k"], *cells, share]))
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
- **resident-hamming**, **resident**: the index that the card holds, without the re-rank and with that of 1,000
  candidates.
- **hashret-cpu**: the compiled scan on the cores of the same machine; **faiss-cpu**: `IndexBinaryFlat` on them.

\\*: measured on part of the batch and scaled to it. Made by `benchmarks/pages/gpu.py` from `benchmarks/results/gpu/`,
which `benchmarks/run/gpu.py` writes."""


if __name__ == "__main__":
    write()
