"""The examples of docs/words.md run, one after the other, as they stand there."""

import json
import re
from pathlib import Path

import pytest
from helpers import run_page

from hashret.methods import METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "words.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    _, said = run_page(PAGE, tmp_path, monkeypatch)
    assert said[-2].count(" seven ") == 5
    both, nine = (json.loads(line) for line in said[-1].splitlines())
    assert (both["query"], nine["query"]) == ("three, eight", "nine")
    assert {hit["label"] for hit in both["hits"]} <= {"three", "eight"}
    assert {hit["label"] for hit in nine["hits"]} == {"nine"}
    hits = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [hit[0] for hit in hits] == list("12345")


def test_the_table_says_which_methods_know_classes():
    rows = re.findall(r"^\| ([`o].*) \| (.*) \|$", PAGE, re.M)
    codewords, weights, _, nothing = (set(re.findall(r"`([^`]+)`", names)) for names, _ in rows)
    assert codewords == {name for name in METHODS if METHODS[name].class_codewords(2, 8, 0) is not None}
    assert nothing == {name for name in METHODS if not METHODS[name].needs_labels}
    assert weights == {name for name in METHODS if METHODS[name].classifier}
