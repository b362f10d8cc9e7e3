import json
from pathlib import Path

import pytest

from hashret.reporting.records import record_blocks, shown

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"
RESULTS = sorted([*FOLDER.glob("*.json"), *FOLDER.glob("latency/*.json")])


def test_values_and_small_objects_are_facts_and_objects_of_objects_tables():
    record = {
        "seed": 0,
        "versions": {"torch": "2.6", "numpy": "2.0"},
        "engines": {"flat": {"ms": {"p50": 1.5}, "exact": True}, "other_one": {"ms": {"p50": 2.25}}},
        "rounds": [{"batch_size": 1, "ms": 3}, {"batch_size": 2, "ms": 4}],
    }
    head, engines, rounds = record_blocks(record)
    assert head.facts == {"seed": "0", "versions": "torch 2.6, numpy 2.0"}
    assert (engines.title, engines.columns) == ("engines", ("", "ms p50", "exact"))
    assert engines.lines == (("flat", "1.5", "yes"), ("other one", "2.25", ""))
    assert (rounds.columns, rounds.lines) == (("batch size", "ms"), (("1", "3"), ("2", "4")))


def test_lists_of_objects_of_objects_are_named_by_their_first_values():
    figures = {f"p{n}": n for n in range(6)}  # two engines of six figures are too wide for one line
    cells = [{"k": k, "engines": {"flat": figures, "scan": figures}, "note": "x"} for k in (1, 10)]
    blocks = record_blocks({"cells": cells})
    assert [block.title for block in blocks] == [
        "cells: k 1",
        "cells: k 1: engines",
        "cells: k 10",
        "cells: k 10: engines",
    ]
    assert blocks[0].facts == {"note": "x"}
    assert [row[0] for row in blocks[1].lines] == ["flat", "scan"]


def test_wide_objects_are_shown_in_parts():
    wide = {f"run {n}": {f"figure {i}": i for i in range(11)} for n in range(2)}
    blocks = record_blocks({"runs": wide})
    assert [(block.title, len(block.facts)) for block in blocks] == [("runs", 2)]
    assert blocks[0].facts["run 0"].startswith("figure 0 0, figure 1 1")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"), (None, "-"), ([], "-"), ({}, "-"), (0.123456, "0.1235"), (12345.6, "12,346"), (9999, "9999"),
        (50000, "50,000"), ([1, 2.5], "1, 2.5"), (list(range(49)), "49 numbers"), ({"a_b": 1}, "a b 1"), ("x", "x"),
    ],
)  # fmt: skip
def test_values_as_a_reader_wants_them(value, text):
    assert shown(value) == text


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_result_of_a_benchmark_is_shown(file):
    blocks = record_blocks(json.loads(file.read_text()))
    assert blocks
    for block in blocks:
        assert block.facts or block.lines
        assert all(len(row) == len(block.columns) for row in block.lines)
