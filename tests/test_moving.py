"""Duplicates set aside and brought back: nothing lost, nothing overwritten, whatever happens in between."""

import errno
import json
import os
from pathlib import Path

import pytest
from helpers import kill_when, start, tree_bytes

from hashret import moving
from hashret.errors import HashretError
from hashret.moving import LOG, restore, set_aside
from hashret.near_duplicates import Photograph


def photograph(path, number=0):
    return Photograph(number, str(path), False, 0, 0.0, 1, 1, 1)


@pytest.fixture
def photos(tmp_path):
    """Files of one name in three folders; the groups that say so; and all files as they are."""
    for folder in "abc":
        for name in ("one.jpg", "two.jpg"):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / folder / name).write_text(f"{folder}/{name}")
    names = ("one.jpg", "two.jpg")
    groups = [[photograph(tmp_path / "photos" / folder / name) for folder in "abc"] for name in names]
    return tmp_path / "photos", groups, tree_bytes(tmp_path / "photos")


def log(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_copies_are_moved_logged_and_brought_back(photos, tmp_path):
    folder, groups, before = photos
    aside = tmp_path / "new" / "aside"
    planned = set_aside(groups, aside)
    assert tree_bytes(folder) == before
    assert not aside.exists()
    moves = set_aside(groups, aside, yes=True)
    assert moves == planned
    assert [Path(move.to).name for move in moves] == ["one.jpg", "one-2.jpg", "two.jpg", "two-2.jpg"]
    assert sorted(tree_bytes(folder)) == ["a/one.jpg", "a/two.jpg"]
    for move, line in zip(moves, log(aside), strict=True):
        assert (line["from"], str(aside / line["to"])) == (move.path, move.to)
        assert Path(move.to).read_text() == "/".join(Path(move.path).parts[-2:])
    assert {line["kept"] for line in log(aside)} == {str(folder / "a" / name) for name in ("one.jpg", "two.jpg")}
    back = restore(aside)
    assert [move.to for move in back] == [move.path for move in reversed(moves)]
    assert tree_bytes(folder) == before
    assert not aside.exists()


def test_nothing_is_overwritten(photos, tmp_path):
    folder, groups, before = photos
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "one.jpg").write_text("another")
    groups[1][1] = photograph(folder / "b" / LOG)
    (folder / "b" / LOG).write_text("a photograph of that name")
    set_aside(groups, aside, yes=True)
    assert (aside / "one.jpg").read_text() == "another"
    assert (aside / "moved-2.jsonl").read_text() == "a photograph of that name"
    (folder / "c" / "one.jpg").write_text("new here")
    moves = restore(aside)
    assert [move.why for move in moves if not move.to] == [f"{folder / 'c' / 'one.jpg'} is there"]
    assert (folder / "c" / "one.jpg").read_text() == "new here"
    assert (aside / "one-3.jpg").read_text() == "c/one.jpg"
    (folder / "c" / "one.jpg").unlink()
    assert [move.to for move in restore(aside)] == [str(folder / "c" / "one.jpg")]
    (folder / "b" / LOG).unlink()
    assert tree_bytes(folder) == before
    assert tree_bytes(aside) == {"one.jpg": b"another"}


def test_what_cannot_be_moved_stays_and_is_named(photos, tmp_path):
    folder, groups, _ = photos
    (folder / "b" / "one.jpg").unlink()
    (folder / "c" / "one.jpg").unlink()
    (folder / "c" / "one.jpg").symlink_to(folder / "a" / "one.jpg")
    (folder / "a" / "two.jpg").unlink()
    moves = set_aside(groups, tmp_path / "aside", yes=True)
    assert [move.why for move in moves] == ["gone", "a link", "the one to keep is gone", "the one to keep is gone"]
    assert not (tmp_path / "aside").exists()
    moves = set_aside([groups[1][1:]], folder / "c", yes=True)
    assert [move.why for move in moves] == ["there already"]


def test_a_second_run_adds_to_the_log(photos, tmp_path):
    folder, groups, before = photos
    aside = tmp_path / "aside"
    set_aside(groups[:1], aside, yes=True)
    with open(aside / LOG, "a") as file:
        file.write('{"id": 3, "from"')  # a machine that went down as it wrote
    set_aside(groups, aside, yes=True)
    assert sorted(tree_bytes(folder)) == ["a/one.jpg", "a/two.jpg"]
    assert len(restore(aside)) == 4
    assert tree_bytes(folder) == before


def test_a_name_used_again_brings_back_the_file_that_has_it(photos, tmp_path):
    folder, groups, before = photos
    aside = tmp_path / "aside"
    set_aside([groups[0][:2]], aside, yes=True)
    os.rename(aside / "one.jpg", folder / "b" / "one.jpg")  # brought back by hand
    set_aside([groups[0][::2]], aside, yes=True)
    assert [Path(line["to"]).name for line in log(aside)] == ["one.jpg", "one.jpg"]
    assert len(restore(aside)) == 1
    assert tree_bytes(folder) == before


def test_another_disk_gets_a_copy_first(photos, tmp_path, monkeypatch):
    folder, groups, before = photos
    moved = os.replace

    def replace(path, to):
        if Path(path).parent != Path(to).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        moved(path, to)

    monkeypatch.setattr(moving.os, "replace", replace)
    set_aside(groups, tmp_path / "aside", yes=True)
    assert len(tree_bytes(tmp_path / "aside")) == 5
    assert sorted(tree_bytes(folder)) == ["a/one.jpg", "a/two.jpg"]
    restore(tmp_path / "aside")
    assert tree_bytes(folder) == before


def test_a_refused_move_leaves_all_in_place(photos, tmp_path, monkeypatch):
    folder, groups, before = photos

    def refuse(path, to):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(moving.os, "replace", refuse)
    with pytest.raises(HashretError, match=r"cannot move .*one.jpg to .*aside: Permission denied"):
        set_aside(groups, tmp_path / "aside", yes=True)
    assert tree_bytes(folder) == before
    assert list(tree_bytes(tmp_path / "aside")) == [LOG]
    monkeypatch.undo()
    assert restore(tmp_path / "aside") == []
    assert not (tmp_path / "aside").exists()


@pytest.mark.parametrize("way", ["aside", "back"])
def test_a_kill_between_two_steps_leaves_each_file_whole_in_one_place(photos, tmp_path, monkeypatch, way):
    folder, groups, before = photos
    aside = tmp_path / "aside"
    if way == "back":
        set_aside(groups, aside, yes=True)

    def killed(path, to):
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "_move", killed)
    with pytest.raises(KeyboardInterrupt):
        set_aside(groups, aside, yes=True) if way == "aside" else restore(aside)
    monkeypatch.undo()
    restore(aside)
    assert tree_bytes(folder) == before
    assert not aside.exists()


def test_a_killed_process_leaves_nothing_untraceable(tmp_path):
    folder, aside = tmp_path / "photos", tmp_path / "aside"
    for number in range(3000):
        (folder / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (folder / str(number % 7) / f"{number // 7}.jpg").write_text(str(number))
    (folder / "kept.jpg").write_text("kept")
    before = tree_bytes(folder)
    code = f"""
from pathlib import Path
from test_moving import photograph
from hashret.moving import set_aside
files = sorted(Path({str(folder)!r}).glob("*/*.jpg"))
set_aside([[photograph(file) for file in [Path({str(folder)!r}) / "kept.jpg", *files]]], {str(aside)!r}, yes=True)
"""
    here = str(Path(__file__).parent)
    process = start(code, PYTHONPATH=os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    assert kill_when(process, lambda: aside.exists() and len(list(aside.iterdir())) > 100)
    there, moved = tree_bytes(folder), tree_bytes(aside)
    assert 100 < len(moved) < 3000
    places = {line["to"]: str(Path(line["from"]).relative_to(folder)) for line in log(aside)}
    for name, content in moved.items():
        if name != LOG and content:
            assert before[places[name]] == content
            assert places[name] not in there
    restore(aside)
    assert tree_bytes(folder) == before


def test_mistakes(photos, tmp_path):
    folder, groups, _ = photos
    with pytest.raises(HashretError, match="is a file; name a folder to move to"):
        set_aside(groups, folder / "a" / "one.jpg", yes=True)
    with pytest.raises(HashretError, match=r"no moved\.jsonl in"):
        restore(tmp_path)
