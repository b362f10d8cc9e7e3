"""Plugins, which the command line loads when it is asked for what hashret does not have."""

import os
import subprocess
import sys

import pytest

PLUGIN = """
from pathlib import Path

from torch import nn

from hashret.data import ImageSource, register as register_source
from hashret.engines import EngineKind, register as register_engine
from hashret.methods import register as register_method
from hashret.methods.method import Method
from hashret.models.backbones import Backbone, register as register_backbone

print("loaded")

def build():
    return nn.Conv2d(3, 8, 16, stride=16)

def album(asked):
    root = Path(asked.where)
    return ImageSource(root, tuple(sorted(path.name for path in root.glob("*.png"))), spec=asked.spec)

class Nothing(Method):
    name, paper = "nothing-new", "Nobody, 2026"

def register():
    register_backbone(Backbone("tiny", build, channels=8, stride=16))
    register_source("album", album, "album:DIR")
    register_method(Nothing)
    register_engine(EngineKind("shelf", ("shelf:",), "no_such_engine", "shelf", ("shelf:here",)))
"""


def hashret(folder, *arguments, plugins=None, code=0):
    """Output, and lines on stderr, of a verb in a process that finds modules and distributions in a folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    environment.pop("HASHRET_PLUGINS", None)
    if plugins is not None:
        environment["HASHRET_PLUGINS"] = plugins
    command = [sys.executable, "-m", "hashret", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr.splitlines()


@pytest.fixture
def module(tmp_path):
    (tmp_path / "my_kinds.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def distribution(module):
    """What pip leaves of an installed distribution that names an entry point."""
    info = module / "my_kinds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-kinds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hashret.plugins]\nkinds = my_kinds:register\n")
    return module


def test_a_distribution_adds_to_every_list(distribution):
    listed, _ = hashret(distribution, "train", "--help")
    assert all(name in " ".join(listed.split()) for name in ("loaded", "tiny", "album:DIR", "nothing-new"))
    listed, _ = hashret(distribution, "export", "--help")
    assert "shelf:here" in listed


def test_a_module_of_the_variable_is_used_by_name_and_only_then(module, photos):
    (module / "photos").symlink_to(photos / "train" / "red")
    asked = ("encode", "album:photos", "--model", "missing.safetensors")
    out, lines = hashret(module, *asked, plugins=" my_kinds:register ,", code=2)
    assert out == "loaded\n"
    assert "missing.safetensors" in lines[-1]
    out, lines = hashret(module, *asked, code=2)
    assert out == ""
    assert "album:photos" in lines[-1]
    out, _ = hashret(module, "--help", plugins="my_kinds:register")
    assert "loaded" not in out
    out, _ = hashret(module, "info", "photos", plugins="my_kinds:register")
    assert "loaded" not in out


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'broken'"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemError('one\\ntwo')", "SystemError: one"),
    ],
)
def test_a_plugin_that_fails_gets_one_line_with_its_name(tmp_path, source, reason):
    if source is not None:
        (tmp_path / "broken.py").write_text(source)
    _, lines = hashret(tmp_path, "encode", "album:photos", plugins="broken", code=2)
    assert lines == [f"hashret: the plugin broken, named by HASHRET_PLUGINS, fails: {reason}"]


def test_a_distribution_that_fails_is_named(distribution):
    (distribution / "my_kinds.py").write_text("import no_such_module")
    _, lines = hashret(distribution, "info", "shelf:here", code=2)
    assert len(lines) == 1
    assert "the plugin my_kinds:register, named by my-kinds, fails: ModuleNotFoundError" in lines[0]
