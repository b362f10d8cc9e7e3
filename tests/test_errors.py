"""Messages of mistakes: what is wrong stands in the message, and what to do in a hint, which alone names options."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashret
from hashret.errors import DamagedIndex, HashretError

PACKAGE = Path(hashret.__file__).parent
ERRORS = {"HashretError", "DamagedIndex", "EngineError", "Unreachable", "TooSlow", "damaged"}
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli"]  # cli/ speaks of its options


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The text of every message in a module, with its line, without what an f-string puts in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            yield node.lineno, "".join(text for text in texts if isinstance(text, str))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_names_an_option(path):
    assert [(line, text) for line, text in messages(path) if re.search(r"(?<!\w)--[a-z]", text)] == []


def test_an_error_shows_its_message_and_its_hint():
    error = HashretError("no index at photos", hint="name another with --index")
    assert str(error) == "no index at photos; name another with --index"
    assert (error.message, error.hint) == ("no index at photos", "name another with --index")
    assert str(HashretError("no index at photos")) == "no index at photos"
    again = pickle.loads(pickle.dumps(DamagedIndex("codes.npy has changed", hint="build it again")))
    assert (type(again), str(again), again.hint) == (
        DamagedIndex,
        "codes.npy has changed; build it again",
        "build it again",
    )
