"""What there is of a run: the files that the verbs, the demo or a benchmark left, found by their usual names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .errors import HashretError
from .files import read_json
from .shards import MANIFEST

_QUERIES = ("codes-test", "test")  # as the README and the demo name them, and as benchmarks/tables.py does
_RECORD = {"method", "bits", "image_size"}  # what must be there of a training record, of one with epochs, of figures
_EPOCHS = {"best_epoch", "train_images", "heldout_images"}
_FIGURES = {"hamming", "reranked", "map_at", "candidates", "queries", "database"}
_HAMMING = {"map", "map_worst_ties", "map_best_ties", "precision_at"}


@dataclass(frozen=True)
class Run:
    """A run's parts; None or empty for what is not there.

    Attributes:
        path: what the user named.
        record: the training record, or a checkpoint's metadata, which lacks the epochs.
        index, queries: folder of the index, folder of the queries' shards.
        metrics: figures as `hashret evaluate` wrote them.
        steps: name of each step of benchmarks/full_run.py -> its command, seconds and commit.
        rest: what else a benchmark's result says.
    """

    path: Path
    record: dict | None = None
    index: Path | None = None
    queries: Path | None = None
    metrics: dict | None = None
    steps: dict = field(default_factory=dict)
    rest: dict = field(default_factory=dict)


def find_run(run=".", index=None, queries=None):
    """Find the parts of a run: -> `Run`.

    Args:
        run: folder that the verbs worked in, a checkpoint, an index, or a result's JSON.
        index, queries: folders that lie elsewhere or are named otherwise.

    Raises:
        HashretError: there is nothing of a run.
    """
    path = Path(run)
    if not path.exists():
        raise HashretError(f"no such run: {run}; name a folder that hashret worked in, a checkpoint or a result's JSON")
    named = {name: Path(part) for name, part in (("index", index), ("queries", queries)) if part}
    found = _in_folder(path) if path.is_dir() else _of_file(path)
    found = Run(path, **found | named)
    if not (found.record or found.index or found.queries or found.metrics or found.rest):
        raise HashretError(
            f"nothing of a run in {run}: neither model.json, index/, codes-test/ nor metrics.json; "
            "name the folder that hashret train, encode and build-index worked in"
        )
    return found


def _in_folder(folder):
    if (folder / "index.json").exists():
        return {"index": folder}
    if (folder / MANIFEST).exists():
        raise HashretError(f"{folder} is a folder of shards; name the folder it lies in, or add --queries {folder}")
    found = {"record": _record(folder)}
    if (folder / "index" / "index.json").exists():
        found["index"] = folder / "index"
    found["queries"] = next((folder / name for name in _QUERIES if (folder / name / MANIFEST).exists()), None)
    if (folder / "metrics.json").exists():
        found["metrics"] = _figures(read_json(folder / "metrics.json", "file of figures"))
    if (folder / "steps.json").exists():
        found["steps"] = _steps(read_json(folder / "steps.json", "list of steps"))
    return found


def _figures(content):
    """What `evaluate` wrote; None where it is something else of that name."""
    if not isinstance(content, dict) or not content.keys() >= _FIGURES:
        return None
    return content if content["hamming"].keys() >= _HAMMING else None


def _steps(content):
    """What benchmarks/full_run.py wrote; nothing where it is something else of that name."""
    wanted = {"command", "seconds", "commit"}
    return {name: step for name, step in content.items() if isinstance(step, dict) and wanted <= step.keys()}


def _record(folder):
    """The training record of a folder: of `model.safetensors`, or of its only checkpoint."""
    checkpoints = [folder / "model.safetensors"]
    if not checkpoints[0].exists() and not checkpoints[0].with_suffix(".json").exists():
        checkpoints = [path for path in folder.glob("*.safetensors") if path.with_suffix(".json").exists()]
    return _record_of(checkpoints[0]) if len(checkpoints) == 1 else None


def _record_of(checkpoint):
    file = checkpoint.with_suffix(".json")
    if file.exists():
        return _checked(read_json(file, "training record"), file)
    if not checkpoint.exists():
        return None
    from .models.checkpoint import read_meta

    return read_meta(checkpoint)


def _checked(record, file):
    if not record.keys() >= (_RECORD | _EPOCHS if "epochs_run" in record else _RECORD):
        raise HashretError(f"{file} is no training record of hashret; name the checkpoint or the folder of another run")
    return record


def _of_file(path):
    if path.suffix == ".safetensors":
        return {"record": _record_of(path)}
    if path.suffix != ".json":
        raise HashretError(f"{path} is neither a folder, nor a checkpoint (.safetensors), nor a result (.json)")
    content = read_json(path, "result")
    if "epochs_run" in content:
        return {"record": _checked(content, path)}
    if _figures(content):
        return {"metrics": content}
    found = {"rest": content}
    if _figures(content.get("metrics")):
        found["metrics"] = content.pop("metrics")
    if isinstance(content.get("steps"), dict):
        found["steps"] = _steps(content.pop("steps"))
    if isinstance(content.get("training"), dict):
        settings = {name: content.pop(name) for name in _SETTINGS if name in content}
        found["record"] = _checked(settings | content.pop("training"), path)
    return found


# What benchmarks/tables.py writes beside the training record, though it belongs to it.
_SETTINGS = ("method", "bits", "seed", "image_size", "width", "finetune", "epochs", "batch_size")
