import os
import subprocess

import pytest

from hashret.errors import HashretError
from hashret.files import atomic, check_output, read_json, remove_leftovers, write_json


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
