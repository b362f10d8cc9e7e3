"""The files of a run that the verbs, the demo or a benchmark left, found by their usual names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import HashretError
from ..files import StrPath, read_json
from ..records import Misfit, checked, either, fields, list_of, number, one_of, or_none, plain, table_of, text, whole
from ..shards import MANIFEST
from ..training.settings import ALWAYS_RECORDED, EPOCH

Record = dict[str, Any]  # JSON that has passed its check

SETTINGS = (  # of a training record, in the order in which the page shows them; options of the method come behind
    "finetune", "weights", "resize", "width", "gate", "dropout", "epochs", "batch_size", "lr", "backbone_lr",
    "weight_decay", "augment", "views", "heldout", "precision", "device", "processes", "dither", "dither_spread",
)  # fmt: skip
# Settings that benchmarks/run/tables.py writes beside the training record.
_BESIDE_RECORD = ("method", "bits", "seed", "image_size", "width", "finetune", "epochs", "batch_size")
_QUERIES = ("codes-test", "test")  # as the README and the demo name them, and as benchmarks/run/tables.py does
_COUNT = whole()
_PROTOCOL = or_none(either(text(), fields({"name": text()})))
_RECORD = fields(
    {"method": text(), "bits": whole(1, 2**16), "image_size": _COUNT},
    {"data": text(), "arch": text(), "protocol": _PROTOCOL, "seconds": number()}
    | dict.fromkeys(("seed", "fingerprint", "hashret", "torch", *SETTINGS, *ALWAYS_RECORDED), plain),
)
_TRAINED = fields(
    {"best_epoch": whole(1), "train_images": _COUNT, "heldout_images": _COUNT, "epochs_run": list_of(EPOCH, 1)}
)
_AT_RANKS = table_of(number(), r"\d+")
_HAMMING = fields(
    {"map": number(), "map_worst_ties": number(), "map_best_ties": number(), "precision_at": _AT_RANKS},
    {
        "curve": fields({"precision": list_of(number()), "recall": list_of(number())}),
        "precision_radius_2": number(), "recall_radius_2": number(), "map_answerable": or_none(number()),
    },
)  # fmt: skip
_FIGURES = fields(
    {
        "hamming": _HAMMING, "reranked": fields({"map": number(), "precision_at": _AT_RANKS}),
        "map_at": either(one_of("all"), whole(1)), "candidates": whole(1), "queries": _COUNT, "database": _COUNT,
    },
    {
        "bits": whole(1, 2**16), "distinct_codes": _COUNT, "encoder": text(), "protocol": or_none(text()),
        "rerank_by": text(), "queries_without_relevant": _COUNT, "database_without_label": _COUNT,
    },
)  # fmt: skip
_RESULT = fields(
    {}, {"commit": text(), "protocol": _PROTOCOL} | dict.fromkeys(("benchmark", "date", "machine"), or_none(text()))
)
_STEP = fields({"command": text(), "seconds": number(), "commit": text()})


@dataclass(frozen=True)
class RunFiles:
    """What there is of a run; None or empty for what is not there.

    Attributes:
        path: what the user named.
        record: the training record, or a checkpoint's metadata, which lacks the epochs.
        index, queries: folder of the index, folder of the queries' shards.
        metrics: figures as `hashret evaluate` wrote them.
        steps: name of each step of benchmarks/run/full_run.py -> its command, seconds and commit.
        rest: what else a benchmark's result says.
    """

    path: Path
    record: Record | None = None
    index: Path | None = None
    queries: Path | None = None
    metrics: Record | None = None
    steps: dict[str, Record] = field(default_factory=dict)
    rest: Record = field(default_factory=dict)


def find_run(run: StrPath = ".", index: StrPath | None = None, queries: StrPath | None = None) -> RunFiles:
    """Find the files of a run.

    Args:
        run: folder that the verbs worked in, a checkpoint, an index, or a result's JSON.
        index, queries: folders that lie elsewhere or have other names.

    Raises:
        HashretError: there is nothing of a run.
    """
    path = Path(run)
    if not path.exists():
        hint = "name a folder that hashret worked in, a checkpoint or a result's JSON"
        raise HashretError(f"no such run: {run}", hint=hint)
    named = {name: Path(folder) for name, folder in (("index", index), ("queries", queries)) if folder}
    files = RunFiles(path, **(_in_folder(path) if path.is_dir() else _of_file(path)) | named)
    if not (files.record or files.index or files.queries or files.metrics or files.rest):
        raise HashretError(
            f"nothing of a run in {run}: neither model.json, index/, codes-test/ nor metrics.json",
            hint="name the folder that hashret train, encode and build-index worked in",
        )
    return files


def _in_folder(folder: Path) -> dict[str, Any]:
    """Return the fields of `RunFiles` that a folder has."""
    if (folder / "index.json").exists():
        return {"index": folder}
    if (folder / MANIFEST).exists():
        hint = f"name the folder it lies in, or add --queries {folder}"
        raise HashretError(f"{folder} is a folder of shards", hint=hint)
    files: dict[str, Any] = {"record": _record(folder)}
    if (folder / "index" / "index.json").exists():
        files["index"] = folder / "index"
    files["queries"] = next((folder / name for name in _QUERIES if (folder / name / MANIFEST).exists()), None)
    if (folder / "metrics.json").exists():
        files["metrics"] = _figures(read_json(folder / "metrics.json", "file of figures"))
    if (folder / "steps.json").exists():
        files["steps"] = _steps(read_json(folder / "steps.json", "list of steps"))
    return files


def _figures(content: Any) -> Record | None:
    """Return the figures that `evaluate` wrote; None where the content is something else."""
    if not _passes(content, _FIGURES):
        return None
    hamming, reranked = content["hamming"], content["reranked"]
    curve = hamming.get("curve")
    whole_curve = curve is None or len(curve["precision"]) == len(curve["recall"]) == content.get("bits", -1) + 1 > 2
    same_ranks = hamming["precision_at"].keys() == reranked["precision_at"].keys()
    return dict(content) if whole_curve and same_ranks else None


def _steps(content: Record) -> dict[str, Record]:
    """Return the steps that benchmarks/run/full_run.py wrote, without entries that are something else."""
    return {name: step for name, step in content.items() if _passes(step, _STEP)}


def _passes(content: Any, check: Callable[[Any, str], None]) -> bool:
    try:
        check(content, "")
    except Misfit:
        return False
    return True


def _record(folder: Path) -> Record | None:
    """Return the training record of ``model.safetensors`` in a folder, or of the folder's only checkpoint."""
    checkpoints = [folder / "model.safetensors"]
    if not checkpoints[0].exists() and not checkpoints[0].with_suffix(".json").exists():
        checkpoints = [path for path in folder.glob("*.safetensors") if path.with_suffix(".json").exists()]
    return _record_of(checkpoints[0]) if len(checkpoints) == 1 else None


def _record_of(checkpoint: Path) -> Record | None:
    """Return the record beside a checkpoint, or, where that is of another training, the checkpoint's metadata."""
    from ..models.metadata import read_meta

    file = checkpoint.with_suffix(".json")
    meta: Record | None = read_meta(checkpoint) if checkpoint.exists() else None
    if not file.exists():
        return meta
    record = _checked(read_json(file, "training record"), file)
    if meta and record.get("fingerprint", meta.get("fingerprint")) != meta.get("fingerprint"):
        warnings.warn(f"{file} is the record of another training than {checkpoint}; it is left out", stacklevel=2)
        return meta
    return record


def _checked(record: Record, file: Path) -> Record:
    what = f"{file} is no training record of hashret; name the checkpoint or the folder of another run. It"
    checked(record, _RECORD, what)
    if "epochs_run" in record:
        checked(record, _TRAINED, what)
        numbers = [line["epoch"] for line in record["epochs_run"]]
        if record["best_epoch"] > len(numbers) or numbers != list(range(1, len(numbers) + 1)):
            raise HashretError(f"{what} is damaged: its epochs are not numbered from 1 to the best and on")
    return record


def _of_file(path: Path) -> dict[str, Any]:
    """Return the fields of `RunFiles` that a checkpoint or a JSON has."""
    if path.suffix == ".safetensors":
        return {"record": _record_of(path)}
    if path.suffix != ".json":
        raise HashretError(f"{path} is neither a folder, nor a checkpoint (.safetensors), nor a result (.json)")
    content = read_json(path, "result", _RESULT)
    if "epochs_run" in content:
        return {"record": _checked(content, path)}
    if _figures(content):
        return {"metrics": content}
    files = {"rest": content}
    if _figures(content.get("metrics")):
        files["metrics"] = content.pop("metrics")
    if isinstance(content.get("steps"), dict):
        files["steps"] = _steps(content.pop("steps"))
    if isinstance(content.get("training"), dict):
        settings = {name: content.pop(name) for name in _BESIDE_RECORD if name in content}
        files["record"] = _checked(settings | content.pop("training"), path)
    return files
