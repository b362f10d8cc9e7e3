"""The part of latency.md on the three exact engines, one query at a time: a table, and how latency grows.

From the JSON that `run/latency.py --results benchmarks/results/exact` writes, and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

RESULTS = common.RESULTS / "exact"
FUZZ = common.RESULTS / "exact_fuzz.json"
BUILD = common.RESULTS / "index_build.json"
OURS = {"hashret-faiss": "faiss, distinct codes", "hashret-scan": "compiled scan", "hashret-tables": "tables"}
GROWTH = {"flat": "black", "hashret-scan": "tab:orange", "hashret-tables": "tab:green", "hashret": "tab:red"}
NAMES = {"flat": "faiss IndexBinaryFlat", "hashret": "chosen", **OURS}
KINDS = ("random", "itq", "learned")


def load(folder: Path = RESULTS):
    """All runs, by kind of codes, flips, bits and number of items."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(runs, key=lambda run: (KINDS.index(run["kind"]), run.get("flips", 0), run["bits"], run["items"]))


def section(runs, picture: str | None):
    """The Markdown of these runs."""
    lines = table_head(
        ["codes", "items", "distinct", "bits", "k", "queries", "flat, ms", *OURS.values(), "chosen", "chosen, ms",
         "scans of memory", "chosen over best"]
    )  # fmt: skip
    worst = 0.0
    for run in runs:
        for cell in run["cells"]:
            engines = cell["engines"]
            behind = engines["hashret"]["ms"]["p50"] / min(best(engines, name) for name in (*OURS, "hashret")) - 1
            worst = max(worst, behind)
            memory = engines.get("scan of memory")
            scans = f"{engines['hashret']['ms']['p50'] / memory['ms']['p50']:.2g}" if memory else ""
            cells = [title(run), f"{run['items']:,}", f"{run['distinct_codes']:,}", run["bits"], f"{cell['k']:,}"]
            cells += [cell["batch"], figure(engines["flat"]["ms"]["p50"])]
            cells += [f"{figure(engines[name]['ratio'][0])}" if name in engines else "" for name in (*OURS, "hashret")]
            cells += [figure(engines["hashret"]["ms"]["p50"]), scans, f"{100 * behind:+.0f} %"]
            lines.append(row(cells))
    size = table_head(
        ["codes", "items", "bits", "substrings", "bytes a code in tables", "tables built in", "all built in"]
    )
    for run in runs:
        if run.get("substrings") is not None:
            build = run["build_seconds"]
            rest = sum(build[name] for name in ("grouping", "planes"))
            per_code = run["bytes_per_item"]["tables"] * run["items"] / run["distinct_codes"]
            size.append(
                row([
                    title(run), f"{run['items']:,}", run["bits"], " + ".join(map(str, run["substrings"])),
                    f"{per_code:.1f}", f"{build['tables']:.1f} s", f"{build['tables'] + rest:.1f} s",
                ])
            )  # fmt: skip
    parts = [HEAD, *([f"![growth of latency]({picture})"] if picture else []), "\n".join(lines)]
    parts += [
        f"In the worst cell the engine that was chosen took {100 * worst:.0f} % more than the best.",
        "\n".join(size),
    ]
    if BUILD.exists():
        parts.append(build_times(json.loads(BUILD.read_text(encoding="utf-8"))))
    if FUZZ.exists():
        parts.append(fuzz(json.loads(FUZZ.read_text(encoding="utf-8"))))
    return "\n\n".join([*parts, made_on(runs)])


def build_times(result):
    """What `run/index_build.py` found, in words."""
    cells = [
        f"of {cell['items']:,} uniform codes {np.median(cell['seconds']['with'][1:]):.2f} s with tables and "
        f"{np.median(cell['seconds']['without'][1:]):.2f} s without ({cell['ratio']:.2f} times as long), and "
        f"{cell['bytes_an_item']['with'] - cell['bytes_an_item']['without']:.1f} bytes an item more on disk"
        for cell in result["cells"]
    ]
    return f"A whole index with its hash outputs is built, {'; '.join(cells)}. {made_on([result])}"


def fuzz(result):
    """What `run/exact_fuzz.py` found, in words."""
    return (
        f"{result['queries']:,} drawn queries over {result['indexes']:,} small indexes, of {result['widths']} lengths "
        "of code, uniform, clumped, in one bucket, at the edge of the stopping rule and repeated: "
        f"{result['wrong']} wrong answers of tables, scan and faiss. {made_on([result])}"
    )


def best(engines, name):
    return engines[name]["ms"]["p50"] if name in engines else float("inf")


def title(run):
    """What codes these are, in words."""
    if run["kind"] == "itq":
        return f"ITQ, {run['features']}, jitter {run['jitter']:g}"
    return "uniform" if run["kind"] == "random" else f"ten centres, flips {run['flips']:g}"


def figure(value):
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plot(runs, path: Path) -> bool:
    """Draw the milliseconds of a query by number of uniform 48-bit codes, with the slope of each engine; -> whether.

    Slopes are those over the numbers of codes that all engines were run with.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [run for run in runs if run["kind"] == "random" and run["bits"] == 48]
    if len(drawn) < 2:
        return False
    picture, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    points = {
        name: [
            (run["items"], cell["engines"][name]["ms"]["p50"])
            for run in drawn
            for cell in run["cells"]
            if (cell["k"], cell["batch"]) == (100, 1) and name in cell["engines"]
        ]
        for name in GROWTH
    }
    least = max(min(items for items, _ in found) for found in points.values() if found)  # that all were run with
    for name, colour in GROWTH.items():
        if len(points[name]) > 1:
            items, ms = map(np.array, zip(*points[name], strict=True))
            slope = np.polyfit(np.log(items[items >= least]), np.log(ms[items >= least]), 1)[0]
            # What was chosen lies upon one of the others.
            style = {"linestyle": ":", "markersize": 10, "markerfacecolor": "none"} if name == "hashret" else {}
            axes.plot(items, ms, marker="o", color=colour, label=f"{NAMES[name]}, slope {slope:.2f}", **style)
    axes.set(xscale="log", yscale="log", xlabel="uniform codes of 48 bits", ylabel="ms a query, k = 100, one thread")
    axes.grid(alpha=0.3)
    axes.legend()
    picture.savefig(path, dpi=80)
    plt.close(picture)
    return True


HEAD = """## Less than one scan: tables over substrings

hashret has three exact engines: **tables** over substrings of the codes (multi-index hashing, Norouzi, Punjani & Fleet
2014), the **compiled scan** of all distinct codes, and **faiss** over distinct padded codes. Of the first two it takes,
for each query, the one that costs less: **chosen**. All answer as `IndexBinaryFlat` does, distances, items and order
included, which was checked in every cell. One thread; the figures of engines are flat's median call by theirs, and
"scans of memory" is the time of what was chosen in sums over the padded codes. ITQ codes: of the pooled features of the
photographs named, each photograph as often as it takes, jittered by normal noise, with other photographs as queries."""
