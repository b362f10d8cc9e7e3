import contextlib
import os
import signal
import time

import pytest
from helpers import together, torchrun

from hashret import cli, distributed, launch
from hashret.distributed import SaidElsewhereError, barrier, is_main, main_first, process_group, rank
from hashret.errors import HashretError


@process_group()
def note_before_and_after(folder):
    time.sleep(0.2 * rank())
    (folder / str(rank())).touch()
    barrier()
    return sorted(path.name for path in folder.iterdir())


def test_none_goes_on_before_all_have_come(tmp_path):
    assert together(note_before_and_after, 3, tmp_path) == [["0", "1", "2"]] * 3


@process_group()
def look_first(folder):
    with main_first():
        found = (folder / "made").exists()
        time.sleep(0.3 if is_main() else 0)
        (folder / "made").touch()
    return found


def test_the_main_process_goes_first(tmp_path):
    assert together(look_first, 3, tmp_path) == [False, True, True]


@process_group()
def fail(who, how):
    if rank() in who:
        raise how("the disk is full")
    barrier()


@pytest.mark.parametrize("who", [[0], [1], [0, 1, 2]])
def test_a_mistake_is_told_by_one_process(who):
    found = together(fail, 3, who, HashretError)
    told = [error for error in found if type(error) is HashretError]
    assert [str(error) for error in told] == ["the disk is full"]
    assert sum(isinstance(error, SaidElsewhereError) for error in found) == 2


def test_what_no_user_did_wrong_keeps_its_kind():
    assert sorted(type(error).__name__ for error in together(fail, 2, [1], ZeroDivisionError)) == [
        "SaidElsewhereError",
        "ZeroDivisionError",
    ]


def vanish(who, how):
    distributed._BEAT, distributed._SILENCE = 0.05, 0.5
    vanish_in_group(who, how)


@process_group()
def vanish_in_group(who, how):
    barrier()
    if rank() == who:
        os.kill(os.getpid(), how)
    barrier()


def test_a_process_that_is_killed_ends_the_others():
    found = together(vanish, 3, 1, signal.SIGKILL)
    assert found[1] == -signal.SIGKILL
    lines = [str(error) for error in found if type(error) is HashretError]
    assert len(lines) == 1
    assert "process 1 of 3 gives no sign of life" in lines[0]
    assert "start it again to go on" in lines[0]


def test_the_main_process_takes_the_store_with_it():
    found = together(vanish, 2, 0, signal.SIGKILL)
    assert type(found[1]) is HashretError
    assert "was lost" in str(found[1])


def test_termination_is_a_line_and_clears_up():
    for error in together(vanish, 2, 1, signal.SIGTERM):
        assert isinstance(error, HashretError)
    before = signal.getsignal(signal.SIGTERM)
    with process_group():  # one process alone changes nothing
        assert signal.getsignal(signal.SIGTERM) is before


def run_verb(folder, *arguments):
    with open(folder / f"{rank()}.txt", "w") as file, contextlib.redirect_stderr(file):
        try:
            cli.main(arguments)
        except SystemExit as status:
            return status.code


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["encode", "--nope"], "hashret: No such option '--nope'"),
        (["encode", "no/such/folder"], "hashret: no such folder: no/such/folder"),
        (["train", "--data", "photos", "--batch-size", "2"], "hashret: a batch of 2 cannot be shared by 3 processes"),
    ],
)
def test_a_verb_tells_a_mistake_once(arguments, line, tmp_path, model):
    if arguments[1] == "no/such/folder":
        arguments = [*arguments, "--model", str(model)]
    assert together(run_verb, 3, tmp_path, *arguments) == [2, 2, 2]
    told = "".join((tmp_path / f"{number}.txt").read_text() for number in range(3))
    assert told.startswith(line)
    assert len(told.splitlines()) == 1


def test_the_launcher_ends_as_its_processes_do():
    process = torchrun("info", "no/such/thing", launcher="hashret.launch")
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, output) == (2, "")
    assert set(errors.splitlines()) == {"hashret: no such file or folder: no/such/thing"}


@pytest.mark.parametrize(("count", "line"), [("0", "a number of processes, not 0"), ("many", "nproc_per_node")])
def test_the_launcher_wants_a_number_of_processes(capsys, count, line):
    with pytest.raises(SystemExit) as ended:
        launch.main(["--nproc-per-node", count, "info", "x"])
    assert ended.value.code == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--nnodes", "abc"], "error: invalid literal for int() with base 10: 'abc'"),
        (["--nnodes", "2:1"], "error: "),
        (["--nnodes", "1:2:3"], "error: nnodes=1:2:3 is not"),
        (["--rdzv-backend", "foo"], "error: The rendezvous backend 'foo'"),
    ],
)
def test_the_launcher_says_what_is_wrong_with_an_option(capsys, monkeypatch, options, line):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as ended:
        launch.main([*options, "info", "x"])
    assert ended.value.code == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_the_launcher_wants_a_verb(capsys):
    with pytest.raises(SystemExit) as status:
        launch.main(["--nproc-per-node", "2"])
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m hashret.launch")
