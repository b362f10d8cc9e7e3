"""Tables and plots of `tables.py`'s runs, from their JSON and nothing else: benchmarks/tables.md and docs/tables-*.png.

python -m benchmarks.pages.tables            # the pages, and the plots (with matplotlib)
"""

from __future__ import annotations

import itertools
import json

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head

RESULTS = common.RESULTS / "tables"
PAGE = common.TOP / "benchmarks" / "tables.md"
FIGURES = common.TOP / "docs" / "figures.md"
BITS = (12, 24, 32, 48)
ORDER = ("am-vggh+", "vggh+", "am-vggh", "vggh", "dpsh", "dnnh", "cnnh+", "cnnh", "ksh", "greedyhash", "hashnet", "csq",
         "dch", "dtsh", "cibhash", "bihalf", "itq", "lsh")  # fmt: skip
# Tables 1 and 2 of the paper.
PAPER = {
    "CIFAR-10": {
        "am-vggh": (0.797, 0.844, 0.845, 0.853), "vggh": (0.776, 0.825, 0.834, 0.841),
        "dpsh": (0.713, 0.727, 0.744, 0.757), "dnnh": (0.552, 0.566, 0.558, 0.581),
        "cnnh+": (0.465, 0.521, 0.521, 0.532), "cnnh": (0.439, 0.511, 0.509, 0.522),
        "ksh": (0.303, 0.337, 0.346, 0.356), "lsh": (0.121, 0.126, 0.120, 0.120),
    },
    "NUS-WIDE": {
        "am-vggh": (0.753, 0.765, 0.769, 0.781), "vggh": (0.732, 0.745, 0.752, 0.756),
        "dpsh": (0.747, 0.751, 0.763, 0.776), "dnnh": (0.674, 0.697, 0.713, 0.715),
        "cnnh+": (0.617, 0.663, 0.657, 0.608), "cnnh": (0.611, 0.618, 0.625, 0.608),
        "ksh": (0.556, 0.572, 0.581, 0.588), "lsh": (0.403, 0.421, 0.426, 0.441),
    },
}  # fmt: skip
ATTENTION = (("am-vggh", "vggh"), ("am-vggh+", "vggh+"))  # methods with it, and without
SHOWN = 0.15  # mAP below the highest that a picture has room for
DITHERED = {"dither": None, "nested-dither": "nested"}  # ablations, and those with which they share the training
DATASET = {"cifar10-1": "CIFAR-10", "cifar10-2": "CIFAR-10", "nuswide-21": "NUS-WIDE", "corel5k-21": None}


def write() -> None:
    """Write benchmarks/tables.md, docs/figures.md and the plots."""
    runs = load()
    for path, text in ((PAGE, page(runs)), (FIGURES, figures_page(FIGURES.read_text(encoding="utf-8")))):
        path.write_text(text, encoding="utf-8")
        print(f"-> {path}")
    for name, group in groups(runs).items():
        if has_picture(group):
            print(f"-> {plot(name, group)}")


def load():
    """All runs, in order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def groups(runs):
    """Runs by what makes them comparable: protocol, image size, what was trained, and the backbone."""
    found = {}
    for run in runs:
        key = (run["protocol"], run["image_size"], run["finetune"], run.get("backbone", "vgg16"))
        found.setdefault(key, []).append(run)
    return dict(sorted(found.items(), key=lambda group: group[0][3] != "vgg16"))


def page(runs):
    """The Markdown page."""
    parts = [HEAD]
    for key, group in groups(runs).items():
        parts.append(section(key, group))
    return "\n\n".join(parts) + "\n"


def section(key, group):
    """Tables of one protocol."""
    protocol, size, finetune, backbone = key
    plain = [run for run in group if not run["ablation"]]
    first = group[0]
    trained = trained_layers(finetune)
    compared = DATASET[protocol] and backbone == "vgg16"
    parts = [
        f"## {protocol}, {size} px, {trained}" + ("" if backbone == "vgg16" else f", {backbone}"),
        f"{first['metrics']['queries']:,} queries, {first['metrics']['database']:,} database items, "
        f"{first['training']['train_images'] + first['training']['heldout_images']:,} train images, split sha256 "
        f"`{first['split_sha256'][:12]}`. {provenance(group)}",
    ]  # fmt: skip
    if plain:
        parts += [
            "mAP@all, expected over ties; mean ± standard deviation over the seeds where there are several"
            + (", and after the slash the paper's figure, where it has one." if compared else "."),
            main_table(protocol if compared else None, plain),
        ]
        parts += [f"Order of ties and other metrics, seed {min(run['seed'] for run in plain)}:", metrics_table(plain)]
    if reranked := rerank_table(key):
        parts += [RERANK, reranked]
    if attention := attention_table(plain):
        parts += ["Does attention help? mAP with it less mAP without, seed by seed:", attention]
    if nested := nested_table(group):
        parts += [NESTED, nested]
    if spread := dither_table(group):
        parts += [DITHER, spread]
    if trained := training_table(group):
        parts += [TRAINED, trained]
    if used := bits_table(group):
        parts += [USED, used]
    if ablations := ablation_table(group):
        parts += ["Ablations of AM-VGGH, mAP@all as above:", ablations]
    if has_picture(group):
        parts.append(f"![mAP by bits, precision-recall, training time](../docs/{picture_of(key)})")
    return "\n\n".join(parts)


def trained_layers(finetune):
    """What trains under a value of --finetune, in words."""
    if finetune == "head":
        return "convolutions frozen"
    return "all layers trained" if finetune == "all" else f"the last {finetune.removeprefix('last:')} stages trained"


def has_picture(runs):
    """Whether there is something to compare in a picture: more than one run of a method or length as it stands."""
    return len({(run["method"], run["bits"]) for run in runs if not run["ablation"]}) > 1


def picture_of(key):
    """File name of the plots of one table."""
    protocol, size, finetune, backbone = key
    network = "" if backbone == "vgg16" else f"-{backbone}"
    return f"tables-{protocol}-{size}px{network}-{finetune.replace(':', '-')}.png"


def main_table(protocol, runs):
    paper, lengths = PAPER.get(DATASET.get(protocol), {}), lengths_of(runs)
    lines = table_head(["method", *(f"{bits} bits" for bits in lengths)])
    for method in ORDER:
        cells = []
        for bits in lengths:
            cell = mean_and_spread(scores(runs, method, bits))
            if cell and method in paper and bits in BITS:
                cell += f" / {paper[method][BITS.index(bits)]:.3f}"
            cells.append(cell)
        if any(cells):
            lines.append(row([method, *cells]))
    return "\n".join(lines)


def lengths_of(runs):
    """The lengths of code that some runs have; others need no column."""
    return sorted({run["bits"] for run in runs})


def metrics_table(runs):
    columns = [
        "method",
        "bits",
        "expected",
        "worst",
        "best",
        "index order",
        "mAP@1000",
        "P@10",
        "P@100",
        "P, R within 2",
    ]
    by_directions = all("all_by_directions" in run for run in runs)  # which earlier runs were not asked for
    columns += ["all by directions"] * by_directions
    lines = table_head([*columns, "train", "encode", "peak MiB"])
    for run in first_seed(runs):
        h = run["metrics"]["hamming"]
        cells = [run["method"], run["bits"]]
        cells += [three(h[k]) for k in ("map", "map_worst_ties", "map_best_ties", "map_index_order")]
        cells += [three(run["map_at_1000"]), three(h["precision_at"]["10"]), three(h["precision_at"]["100"])]
        cells.append(f"{three(h['precision_radius_2'])}, {three(h['recall_radius_2'])}")
        if by_directions:  # None where the database was too large for all of it to be re-ranked
            reranked = run["all_by_directions"]
            cells.append(three(reranked["map"]) if reranked else "")
        encode = run["seconds"]["encode database"] + run["seconds"]["encode test"]
        gpu = ", GPU" if on_gpu(run) else ""
        cells += [f"{training_seconds(run):.0f} s{gpu}", f"{encode:.0f} s{gpu}", run["peak_memory_mb"]["process"]]
        lines.append(row(cells))
    return "\n".join(lines)


def rerank_table(key):
    """P@10 and mAP@all with and without the re-rank, from the JSON of `rerank.py`."""
    path = RESULTS.parent / f"rerank_{key[0]}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}
    runs = [
        result | run  # earlier runs were all over VGG16, and of the commit that the file names
        for run in result["runs"]
        if (run["image_size"], run["finetune"], run.get("arch", "vgg16")) == key[1:]
    ]
    if not runs:
        return ""
    columns = [(by, c) for by in ("values", "directions") for c in runs[0]["reranked"][by]]
    lines = table_head(["method", "bits", "Hamming alone", *(f"{by}, {c}" for by, c in columns)])
    for run in sorted(runs, key=lambda run: (ORDER.index(run["method"]), run["bits"], run["seed"])):
        cells = [run["hamming"], *(run["reranked"][by][c] for by, c in columns)]
        lines.append(
            row([run["method"], run["bits"], *(f"{three(r['precision_at']['10'])}, {three(r['map'])}" for r in cells)])
        )
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    return "\n".join(lines) + f"\n\nSeed {seeds}. {made_on(runs)}"


def attention_table(runs):
    """The method with attention less the one without, for the seeds that both have."""
    lines = table_head(["with, without", "bits", "difference by seed", "mean", "without", "with"])
    for pair, bits in itertools.product(ATTENTION, BITS):
        both = [scores(some, method, bits) for some, method in zip(paired(runs, pair, bits), pair, strict=True)]
        if both[0]:
            gain = [with_it - without for with_it, without in zip(*both, strict=True)]
            means = [three(sum(column) / len(column)) for column in reversed(both)]
            cells = [", ".join(pair), bits, ", ".join(f"{g:+.3f}" for g in gain)]
            lines.append(row([*cells, f"{sum(gain) / len(gain):+.3f}", *means]))
    return "\n".join(lines) if len(lines) > 2 else ""


def paired(runs, pair, bits):
    """Runs of two methods at a length, two lists, of the seeds that both have, in their order."""
    by_seed = [{run["seed"]: run for run, _ in scored(runs, method, bits)} for method in pair]
    return [[some[seed] for seed in sorted(by_seed[0].keys() & by_seed[1].keys())] for some in by_seed]


def ablation_table(runs):
    runs = [run for run in runs if run["method"] == "am-vggh"]
    names = sorted({run["ablation"] for run in runs if run["ablation"] not in (None, "nested", *DITHERED)})
    lines = table_head(["AM-VGGH", *(f"{bits} bits" for bits in BITS)])
    for name in (None, *names):
        some = [run for run in runs if run["ablation"] == name]
        cells = [mean_and_spread(scores(some, "am-vggh", bits)) for bits in BITS]
        lines.append(row([name or "as it stands", *cells]))
    return "\n".join(lines) if names else ""


def nested_table(runs):
    """mAP of the prefixes of a nested training, each less that of a training of its own."""
    lengths = lengths_of(run for run in runs if run["ablation"] == "nested")
    lines = table_head(["method", *(f"{bits} bits" for bits in lengths)])
    for method in ORDER:
        cells = [gain_cell(runs, method, bits, "nested", None) for bits in lengths]
        if any(cells):
            lines.append(row([method, *cells]))
    return "\n".join(lines) if len(lines) > 2 else ""


def dither_table(runs):
    """mAP of codes with thresholds of their own, each less that of the same training without."""
    lengths = lengths_of(run for run in runs if run["ablation"] in DITHERED)
    lines = table_head(["method", *(f"{bits} bits" for bits in lengths), "spread", "codes of the longest"])
    for method, (kind, without) in itertools.product(ORDER, DITHERED.items()):
        some = [run for run in runs if run["method"] == method and run["ablation"] == kind]
        if some:
            cells = [gain_cell(runs, method, bits, kind, without) for bits in lengths]
            spreads = ", ".join(sorted({f"{run['training']['dither_spread']:g}" for run in some}))
            codes = [f"{run['bits_used']['distinct']:,}" for run in some if run["bits"] == max(BITS)]
            lines.append(row([method, *cells, spreads, ", ".join(codes)]))
    return "\n".join(lines) if len(lines) > 2 else ""


def training_table(runs):
    """How the backbone was trained, where it was: rates, augmentation, the held-out mAP by epoch and the time."""
    runs = [run for run in runs if run["finetune"] != "head"]
    head = ["method", "bits", "learning rate, backbone's", "augmentation", "smoothing", "held-out mAP by epoch", "P@1"]
    lines = table_head([*head, "training, encoding"])
    for run in runs:
        training, epochs = run["training"], run["training"]["epochs_run"]
        rate, precision = training["lr"], run["metrics"]["hamming"]["precision_at"]
        augment = f"{training['views']} views, {training['augment']}" if training["views"] else training["augment"]
        encoding = run["seconds"]["encode database"] + run["seconds"]["encode test"]
        cells = [with_ablation(run), run["bits"], f"{rate:g}, {training['backbone_lr'] or rate:g}", augment]
        cells += [f"{training['smoothing']:g}", ", ".join(three(epoch["heldout_map"]) for epoch in epochs)]
        cells += [three(precision["1"]), f"{training_seconds(run) / 60:.0f} min, {encoding / 60:.0f} min"]
        lines.append(row(cells))
    return "\n".join(lines) if runs else ""


def training_seconds(run):
    """Seconds that a training took.

    Of one that was resumed, results before b1a8321 name those of the last process alone: the epochs took longer.
    """
    return max(run["seconds"]["train"], sum(epoch["seconds"] for epoch in run["training"]["epochs_run"]))


def with_ablation(run):
    """The method of a run and, where it was trained in another way than the plain table's, that way."""
    return f"{run['method']}, {run['ablation']}" if run["ablation"] else run["method"]


def gain_cell(runs, method, bits, kind, other):
    """mAP of runs of one ablation and, in brackets, what it is above that of another, by seed; "" where none is.

    A dither changes no training: runs that were trained otherwise are not compared.
    """
    ours, others = ([pair for pair in scored(runs, method, bits) if pair[0]["ablation"] == name]
                    for name in (kind, other))  # fmt: skip
    gains = [
        f"{score - base:+.3f}"
        for run, score in ours
        for plain, base in others
        if run["seed"] == plain["seed"] and (kind not in DITHERED or trained_alike(run, plain))
    ]
    return mean_and_spread([score for _, score in ours]) + (f" ({', '.join(gains)})" if gains else "")


def trained_alike(run, other):
    """Whether two runs of the same lengths of code are the same training by their settings, --dither apart."""
    of_run = ("epochs", "width", "batch_size")
    of_training = ("smoothing", "lr", "backbone_lr", "weight_decay", "dropout", "augment", "views")
    return all(run[name] == other[name] for name in of_run) and all(
        run["training"].get(name) == other["training"].get(name) for name in of_training
    )


def bits_table(runs):
    """How the bits of the longest codes are used, of the runs that say so, the lowest seed of each method."""
    known = [
        run for run in runs if "bits_used" in run and run["bits"] == max(BITS) and run["ablation"] in (None, "nested")
    ]
    known.sort(key=lambda run: run["ablation"] is not None)  # a training for this length alone comes first
    lines = table_head(["method", "mAP", "mAP of half the bits", "uncorrelated bits", "rare", "copies", "codes"])
    for run in first_seed(known):
        used = run["bits_used"]
        cells = [with_ablation(run), three(run["metrics"]["hamming"]["map"]), ", ".join(map(three, used["half_map"]))]
        cells += [f"{used['effective']:.1f}", used["rare"], used["copies"], f"{used['distinct']:,}"]
        lines.append(row(cells))
    return "\n".join(lines) if known else ""


def scored(runs, method, bits):
    """(run, mAP) of each run of a method at a length."""
    return [(run, run["metrics"]["hamming"]["map"]) for run in runs if (run["method"], run["bits"]) == (method, bits)]


def scores(runs, method, bits):
    """mAP of each run of a method at a length."""
    return [score for _, score in scored(runs, method, bits)]


def first_seed(runs):
    """The run of the lowest seed of each method and length, in the order of the tables."""
    best = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        best.setdefault((ORDER.index(run["method"]), run["bits"]), run)
    return [best[key] for key in sorted(best)]


def mean_and_spread(values):
    """ "0.812 ± 0.004 (3)" of several values, "0.812" of one, "" of none."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return three(mean)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{three(mean)} ± {three(spread)} ({len(values)})"


def on_gpu(run):
    """Whether a run computed on a GPU, whose times are no measure for those of a CPU."""
    return "gpu" in run["peak_memory_mb"]


def three(value):
    return f"{value:.3f}"


def provenance(runs):
    """Machine, commits, versions, settings of some runs, in words."""

    def all_of(get):
        return ", ".join(sorted({str(get(run)) for run in runs}))

    seeds = sorted({run["seed"] for run in runs})

    views = sorted({run["training"].get("views", 0) for run in runs} - {0})
    views = f"{', '.join(map(str, views))} cached views of each photograph. " if views else ""
    return (
        f"Fully connected layers of {all_of(lambda r: r['width'])} nodes, {all_of(lambda r: r['epochs'])} epochs, "
        f"batches of {all_of(lambda r: r['batch_size'])}. {views}"
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}. torch "
        f"{all_of(lambda r: r['versions']['torch'])}. {made_on(runs)}"
    )  # fmt: skip


def plot(key, runs):
    """mAP by bits, precision-recall at the longest code, training time: one picture; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    protocol, size, finetune, backbone = key
    runs = [run for run in runs if not run["ablation"]]
    figure, (by_bits, curve, time) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    colours = dict(zip(ORDER, plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2], strict=False))
    for method in ORDER:
        found = {bits: scores(runs, method, bits) for bits in BITS}
        found = {bits: values for bits, values in found.items() if values}
        if not found:
            continue
        means = [sum(values) / len(values) for values in found.values()]
        reach = [[m - min(v) for m, v in zip(means, found.values(), strict=True)],
                 [max(v) - m for m, v in zip(means, found.values(), strict=True)]]  # fmt: skip
        by_bits.errorbar(list(found), means, reach, marker="o", capsize=3, label=method, color=colours[method])
        run = [run for run in first_seed(runs) if run["method"] == method][-1]
        points = run["metrics"]["hamming"]["curve"]
        curve.plot(points["recall"], points["precision"], marker=".", color=colours[method], label=method)
        for gpu in (False, True):
            some = [run for run in first_seed(runs) if run["method"] == method and on_gpu(run) == gpu]
            if some:
                mean = sum(map(training_seconds, some)) / len(some)
                time.barh(f"{method}, GPU" if gpu else method, mean, color=colours[method])
    by_bits.set(xlabel="bits", ylabel="mAP@all", xticks=BITS, title="mAP (bars: lowest and highest seed)")
    highest = max(run["metrics"]["hamming"]["map"] for run in runs)
    lowest, _ = by_bits.get_ylim()
    if lowest < highest - SHOWN:  # curves of methods near the best would lie upon one another
        by_bits.set(
            ylim=(highest - SHOWN, highest + SHOWN / 10), title="mAP near the highest (bars: range of the seeds)"
        )
    curve.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1), title=f"by Hamming radius, {max(BITS)} bits"
    )
    time.set(xlabel="seconds", title="training, without convolution features")
    time.invert_yaxis()
    figure.legend(*curve.get_legend_handles_labels(), loc="outside lower center", ncols=12, fontsize=9)
    for axes in (by_bits, curve, time):
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"{protocol}, {size} px, {trained_layers(finetune)}" + ("" if backbone == "vgg16" else f", {backbone}")
    )
    path = common.TOP / "docs" / picture_of(key)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path


def figures_page(text):
    """docs/figures.md with its table of one run's codes, counted in every way, made anew."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.parent.glob("differences_*.json"))]
    lines = table_head(["how mAP is counted", *(f"{run['bits']} bits" for run in runs)])
    for name in runs[0]["map"] if runs else ():
        lines.append(row([name, *(three(run["map"][name]) for run in runs)]))
    names = ", ".join(f"`{run['run']}`" for run in runs)
    lines += ["", f"Codes: {names}. {made_on(runs)}"]
    return fill(text, {"differences": "\n".join(lines)})


RERANK = """What the re-rank is worth: precision@10 and mAP@all, by the features compared and the number of candidates.
The paper compares hash-layer values; `--rerank-by directions` compares the directions of the logits. Thousands of items
share a distance here, and fewer candidates than that are merely the first of them in the index: take enough."""

NESTED = """One training for all lengths (`--bits 12,24,32,48`), whose shorter codes are the first bits of the longest:
mAP@all, and in brackets what that is above a training for each length, seed by seed. Runs of `csq` and `am-vggh+` on
CIFAR-10 are of a hashret that drew codewords for each length by itself; on Corel5k-21 that cost `csq` 0.03 to 0.06 and
`am-vggh+` 0.01 to 0.02:"""

DITHER = """Thresholds of the bits of the database spread as far as helped held-out images most (`--dither`): mAP@all,
and in brackets what that is above the same training without, seed by seed; the spreads that were chosen, in root mean
squares of the logits:"""

TRAINED = "How the backbone was trained:"
USED = f"""How the {max(BITS)} bits are used: the mAP@all of every second bit and of the others; the number of
uncorrelated bits that would vary as much (the participation ratio of their correlations); bits that nearly all
photographs have the same of, and bits that nearly repeat another; distinct codes of the database:"""

HEAD = """# The paper's tables, re-run under one roof

Every method is trained and scored on the same split, the same convolution features (VGG16, ImageNet) and the same
metrics; the deep ones share one network and one training loop, the shallow ones (KSH, ITQ, LSH) hash the mean-pooled
features. The paper copied its rows from DPSH down from earlier papers, where the shallow methods used GIST and
networks were smaller, so those rows are higher here. [Why a figure elsewhere may differ](../docs/figures.md) has the
rest. Made by `benchmarks/pages/tables.py` from `benchmarks/results/tables/`, which `benchmarks/run/tables.py`
writes."""


if __name__ == "__main__":
    write()
