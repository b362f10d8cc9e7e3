"""Imports run one way, and what must answer at once pulls nothing heavy."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hashret
from hashret import renamed

PACKAGE = Path(hashret.__file__).parent
LAYERS = [  # a folder or module may import from those above alone
    ["errors", "names", "renamed", "results"],
    ["arguments", "precision", "registry"],
    ["addresses", "bits", "distributed", "records", "similar", "vectors"],
    ["files", "labels", "progress"],
    ["metrics", "places", "shards"],
    ["collapse"],
    ["data"],
    ["models"],
    ["methods"],
    ["training", "encoding", "index", "words"],
    ["engines", "near_duplicates"],
    ["opening", "hits", "queries"],
    ["search", "adding", "evaluation"],
    ["mirror"],
    ["rendering"],
    ["comparison", "explanation", "reporting"],
    ["service"],
    ["description"],
    ["demo"],
    ["cli"],
    ["__main__", "launch"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of hashret that a file imports anywhere in it, but for ``if TYPE_CHECKING``: "index.rows", "bits"."""
    package = path.relative_to(PACKAGE).parent.parts
    found, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            for alias in node.names:
                found.add(module_of(tuple(filter(None, (*base, alias.name)))))
    return found


def module_of(names: tuple[str, ...]) -> str:
    """The module that ``from`` … ``import`` of these dotted names reads: a file, or the ``__init__`` of a folder."""
    while names and not (PACKAGE.joinpath(*names).with_suffix(".py").exists() or PACKAGE.joinpath(*names).is_dir()):
        names = names[:-1]
    return ".".join((*names, "__init__") if PACKAGE.joinpath(*names).is_dir() else names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "__init__":
        return
    assert name in LEVEL, f"{name} has no place in LAYERS, which say what it may import and what may import it"
    allowed = {other for other, level in LEVEL.items() if level < LEVEL[name]} | {name, "__init__"}
    assert {module.split(".")[0] for module in imported(path)} <= allowed


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES} - {PACKAGE}), ids=lambda path: path.name)
def test_no_module_of_a_folder_imports_one_that_imports_it(folder):
    graph = {f"{folder.name}.{path.stem}": imported(path) for path in folder.glob("*.py")}
    TopologicalSorter({name: found & set(graph) for name, found in graph.items()}).prepare()  # raises on a cycle


def test_no_module_has_the_name_of_a_public_function():
    """Importing the module would put it in the place of the function: hashret.report, and there is no report.py."""
    assert not {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} & set(hashret.__all__)


@pytest.mark.parametrize(("old", "new"), renamed.MODULES.items())
def test_old_modules_warn_and_have_the_names_of_the_new_ones(old, new):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}") as caught:
        module = importlib.import_module(old)
    assert len(caught) == 1
    found = importlib.import_module(new)
    names = [name for name in vars(found) if not name.startswith("__")]
    assert names
    assert all(getattr(module, name) is getattr(found, name) for name in names)


@pytest.mark.parametrize("old", renamed.NAMES)
def test_names_that_a_module_has_lost_warn_and_are_those_of_the_new_one(old):
    module = importlib.import_module(old)
    for new, names in renamed.NAMES[old].items():
        for name, _, other in (pair.partition("=") for pair in names.split()):
            assert name not in vars(module)
            with pytest.warns(DeprecationWarning, match=f"{old}.{name} is now {new}.{other or name}"):
                value = getattr(module, name)
            assert value is getattr(importlib.import_module(new), other or name)
    assert not hasattr(module, "never_was_there")


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
        ("import hashret.training.start, hashret.encoding", {"faiss", "torchvision"}),
        ("import hashret.search, hashret.rendering.pages", {"torch", "torchvision"}),
        ("import hashret.near_duplicates.groups, hashret.near_duplicates.moving", {"torch", "torchvision"}),
    ],
)
def test_heavy_packages_stay_out(code, banned):
    assert not banned & set(loaded_after(code))
