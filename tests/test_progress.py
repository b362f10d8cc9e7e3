"""Progress and notes: what stands on stderr, in a terminal and elsewhere, and what quiet leaves."""

import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from hashret import progress
from hashret.progress import Progress, is_quiet, quieted, takes_quiet


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "_WRITE", 0)
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 0)


def test_lines_where_there_is_no_terminal(at_once, capsys):
    counted = Progress("encoding", 2000, done=500)
    counted.add(500, "loss 0.5")
    counted.add(1000)
    counted.close()
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("encoding: 1,000/2,000 images, ")
    assert first.endswith(" left  loss 0.5")
    assert last.startswith("encoding: 2,000/2,000 images, ")


def test_quieted_is_silent_and_ends_with_its_block(at_once, capsys):
    with quieted():
        with quieted(False):
            Progress("encoding", 2).add()
        assert is_quiet()
    assert capsys.readouterr().err == ""
    Progress("encoding", 2).add()
    assert capsys.readouterr().err.startswith("encoding: 1/2")


def test_processes_but_the_main_one_are_quiet(at_once, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Progress("encoding", 2).add()
    assert capsys.readouterr().err == ""


def test_the_old_keyword_quiet_warns_where_it_is_true():
    @takes_quiet
    def verb(what):
        return what, is_quiet()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verb("x", quiet=False) == ("x", False)
    with pytest.warns(DeprecationWarning, match=r"verb\(quiet=True\) is now: with hashret.quieted\(\)"):
        assert verb("x", quiet=True) == ("x", True)


CODE = """
import time
from hashret.cli.notes import LOGGER, notes
from hashret.progress import Progress
counted = Progress("encoding", 3)
with notes("INFO"):
    for number in range(3):
        time.sleep(0.3)
        counted.add(1, "loss 0.5")
        LOGGER.info("a note")
counted.close()
"""


def test_a_bar_in_a_terminal_with_notes_above_it():
    termios = pytest.importorskip("termios")
    primary, secondary = os.openpty()
    termios.tcsetwinsize(secondary, (24, 100))
    done = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=secondary, text=True)
    os.close(secondary)
    shown = b""
    while True:
        try:
            block = os.read(primary, 65536)
        except OSError:  # all was read, and nobody writes any more
            break
        shown += block
        if not block:
            break
    os.close(primary)
    assert done.returncode == 0
    assert done.stdout == ""
    text = shown.decode()
    assert "encoding:  33%|" in text
    assert "1/3 [00:00<00:00" in text
    assert " images/s, loss 0.5]" in text
    assert [line for line in text.replace("\r", "\n").splitlines() if line == "a note"] == ["a note"] * 3


@pytest.mark.parametrize("where", ["group", "verb"])
@pytest.mark.parametrize(("option", "levels"), [("-q", {"WARNING"}), (None, {"INFO"}), ("-v", {"INFO", "DEBUG"})])
def test_levels_of_notes(where, option, levels, monkeypatch):
    from click.testing import CliRunner

    from hashret import index
    from hashret.cli import main

    seen = []
    note = {"WARNING": "warning", "INFO": "info", "DEBUG": "debug"}

    def compact(folder):
        log = logging.getLogger("hashret")
        for level in note:
            getattr(log, note[level])("a %s", level)
        seen.append(is_quiet())
        return SimpleNamespace(count=0, bytes_before=0, bytes_after=0)

    monkeypatch.setattr(index, "compact", compact)
    arguments = ["compact", "folder"]
    if option:
        arguments.insert(0 if where == "group" else 1, option)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert {level for level in note if f"a {level}\n" in done.stderr} == levels | {"WARNING"}
    assert seen == [option == "-q"]
    assert not logging.getLogger("hashret").level
    assert not logging.getLogger("hashret").handlers
