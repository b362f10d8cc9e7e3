"""The examples of docs/vectors.md run, one after the other, as they stand there."""

from pathlib import Path

import pytest
from helpers import run_page

PAGE = (Path(__file__).parents[1] / "docs" / "vectors.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    names, said = run_page(PAGE, tmp_path, monkeypatch)
    hits = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 3
    assert {label for _, label, _, _ in hits} == {str(names["digits"].target[1500])}
    assert all(int(id) % 10 == 0 for id, _, _, _ in hits)
    assert sum("photographs added" in text for text in said) == 1
    assert (tmp_path / "index-of-codes" / "index.json").exists()
