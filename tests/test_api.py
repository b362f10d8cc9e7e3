"""The public names of hashret: the stub that editors read, what is loaded, and what is installed agree."""

import ast
import configparser
from pathlib import Path

import pytest

import hashret

PACKAGE = Path(hashret.__file__).parent
TOP = PACKAGE.parent


def stub_names() -> list[str]:
    """The names that ``__init__.pyi`` gives out."""
    nodes = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    aliases = [alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.name == alias.asname for alias in aliases)  # what is not given out again is private in a stub
    return ["__version__"] + sorted(alias.name for alias in aliases)


def test_the_stub_has_the_public_names():
    assert stub_names() == hashret.__all__
    assert set(dir(hashret)) | {"__version__"} == set(hashret.__all__)
    named = {"query", "Hit", "HitList", "Index", "Encoder", "EncodeReport", "HashretError", "Searcher", "train"}
    assert named <= set(hashret.__all__)


@pytest.mark.parametrize("name", hashret.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(hashret, name)
    assert name == "__version__" or value.__doc__


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError):
        hashret.never_was_there  # noqa: B018


def test_stub_and_marker_of_types_are_installed():
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    for name in setup["options.package_data"]["hashret"].split(", "):
        assert (PACKAGE / name).is_file()
    assert "py.typed" in setup["options.package_data"]["hashret"]
