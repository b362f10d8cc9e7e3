import os
import subprocess

import pytest

from hashret import files
from hashret.errors import HashretError
from hashret.files import (
    atomic,
    check_output,
    locked,
    partial_folder,
    read_json,
    recover,
    remove_leftovers,
    replace_folder,
    write_json,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic(path) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    with pytest.raises(UnicodeEncodeError), atomic(path) as partial:
        partial.write_text("broken \ud800", encoding="utf-8")
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed\nat line 5")])
def test_a_failed_write_is_one_line(tmp_path, error):
    with pytest.raises(HashretError, match="cannot write") as caught, atomic(tmp_path / "a"):
        raise error
    assert "\n" not in str(caught.value)


def test_files_are_readable_as_the_user_wants(tmp_path):
    before = os.umask(0o022)
    os.umask(before)
    with atomic(tmp_path / "a") as partial:
        partial.touch(0o600)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~before


def test_leftovers_of_dead_processes_go_and_others_stay(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".a.{dead.pid}.tmp").mkdir()
    (tmp_path / f".a.{dead.pid}.tmp" / "part").touch()
    kept = {f".a.{os.getpid()}.tmp", f".b.{dead.pid}.tmp", ".a.notes.tmp", "a"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "a")
    assert set(os.listdir(tmp_path)) == kept


def test_what_may_be_replaced(tmp_path):
    check_output(tmp_path / "new", False, "index", "index.json")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", False, "index", "index.json")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "index.json").touch()
    check_output(tmp_path / "ours", True, "index", "index.json")
    with pytest.raises(HashretError, match="add --overwrite"):
        check_output(tmp_path / "ours", False, "index", "index.json")
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "a.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(HashretError, match="is no index"):
            check_output(tmp_path / "album", overwrite, "index", "index.json")
        with pytest.raises(HashretError, match="is no checkpoint"):
            check_output(tmp_path / "album", overwrite, "checkpoint")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_damaged_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin1")
    with pytest.raises(HashretError, match="is damaged"):
        read_json(tmp_path / "a.json", "index")


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"name": "ä"})
    assert read_json(tmp_path / "a.json", "index") == {"name": "ä"}
    with pytest.raises(HashretError, match=r"a\.json is missing"):
        read_json(tmp_path / "none" / "a.json", "index")


def test_a_partial_folder_is_a_leftover_once_its_process_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_is_alive", lambda pid: False)  # as seen from another machine
    with partial_folder(tmp_path / "a") as partial:
        remove_leftovers(tmp_path, "a")
        assert partial.is_dir()
    assert not list(tmp_path.iterdir())
    child = os.fork()
    if not child:
        with partial_folder(tmp_path / "a"):
            os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setattr(files, "_is_alive", lambda pid: True)  # another process got its number
    assert list(tmp_path.iterdir())
    earlier = tmp_path / f".a.{os.getpid()}.tmp"  # of an earlier hashret, which locked nothing
    earlier.mkdir()
    remove_leftovers(tmp_path, "a")
    assert list(tmp_path.iterdir()) == [earlier]


def test_what_a_killed_process_left_is_taken_up(tmp_path):
    def fail():
        with partial_folder(tmp_path / "a", resume=True) as partial:
            (partial / "done").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    [first] = tmp_path.iterdir()
    with partial_folder(tmp_path / "a", resume=True) as again:
        assert again == first
        assert (again / "done").exists()
        with partial_folder(tmp_path / "a", resume=True) as other:  # beside one that is at work
            assert other != again
            assert not list(other.iterdir())
    assert not list(tmp_path.iterdir())


def test_where_no_folder_can_be_made_is_said_and_not_tried_for_ever(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for path in ("index", "/proc/no-such/index"):  # where making a folder says that there is none
        with pytest.raises(HashretError, match=r"cannot write to .*: No such file"), partial_folder(path):
            pass


def test_who_waited_locks_what_is_there_now(tmp_path, monkeypatch):
    import fcntl

    flock, folder = fcntl.flock, tmp_path / "a"
    folder.mkdir()

    def replaced_while_waiting(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        folder.rename(tmp_path / "old")
        folder.mkdir()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", replaced_while_waiting)
    with locked(folder):
        for name, held in (("a", True), ("old", False)):
            descriptor = os.open(tmp_path / name, os.O_RDONLY)
            try:
                flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                assert not held
            except BlockingIOError:
                assert held
            finally:
                os.close(descriptor)


def test_a_child_does_not_hold_on_to_a_lock(tmp_path):
    ready, tell_ready = os.pipe()
    end, tell_end = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os.close(tell_end)
            os.write(tell_ready, b".")
            os.read(end, 1)
            os._exit(0)
        os.read(ready, 1)
    try:
        with locked(tmp_path, wait=False):
            pass
    finally:
        os.close(tell_end)
        os.waitpid(child, 0)
        for pipe in (ready, tell_ready, end):
            os.close(pipe)


@pytest.fixture
def two_folders(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(name)
    return tmp_path / "new", tmp_path / "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(two_folders, monkeypatch, exchange):
    new, path = two_folders
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    elif not files._exchange(path, new):
        pytest.skip("the system does not exchange names")
    else:
        files._exchange(path, new)
    replace_folder(new, path, r"data\.txt")
    assert (path / "data.txt").read_text() == "new"
    assert os.listdir(path.parent) == ["old"]


def test_a_folder_that_was_on_its_way_is_brought_back(two_folders, monkeypatch):
    new, path = two_folders
    rename, steps = os.rename, []

    def killed(source, target):
        steps.append(source)
        if len(steps) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, path, r"data\.txt")
    assert not path.exists()
    recover(path)
    assert (path / "data.txt").read_text() == "old"
    replace_folder(new, path, r"data\.txt")
    assert (path / "data.txt").read_text() == "new"
    assert os.listdir(path.parent) == ["old"]


def test_a_folder_with_something_else_is_not_replaced(two_folders):
    new, path = two_folders
    (path / "mine").mkdir()
    with pytest.raises(HashretError, match="holds mine, which hashret did not write there"):
        replace_folder(new, path, r"data\.txt")
    assert (path / "data.txt").read_text() == "old"
    assert (new / "data.txt").read_text() == "new"
