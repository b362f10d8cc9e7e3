"""What every benchmark records beside its figures: machine, commit, versions; and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from hashret.files import read_json, write_json

TOP = Path(__file__).resolve().parents[2]
RESULTS = TOP / "benchmarks" / "results"
PROVENANCE = ("commit", "date", "machine")  # what a figure is to be traced by
PACKAGES = ("torch", "torchvision", "faiss-gpu", "faiss-cpu", "numpy", "h5py", "pillow")


def shared():
    """Folder with CIFAR-10 and the ImageNet weights: ``HASHRET_SHARED``, default ``../shared`` beside the checkout."""
    return Path(os.environ.get("HASHRET_SHARED", TOP.parent / "shared"))


def surroundings():
    """Machine, commit and versions of this run, as a dict."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
    }


def machine():
    """Processor, cores, memory and GPU in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        name = fields.get("model name", name)
        name += " with AVX-512" if "avx512f" in fields.get("flags", "").split() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {_gpu()}"


def _gpu():
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def commit():
    """Short hash of the commit, with "+changes" where the code differs from it.

    A machine that was given the code without its history is told the commit by ``HASHRET_COMMIT``.
    """
    if told := os.environ.get("HASHRET_COMMIT"):
        return told

    def git(*arguments):
        if not shutil.which("git"):
            return ""
        return subprocess.run(["git", "-C", TOP, *arguments], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "hashret", "benchmarks/run", "benchmarks/lib")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else "")


def versions():
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory():
    """Most memory that this program has held, in MB, pages of mapped files among it.

    ``ru_maxrss`` is no measure of it: Linux counts what the process that started this one had held until then.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def add_results(parser, folder=RESULTS):
    """Give a benchmark the option that says where its JSON goes: a try must not replace the figures of the pages."""
    parser.add_argument(
        "--results", type=Path, default=folder, help="folder for the JSON; name another one for a try (default: that "
        "of the figures which the pages show)",
    )  # fmt: skip


def kept(path, name):
    """The lines of the list ``name`` of a result that is there, each with its commit, date and machine; [] without one.

    What another run adds to them is saved with its own surroundings: lines that have none yet get those of the file.
    """
    if not Path(path).exists():
        return []
    result = read_json(path, "result")
    provenance = {key: result[key] for key in PROVENANCE}
    return [provenance | line for line in result[name]]


def check_settings(path, recorded, asked):
    """Stop where a result that is there was made with other settings than are asked for.

    Args:
        path: of the result, for the message.
        recorded: the settings that it names; what it does not name is not compared.
        asked: the settings of now, by the same names.

    Raises:
        SystemExit: in one line.
    """
    for name, value in json.loads(json.dumps(asked)).items():
        if name in recorded and recorded[name] != value:
            what = name.replace("_", " ")
            sys.exit(f"{path} is of {what} {recorded[name]}, not {value}: ask for that, or name other --results")


def save(name, result, folder=RESULTS):
    """Write a result with its surroundings to ``folder/NAME.json`` and say so."""
    path = Path(folder) / f"{name}.json"
    write_json(path, {"benchmark": name, **surroundings(), **result})
    print(f"-> {path}")
