"""The examples of docs/vectors.md run, one after the other, as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from hashret.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "vectors.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names, said = {}, []
    for language, block in re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.S):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            _, *arguments = shlex.split(line, comments=True)
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, (line, done.output)
            said.append(done.stdout)
    hits = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 3
    assert {label for _, label, _, _ in hits} == {str(names["digits"].target[1500])}
    assert all(int(id) % 10 == 0 for id, _, _, _ in hits)
    assert sum("photographs added" in text for text in said) == 1
    assert (tmp_path / "index-of-codes" / "index.json").exists()
