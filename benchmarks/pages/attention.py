"""Does attention help? Paired differences of runs with and without CBAM, from their JSON: benchmarks/attention.md.

python -m benchmarks.pages.attention
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

from . import tables

RESULTS = common.RESULTS / "attention"
PAGE = common.TOP / "benchmarks" / "attention.md"
# Student's t of which 95 % lie between minus and plus, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
Differences = dict[int, float]  # by seed


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"-> {PAGE}")


def page(results: Path = RESULTS) -> str:
    """Return the page."""
    runs = [run for run in tables.load() if not run["ablation"]]
    studies = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    parts = [HEAD, TABLES, by_tables(runs), GATES, *map(by_variants, studies)]
    return "\n\n".join(parts) + "\n"


def by_tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of AM-VGGH less VGGH, by protocol, method and length of code."""
    groups = {
        (protocol, size): group
        for (protocol, size, finetune, backbone), group in tables.groups(runs).items()
        if backbone == "vgg16" and finetune == "head"
    }
    settings = sorted(groups, key=lambda setting: (-setting[1], setting[0]))
    lengths = [f"{bits} bits" for bits in tables.BITS]
    lines = table_head(["data, image size", "method", *lengths, "all lengths", "seeds"])
    used: list[Mapping[str, Any]] = []
    won: dict[str, list[bool]] = {attention: [] for attention, _ in tables.ATTENTION}
    for (protocol, size), pair in itertools.product(settings, tables.ATTENTION):
        cells: list[str] = []
        every: list[float] = []
        for bits in tables.BITS:
            both = tables.paired(groups[protocol, size], pair, bits)
            scores = [tables.scores(some, method, bits) for some, method in zip(both, pair, strict=True)]
            differences = [100 * (with_gates - bare) for with_gates, bare in zip(*scores, strict=True)]
            used += both[0] + both[1]
            cells.append(interval(differences))
            every += differences
        if every:
            better = [difference > 0 for difference in every]
            won[pair[0]] += better
            summary = f"{signed(statistics.mean(every))}; better in {sum(better)} of {len(every)}"
            seeds = f"{len(every) / len(tables.BITS):g}"
            lines.append(row([f"{protocol}, {size} px", " less ".join(pair), *cells, summary, seeds]))
    counts = [f"{attention} is better in {sum(won[attention])} of {len(won[attention])}" for attention in won]
    return "\n".join(lines) + f"\n\nOf all pairs, {', '.join(counts)}. {made_on(used)}"


def by_variants(study: Mapping[str, Any]) -> str:
    """Return the table of a study of gates: each kind less none, by method, paired by seed."""
    runs: dict[tuple[str, str], Differences] = {}
    gates: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in study["runs"]:
        kind = run["method"], run["variant"]
        runs.setdefault(kind, {})[run["seed"]] = 100 * run["map"]
        gates.setdefault(kind, []).append(run["gates"] or {})
    methods = dict.fromkeys(method for method, _ in runs)
    variants = dict.fromkeys(variant for _, variant in runs if variant != "none")
    columns = [
        f"{method}: {column}"
        for method in methods
        for column in ("mAP less that without", "channel gate varies", "spatial gate varies")
    ]
    lines = table_head(["gates", *columns])
    for variant in variants:
        cells = []
        for method in methods:
            ours, none = runs.get((method, variant), {}), runs.get((method, "none"), {})
            cells.append(interval([ours[seed] - none[seed] for seed in ours.keys() & none.keys()]))
            cells += spread(gates.get((method, variant), []))
        lines.append(row([variant, *cells]))
    protocol = study["benchmark"].partition("_")[0]
    means = {method: statistics.mean(runs[method, "none"].values()) for method in methods if (method, "none") in runs}
    bare = "; ".join(f"{method} {mean:.1f}" for method, mean in means.items())
    lengths = sorted({run["bits"] for run in study["runs"]})
    settings = f"{', '.join(map(str, lengths))} bits, {study['width']} nodes, {study['epochs']} epochs"
    return (
        f"### {protocol}, {study['image_size']} px, {tables.trained_layers(study['finetune'])}\n\n"
        + "\n".join(lines)
        + f"\n\n{settings}. mAP without gates, in percent: {bare}. {made_on([study])}"
    )


def interval(differences: Sequence[float]) -> str:
    """Return the mean of differences in points of mAP, and half the width of its 95 % confidence interval."""
    if not differences:
        return ""
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{signed(mean)} (one seed)"
    half = STUDENT[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{signed(mean)} ± {half:.1f}"


def spread(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far the channel and spatial gates of some runs vary, in percent, as means over the runs: within a
    photograph, and between photographs.
    """
    cells = []
    for name in ("channel", "spatial"):
        of_gate = [found[name] for found in gates if name in found]
        if not of_gate:
            cells.append("")
            continue
        within, between = (100 * statistics.mean(gate[of] for gate in of_gate) for of in ("deviation", "between"))
        cells.append(f"{within:.0f}%, {between:.0f}%")
    return cells


def signed(points: float) -> str:
    """Return a difference with its sign."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


HEAD = """# Does attention help?

The paper puts CBAM between VGG16's convolutions and the fully connected layers, and reports one to two points of mAP
for it (its Table 1: 0.776 without and 0.797 with it at 12 bits, 0.841 and 0.853 at 48). Here AM-VGGH and VGGH differ
in CBAM alone: photographs, split, frozen ImageNet weights, layers after it, schedule and seeds are the same.

**How it is measured.** mAP@all by Hamming distance, expected over ties. Each difference is of two runs with the same
seed, in points: a hundredth of mAP each. Several seeds give their mean and, behind ±, half of its 95% confidence
interval by Student's t. Runs of one seed at other lengths share photographs and order, and are not independent.

**What it says.** With the paper's classifier, attention on frozen features does not help: on Corel5k-21 it costs
about what the paper gains, on CIFAR-10 half a point, and its spatial gate is what costs (alone, 1.4 ± 0.4 points). With
the classifier of fixed codewords and a margin (`am-vggh+`), it gains 1.2 ± 0.1 points on Corel5k-21, with each of five
seeds and, in the first table, at every length; on CIFAR-10 it does nothing.

Where it gains, the gates look at the photograph. Under the margin the spatial gate weighs cells 38% of its mean up or
down, and one cell as much from photograph to photograph; under the paper's classifier 2% and 1%. The channel gate is
about the same in both. Neither gate alone gains beyond its interval, both together do; and over 14 x 14 cells they do
what they do over 7 x 7, so that the coarse map is not what limits the paper's classifier. The control, a weight a
channel that is the same for all photographs, does nothing; but it hardly leaves 1 in these few steps, so that it shows
less than the channel gate alone does. CIFAR-10's photographs show one object each and little beside it, which may be
why there is nothing to look away from; that is a guess. Not measured: attention that is trained together with the last
stage."""
TABLES = "## After the last pooling, as in the paper"
GATES = """## Where the gates stand, and which there are

Heads over the same cached feature maps before VGG16's last pooling, which they pool themselves: CBAM stands before
it, over 14 x 14 cells, or after it, over 7 x 7. *Gain* is a learned weight a channel, the same for all photographs:
no attention. How far a gate varies is its standard deviation over its mean, within a photograph and, for one channel
or cell, between photographs. Made by `benchmarks/run/attention.py`."""


if __name__ == "__main__":
    write()
