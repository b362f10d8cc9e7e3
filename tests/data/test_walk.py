"""Which files of a folder are read, and that everything else is counted and named."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner
from conftest import make_photos

from hashret.adding import add
from hashret.cli import main
from hashret.data import open_data
from hashret.data.walk import (
    HIDDEN,
    IN_LIBRARY,
    LINKED_AGAIN,
    LINKED_TO_NOTHING,
    LINKED_UP,
    OTHER_NAME,
    OTHER_PROGRAM,
    SET_ASIDE,
    SPECIAL,
    PassedOver,
    summary,
    walk,
)
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.names import json_lines
from hashret.training.start import train


def files(root, *paths):
    """Make files that hold their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def reasons(passed_over):
    return {item.path: item.reason for item in passed_over}


def test_everything_that_is_not_read_is_counted_by_reason(tmp_path):
    files(
        tmp_path,
        "a.jpg",
        "b.CR2",
        "c.nef",
        "notes.txt",
        "a.xmp",
        "Thumbs.db",
        "sub/d.jfif",
        "sub/._d.jpg",
        ".git/e.png",
    )
    photos, passed_over = walk(tmp_path)
    assert photos == ["a.jpg", "sub/d.jfif"]
    raw = "camera raw: export it as JPEG or TIFF"
    assert reasons(passed_over) == {
        "b.CR2": raw, "c.nef": raw, "notes.txt": OTHER_NAME, "a.xmp": OTHER_NAME, "Thumbs.db": OTHER_NAME,
        "sub/._d.jpg": HIDDEN, ".git": HIDDEN,
    }  # fmt: skip
    assert summary(passed_over) == f"7 passed over: 2 {raw}; 2 hidden; 3 not named like a photograph"
    assert summary([]) == ""


def test_what_duplicates_set_aside_is_passed_over(tmp_path):
    files(tmp_path, "a.jpg", "aside/b.jpg", "aside/own.jpg", "aside/sub/b.jpg", "other/d.jpg", "empty/e.jpg")
    (tmp_path / "aside" / "moved.jsonl").write_text('{"id": 1, "fr\n{"id": 1, "from": "/p/b.jpg", "to": "b.jpg"}\n')
    (tmp_path / "other" / "moved.jsonl").write_text('{"of": "another program"}\n[1]\n')
    (tmp_path / "empty" / "moved.jsonl").touch()
    photos, passed_over = walk(tmp_path)
    assert photos == ["a.jpg", "aside/own.jpg", "aside/sub/b.jpg", "empty/e.jpg", "other/d.jpg"]
    assert reasons(passed_over)["aside/b.jpg"] == SET_ASIDE
    assert "1 set aside by hashret duplicates" in summary(passed_over)
    assert "aside/b.jpg" in walk(tmp_path, include=["aside/*"])[0]
    assert walk(tmp_path / "aside")[0] == ["b.jpg", "own.jpg", "sub/b.jpg"]  # which the user names


def test_folders_of_other_programs_are_left_out_and_become_no_classes(tmp_path):
    names = ["@eaDir", "#recycle", "#snapshot", "__MACOSX", "$Recycle.Bin", "System Volume Information", "lost+found"]
    names += ["Catalog Previews.lrdata", "RECYCLER", "Temporary Items"]
    files(
        tmp_path,
        "cat/1.jpg",
        "dog/2.jpg",
        *(f"{name}/1.jpg" for name in names),
        *(f"cat/{name}/1.jpg" for name in names),
    )
    files(tmp_path, ".thumbnails/1.jpg", ".Trash-1000/files/1.jpg")
    with pytest.warns(
        UserWarning, match=r"22 passed over: 20 kept by another program; 2 hidden; hashret info .* names"
    ):
        source = open_data(tmp_path)
    assert source.paths == ("cat/1.jpg", "dog/2.jpg")
    assert source.classes == ("cat", "dog")
    assert reasons(source.passed_over)["@eaDir"] == OTHER_PROGRAM
    assert len(walk(tmp_path / "@eaDir")[0]) == 1  # who names the folder itself wants it


def test_of_a_photo_library_the_originals_are_read(tmp_path):
    inside = "originals/1/a.jpg", "resources/derivatives/1/a.jpg", "scopes/a.jpg", "Masters/b.jpg"
    files(tmp_path, *(f"Photos Library.photoslibrary/{path}" for path in inside))
    for root, prefix in ((tmp_path, "Photos Library.photoslibrary/"), (tmp_path / "Photos Library.photoslibrary", "")):
        photos, passed_over = walk(root)
        assert photos == [prefix + "Masters/b.jpg", prefix + "originals/1/a.jpg"]
        assert reasons(passed_over) == dict.fromkeys((prefix + "resources", prefix + "scopes"), IN_LIBRARY)


@pytest.mark.parametrize(
    ("exclude", "include", "wanted"),
    [
        (["*.png"], [], ["IMG1.jpg", "IMG[1].jpg", "old/2.jpg"]),
        (["old"], [], ["IMG1.jpg", "IMG[1].jpg", "a.png"]),
        (["old/"], [], ["IMG1.jpg", "IMG[1].jpg", "a.png"]),
        (["old/*.jpg"], [], ["IMG1.jpg", "IMG[1].jpg", "a.png", "old/3.png"]),
        (["{root}/old/2.jpg"], [], ["IMG1.jpg", "IMG[1].jpg", "a.png", "old/3.png"]),
        (["IMG[1].jpg"], [], ["IMG1.jpg", "a.png", "old/2.jpg", "old/3.png"]),
        (["./IMG[1].jpg"], [], ["IMG1.jpg", "a.png", "old/2.jpg", "old/3.png"]),
        (["IMG[0-9].jpg"], [], ["IMG[1].jpg", "a.png", "old/2.jpg", "old/3.png"]),
        (["*.jpg"], ["2.*"], ["a.png", "old/2.jpg", "old/3.png"]),
        ([], ["@eaDir"], ["@eaDir/4.jpg", "IMG1.jpg", "IMG[1].jpg", "a.png", "old/2.jpg", "old/3.png"]),
        ([], [".h.jpg"], [".h.jpg", "IMG1.jpg", "IMG[1].jpg", "a.png", "old/2.jpg", "old/3.png"]),
        ([], ["*.dat"], ["5.dat", "IMG1.jpg", "IMG[1].jpg", "a.png", "old/2.jpg", "old/3.png"]),
    ],
)
def test_patterns_of_names_and_paths(tmp_path, exclude, include, wanted):
    files(tmp_path, "IMG1.jpg", "IMG[1].jpg", "a.png", "old/2.jpg", "old/3.png", "@eaDir/4.jpg", ".h.jpg", "5.dat")
    exclude = [pattern.format(root=tmp_path) if "{root}" in pattern else pattern for pattern in exclude]
    photos, passed_over = walk(tmp_path, exclude, include)
    assert photos == wanted
    assert [item for item in passed_over if "excluded by" in item.reason] or not exclude


def test_a_pattern_that_does_nothing_is_said(tmp_path):
    files(tmp_path, "a.jpg")
    with pytest.warns(UserWarning, match="matches nothing below") as said:
        assert walk(tmp_path, ["*.gif"], ["*.jpg"])[0] == ["a.jpg"]
    assert [str(one.message) for one in said] == [
        f"--exclude '*.gif' matches nothing below {tmp_path}",
        f"--include '*.jpg' matches nothing below {tmp_path} that would be left out",
    ]
    (tmp_path / "list.txt").write_text("a.jpg 0 1\n")
    with pytest.raises(HashretError, match="--exclude and --include choose among the files of a folder"):
        open_data(f"list:{tmp_path}/list.txt", exclude=["*.gif"])


def test_links_are_followed_and_nothing_is_taken_twice(tmp_path):
    """Two links up made every walk endless; one made forty copies of each photograph."""
    root = files(tmp_path / "root", "one/a/1.jpg", "one/b/2.jpg", "two/3.jpg")
    files(tmp_path / "elsewhere", "4.jpg", "deep/5.jpg")
    links = {
        "one/a/up": "..", "one/b/up": "..", "one/a/top": "../../..", "out": tmp_path / "elsewhere", "out2": "out",
        "one/again": "../two", "deep": tmp_path / "elsewhere" / "deep", "one/9.jpg": "../two/3.jpg", "gone": "nowhere",
        "six.jpg": tmp_path / "6.jpg", "seven.jpg": tmp_path / "6.jpg", "round": "round",
    }  # fmt: skip
    files(tmp_path, "6.jpg")
    for link, target in links.items():
        (root / link).symlink_to(target)
    photos, passed_over = walk(root)
    assert photos == ["deep/5.jpg", "one/a/1.jpg", "one/b/2.jpg", "out/4.jpg", "seven.jpg", "two/3.jpg"]
    assert reasons(passed_over) == {
        "one/a/up": LINKED_UP, "one/b/up": LINKED_UP, "one/a/top": LINKED_UP, "out2": LINKED_AGAIN,
        "one/again": LINKED_AGAIN, "out/deep": LINKED_AGAIN, "one/9.jpg": LINKED_AGAIN, "gone": LINKED_TO_NOTHING,
        "six.jpg": LINKED_AGAIN, "round": "that cannot be looked at (Too many levels of symbolic links)",
    }  # fmt: skip


def test_pipes_are_not_waited_for(tmp_path):
    files(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    photos, passed_over = walk(tmp_path)
    assert photos == ["a.jpg"]
    assert reasons(passed_over) == {"pipe.jpg": SPECIAL, "link.jpg": SPECIAL}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    files(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(os.path.normpath(folder)) == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        photos, passed_over = walk(tmp_path)
        assert photos == ["a/1.jpg"]
        assert passed_over == [PassedOver("b", "that cannot be listed (Permission denied)")]
        with pytest.raises(HashretError, match=r"cannot list .*b: Permission denied"):
            walk(tmp_path / "b")


@pytest.fixture
def mixed(tmp_path):
    """Nine photographs of three classes among what is none."""
    root = make_photos(tmp_path / "photos", 3, 0)
    files(root, "@eaDir/1.jpg", "red/x.nef", "red/y.nef", "red/notes.txt")
    return root


def test_encode_counts_and_names_what_it_passed_over(mixed, model, tmp_path):
    out = tmp_path / "codes"
    arguments = ["encode", str(mixed), "--model", str(model), "--out", str(out), "--workers", "0"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "9 encoded, 0 skipped, 4 passed over (named in passed_over.jsonl)" in done.stdout
    assert "note: " in done.stderr
    assert "4 passed over: 2 camera raw" in done.stderr
    named = json_lines((out / "passed_over.jsonl").read_text())
    assert [line["path"] for line in named] == [
        str(mixed / name) for name in ("@eaDir", "red/notes.txt", "red/x.nef", "red/y.nef")
    ]
    assert json.loads(CliRunner().invoke(main, ["info", str(out), "--json"]).stdout)["passed_over"] == 4
    (out / "skipped.jsonl").unlink()
    (out / "passed_over.jsonl").unlink()
    with pytest.warns(UserWarning, match="4 passed over"):
        report = encode(mixed, model, out, workers=0)  # goes on, and names again
    assert [item._asdict() for item in report.passed_over] == json_lines((out / "passed_over.jsonl").read_text())
    (out / "skipped.jsonl").unlink()
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(HashretError, match="shards of another run"):
        encode(mixed, model, out, workers=0, exclude=["02.png"])


def test_info_names_what_is_passed_over(mixed, tmp_path):
    run = CliRunner().invoke
    assert json.loads(run(main, ["info", str(mixed), "--json"]).stdout) == {
        "kind": "photographs",
        "photographs": 9,
        "passed_over": [{"path": str(mixed / path), "reason": reason} for path, reason in walk(mixed)[1]],
    }
    named = json.loads(run(main, ["info", f"folder:{mixed}", "--json"]).stdout)
    assert (named["photographs"], len(named["passed_over"])) == (9, 4)
    lines = run(main, ["info", str(mixed)]).stdout.splitlines()
    assert lines[0] == f"{mixed / '@eaDir'}: {OTHER_PROGRAM}"
    assert len(lines) == 6
    (tmp_path / "other").mkdir()
    done = run(main, ["info", str(tmp_path / "other")])
    assert (done.exit_code, done.stdout) == (2, "")
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a checkpoint" in run(main, ["info", str(tmp_path / "pipe")]).stderr


def test_a_folder_without_photographs_says_what_is_in_it(tmp_path):
    files(tmp_path, "a.nef", "b.txt")
    for name, line in (("pipe", "pipe, socket or device, no folder"), ("gone", "linking to nothing, no folder")):
        (tmp_path / "gone").symlink_to("nowhere") if name == "gone" else os.mkfifo(tmp_path / name)
        with pytest.raises(HashretError, match=line):
            open_data(tmp_path / name)
        (tmp_path / name).unlink()
    with pytest.raises(HashretError, match=r"is a file, not a folder; if it lists photographs, name it list:"):
        open_data(tmp_path / "b.txt")
    with pytest.raises(HashretError, match=r"no images in .*; 2 passed over: 1 camera raw.*; 1 not named like"):
        open_data(tmp_path)


def test_add_and_train_take_patterns(mixed, model, index_folder, weights, tmp_path):
    shutil.copytree(index_folder, tmp_path / "index")
    unread = pytest.warns(UserWarning, match=r"cannot read .*1.jpg: not an image")
    with unread, pytest.warns(UserWarning, match="6 passed over"):
        report = add(tmp_path / "index", mixed, model, exclude=["00.png"], include=["@eaDir"], workers=0)
    assert (report.encoded, report.skipped, len(report.passed_over)) == (6, 1, 6)
    assert report.unreadable[0]["path"] == str(mixed / "@eaDir" / "1.jpg")
    (mixed / "green" / "01.png").write_bytes(b"")
    unread = pytest.warns(UserWarning, match=r"1 of 6 train images cannot be read, as .*green/01.png")
    with unread, pytest.warns(UserWarning, match="7 passed over"):
        record = train(
            mixed, tmp_path / "m.safetensors", weights=weights, backbone="vgg11", image_size=32, width=16, bits=8,
            epochs=1, batch_size=4, heldout=0, workers=0, device="cpu", cache=tmp_path / "cache", exclude=["00.png"],
        )  # fmt: skip
    assert record.exclude == ["00.png"]
    assert record.train_images == 5
    assert record.classes == ["blue", "green", "red"]


def test_one_pattern_may_be_a_text(tmp_path):
    make_photos(tmp_path, 1, 0)
    for given in ("red", ["red"]):
        paths = open_data(tmp_path, exclude=given).paths
        assert sorted(paths) == ["blue/00.png", "green/00.png"]
