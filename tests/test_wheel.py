"""The wheel holds what the package needs beside its modules, and nothing of the tests."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hashret

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in the wheel, built from a copy of the checkout, and its metadata."""
    return build(tmp_path_factory.mktemp("wheel"))


def build(top, **variables):
    """Build a wheel from a copy of the checkout: -> the names in it, and its metadata."""
    pytest.importorskip("setuptools", reason="a wheel is built without a network by the setuptools that is installed")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, top)
    for name in ("hashret", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(TOP / name, top / name, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    environment = {name: value for name, value in os.environ.items() if name != "HASHRET_CPU"} | variables
    done = subprocess.run([*command, "-w", "dist"], cwd=top, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    [built] = (top / "dist").glob("*.whl")
    assert built.name.startswith(f"hashret-{hashret.__version__}-py3-none-any")
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        [metadata] = (name for name in names if name.endswith("METADATA"))
        return names, archive.read(metadata).decode()


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    names, _ = wheel
    there = {path.relative_to(TOP).as_posix() for path in (TOP / "hashret").rglob("*") if path.is_file()}
    wanted = {name for name in there if "__pycache__" not in name}
    assert {Path(name).suffix for name in wanted} >= {".py", ".pyi", ".typed", ".html", ".json", ".css", ".js"}
    assert wanted <= names, wanted - names
    assert {name for name in names if not name.startswith(("hashret/", "hashret-"))} == set()


def test_a_machine_without_a_gpu_needs_no_cuda(wheel, tmp_path):
    needed = {}
    for name, metadata in {"default": wheel[1], "cpu": build(tmp_path, HASHRET_CPU="1")[1]}.items():
        needed[name] = {line for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.M) if "extra ==" not in line}
    only = {name: {line for line in lines if line.startswith("faiss")} for name, lines in needed.items()}
    assert only["cpu"] == {"faiss-cpu>=1.9"}
    assert {re.split("[<>=]", line)[0] for line in only["default"]} == {"faiss-gpu", "faiss-cpu"}
    assert needed["cpu"] - only["cpu"] == needed["default"] - only["default"]


def test_the_extras_that_messages_name_exist(wheel):
    _, metadata = wheel
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "hashret").rglob("*.py"))
    assert set(re.findall(r"hashret\[([a-z]+)\]", sources)) - {"extra"} <= extras  # a word for any of them
    assert {"fast", "serve", "report", "docs", "dev"} <= extras
    assert f"Version: {hashret.__version__}\n" in metadata


def test_what_the_container_copies_is_there_and_not_ignored():
    """Everything is ignored but what .dockerignore takes back, and what is ignored cannot be copied."""
    text = (TOP / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()]
    assert "setup.py" in copied
    assert [name for name in copied if not (TOP / name).exists()] == []
    ignored, *taken = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored == "*"
    assert {f"!{name}" for name in copied} <= set(taken)
