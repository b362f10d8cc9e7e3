"""Tables and plots of docs/scale.md, from the JSON under benchmarks/results/scale and nothing else.

python -m benchmarks.pages.scale            # the tables between the page's markers, and the plots (with matplotlib)
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.cluster import answers_a_shard
from benchmarks.lib.markdown import fill, made_on, row, table_head

RESULTS = common.RESULTS / "scale"
PAGE = common.TOP / "docs" / "scale.md"
KINDS = {
    "codes": "learned-like", "uniform": "uniform", "values": "learned-like, with values",
    "uniform-values": "uniform, with values",
}  # fmt: skip
WHAT = {
    "hamming.faiss": "codes, distinct where they repeat", "planes.npy": "the same by bit",
    "items.npy": "items in the order of their codes", "starts.npy": "where those of a code begin",
    "numbers.npy": "code of each item",
    "substring_starts.npy": "tables over substrings: where each bucket begins",
    "substring_numbers.npy": "the codes of each bucket",
    "substring_rest.npy": "the other bits of these codes", "ids.npy": "ids", "paths.bin": "paths",
    "path_ends.npy": "where paths end", "values.npy": "values, float32",
}  # fmt: skip
SCENARIOS = {
    "one replica": "tab:blue", "two replicas": "tab:green", "two replicas, hedged": "tab:olive",
    "two replicas, hedged, one of a shard dead": "tab:orange", "one replica, a dead shard": "tab:red",
    "two replicas, one of a shard dead": "tab:purple",
}  # fmt: skip


def write() -> None:
    """Write the tables of docs/scale.md and the plots."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for path in plots(PAGE.parent):
        print(f"-> {path}")


def page(text):
    """The page's text with each table between its markers made anew."""
    tables = {"bytes": bytes_a_photograph, "life": life, "measured": measured, "assumed": assumed, "capacity": capacity}
    tables |= {"simulated": simulated, "fan-out": fan_out, "provenance": provenance}
    tables |= {"by-tables": by_tables, "encoder": encoder}
    return fill(text, {name: table() for name, table in tables.items()})


def load(name):
    return read(RESULTS / f"{name}.json")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def lives():
    """All runs of `index_life.py`: (kind, run), by number of items."""
    runs = [(path.stem.rsplit("_", 1)[1], load(path.stem)) for path in RESULTS.glob("life_*.json")]
    return sorted(runs, key=lambda pair: (list(KINDS).index(pair[0]), pair[1]["items"]))


def fan_outs():
    return [load(path.stem) for path in sorted(RESULTS.glob("fan_out_*.json"))]


def bytes_a_photograph():
    """Bytes a photograph by file."""
    runs = [(kind, run) for kind, run in lives() if run["items"] >= 10**7 and kind != "values"]
    runs += [(kind, run) for kind, run in lives() if kind == "values"][-1:]
    lines = table_head(["file", "what", *(f"{KINDS[kind]}, {count(run['items'])}" for kind, run in runs)])
    for name, what in WHAT.items():
        if not any(name in run["bytes"] for _, run in runs):
            continue
        cells = [f"{run['bytes'][name] / run['items']:.2f}" if name in run["bytes"] else "" for _, run in runs]
        lines.append(row([f"`{name}`", what, *cells]))
    lines.append(row(["all", "", *(f"{sum(run['bytes'].values()) / run['items']:.1f}" for _, run in runs)]))
    return "\n".join(lines)


def life():
    """Building, opening and searching on one machine."""
    lines = table_head(
        ["codes", "photographs", "distinct codes", "built in", "most memory, of index", "opened in", "first query",
         "p50", "p99"]
    )  # fmt: skip
    for kind, run in lives():
        build, search = run["build"], run["search"]
        size = f"{build['peak_memory_mb']:,} of {build['index_mb']:,.0f} MiB"
        lines.append(
            row(
                [KINDS[kind], count(run["items"]), f"{build['distinct_codes']:,}", f"{build['seconds']:,.1f} s", size,
                 f"{1000 * run['open']['seconds_first']:.1f} ms", milliseconds(search["first_ms"]),
                 milliseconds(search["p50_ms"]), milliseconds(search["p99_ms"])]
            )
        )  # fmt: skip
    return "\n".join(lines)


def measured():
    """What the model takes from runs."""
    cluster, lines = load("cluster"), table_head(["what", "value", "from"])
    shard = cluster["shard"]
    for kind in ("codes", "uniform"):
        name = f"life_{shard}_{kind}"
        quantiles = load(name)["search"]["seconds_by_candidates"]
        for candidates, seconds in quantiles.items():
            p50, p99 = (1000 * seconds[i] for i in (100, 198))
            what = f"a search of {count(shard)} {KINDS[kind]} codes for {int(candidates):,} candidates"
            value = f"{p50:.3g} ms, p99 {p99:.3g}: drawn from 200 quantiles, up to 99.5 %"
            lines.append(row([what, value, f"`{name}.json`"]))
    for shards, seconds in cluster["merging_seconds"].items():
        rows = answers_a_shard(cluster["candidates"], int(shards))
        what = f"merging {int(shards):,} shard{'s' if shards != '1' else ''} of {rows:,} answers"
        lines.append(row([what, f"{1000 * seconds:.3g} ms", "`cluster.json`"]))
    return "\n".join([*lines, row(["bytes a photograph", "the table above", f"`life_{shard}_*.json`"])])


def assumed():
    """What the model assumes."""
    lines = table_head(["what", "value", "why"])
    for name, (value, unit, why) in load("cluster")["assumed"].items():
        lines.append(row([name.replace("_", " "), f"{value:g} {unit}" if unit != "$" else f"$ {value:.2f}", why]))
    return "\n".join(lines)


def capacity():
    """Machines and dollars by number of photographs."""
    lines = table_head(
        ["codes", "photographs", "of a shard", "machines for memory: codes", "with values",
         "they answer, q/s: codes", "with values", "$ a month: codes", "with values", "machines for 1,000 q/s",
         "$ a month", "encoding, GPU hours", "$"]
    )  # fmt: skip
    for line in load("cluster")["capacity"]:
        codes, values, encoding = line["codes_only"], line["with_values"], line["encoding"]
        cells = [KINDS[line["codes"]], count(line["images"]), count(line["shard"])]
        for name in ("machines_for_memory", "queries_per_second", "dollars_a_month"):
            cells += [f"{codes[name]:,.0f}", f"{values[name]:,.0f}"]
        cells += [f"{values['machines_for_rate']:,}", f"{values['dollars_a_month_for_rate']:,}"]
        lines.append(row([*cells, f"{encoding['gpu_hours']:,.1f}", f"{encoding['dollars']:,}"]))
    return "\n".join(lines)


def by_tables():
    """What a search of uniform codes takes by tables over substrings, and by the scan."""
    parts, more, runs = [], set(), [read(common.RESULTS / f"exact/random_{n}_48b.json") for n in (10**7, 10**8)]
    for run in runs:
        [cell] = [cell for cell in run["cells"] if (cell["threads"], cell["batch"], cell["k"]) == (1, 1, 100)]
        tables, scan = (cell["engines"][name]["ms"]["p50"] for name in ("hashret", "hashret-scan"))
        parts.append(f"of {count(run['items'])} in {tables:.3g} ms by tables and {scan:.3g} ms by the scan")
        more.add(f"{run['bytes_per_item']['tables']:.0f}")
    return (
        f"The nearest 100 uniform codes, found on one thread without a re-rank: {', '.join(parts)}. The tables take "
        f"{', '.join(more)} bytes a code more. [More](../benchmarks/latency.md). {made_on(runs)}"
    )


def encoder():
    """Core-seconds of encoding a photograph."""
    run = read(common.RESULTS / "encode_throughput_224px.json")
    seconds = {name: run["threads"] / np.median(rates) for name, rates in run["images_per_second"].items()}
    del seconds["plain"]
    said = "; ".join(f"{name.replace(', ', ' by ')} {value:.2g}" for name, value in seconds.items())
    return (
        f"Seconds of a core that `hashret encode` takes for a photograph of many at {run['image_size']} px, by "
        f"backbone and runtime: {said} (`benchmarks/run/encode_throughput.py`). {made_on([run])}"
    )


def simulated():
    """Latency by scenario."""
    lines = table_head(
        ["codes", "photographs", "shards", "scenario", "p50, ms", "p95", "p99", "requests", "queries without all",
         "recall@10"]
    )  # fmt: skip
    for line in load("cluster")["simulated"]:
        if line["images"] == 10**8:
            continue
        figures = [f"{line[name]:.3g}" if name in line else "" for name in ("p50_ms", "p95_ms", "p99_ms")]
        missing = f"{100 * line['incomplete']:.3g} %" if line["incomplete"] else ""
        recall = f"{line['recall']:.4g}"
        cells = [KINDS[line["codes"]], count(line["images"]), f"{line['shards']:,}", line["scenario"], *figures]
        lines.append(row([*cells, f"{line['requests']:.3f}", missing, recall]))
    return "\n".join(lines)


def fan_out():
    """The one real point: measured, predicted, and how far the prediction is off."""
    lines = table_head(
        ["codes", "processes", "", "CPU time of a search, ms", "p50, ms", "predicted", "p99, ms", "predicted",
         "by searches in any order", "as segments of one index, p50"]
    )  # fmt: skip
    rates = table_head(["codes", "processes", "queries a second", "predicted", "from searches alone"])
    for run in fan_outs():
        kind = KINDS["uniform" if run["flips"] == 0.5 else "codes"]
        for shards, found in run["shards"].items():
            replayed, shuffled, alone = (found["predicted"][name] for name in ("replayed", "shuffled", "alone"))
            cases = [("one query at a time", found["one_by_one"], replayed["one_by_one"], shuffled["one_by_one"])]
            for load, real in found["at_random"].items():
                name = f"at random, {100 * float(load):.0f}%"
                cases.append((name, real, replayed["at_random"][load], shuffled["at_random"][load]))
            for number, (name, real, model, other) in enumerate(cases):
                cells = [kind, shards] if not number else ["", ""]
                cells += [name, f"{1000 * np.mean(real['work_quantiles']):.3g}"]
                cells += [f"{real['p50_ms']:.3g}", off(model, real, "p50_ms")]
                cells += [f"{real['p99_ms']:.3g}", off(model, real, "p99_ms"), off(other, real, "p99_ms")]
                lines.append(row([*cells, f"{run['segments'][shards]['p50_ms']:.3g}" if not number else ""]))
            real = found["at_once"]
            predicted = (off(model, real, "queries_per_second", ",.0f") for model in (replayed, alone))
            rates.append(row([kind, shards, f"{real['queries_per_second']:,.0f}", *predicted]))
    return "\n".join([*lines, "", *rates])


def off(model, real, name, form=".3g"):
    """What was predicted, and how far that is from what was measured."""
    return f"{model[name]:{form}} ({100 * (model[name] / real[name] - 1):+.0f}%)"


def provenance():
    """Machines, commits and dates of all runs."""
    return made_on([run for _, run in lives()] + fan_outs() + [load("cluster")])


def count(n):
    """10^7 as 10⁷, others with commas."""
    power = len(str(n)) - 1
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"10{str(power).translate(digits)}" if n == 10**power else f"{n:,}"


def milliseconds(value):
    return f"{value:.3g} ms"


def plots(folder):
    """The figures: their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines, paths = load("cluster")["simulated"], []
    for name, draw in (("scale-latency", plot_latency), ("scale-recall", plot_recall)):
        figure = draw(plt, lines)
        handles = {}
        for axes in figure.axes:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles, loc="outside lower center", fontsize=9, ncols=2)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=100)
        plt.close(figure)
    return paths


def plot_latency(plt, lines):
    """p50 and p99 by number of photographs, for those scenarios in which all shards answer."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), layout="constrained", sharey=True)
    for axis, codes in zip(axes, ("codes", "uniform"), strict=True):
        for name, colour in SCENARIOS.items():
            found = [line for line in lines if (line["codes"], line["scenario"]) == (codes, name)]
            found = [line for line in found if not line["incomplete"]]
            if not found:
                continue
            images = [line["images"] for line in found]
            for percentile, style in (("p50_ms", "--"), ("p99_ms", "-")):
                label = f"{name}, {percentile[:3]}"
                axis.plot(images, [line[percentile] for line in found], style, marker="o", color=colour, label=label)
        axis.set(xscale="log", yscale="log", xlabel="photographs, 10⁷ a shard", title=f"{KINDS[codes]} codes")
        axis.grid(which="both", alpha=0.25)
    axes[0].set_ylabel("milliseconds of a query, simulated")
    return figure


def plot_recall(plt, lines):
    """What is missed, by the p99 that a deadline leaves, for 100 and 1,000 shards."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), layout="constrained", sharey=True)
    for axis, shards in zip(axes, (100, 1000), strict=True):
        for name, colour in SCENARIOS.items():
            for line in lines:
                if (line["codes"], line["shards"], line["scenario"]) == ("codes", shards, name):
                    _, p99, _, _, answered = zip(*line["curve"], strict=True)
                    axis.plot(p99, [1 - share for share in answered], "-", color=colour, label=name)
        axis.set(xscale="log", xlabel="p99 of a query in milliseconds, by the deadline")
        axis.set(title=f"{shards:,} shards of learned-like codes", yscale="log", ylim=(1e-5, 0.3))
        axis.grid(which="both", alpha=0.25)
    axes[0].set_ylabel("share of the nearest that is missed")
    return figure


if __name__ == "__main__":
    write()
