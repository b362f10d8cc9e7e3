"""Plugins, which the command line loads when it is asked for what hashret does not have."""

import os
import subprocess
import sys

import pytest

from hashret import open_data, registry
from hashret.addresses import KINDS as KINDS_OF_ENGINES
from hashret.data import SOURCES
from hashret.models.backbones import BACKBONES

KINDS = """
from pathlib import Path

from hashret.data import ImageSource, register as register_source
from hashret.engines import EngineKind, register as register_engine
from hashret.models.backbones import Backbone, register as register_backbone

print("loaded")

def build():
    from torch import nn

    return nn.Conv2d(3, 8, 16, stride=16)

def album(asked):
    root = Path(asked.where)
    return ImageSource(root, tuple(sorted(path.name for path in root.glob("*.png"))), spec=asked.spec)

def register():
    register_backbone(Backbone("tiny", build, channels=8, stride=16))
    register_source("album", album, "album:DIR")
    register_engine(EngineKind("shelf", ("shelf:",), "no_such_engine", "shelf", ("shelf:here",)))
"""
METHODS = """
from hashret.methods import register
from hashret.methods.method import Method

@register
class Nothing(Method):
    name, paper = "nothing-new", "Nobody, 2026"
"""


def hashret(folder, *arguments, plugins=None, code=0):
    """Output, and lines on stderr, of a verb in a process that finds modules and distributions in a folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    environment.pop("HASHRET_PLUGINS", None)
    if plugins is not None:
        environment["HASHRET_PLUGINS"] = plugins
    command = [sys.executable, "-m", "hashret", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert code is None or done.returncode == code, done.stderr
    return done.stdout, done.stderr.splitlines()


@pytest.fixture
def module(tmp_path):
    (tmp_path / "my_kinds.py").write_text(KINDS)
    return tmp_path


@pytest.fixture
def distribution(module):
    """What pip leaves of an installed distribution with two entry points: a function, and a module."""
    (module / "my_methods.py").write_text(METHODS)
    info = module / "my_kinds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-kinds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hashret.plugins]\nkinds = my_kinds:register\nmethods = my_methods\n")
    return module


def test_a_distribution_adds_to_every_list(distribution):
    listed, _ = hashret(distribution, "train", "--help")
    assert all(name in " ".join(listed.split()) for name in ("loaded", "tiny", "album:DIR", "nothing-new"))


def test_a_module_of_the_variable_is_used_by_name_and_only_then(module):
    out, lines = hashret(module, "info", "shelf:there", plugins=" my_kinds:register ,", code=2)
    assert out == "loaded\n"
    assert "no_such_engine" in lines[-1]
    out, lines = hashret(module, "info", "shelf:there", code=2)
    assert out == ""
    assert lines == ["hashret: no such file or folder: shelf:there"]
    out, _ = hashret(module, "info", "shelf", plugins="my_kinds:register", code=None)
    assert "loaded" not in out


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'broken'"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemError('one\\ntwo')", "SystemError: one"),
    ],
)
def test_a_plugin_that_fails_gets_one_line_with_its_name(tmp_path, source, reason):
    if source is not None:
        (tmp_path / "broken.py").write_text(source)
    _, lines = hashret(tmp_path, "info", "shelf:there", plugins="broken", code=2)
    assert lines == [f"hashret: the plugin broken, named by HASHRET_PLUGINS, fails: {reason}"]


def test_a_distribution_that_fails_is_named(distribution):
    (distribution / "my_kinds.py").write_text("import no_such_module")
    _, [line] = hashret(distribution, "info", "shelf:there", code=2)
    assert "the plugin my_kinds:register, named by my-kinds, fails: ModuleNotFoundError" in line


def test_a_source_of_a_plugin_is_opened(module, photos, monkeypatch):
    monkeypatch.syspath_prepend(module)
    monkeypatch.setenv("HASHRET_PLUGINS", "my_kinds:register")
    monkeypatch.setattr(registry, "_pending", None)
    try:
        assert len(open_data(f"album:{photos / 'train' / 'red'}")) == 12
    finally:
        BACKBONES.pop("tiny"), SOURCES.pop("album"), KINDS_OF_ENGINES.pop("shelf")
