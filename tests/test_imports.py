"""Imports run one way, and what must answer at once pulls nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hashret

PACKAGE = Path(hashret.__file__).parent
LAYERS = [  # a module may import from its own layer and those above
    ["errors", "names", "progress"],
    ["records"],
    ["bits", "files", "distributed", "labels"],
    ["metrics", "shards"],
    ["bit_statistics", "collapse"],
    ["confusion"],
    ["data"],
    ["models"],
    ["methods"],
    ["features"],
    ["feed", "parallel"],
    ["fit"],
    ["training", "encoding", "index"],
    ["engines"],
    ["nearest"],
    ["resident"],
    ["search", "evaluation", "description", "likeness", "moving"],
    ["near_duplicates"],
    ["rendering"],
    ["heatmaps"],
    ["explanation"],
    ["pages", "plots", "record_tables", "run_parts"],
    ["run_figures", "run_plots"],
    ["run_report"],
    ["service"],
    ["demo"],
    ["cli"],
    ["__main__", "launch"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path):
    """Names of hashret modules that a file imports, anywhere in it."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                full = (*base, *name.split("."))
                if len(full) > 1:
                    yield full[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    inside = path.relative_to(PACKAGE).parts
    name = inside[0].removesuffix(".py")
    if name == "__init__":
        return
    allowed = {other for other, level in LEVEL.items() if level < LEVEL[name]} | {name, "__version__"}
    assert set(imported(path)) <= allowed


def loaded_after(code):
    """Which heavy packages are loaded after running code in a new process."""
    heavy = ("torch", "torchvision", "faiss", "h5py", "PIL", "numpy", "pymilvus", "psycopg")
    code += f"; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("code", "banned"),
    [
        ("import hashret, hashret.cli", {"torch", "torchvision", "faiss", "h5py", "PIL", "numpy"}),
        ("import hashret.bits, hashret.metrics, hashret.shards", {"torch", "torchvision", "faiss"}),
        ("import hashret.index, hashret.engines", {"torch", "torchvision", "pymilvus", "psycopg"}),
        ("import hashret.training, hashret.encoding", {"faiss", "torchvision"}),
        ("import hashret.search", {"torchvision"}),
        ("import hashret.near_duplicates, hashret.moving", {"torch", "torchvision"}),
    ],
)
def test_heavy_packages_stay_out(code, banned):
    assert not banned & set(loaded_after(code))
