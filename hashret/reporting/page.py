"""`hashret report`: a run on one page, from its training to its best and worst queries."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..files import StrPath, check_output
from ..progress import clock, takes_quiet
from ..rendering.pages import write_page
from ..rendering.pictures import check_suffix
from ..training.settings import TrainReport
from . import plots
from .bits import BitStatistics
from .figures import Figures, measure
from .records import record_blocks, shown, words
from .run import SETTINGS, Record, RunFiles, find_run
from .svg import Plot, check_matplotlib

_HEAD = ("benchmark", "protocol", "commit", "date", "machine")  # fields of a benchmark's result for the page's head
_EPOCH = ("epoch", "loss", "heldout_map", "lr", "seconds")
_WIDE = 25  # classes from which on the matrix would not fit the page
_CONFUSED = 12  # pairs of classes that are listed


@takes_quiet
def report(
    run: StrPath = ".",
    out: StrPath = "report.html",
    *,
    index: StrPath | None = None,
    queries: StrPath | None = None,
    title: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Figures:
    """Write a page on a run: its training, retrieval, bits, classes, best and worst queries; return its figures.

    What there are no files for is left out, and the page says what to run to have it.

    Args:
        run: folder that the verbs, the demo or a benchmark worked in, or a checkpoint, an index or a result's JSON.
        out: page to write.
        index, queries: index folder and folder of the queries' shards, where they are not found in ``run``.
        title: title of the page.
        device: "auto", "cpu" or "cuda", for the searches.

    Raises:
        HashretError: there is nothing of a run, files of different encoders, no matplotlib, or ``out`` exists.
    """
    check_matplotlib()
    check_suffix(out, ".html")
    check_output(out, overwrite, "report")
    files = find_run(run, index, queries)
    figures = measure(files, device)
    page = {
        "training": _training(files.record or {}),
        "retrieval": _retrieval(figures),
        "bits": _bits(figures),
        "classes": _classes(figures.classes),
        "best": figures.best,
        "worst": figures.worst,
        "wanting": _wanting(files, figures),
        "blocks": record_blocks({name: value for name, value in files.rest.items() if name not in _HEAD}),
        "steps": [(name, shown(step["seconds"]), step["command"]) for name, step in files.steps.items()],
    }
    write_page(
        out, "report.html", title=title or _title(files, figures), facts=_facts(files, figures),
        metrics=figures.metrics, sections=_sections(page), **page,
        made=f"Made by hashret {__version__} on {date.today().isoformat()}.",
    )  # fmt: skip
    return figures


def _sections(page: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the table of contents: id and name of each section, and whether it has something to show."""
    return [
        ("training", "Training", page["training"]),
        ("retrieval", "Retrieval", page["retrieval"]),
        ("bits", "Bits", page["bits"]),
        ("classes", "Classes", page["classes"]),
        ("queries", "Best and worst queries", page["best"]),
        ("record", "Record", page["blocks"] or page["steps"]),
    ]


def _title(files: RunFiles, figures: Figures) -> str:
    """Return method, bits and protocol or data; else the name of the benchmark or of the file."""
    record = files.record or {}
    if "method" not in record:
        return files.rest.get("benchmark") or files.path.resolve().name
    what = _protocol(files, figures) or _short(record.get("data"))
    bits = (figures.metrics or {}).get("bits") or record["bits"]  # an index may have the first of these bits
    return ", ".join([record["method"], f"{bits} bits"] + ([what] if what else []))


def _protocol(files: RunFiles, figures: Figures) -> str | None:
    """Return the protocol's name, where it has one."""
    known = (figures.metrics or {}, files.record or {}, files.rest)
    names = [record.get("protocol") for record in known]
    names = [name["name"] if isinstance(name, dict) else name for name in names]
    return next((name for name in names if name and " " not in name), None)


def _short(data: str | None) -> str:
    """Return a data source without the folders above it, which are nobody else's business: "folder:photos"."""
    kind, _, path = (data or "").rpartition(":")
    return f"{kind}:{Path(path).name}" if kind else Path(path).name


def _facts(files: RunFiles, figures: Figures) -> dict[str, str]:
    """Return what the head of the page says of the run: name -> text."""
    record, metrics, rest = files.record or {}, figures.metrics or {}, files.rest
    facts = {"data": _short(record.get("data")), "protocol": _protocol(files, figures)}
    if metrics:
        ranks = "every rank counts" if metrics["map_at"] == "all" else f"the first {metrics['map_at']:,} ranks count"
        facts["scored"] = f"{metrics['queries']:,} queries among {metrics['database']:,} photographs; {ranks}"
        if lacking := metrics.get("queries_without_relevant"):
            answerable = metrics["hamming"].get("map_answerable")
            others = "" if answerable is None else f"; mAP of the others {answerable:.4f}"
            facts["nothing relevant"] = f"to {lacking:,} of the queries, which count as 0{others}"
        if lacking := metrics.get("database_without_label"):
            facts["no label"] = f"on {lacking:,} of the photographs, which count as wrong answers"
    if "method" in record:
        network = [record["method"], record.get("arch"), f"{record['image_size']} px"]
        facts["encoder"] = ", ".join(filter(None, network))
    bits, distinct = record.get("bits") or metrics.get("bits"), metrics.get("distinct_codes")
    if figures.codes:
        bits, distinct = len(figures.codes.ones), figures.codes.distinct
    if bits and (record or metrics or figures.codes):
        facts["code"] = f"{bits} bits" + (f", {distinct:,} distinct codes" if distinct else "")
    if "epochs_run" in record:
        seconds = f" in {clock(record['seconds'])}" if isinstance(record.get("seconds"), int | float) else ""
        held = f", {record['heldout_images']:,} more held out" if record["heldout_images"] else ""
        facts["trained"] = f"on {record['train_images']:,} photographs{seconds}{held}"
    facts["seed"] = shown(record["seed"]) if "seed" in record else None
    commits = {step["commit"] for step in files.steps.values()} | ({rest["commit"]} if "commit" in rest else set())
    facts["commit"] = ", ".join(sorted(commits))
    facts |= {name: rest.get(name) for name in ("date", "machine")}
    versions = [f"{name} {record[name]}" for name in ("hashret", "torch") if name in record]
    facts["software"] = ", ".join(versions)
    return {name: text for name, text in facts.items() if text}


def _training(record: Record) -> dict[str, Any] | None:
    """Return plots, settings and epochs of the training record."""
    if "epochs_run" not in record:
        return None
    columns = [name for name in _EPOCH if any(line.get(name) is not None for line in record["epochs_run"])]
    options = TrainReport.options_in(record)
    return {
        "plots": plots.training_plots(record),
        "settings": {
            words(name): _setting(record[name]) for name in (*SETTINGS, *options) if record.get(name) is not None
        },
        "columns": [words(name) for name in columns],
        "rows": [[shown(line.get(name)) for name in columns] for line in record["epochs_run"]],
        "best": record["epochs_run"][record["best_epoch"] - 1],
    }


def _setting(value: Any) -> str:
    """Return a setting in words; of a file's path its name."""
    return Path(value).name if isinstance(value, str) else shown(value)


def _retrieval(figures: Figures) -> list[Plot]:
    """Return the plots of precision and distances."""
    drawn, metrics = [], figures.metrics
    if metrics and "curve" in metrics["hamming"]:
        drawn.append(plots.curve_plot(metrics["hamming"], metrics["bits"]))
    if metrics and figures.by_rank and figures.distances and figures.ap is not None:
        drawn.append(plots.rank_plot(figures.by_rank, metrics["candidates"], metrics["rerank_by"]))
        drawn.append(plots.distance_plot(figures.distances))
        drawn.append(plots.query_plot(figures.ap))
    return drawn


def _bits(figures: Figures) -> dict[str, Any] | None:
    """Return plots and table of the bits, and which of them could be left out."""
    codes, dropped = figures.codes, figures.dropped
    if codes is None:
        return None
    page: dict[str, Any] = {
        "codes": codes,
        "dropped": dropped,
        "photographs": figures.photographs,
        "plots": [plots.bit_plot(codes, dropped), plots.correlation_plot(codes.correlation)],
    }
    if dropped:
        page["free"] = [bit for bit, lost in enumerate(dropped["lost"]) if lost <= 2 * (dropped["error"][bit] or 0)]
        page["costly"] = int(np.argmax(dropped["lost"]))
    return page | _bit_table(codes, dropped, figures.names)


def _bit_table(codes: BitStatistics, dropped: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    """Return ``columns`` and ``rows`` of a table with a row for each bit."""
    bits = range(len(codes.ones))
    nearest = np.abs(codes.correlation - np.eye(len(bits))).argmax(axis=1)
    columns: dict[str, Any] = {
        "bit": bits,
        "share of ones": [f"{share:.3f}" for share in codes.ones],
        "entropy": [f"{entropy:.3f}" for entropy in codes.entropy],
        "most like": [f"bit {other} ({codes.correlation[bit, other]:+.2f})" for bit, other in enumerate(nearest)],
    }
    if codes.information is not None:
        columns["information, bits"] = [f"{information:.3f}" for information in codes.information]
    if codes.told is not None:
        columns["of label"] = [names[label] for label in codes.told]
    if dropped:
        columns["mAP lost without it"] = [f"{lost:+.5f}" for lost in dropped["lost"]]
        columns["standard error"] = ["-" if error is None else f"{error:.5f}" for error in dropped["error"]]
    return {"columns": tuple(columns), "rows": list(zip(*columns.values(), strict=True))}


def _classes(classes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the confusion between classes, with the pairs most often taken for each other."""
    if not classes:
        return None
    names, matrix = classes["names"], classes["confusion"]
    pairs = [
        (share, names[query], names[hit])
        for query, row in enumerate(matrix)
        for hit, share in enumerate(row)
        if query != hit and share
    ]
    scored = sorted((score, n) for n, score in enumerate(classes["map"]) if score is not None)
    rows = [
        (names[n], f"{classes['queries'][n]:,}", f"{score:.3f}", f"{100 * matrix[n][n]:.0f}") for score, n in scored
    ]
    return classes | {"pairs": sorted(pairs, reverse=True)[:_CONFUSED], "rows": rows, "wide": len(names) > _WIDE}


def _wanting(files: RunFiles, figures: Figures) -> dict[str, str | None]:
    """Return, for what is left out, the command that makes it, or the reason; None for what is there.

    Where only a JSON was named, nothing is wanting.
    """
    record = files.record or {}
    wanting: dict[str, str | None] = dict.fromkeys(("training", "index", "queries", "labels"))
    if files.path.suffix == ".json":
        return wanting
    folder = files.path.parent if files.path.is_file() or files.index == files.path else files.path
    data = shlex.quote(record.get("data", "DATA"))
    model = _quoted(files.path if files.path.suffix == ".safetensors" else folder / "model.safetensors")
    encode = f"hashret encode {data} --model {model} --split"
    codes, index = _quoted(folder / "codes"), _quoted(files.index or folder / "index")
    if "epochs_run" not in record:
        wanting["training"] = f"hashret train --data {data} --out {model}"
    if not files.index:
        database = "database" if record.get("protocol") else "train"
        build = f"hashret build-index --codes {codes} --out {index}"
        wanting["index"] = f"{encode} {database} --out {codes} && {build}"
    if figures.codes and figures.ap is None and (files.queries or figures.codes.information is None):
        wanting["labels"] = (
            "the index or the queries have no labels, which say what is relevant; encode class folders or a label list."
        )
    elif not files.queries:
        wanting["queries"] = f"{encode} test --out {_quoted(folder / 'codes-test')}"
    return wanting


def _quoted(path: StrPath) -> str:
    return shlex.quote(str(path))
