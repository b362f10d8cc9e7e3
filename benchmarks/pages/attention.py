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
NORMAL = 1.96  # the same of many degrees of freedom
GATE_NAMES = ("channel", "spatial")
Run = Mapping[str, Any]
Kind = tuple[str, str]  # method, variant
Runs = Mapping[Kind, Mapping[int, Run]]  # the latter by seed


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"-> {PAGE}")


def page(results: Path = RESULTS) -> str:
    """Return the page."""
    runs = [run for run in tables.load() if not run["ablation"]]
    studies = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    parts = [
        HEAD,
        TABLES,
        by_tables(runs),
        GATES,
        *map(by_variants, itertools.chain.from_iterable(map(by_length, studies))),
    ]
    return "\n\n".join(parts) + "\n"


def by_tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of AM-VGGH less VGGH, by protocol, method and length of code."""
    groups = {
        (protocol, size, backbone): group
        for (protocol, size, finetune, backbone), group in tables.groups(runs).items()
        if finetune == "head"
    }
    settings = sorted(groups, key=lambda setting: (setting[2] != "vgg16", -setting[1], setting[0]))
    lengths = [f"{bits} bits" for bits in tables.BITS]
    lines = table_head(["data, image size", "method", *lengths, "all lengths", "seeds"])
    used: list[Mapping[str, Any]] = []
    won: dict[str, list[bool]] = {attention: [] for attention, _ in tables.ATTENTION}
    for setting, pair in itertools.product(settings, tables.ATTENTION):
        cells: list[str] = []
        every: list[float] = []
        for bits in tables.BITS:
            both = tables.paired(groups[setting], pair, bits)
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
            protocol, size, backbone = setting
            data = f"{protocol}, {size} px" + ("" if backbone == "vgg16" else f", {backbone}")
            lines.append(row([data, " less ".join(pair), *cells, summary, seeds]))
    counts = [f"{attention} is better in {sum(won[attention])} of {len(won[attention])}" for attention in won]
    return "\n".join(lines) + f"\n\nOf all pairs, {', '.join(counts)}. {made_on(used)}"


def by_length(study: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a study of each length of code, whose runs are compared with each other alone."""
    lengths = sorted({run["bits"] for run in study["runs"]})
    return [{**study, "runs": [run for run in study["runs"] if run["bits"] == bits]} for bits in lengths]


def by_variants(study: Mapping[str, Any]) -> str:
    """Return the tables of a study of gates at one length: each kind less none by method, paired by seed, and what the
    gates are.
    """
    runs: dict[Kind, dict[int, Run]] = {}
    for run in study["runs"]:
        runs.setdefault((run["method"], run["variant"]), {})[run["seed"]] = run
    methods = list(dict.fromkeys(method for method, _ in runs))
    variants = list(dict.fromkeys(variant for _, variant in runs if not variant.startswith("none")))
    columns = [f"{method}: {column}" for method in methods for column in ("mAP less that without", "P@10 less that")]
    lines = table_head(["gates", *columns])
    # Each kind less none, that was trained for as long, and gates that see less those that do not.
    compared = [(variant, variant, "none" + "".join(variant.partition(",")[1:])) for variant in variants]
    compared.append(("7x7 less 7x7 blind", "7x7", "7x7 blind"))
    for name, variant, other in compared:
        cells = []
        for method in methods:
            pairs = in_pairs(runs.get((method, variant), {}), runs.get((method, other), {}))
            cells += [less(pairs), interval([100 * (p_at_10(ours) - p_at_10(none)) for ours, none in pairs])]
        if any(cells):
            lines.append(row([name, *cells]))
    protocol = study["benchmark"].partition("_")[0]
    means = {
        method: 100 * statistics.mean(run["map"] for run in runs[method, "none"].values())
        for method in methods
        if (method, "none") in runs
    }
    bare = "; ".join(f"{method} {mean:.1f}" for method, mean in means.items())
    settings = f"{study['runs'][0]['bits']} bits, {study['width']} nodes, {study['epochs']} epochs"
    counts = sorted({len(found) for found in runs.values()})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    parts = [
        f"### {protocol}, {study['image_size']} px, {trained_layers(study)}",
        "\n".join(lines),
        gates_table(runs, methods, variants),
        replaced_table(runs, methods, variants),
        f"{settings}, {seeds} seeds. mAP without gates, in percent: {bare}. "
        f"{made_on([{**study, **run} for run in study['runs']])}",
    ]
    return "\n\n".join(part for part in parts if part)


def trained_layers(study: Mapping[str, Any]) -> str:
    """Return what trained, and which epoch was kept where that is not the rule of today."""
    kept = "" if "average_precisions" in study["runs"][0] else ", the best epoch kept"
    return f"{tables.trained_layers(study['finetune'])}{kept}"


def gates_table(runs: Runs, methods: Sequence[str], variants: Sequence[str]) -> str:
    """Return how the gates of each kind vary over the test photographs."""
    columns = [f"{method}: {gate} gate" for method in methods for gate in GATE_NAMES]
    lines = table_head(["gates", *columns])
    for variant in variants:
        found = [[run.get("gates") or {} for run in runs.get((method, variant), {}).values()] for method in methods]
        lines.append(row([variant, *(spread(gates, name) for gates in found for name in GATE_NAMES)]))
    return f"{GATE_SPREADS}\n\n" + "\n".join(lines)


def replaced_table(runs: Runs, methods: Sequence[str], variants: Sequence[str]) -> str:
    """Return what trained encoders lose where their gates are replaced; "" where no run says."""
    columns = [f"{method}: {column}" for method in methods for column in ("mean gates", "another's gates")]
    lines = table_head(["gates", *columns])
    for variant in variants:
        if "blind" in variant:  # whose gates are the same for all photographs
            continue
        cells = []
        for method, kind in itertools.product(methods, ("mean", "another")):
            some = [run for run in runs.get((method, variant), {}).values() if "replaced" in run]
            cells.append(interval([100 * (run["replaced"][kind] - run["map"]) for run in some]))
        if any(cells):
            lines.append(row([variant, *cells]))
    return f"{REPLACED_GATES}\n\n" + "\n".join(lines) if len(lines) > 2 else ""


def in_pairs(ours: Mapping[int, Run], none: Mapping[int, Run]) -> list[tuple[Run, Run]]:
    """Return the runs of the seeds that both have, in pairs."""
    return [(ours[seed], none[seed]) for seed in sorted(ours.keys() & none.keys())]


def less(pairs: Sequence[tuple[Run, Run]]) -> str:
    """Return the mean difference of mAP in points, with its interval over the seeds and, where known, over the queries.

    That over the queries is of the mean over the seeds of each query's difference: what another set of queries would
    leave uncertain.
    """
    over_seeds = interval([100 * (ours["map"] - none["map"]) for ours, none in pairs])
    if not pairs or not all("average_precisions" in run for pair in pairs for run in pair):
        return over_seeds
    differences = [
        100 * (float(ours) - float(none))
        for pair in pairs
        for ours, none in zip(*(run["average_precisions"].split() for run in pair), strict=True)
    ]
    queries = len(differences) // len(pairs)
    of_query = [statistics.mean(differences[query::queries]) for query in range(queries)]
    half = NORMAL * statistics.stdev(of_query) / math.sqrt(queries)
    return f"{over_seeds}; queries ± {half:.1f}"


def p_at_10(run: Run) -> float:
    """Return the precision among the ten nearest."""
    precision: float = run["precision_at"]["10"]
    return precision


def interval(differences: Sequence[float]) -> str:
    """Return the mean of differences in points of mAP, and half the width of its 95 % confidence interval."""
    if not differences:
        return ""
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return f"{signed(mean)} (one seed)"
    half = STUDENT[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{signed(mean)} ± {half:.1f}"


def spread(gates: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return how far a gate varies in some runs, as means over these; "" where there is none."""
    of_gate = [found[name] for found in gates if name in found]
    if not of_gate:
        return ""
    within, between = (100 * statistics.mean(gate[of] for gate in of_gate) for of in ("deviation", "between"))
    varies = f"{within:.0f}%, {between:.0f}%"
    return f"{statistics.mean(gate['mean'] for gate in of_gate):.2f}; {varies}" if "mean" in of_gate[0] else varies


def signed(points: float) -> str:
    """Return a difference with its sign."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


HEAD = """# Does attention help?

The paper puts CBAM between VGG16's convolutions and the fully connected layers, and reports one to two points of mAP
for it (its Table 1: 0.776 without and 0.797 with it at 12 bits, 0.841 and 0.853 at 48). Here AM-VGGH and VGGH differ
in CBAM alone: photographs, split, frozen ImageNet weights, layers after it, schedule and seeds are the same. Its gates
are twice a sigmoid and begin at one (`--gate unit`), where those of CBAM's authors begin near one half; theirs is
`half` below.

**How it is measured.** mAP@all by Hamming distance, expected over ties. Each difference is of two runs with the same
seed, in points: a hundredth of mAP each. Several seeds give their mean and, behind ±, half of its 95% confidence
interval by Student's t; they share the queries, and *queries* is the same for other queries like these, of the mean
over the seeds. Runs of one seed at other lengths share photographs and order, and are not independent. In the first
table the layers behind CBAM begin with other random numbers than those without it; below it they begin with the same.

**What it says.** No gain by looking at the photograph was found on frozen features.

- With the paper's classifier, attention costs: one to two points on Corel5k-21, half to one on CIFAR-10. CBAM's own
  form, `half`, costs 1.5 ± 1.9 on Corel5k-21; gates that begin `open`, near one, and hardly leave it gain 0.4 ± 0.4.
- With the classifier of fixed codewords and a margin (`am-vggh+`) it gains 1.2 points on Corel5k-21, with each of five
  seeds and, in the first table, at every length over VGG16. But *blind* gates, which have the same parameters, start
  and rates and see ones in place of the feature map, so that they are the same for all photographs, gain 0.8 ± 0.7; and
  those that see gain 0.4 ± 0.7 more, which cannot be told from nothing. About two thirds of the gain come of weighing
  channels and cells once for all.
- The trained gates do look: where they are replaced by their mean over the train photographs, the same encoder loses
  1.0 point, and by those of other photographs 1.8. The layers behind were trained with them; this does not say that an
  encoder trained without finds less.
- On CIFAR-10 no gain was found: from -0.5 ± 1.6 to +0.1 ± 1.0 at 96 px (three seeds), and -0.1 to -0.2 at 224 px (one
  seed).

Under the paper's classifier the spatial gate stands near its ceiling, 2, in all cells, and only scales the map; under
the margin it is 0.4 on average and weighs cells 36% of that up or down. On Corel5k-21 the database is what was learned
from, so that a gain may be a closer fit of it: the training loss is lower by 0.29 with gates and by 0.19 with blind
ones, of 1.6, and the mAP of held-out photographs is the same (-0.1 ± 1.0 points, -0.1 ± 1.7 with blind ones). Not
measured: attention that is trained together with the last stage."""
TABLES = "## After the last pooling, as in the paper"
GATES = """## Where the gates stand, and which there are

Heads over the same cached feature maps before VGG16's last pooling, which they pool themselves: CBAM stands before
it, over 14 x 14 cells, or after it, over 7 x 7. *Blind* gates see ones. *Gain* is a learned weight a channel, the same
for all photographs, which hardly leaves one in these few steps. Made by `benchmarks/run/attention.py`."""
GATE_SPREADS = """What the gates are: their mean, where it is known, and how far they vary, by the standard deviation
over the mean, over the channels or cells of a photograph and, for one channel or cell, between photographs of the test
set (of 64 in the study that kept the best epoch):"""
REPLACED_GATES = """What a trained encoder loses, in points of mAP, where its gates are replaced in all photographs, by
their mean over the train photographs or by those of another photograph, drawn by lot:"""


if __name__ == "__main__":
    write()
