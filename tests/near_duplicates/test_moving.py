"""Duplicates set aside and brought back: nothing lost, nothing overwritten, whatever happens in between."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import make_photos
from helpers import kill_when, start, tree_bytes

from hashret.errors import HashretError
from hashret.near_duplicates import moving
from hashret.near_duplicates.groups import Photograph, duplicates
from hashret.near_duplicates.moving import LOG, restore, set_aside


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
    assert planned.moved == 4
    assert planned.as_dict()["moves"][0] == planned[0].as_dict()
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


def test_a_second_run_takes_nothing_that_the_first_has_set_aside(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos", 1, 0)
    photos = tmp_path / "photos"
    for path in sorted(photos.rglob("*.png")):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    before = tree_bytes(photos)
    monkeypatch.chdir(photos)
    moved = set_aside(duplicates(".").groups, "aside", yes=True).moved
    assert moved == len(before) // 2
    kept = tree_bytes(photos)
    with pytest.warns(UserWarning, match="3 passed over: 3 set aside by hashret duplicates"):
        again = duplicates(".")
    assert len(again.groups) == 0
    assert set_aside(again.groups, "aside", yes=True).moved == 0
    assert tree_bytes(photos) == kept
    assert restore("aside").moved == moved
    assert tree_bytes(photos) == before


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
from near_duplicates.test_moving import photograph
from hashret.near_duplicates.moving import set_aside
files = sorted(Path({str(folder)!r}).glob("*/*.jpg"))
set_aside([[photograph(file) for file in [Path({str(folder)!r}) / "kept.jpg", *files]]], {str(aside)!r}, yes=True)
"""
    here = str(Path(__file__).parents[1])
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


def test_two_names_of_one_file_are_not_moved(photos, tmp_path):
    folder, groups, _ = photos
    (folder / "b" / "one.jpg").unlink()
    os.link(folder / "a" / "one.jpg", folder / "b" / "one.jpg")
    (tmp_path / "again").symlink_to(folder)
    groups = [[groups[0][0], groups[0][1], photograph(tmp_path / "again" / "a" / "one.jpg"), groups[0][2]]]
    for yes in (False, True):
        moves = set_aside(groups, tmp_path / "aside", yes=yes)
        same = f"it is the same file as {folder / 'a' / 'one.jpg'}"
        assert [move.why for move in moves] == [same, same, ""]
    assert (folder / "a" / "one.jpg").read_text() == "a/one.jpg"


def test_a_disk_that_hides_that_two_names_are_one_file_gets_it_back(photos, tmp_path, monkeypatch):
    folder, _, before = photos
    (tmp_path / "again").symlink_to(folder)
    monkeypatch.setattr(moving, "identity", str)
    groups = [[photograph(tmp_path / "again" / "a" / "one.jpg"), photograph(folder / "a" / "one.jpg")]]
    [move] = set_aside(groups, tmp_path / "aside", yes=True)
    assert (move.to, "which was gone with it" in move.why) == (None, True)
    assert tree_bytes(folder) == before
    assert restore(tmp_path / "aside") == []


@pytest.mark.parametrize("way", ["aside", "back"])
def test_a_name_that_was_just_taken_by_a_killed_process_is_free(photos, tmp_path, monkeypatch, way):
    folder, groups, before = photos
    if way == "back":
        set_aside(groups, tmp_path / "aside", yes=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(moving.os, "utime", killed)
    with pytest.raises(KeyboardInterrupt):
        set_aside(groups, tmp_path / "aside", yes=True) if way == "aside" else restore(tmp_path / "aside")
    monkeypatch.undo()
    if way == "aside":
        moves = set_aside(groups, tmp_path / "aside", yes=True)
        assert sorted(Path(move.to).name for move in moves) == ["one-2.jpg", "one.jpg", "two-2.jpg", "two.jpg"]
    restore(tmp_path / "aside")
    assert tree_bytes(folder) == before
    assert not (tmp_path / "aside").exists()


def test_an_empty_file_of_somebody_else_is_not_taken_for_a_name_that_was_held(photos, tmp_path):
    folder, groups, _ = photos
    set_aside(groups[:1], tmp_path / "aside", yes=True)
    (folder / "b" / "one.jpg").touch()
    assert [move.why for move in restore(tmp_path / "aside")] == ["", f"{folder / 'b' / 'one.jpg'} is there"]
    assert (folder / "b" / "one.jpg").read_bytes() == b""
    assert (tmp_path / "aside" / "one.jpg").read_text() == "b/one.jpg"


@pytest.mark.parametrize("way", ["aside", "back"])
def test_only_partial_files_of_moves_are_removed_from_a_folder_of_the_user(photos, tmp_path, way):
    folder, groups, before = photos
    aside = tmp_path / "aside"
    set_aside([groups[0][:2]], aside, yes=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (aside / f".one.jpg.{dead.pid}.tmp").write_text("half of a copy")
    theirs = [f".notes.{dead.pid}.tmp", ".two.jpg.0004000000.tmp", ".scans.2024.tmp/precious.jpg"]
    theirs += [f".two.jpg.{dead.pid}.tmp/kept", f".one.jpg.abcdefgh.{dead.pid}.tmp"]
    for name in theirs:
        (aside / name).parent.mkdir(exist_ok=True)
        (aside / name).write_text("theirs")
    beside = folder / "b" / f".one.jpg.{dead.pid}.tmp"  # where a photograph goes back to
    beside.mkdir()
    (beside / "kept").write_text("theirs")
    if way == "aside":
        set_aside(groups, aside, yes=True)
        assert not (aside / f".one.jpg.{dead.pid}.tmp").exists()
    restore(aside)
    assert tree_bytes(aside) == dict.fromkeys(theirs, b"theirs")
    assert tree_bytes(folder) == before | {str((beside / "kept").relative_to(folder)): b"theirs"}


@pytest.fixture
def aside(tmp_path):
    """A folder with a log, a photograph, and files outside of it that no log may move."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "victim").write_text("theirs")
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "aside" / "folder").mkdir(parents=True)
    (tmp_path / "aside" / "a.jpg").write_text("a photograph")
    (tmp_path / "aside" / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "aside" / "fifo")
    return tmp_path / "aside"


def write_log(aside, *lines):
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (aside / LOG).write_bytes(b"\n".join([*lines, b""]))


@pytest.mark.parametrize(
    ("name", "place", "why"),
    [
        ("{0}/elsewhere/victim", "{0}/new/victim", "is no name of a file in the folder"),
        ("../victim", "{0}/new/victim", "is no name"),
        ("../elsewhere/victim", "{0}/new/victim", "is no name"),
        ("..", "{0}/new", "is no name"),
        ("", "{0}/new", "is no name"),
        (LOG, "{0}/new/moved.jsonl", "is no name"),
        ("nul\0", "{0}/new/nul", "is no name"),
        ("\ud800.jpg", "{0}/new/\ud800.jpg", "can't encode"),
        ("a.jpg", "{0}/new\ud800/a.jpg", "can't encode"),
        ("a.jpg", "new/a.jpg", "is no whole path to go back to"),
        ("a.jpg", "{0}/aside/../new/a.jpg", "is no whole path"),
        ("a.jpg", "{0}/.profile", "is not what '.profile' is called in the folder"),
        (7, "{0}/new/7", "does not say"),
        ("a.jpg", None, "does not say"),
        ("link", "{0}/new/link", "no plain file"),
        ("fifo", "{0}/new/fifo", "no plain file"),
        ("folder", "{0}/new/folder", "no plain file"),
    ],
)
def test_a_log_moves_only_plain_files_of_its_folder(aside, tmp_path, name, place, why):
    def fill(text):
        return text.format(tmp_path) if isinstance(text, str) else text

    write_log(aside, {"from": fill(place), "to": fill(name)})
    before = tree_bytes(aside.parent / "elsewhere") | {"victim": b"theirs"}
    warnings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "warn", warnings.append)
        moves = restore(aside)
    assert [move.to for move in moves if move.to] == []
    assert why in " ".join([*warnings, *(move.why for move in moves)])
    assert "\n" not in "".join(warnings)
    assert tree_bytes(tmp_path / "elsewhere") | {"victim": (tmp_path / "victim").read_bytes()} == before
    assert not (tmp_path / "new").exists()
    assert (aside / "a.jpg").read_text() == "a photograph"
    assert (aside / LOG).exists()


def test_a_damaged_line_is_named_and_the_others_are_obeyed(aside, tmp_path):
    names = ["a\u2028b.jpg", "c\x85d.jpg", os.fsdecode(b"\xff.jpg"), "e\nf.jpg"]
    for name in names:
        (aside / name).write_text(name.encode("utf-8", "backslashreplace").decode())
    lines = [{"from": str(tmp_path / "back" / name), "to": name} for name in names]
    raw = json.dumps(lines[0], ensure_ascii=False).encode()  # as another program may have written it
    write_log(aside, raw, b"\xff\xfe damaged", *lines[1:3], b"[" * 100_000, b"", lines[3])
    with pytest.warns(UserWarning, match="line [25] of .* is passed over") as said:
        moves = restore(aside)
    assert len(said) == 2
    assert [Path(move.to).name for move in moves] == names[::-1]
    assert sorted(os.listdir(tmp_path / "back")) == sorted(names)
    assert (aside / LOG).exists()  # as there is more in the folder
    (tmp_path / "door").symlink_to(aside)
    write_log(aside, {"from": str(tmp_path / "back" / "a.jpg"), "to": "a.jpg"})
    assert len(restore(tmp_path / "door")) == 1


def test_a_line_that_changed_since_it_was_written_moves_nothing_and_makes_no_folder(photos, tmp_path):
    folder, groups, _ = photos
    aside = tmp_path / "aside"
    set_aside(groups[:1], aside, yes=True)
    whole = (aside / LOG).read_bytes()
    for was, becomes in ((b"photos/c", b"photosac"), (b"photos/c", b"photos/d"), (b'"kept": "', b'"kept": "x')):
        damaged = whole.replace(was, becomes)
        assert damaged != whole
        (aside / LOG).write_bytes(damaged)
        with pytest.warns(UserWarning, match="it is not as it was written"):
            restore(aside)
        assert (aside / "one-2.jpg").read_text() == "c/one.jpg"
        assert sorted(os.listdir(tmp_path)) == ["aside", "photos"]
        assert sorted(os.listdir(folder)) == ["a", "b", "c"]
    (aside / LOG).write_bytes(whole)
    assert str(folder / "c" / "one.jpg") in [move.to for move in restore(aside)]


def test_lines_of_earlier_releases_have_no_checksum(aside, tmp_path):
    write_log(aside, {"id": 0, "from": str(tmp_path / "new" / "a.jpg"), "to": "a.jpg", "kept": "b.jpg"})
    assert [move.why for move in restore(aside)] == [""]
    assert (tmp_path / "new" / "a.jpg").read_text() == "a photograph"


@pytest.mark.parametrize("to", ["/proc/self/mem", "/dev/zero", "/nowhere/at/all", "theirs.json"])
def test_no_line_of_a_move_is_written_to_where_a_link_leads(photos, tmp_path, to):
    folder, groups, before = photos
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "theirs.json").write_text("theirs")
    (tmp_path / "aside" / LOG).symlink_to(to)
    with pytest.raises(HashretError, match=r"moved\.jsonl is no plain file"):
        set_aside(groups, tmp_path / "aside", yes=True)
    assert tree_bytes(folder) == before
    assert (tmp_path / "aside" / "theirs.json").read_text() == "theirs"
    if to != "theirs.json":
        with pytest.raises(HashretError, match=r"(no |cannot read .*)moved\.jsonl"):
            restore(tmp_path / "aside")


def test_mistakes(photos, tmp_path):
    folder, groups, _ = photos
    with pytest.raises(HashretError, match="is a file; name a folder to move to"):
        set_aside(groups, folder / "a" / "one.jpg", yes=True)
    with pytest.raises(HashretError, match=r"no moved\.jsonl in"):
        restore(tmp_path)
    os.mkfifo(tmp_path / LOG)
    with pytest.raises(HashretError, match=r"no moved\.jsonl in"):
        restore(tmp_path)
