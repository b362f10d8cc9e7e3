"""The result tables of the README and of pages in docs/, from the JSON under benchmarks/results and nothing else.

python -m benchmarks.pages.readme            # the tables between the markers of these pages
"""

from __future__ import annotations

import json

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head
from benchmarks.pages import tables as tables_page

PAGES = [
    common.TOP / "README.md",
    *(common.TOP / "docs" / f"{name}.md" for name in ("start", "serve", "engines", "results")),
]
PAPER = {12: 0.797, 24: 0.844, 32: 0.845, 48: 0.853}  # table 1, AM-VGGH


def write() -> None:
    """Write the tables of all pages."""
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"-> {path}")


def page(text: str) -> str:
    """A page's text with each section between its markers made anew."""
    return fill(text, {name: make() for name, make in SECTIONS.items() if f"<!-- {name} -->" in text})


def load(pattern):
    """Results whose name matches, in order of name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(common.RESULTS.glob(pattern))]


def retrieval():
    """mAP on cifar10-2 of every full run."""
    lines = [
        "| method | bits | px | trained | mAP@all | ties: worst, best | re-ranked | P@10 | paper | train | encode "
        "| commit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    results = load("cifar10-2_*.json")
    for result in results:
        training, metrics, steps = result["training"], result["metrics"], result["steps"]
        hamming, encode = metrics["hamming"], steps["encode train"]["seconds"] + steps["encode test"]["seconds"]
        paper = PAPER.get(training["bits"], "") if training["method"] == "am-vggh" else ""
        cells = [training[name] for name in ("method", "bits", "image_size", "finetune")]
        cells += [f"**{hamming['map']:.3f}**", f"{hamming['map_worst_ties']:.3f}, {hamming['map_best_ties']:.3f}"]
        cells += [f"{metrics['reranked']['map']:.3f}", f"{hamming['precision_at']['10']:.3f}", paper]
        cells += [minutes(steps["train"]["seconds"]), minutes(encode), result["commit"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return (
        "\n".join(lines)
        + f"\n\n{made_on(results)} Seed {', '.join(sorted({str(r['training']['seed']) for r in results}))}."
    )


def table1():
    """The paper's table 1 over frozen convolutions, and the best of all runs on its protocol, whatever was trained."""
    runs = [run for run in tables_page.load() if run["protocol"] == "cifar10-2"]
    own = [run for run in tables_page.groups(runs)["cifar10-2", 224, "head", "vgg16"] if not run["ablation"]]
    best = max((run for run in runs if run["bits"] == 48), key=lambda run: run["metrics"]["hamming"]["map"])
    hamming = best["metrics"]["hamming"]
    ties = f"{hamming['map_worst_ties']:.3f} to {hamming['map_best_ties']:.3f}"
    lengths = {
        method: {run["bits"] for run in own if run["method"] == method} for method in tables_page.PAPER["CIFAR-10"]
    }
    unfinished = ", ".join(method for method, there in lengths.items() if not there.issuperset(tables_page.BITS))
    return (
        f"{tables_page.main_table('cifar10-2', own)}\n\n"
        f"{f'Not yet run at every length: {unfinished}. ' if unfinished else ''}{tables_page.provenance(own)}\n\n"
        f"Highest mAP of all runs at 48 bits: **{hamming['map']:.3f}** by {best['method']} over {best['backbone']} at "
        f"{best['image_size']} px, {tables_page.trained_layers(best['finetune'])} (ties: {ties}; re-ranked "
        f"{best['metrics']['reranked']['map']:.3f}; P@10 {hamming['precision_at']['10']:.3f}; training "
        f"{minutes(tables_page.training_seconds(best))}). Seed {best['seed']}. {made_on([best])}"
    )


def tables():
    """mAP of every method on every protocol that was run."""
    parts = []
    for (protocol, size, finetune, backbone), runs in tables_page.groups(tables_page.load()).items():
        plain = [run for run in runs if not run["ablation"]]
        if not plain:
            continue
        trained = "" if finetune == "head" else f", {tables_page.trained_layers(finetune)}"
        network = "" if backbone == "vgg16" else f", {backbone}"
        shown = tables_page.main_table(protocol if backbone == "vgg16" else None, plain)
        parts.append(f"**{protocol}**, {size} px{network}{trained}\n\n{shown}")
    return "\n\n".join(parts)


def first():
    """From pip install to the first answer, by what is installed."""
    [result] = load("first_answer.json")
    verbs = ("pip install", "hashret sync", "hashret query")
    lines = table_head(["installed", "on disk", *(f"`{verb}`" for verb in verbs), "together", "load"])
    for name, way in result["ways"].items():
        steps = [[way["install"]], *([one[step] for one in way["rounds"]] for step in ("sync", "query"))]
        middle = [sorted(timings, key=lambda timing: timing["seconds"])[len(timings) // 2] for timings in steps]
        middle.append({key: sum(timing[key] for timing in middle) for key in ("seconds", "cpu_seconds")})
        loads = [load for timings in steps for timing in timings for load in timing["load"]]
        cells = [f"{timing['seconds']:.0f} s ({timing['cpu_seconds']:.0f} s)" for timing in middle]
        lines.append(row([name, f"{way['megabytes'] / 1000:.1f} GB", *cells, f"{min(loads):.0f} to {max(loads):.0f}"]))
    return (
        "\n".join(lines) + "\n\nFrom an empty environment to the answer to one photograph among "
        f"{result['photographs']:,} JPEG files: the median of {len(way['rounds'])} rounds, and of it the CPU time, "
        "which two cores have between them. *Load* is how many processes wanted these two cores meanwhile, others' "
        f"included{', which came behind' if result.get('nice', 0) < 0 else ''}. Installed with the extras "
        "`fast`, `serve` and `openvino`; the largest packages and the weights of the network lay on the machine. "
        f"Made by `benchmarks/run/first_answer.py`. {made_on([result])} Seed 0."
    )


def speed():
    """What was measured against a plain way, in the same run."""
    lines = ["| what | measured | beside | ratio (lowest to highest) | commit |", "| --- | --- | --- | --- | --- |"]
    throughput, startup, metrics = load("encode_throughput_*.json"), load("startup_*.json"), load("metrics_*.json")
    for result in throughput:
        rates = {name: sorted(values)[len(values) // 2] for name, values in result["images_per_second"].items()}
        base = f"VGG16, torch: {rates['vgg16, torch']:.1f} images/s"
        for name, (middle, least, most) in result["ratios"].items():
            if name != "vgg16, torch":
                what = "a plain float32 torchvision loop over VGG16" if name == "plain" else f"`hashret encode`, {name}"
                lines.append(
                    f"| {what}, {result['image_size']} px | {rates[name]:.1f} images/s | {base} "
                    f"| {middle:.2f} ({least:.2f} to {most:.2f}) | {result['commit']} |"
                )
    for result in startup:
        medians, ratio = result["medians"], result["query_to_imports_wall"]
        network = f"{result['arch']}, {result['precision']}, " if "arch" in result else ""
        lines.append(
            f"| `hashret query` of one photograph, {network}checkpoint of {result['checkpoint_mb']} MB "
            f"| {medians['hashret query']['wall_s']:.1f} s "
            f"| `import torch, faiss`: {medians['import torch, faiss']['wall_s']:.1f} s "
            f"| {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) | {result['commit']} |"
        )
    for result in startup[:1]:
        seconds = result["medians"]["hashret --help"]["cpu_s"]
        lines.append(f"| `hashret --help` | {seconds} s of CPU | | | {result['commit']} |")
    for result in metrics:
        middle, least, most = result["ratio"]
        lines.append(
            f"| tie-exact mAP, {result['queries']:,} queries, {result['database']:,} codes of {result['bits']} bits, "
            f"{result['codes']} | {result['seconds']['hashret']} s | numpy loop over the queries: "
            f"{result['seconds']['plain']} s | {middle} ({least} to {most}) | {result['commit']} |"
        )
    life = [
        *sorted(load("scale/life_*_values.json"), key=lambda run: run["items"]),
        *load("scale/life_100000000_codes.json"),
    ]
    latency = [
        *load("latency/cifar10-*_48b.json"),
        *load("exact/learned-p0.01_10000000_48b.json"),
        *load("exact/random_10000000_48b.json"),
    ]
    for result in latency:
        for cell in result["cells"]:
            if (cell["threads"], cell["k"]) == (1, 100) and cell["batch"] in (1, 1000):
                lines.append(latency_row(result, cell))
    for result in life:
        kept = "with values" if result["values"] else "codes alone"
        what, size = f"index of {result['items']:,} photographs, 48 bits, {kept}", f"{result['index_mb']:,.0f} MiB"
        build = f"{minutes(result['build']['seconds'])}, at most {result['build']['peak_memory_mb']:,} MiB of memory"
        path = f"{result['search']['p50_ms']} ms (p99 {result['search']['p99_ms']})"
        lines.append(f"| build an {what}, {size} | {build} | | | {result['commit']} |")
        lines.append(f"| open it | {1000 * result['open']['seconds_first']:.1f} ms | | | {result['commit']} |")
        lines.append(f"| answer an encoded query: 1,000 candidates, re-rank, paths | {path} | | | {result['commit']} |")
    return "\n".join(lines) + f"\n\n{made_on(throughput + startup + metrics + latency + life)}"


def engines():
    """An index and its copies in engines: the whole path of a query."""
    results = load("engines.json")
    names = {
        "folder": "the index folder",
        "milvus": "Milvus Lite",
        "postgres": "PostgreSQL with pgvector",
        "postgres, hnsw": "the same with `--approximate`, HNSW",
    }
    lines = table_head(
        ["held by", "export", "one query, p50, p99", "with `--values`", "a row each", "32 at once, p50",
         "with `--values`", "a row each", "nearest 100 found"]
    )  # fmt: skip
    for result in results:
        one, many = (result["milliseconds"][f"whole, {size}"] for size in (1, 32))
        found = result["found_within_the_last_distance"]["nearest, 1"]
        for name, shown in names.items():
            export, one_beside, many_beside, one_before, many_before = "", "", "", "", ""
            if name in result["export"]:
                export = f"{result['export'][name]['seconds']:.1f} s"
                one_beside, many_beside = (
                    f"{three(cells[f'{name}, values beside']['p50'])} ms" for cells in (one, many)
                )
                one_before, many_before = (
                    f"{three(cells[f'{name}, one row a photograph']['p50'])} ms" for cells in (one, many)
                )
            both = f"{three(one[name]['p50'])}, {three(one[name]['p99'])} ms"
            many_at_once = f"{three(many[name]['p50'])} ms"
            cells = [shown, export, both, one_beside, one_before, many_at_once, many_beside, many_before]
            lines.append(row([*cells, f"{100 * found[name]:.3g}%"]))
    return (
        "\n".join(lines)
        + f"\n\n{results[0]['items']:,} photographs and {results[0]['distinct_codes']:,} codes of a trained encoder, "
        "1,000 candidates, re-ranked by their values, ids and paths of ten; one client on the engine's own machine. "
        "*A row each*: the same queries in the same minutes over one row a photograph, as an export by an earlier "
        "hashret is searched. Made by `benchmarks/run/engines.py`. "
        f"{made_on(results)}"
    )


def service():
    """The service under load, beside a handler without batching."""
    lines = [
        "| encoder | clients | `hashret serve` | p50, p95, p99 | errors | with `--batch 1` | naive handler "
        "| p50, p95, p99 | ratio to naive (lowest to highest) |",
        "| --- " * 9 + "|",
    ]
    results = load("service_load*.json")
    for result in results:
        for cell in result["cells"]:
            own, naive = cell["servers"]["hashret"], cell["servers"]["naive"]
            single = cell["servers"]["hashret --batch 1"]
            middle, least, most = own["ratio_to_naive"]
            lines.append(
                f"| {result['arch']} | {cell['clients']} "
                f"| {own['requests_per_second']} a second | {times(own['ms'])} | {own['errors']} "
                f"| {single['requests_per_second']} | {naive['requests_per_second']} | {times(naive['ms'])} "
                f"| {middle:.2f} ({least:.2f} to {most:.2f}) |"
            )
    return (
        "\n".join(lines)
        + "\n\nUploads a second: "
        + "; ".join(
            f"of {result['arch']} ({result['method']}) over {result['indexed']:,} photographs at "
            f"{result['image_size']} px, an upload of {result['upload_kb']:.0f} kB"
            for result in results
        )
        + ". The clients take their share of the same cores. Made by "
        f"`benchmarks/run/service_load.py`. {made_on(results)}"
    )


def times(ms):
    """Percentiles of a time in words."""
    return f"{', '.join(f'{value:,.0f}' for value in ms.values())} ms"


def latency_row(result, cell):
    """A cell of `latency.py`: the compiled engine against plain faiss."""
    codes = {"random": "uniform", "learned": "learned-like", "shards": "of a trained encoder"}[result["kind"]]
    queries = "one query" if cell["batch"] == 1 else f"{cell['batch']:,} queries"
    own, flat = cell["engines"]["hashret"], cell["engines"]["flat"]
    middle, least, most = own["ratio"]
    return (
        f"| nearest 100 of {result['items']:,} codes of 48 bits, {codes}, {queries}, one thread "
        f"| {three(own['ms']['p50'])} ms | `IndexBinaryFlat`: {three(flat['ms']['p50'])} ms"
        f"{', measured on a part of the queries and scaled to all' if flat.get('scaled') else ''} "
        f"| {three(middle)} ({three(least)} to {three(most)}) | {result['commit']} |"
    )


def three(value):
    """A number to three digits, none of them an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def minutes(seconds):
    """Seconds as a reader wants them."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


SECTIONS = {
    "first": first,
    "service": service,
    "engines": engines,
    "retrieval": retrieval,
    "table1": table1,
    "tables": tables,
    "speed": speed,
}

if __name__ == "__main__":
    write()
