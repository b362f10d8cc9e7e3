"""Tables and a plot of the runs of `benchmarks.run.vectors`, from their JSON and nothing else: benchmarks/vectors.md.

python -m benchmarks.pages.vectors            # the page, and docs/vectors.png (with matplotlib)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

RESULTS = common.RESULTS / "vectors"
PAGE = common.TOP / "benchmarks" / "vectors.md"
FIGURE = common.TOP / "docs" / "vectors.png"
ENOUGH = 0.99  # recall@10 of the overview
COLOURS = {
    "hashret": "tab:red", "faiss": "tab:blue", "usearch": "tab:olive", "sentence-transformers": "tab:purple",
    "numpy": "black",
}  # fmt: skip
COREL = "list corel5k_374"  # which earlier JSON names by its kind alone
MARKERS = {"re-ranked by vectors": "o", "asymmetric": "^", "codes alone": "v"}  # kinds of contestant in the picture


def write(results: Path = RESULTS, target: Path = PAGE, figure: Path = FIGURE) -> None:
    """Write the page ``target`` and the plot ``figure`` from the runs in the folder ``results``."""
    runs = load(results)
    plot(runs, figure)
    target.write_text(page(runs), encoding="utf-8")
    for path in (target, figure):
        print(f"-> {path}")


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all runs, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page."""
    picture = "![recall of the ten nearest over the latency of a query](../docs/vectors.png)"
    return "\n\n".join([HEAD, overview(runs), picture, *map(section, runs), provenance(runs)]) + "\n"


def overview(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of the fastest setting of each family that finds enough, and of the smallest."""
    lines = table_head(["vectors", "of", "fastest", "recall@10", "ms", "bytes", "smallest", "recall@10", "ms", "bytes"])
    slower: list[float] = []
    for run in runs:
        fastest = {}
        for family in COLOURS:
            enough = [one for one in run["contestants"] if one["family"] == family and one["recall"]["10"] >= ENOUGH]
            cells: list[object] = ["none", *[""] * 7]
            if enough:
                best = min(enough, key=one_query), min(enough, key=lambda one: (one["bytes_an_item"], one_query(one)))
                fastest[family] = one_query(best[0])
                cells = [cell for one in best for cell in (setting(one), *figures(one))]
            lines.append(row([f"`{run['benchmark']}`", family, *cells]))
        if {"hashret", "faiss"} <= fastest.keys():
            slower.append(fastest["hashret"] / fastest["faiss"])
    said = f"Fastest and smallest of what finds at least {ENOUGH:g} of the ten nearest"
    if slower:
        said += ". To one query, the fastest of faiss answers "
        said += f"{min(slower):.0f} to {max(slower):.0f} times as fast as the fastest of hashret"
    return f"{said}:\n\n" + "\n".join(lines)


def kind_of(one: dict[str, Any]) -> str:
    """Return which of the kinds of `MARKERS` a contestant is; only those of hashret are told apart."""
    named = (kind for kind in MARKERS if one["family"] == "hashret" and kind in one["how"])
    return next(named, next(iter(MARKERS)))


def setting(one: dict[str, Any]) -> str:
    """Return how a contestant searches, without the name of its family."""
    name: str = one["how"].removeprefix(f"{one['family']}, ")
    return name


def figures(one: dict[str, Any]) -> tuple[str, str, str]:
    """Return recall@10, milliseconds of one query and bytes of a contestant."""
    return f"{one['recall']['10']:.3f}", short(one_query(one)), short(one["bytes_an_item"])


def one_query(one: dict[str, Any]) -> float:
    """Return the median milliseconds of one query for ten answers."""
    milliseconds: float = one["ms"]["10, 1"]
    return milliseconds


def section(run: dict[str, Any]) -> str:
    """Return the table of one data set."""
    cells = list(run["contestants"][0]["ms"])
    heads = [f"k {k}, {batch} quer{'y' if batch == '1' else 'ies'}, ms" for k, batch in (c.split(", ") for c in cells)]
    lines = table_head(["contestant", "bytes an item", "build, s", "recall@10", "recall@100", *heads])
    for one in run["contestants"]:
        recalls = [f"{one['recall'][k]:.3f}" for k in ("10", "100")]
        found = [one["how"], short(one["bytes_an_item"]), short(one["build_seconds"]), *recalls]
        lines.append(row([*found, *(short(one["ms"][cell]) for cell in cells)]))
    made = ""
    if "backbone" in run:
        made = f" by {run['backbone']} at {run['image_size']} px, made at commit {run['features_commit']}"
    data = COREL if run["data"] == "list" else run["data"]
    return (
        f"## {run['benchmark']}\n\n{run['items']:,} vectors of {run['width']} numbers, {data}{made}; "
        f"{run['queries']:,} queries.\n\n" + "\n".join(lines)
    )


def short(value: float) -> str:
    """Return a number to three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def provenance(runs: Sequence[dict[str, Any]]) -> str:
    """Return where the runs were made, in words."""
    names = ("faiss-gpu", "faiss-cpu", "usearch", "numba", "torch", "numpy")
    versions = {name: sorted({run["versions"][name] for run in runs if name in run["versions"]}) for name in names}
    named = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items() if found)
    load = max(max(run["load_average"]) for run in runs)
    return f"{made_on(runs)} One thread, seed 0. {named}. Load average up to {load:.1f}, the benchmark's own included."


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw recall@10 over milliseconds of one query, an axis a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    columns = min(3, len(runs))
    lines = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 4.2 * lines + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(runs) :]:
        axis.remove()
    for axis, run in zip(axes.flat, runs, strict=False):
        for family, colour in COLOURS.items():
            for kind, marker in MARKERS.items():
                some = [one for one in run["contestants"] if one["family"] == family and kind_of(one) == kind]
                label = f"{family}, {kind}" if family == "hashret" else family
                points = [(one_query(one), one["recall"]["10"]) for one in some]
                if points:
                    axis.scatter(*zip(*points, strict=True), color=colour, marker=marker, s=18, alpha=0.7, label=label)
        front = best_trade_offs(run["contestants"])
        front_line = [one_query(one) for one in front], [one["recall"]["10"] for one in front]
        axis.plot(*front_line, color="0.7", zorder=0, label="nothing faster finds as much")
        axis.set(xscale="log", xlabel="ms of one query, p50", ylabel="recall@10", title=title(run))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def title(run: dict[str, Any]) -> str:
    """Return what a plot is of."""
    return f"{run['benchmark']}: {run['items']:,} of {run['width']}"


def best_trade_offs(contestants: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that nothing faster finds as much as, from the fastest on."""
    front: list[dict[str, Any]] = []
    for one in sorted(contestants, key=lambda one: (one_query(one), -one["recall"]["10"])):
        if not front or one["recall"]["10"] > front[-1]["recall"]["10"]:
            front.append(one)
    return front


HEAD = """# Vectors side by side

The same vectors, of unit length, searched by the cosine: hashret beside what people put together by hand.

- *Recall* is the share of the nearest by exact search over float32 that were found; an item as near as the last of them
  counts.
- *Bytes an item* are those of all that a search reads, but for ids, paths, labels, and what makes a code of a query.
- *Milliseconds* are medians of a call that gets float32 vectors and returns the places of k items; hashing or
  quantising the queries counts. One thread; rounds alternate between the contestants.

The contestants:

- **hashret**: ITQ by `train`, `encode` and `build-index`, candidates 1,000 and where they tie more, if none are named.
  *codes alone* is the Hamming order, *asymmetric* re-ranks by the codes and keeps nothing else, *float32* and *float16*
  by the vectors; with *candidates for a recall of 0.99*, as many as `query --recall 0.99` takes. It measures how many
  that is on items of the index, so that other queries may find less, as most do here. "64 of 256 bits": one training
  for all lengths. hashret keeps each code twice, by item and by bit.
- **faiss**: by its factory strings; RFlat keeps float32 vectors and re-ranks 10 k. RaBitQ is rotated at random (RR).
- **usearch**: its graph (HNSW) over float16, and over the signs of centred vectors (b1).
- **sentence-transformers**: its binary search with rescoring, as it is and with the signs of centred vectors.

A commit with *+changes* had changes beside it that were not committed.

Made by `benchmarks/pages/vectors.py` from `benchmarks/results/vectors/`, which `benchmarks/run/vectors.py` writes."""


if __name__ == "__main__":
    write()
