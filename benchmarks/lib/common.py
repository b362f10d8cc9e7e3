"""What every benchmark records beside its figures: machine, commit, versions; and where results go."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from hashret.files import write_json

TOP = Path(__file__).resolve().parents[2]
RESULTS = TOP / "benchmarks" / "results"
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


def save(name, result, folder=RESULTS):
    """Write a result with its surroundings to ``folder/NAME.json`` and say so."""
    path = Path(folder) / f"{name}.json"
    write_json(path, {"benchmark": name, **surroundings(), **result})
    print(f"-> {path}")
