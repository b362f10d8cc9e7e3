"""Tables and plots of `latency.py`'s runs, from their JSON and nothing else: benchmarks/latency.md, docs/latency-*.png.

python -m benchmarks.pages.latency            # the page, and the plots (with matplotlib)
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head
from benchmarks.pages import exact_engines

RESULTS = common.RESULTS / "latency"
PAGE = common.TOP / "benchmarks" / "latency.md"
FIGURES = common.TOP / "docs"
KINDS = ("random", "learned", "shards")
COLOURS = {
    "flat": "black", "padded": "tab:gray", "hashret-faiss": "tab:orange", "hashret": "tab:red",
    "hashret-gpu": "tab:pink", "numpy": "tab:brown", "usearch": "tab:olive",
    "faiss IVF": "tab:blue", "faiss HNSW": "tab:cyan", "scan of memory": "tab:green",
}  # fmt: skip
MARKS = {name: "d" if name.startswith("faiss ") else "o" for name in COLOURS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    options = parser.parse_args()
    write(options.results, options.page, options.figures)


def write(results: Path = RESULTS, target: Path = PAGE, figures: Path = FIGURES) -> None:
    """Write the page ``target`` and the plots into the folder ``figures`` from the runs in the folder ``results``."""
    runs = load(results)
    if not runs:
        raise SystemExit(f"no results in {results}: run python -m benchmarks.run.latency first")
    figures.mkdir(parents=True, exist_ok=True)
    pictures = plots(runs, figures)
    links = [Path(os.path.relpath(path, target.parent)) for path in pictures]
    exact, growth = exact_engines.load(), figures / "latency-growth.png"
    drawn = exact_engines.plot(exact, growth)
    pictures += [growth] if drawn else []
    picture = Path(os.path.relpath(growth, target.parent)).as_posix() if drawn else None
    three = exact_engines.section(exact, picture) if exact else ""
    target.write_text(page(runs, links, three), encoding="utf-8")
    for path in (target, *pictures):
        print(f"-> {path}")


def load(folder):
    """All runs, by kind of codes, bits and number of items."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(runs, key=lambda run: (KINDS.index(run["kind"]), run["bits"], run["items"], run["benchmark"]))


def page(runs, pictures, three=""):
    """The Markdown page."""
    parts = [
        HEAD,
        *filter(None, [three]),
        *(f"![{path.stem.replace('-', ' ')}]({path.as_posix()})" for path in pictures),
        overview(runs),
    ]
    return "\n\n".join([*parts, *(section(run) for run in runs), provenance(runs)]) + "\n"


def overview(runs):
    """What the structures take, a line a data set."""
    lines = table_head(
        ["data", "items", "bits", "distinct codes", "bytes an item: hashret", "flat", "grouped in", "bit planes in",
         "first call: compiling", "compiled before"]
    )  # fmt: skip
    for run in runs:
        build, parts, first = run["build_seconds"], run["bytes_per_item"], run["first_call_seconds"] or {}
        size = sum(value for name, value in parts.items() if name != "flat")
        cells = [title(run), f"{run['items']:,}", run["bits"], f"{run['distinct_codes']:,}", f"{size:.1f}"]
        cells += [parts["flat"], f"{build['grouping']:.2f} s", f"{build['planes']:.2f} s"]
        cells += [f"{first[name]:.1f} s" if name in first else "" for name in ("compiling", "compiled before")]
        lines.append(row(cells))
    return "\n".join(lines)


def section(run):
    """Tables of one data set."""
    names = [name for name in COLOURS if any(name in cell["engines"] for cell in run["cells"])]
    others = [name for name in names if name != "flat"]
    slow = {id(cell) for cell in run["cells"] if slower_with_threads(run, cell)}
    lines = table_head(["threads", "batch", "k", "rounds", "distinct queries", "flat, ms", *others])
    for cell in run["cells"]:
        flat = cell["engines"]["flat"]
        cells = [f"{cell['threads']}{' †' if id(cell) in slow else ''}", cell["batch"], cell["k"], cell["rounds"]]
        cells += [cell["distinct_queries"], short(flat["ms"]["p50"]) + scaled(flat)]
        lines.append(row(cells + [ratio(cell["engines"].get(name)) for name in others]))
    parts = [f"## {title(run)}, {run['items']:,} items, {run['bits']} bits", "Ratios flat / engine:", "\n".join(lines)]
    lines = table_head(["threads", "batch", "k", *(f"{name}: p50, p95, p99 ms; queries/s" for name in CLOSER)])
    for cell in run["cells"]:
        found = [cell["engines"].get(name) for name in CLOSER]
        lines.append(row([cell["threads"], cell["batch"], cell["k"], *(times(engine) for engine in found)]))
    parts += ["Times of a call:", "\n".join(lines)]
    if slow:
        parts.append("† flat takes longer here than with fewer threads: its ratios flatter whatever does not wait so.")
    notes = [f"Queries: {run['queries_are']}.", *(f"{note}." for note in run["notes"])]
    return "\n\n".join([*parts, " ".join(notes)])


def slower_with_threads(run, cell):
    """Whether the baseline is slower than with fewer threads."""
    same = [other for other in run["cells"] if (other["batch"], other["k"]) == (cell["batch"], cell["k"])]
    fewer = [p50(other, "flat") for other in same if other["threads"] < cell["threads"]]
    return bool(fewer) and p50(cell, "flat") > 1.1 * min(fewer)


def p50(cell, name):
    return cell["engines"][name]["ms"]["p50"]


def title(run):
    """What codes these are, in words."""
    if run["kind"] == "shards":
        return f"`{run['benchmark']}`"
    return "uniform codes" if run["kind"] == "random" else f"learned-like codes, p {run['flips']:g}"


def ratio(engine):
    """ "12 (10..13)", with the recall of what may miss something."""
    if engine is None:
        return ""
    middle, low, high = map(short, engine["ratio"])
    spread = f" ({low}..{high})" if low != high else ""
    recall = f", recall {engine['recall']:.3f}" if engine.get("recall", 1) < 1 else ""
    return f"{middle}{spread}{scaled(engine)}{recall}"


def times(engine):
    if engine is None:
        return ""
    ms = ", ".join(short(engine["ms"][name]) for name in ("p50", "p95", "p99"))
    return f"{ms}{scaled(engine)}; {engine['queries_per_second']:,.0f}"


def scaled(engine):
    return " *" if engine.get("scaled") else ""


def short(value):
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def provenance(runs):
    """Machine, commits, versions, load of all runs, in words."""

    def all_of(get):
        return ", ".join(sorted({str(get(run)) for run in runs}))

    packages = sorted({name for run in runs for name in run["versions"]})
    versions = "; ".join(f"{n} {all_of(lambda run, n=n: run['versions'].get(n, 'absent'))}" for n in packages)
    load = max(max(run.get("load_average", [0])) for run in runs)
    return (
        f"{made_on(runs)} Versions: {versions}. "
        f"OMP_WAIT_POLICY {all_of(lambda r: r['omp_wait_policy'] or 'unset')}. Load average up to {load:.1f}, the "
        "benchmark's own included."
    )


def plots(runs, folder):
    """The figures, all of one thread and one k: returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = [cell for run in runs for cell in run["cells"]]
    k, threads = (min(cell[name] for cell in cells) for name in ("k", "threads"))
    told = f"k = {k}, {threads} thread{'s' if threads > 1 else ''}"
    paths = []
    for name, draw in (("by-items", plot_by_items), ("by-batch", plot_by_batch), ("milliseconds", plot_milliseconds)):
        figure = draw(plt, runs, k, threads)
        if figure is not None:
            handles = {}
            for axes in figure.axes:
                handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
            figure.legend(handles.values(), handles, loc="outside right upper", fontsize=9)
            figure.suptitle(f"{TITLES[name]}; {told}")
            paths.append(folder / f"latency-{name}.png")
            figure.savefig(paths[-1], dpi=80)
            plt.close(figure)
    return paths


def plot_by_items(plt, runs, k, threads):
    """Ratio by number of items: a row a kind of codes, a column a batch."""
    kinds = groups([run for run in runs if run["kind"] != "shards"])
    if not kinds:
        return None
    batches = sorted({cell["batch"] for group in kinds.values() for run in group for cell in run["cells"]})
    figure, axes = plt.subplots(
        len(kinds), len(batches), figsize=(4.2 * len(batches) + 1.8, 3.4 * len(kinds) + 0.5), squeeze=False,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for line, (kind, group) in zip(axes, kinds.items(), strict=True):
        for axis, batch in zip(line, batches, strict=True):
            points = [(run["items"], cell) for run in group for cell in pick(run, k, threads) if cell["batch"] == batch]
            axis.set(xscale="log", title=f"{kind}, batch {batch:,}")
            draw_ratios(axis, points)
        line[0].set_ylabel("times as fast as IndexBinaryFlat")
        mark_items(line, group)
    return figure


def plot_by_batch(plt, runs, k, threads):
    """Ratio by batch, at the largest number of items of each kind of codes and for each folder of shards."""
    largest = [max(group, key=lambda run: run["items"]) for group in groups(runs).values()]
    columns = min(3, len(largest))
    rows = -(-len(largest) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns + 1.8, 3.6 * rows + 0.5), squeeze=False, sharey=True, layout="constrained"
    )  # fmt: skip
    for axis in axes.flat[len(largest) :]:
        axis.remove()
    for axis, run in zip(axes.flat, largest, strict=False):
        cells = pick(run, k, threads)
        draw_ratios(axis, [(cell["batch"], cell) for cell in cells])
        ticks = [cell["batch"] for cell in cells]
        axis.set(xscale="log", xlabel="queries a call", xticks=ticks, xticklabels=ticks)
        axis.set_title(f"{title(run).strip('`')}\n{run['items']:,} items, {run['bits']} bits", fontsize=9)
        axis.minorticks_off()
    for line in axes:
        line[0].set_ylabel("times as fast as IndexBinaryFlat")
    return figure


def plot_milliseconds(plt, runs, k, threads):
    """Milliseconds of the least batch by number of items, p50 with a band up to p99."""
    kinds = groups([run for run in runs if run["kind"] != "shards"])
    if not kinds:
        return None
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(5.2 * len(kinds) + 1.8, 4.4), squeeze=False, sharey=True, layout="constrained"
    )  # fmt: skip
    batch = min(cell["batch"] for group in kinds.values() for run in group for cell in run["cells"])
    for axis, (kind, group) in zip(axes[0], kinds.items(), strict=True):
        axis.set(xscale="log", yscale="log", title=f"{kind}, batch {batch:,}")
        for name in (*CLOSER, "scan of memory"):
            found = [(run["items"], cell["engines"][name]["ms"]) for run in group for cell in pick(run, k, threads)
                     if name in cell["engines"] and cell["batch"] == batch]  # fmt: skip
            if found:
                items, ms = zip(*found, strict=True)
                middle = [times["p50"] for times in ms]
                axis.plot(items, middle, marker="o", color=COLOURS[name], label=name)
                axis.fill_between(items, middle, [times["p99"] for times in ms], color=COLOURS[name], alpha=0.15)
        axis.grid(alpha=0.3)
        mark_items([axis], group)
    axes[0, 0].set_ylabel("ms a call")
    return figure


def mark_items(line, group):
    """Ticks at the numbers of items that were measured."""
    items = sorted({run["items"] for run in group})
    labels = [f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" for n in items]
    for axis in line:
        axis.set_xlabel("items")
        axis.set_xticks(items, labels)
        axis.minorticks_off()


def draw_ratios(axes, points):
    """Ratios of all engines, with bars from the lowest to the highest round; points: (x, cell)."""
    for name, colour in COLOURS.items():
        found = [(x, cell["engines"][name]["ratio"]) for x, cell in points if name in cell["engines"]]
        if found and name != "flat":
            xs, middle = [x for x, _ in found], [r[0] for _, r in found]
            reach = [[r[0] - r[1] for _, r in found], [r[2] - r[0] for _, r in found]]
            style = {"color": colour, "marker": MARKS[name], "linestyle": "--" if MARKS[name] == "d" else "-"}
            axes.errorbar(xs, middle, reach, capsize=2, markersize=4, label=name, **style)
    axes.axhline(1, color="black", linewidth=1, label="flat")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def groups(runs):
    """Runs by what they differ in beside the number of items; each folder of shards for itself."""
    found = {}
    for run in runs:
        key = run["benchmark"] if run["kind"] == "shards" else f"{title(run)}, {run['bits']} bits"
        found.setdefault(key, []).append(run)
    return found


def pick(run, k, threads):
    """Cells of one k and number of threads, by batch."""
    found = [cell for cell in run["cells"] if (cell["k"], cell["threads"]) == (k, threads)]
    return sorted(found, key=lambda cell: cell["batch"])


CLOSER = ("flat", "hashret-faiss", "hashret")
TITLES = {
    "by-items": "Speed against faiss IndexBinaryFlat by number of items",
    "by-batch": "Speed against faiss IndexBinaryFlat by queries a call",
    "milliseconds": "Latency of a call, p50 and (band) p99",
}

HEAD = """# Latency of the Hamming stage

Every engine answers the same queries; rounds alternate between the engines, and a ratio is the median over rounds of
flat's median call by the engine's, lowest and highest round in parentheses where they differ.

- **flat**: `faiss.IndexBinaryFlat` over the codes as they are, the baseline; **padded**: over codes padded to 4 or 8
  bytes.
- **hashret-faiss**: hashret without numba, faiss over distinct padded codes; **hashret**: the compiled scan. Both were
  checked in every cell to answer as flat does: distances, items and their order. So were padded and **numpy**
  (`bitwise_count` and a stable sort).
- **usearch**: its exact search. **faiss IVF** (√n lists, 16 probed) and **faiss HNSW** (32 links), over padded codes,
  are approximate: their recall is the share of answers within the true k-th distance, 1 where none is given.
- **scan of memory**: one sum over the padded codes, on one core, times the queries: what reading each code once a query
  takes. A batch can beat it, since a block is read once for many queries.

Distinct queries: those of the first batch; repeated ones cost hashret nothing. \\*: measured on part of the batch and
scaled to it. Made by `benchmarks/pages/latency.py` from `benchmarks/results/latency/`, which
`benchmarks/run/latency.py` writes."""


if __name__ == "__main__":
    main()
