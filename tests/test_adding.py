"""Adding photographs to an index: a file once, whatever it is called and whoever adds it at the same time."""

import os
import shutil
import warnings

import pytest
from conftest import make_photos

from hashret import encoding
from hashret.adding import add
from hashret.index import open_index, remove


@pytest.fixture
def place(index_folder, tmp_path):
    """A copy of the index of 36 photographs, and 6 others."""
    shutil.copytree(index_folder, tmp_path / "index")
    make_photos(tmp_path / "more", 2, 5)
    return tmp_path


@pytest.fixture
def add_more(place, model):
    def call(*photos, **options):
        return add(place / "index", [*photos] or [place / "more"], model, workers=0, **options)

    return call


def paths(place):
    opened = open_index(place / "index", "cpu")
    return [opened.path(row) for row in opened.alive.nonzero()[0]]


def test_a_file_is_added_once_by_whatever_path(place, add_more):
    (place / "link").symlink_to(place / "more")
    (place / "one.png").symlink_to(place / "more" / "red" / "00.png")
    folders = [place / "more", place / "link", place / "more" / ".." / "more", place / "one.png"]
    assert add_more(*folders[:3]).encoded == 6
    for folder in folders:
        assert add_more(folder).encoded == 0
    assert len(paths(place)) == 42
    assert add_more(place / "link", again=True).encoded == 6


def test_what_was_added_through_a_link_is_known_without_it(place, add_more):
    (place / "link").symlink_to(place / "more")
    assert add_more(place / "link").encoded == 6
    assert add_more().encoded == 0
    (place / "more" / "red" / "00.png").rename(place / "more" / "red" / "new.png")
    assert add_more().encoded == 1


def test_two_that_add_the_same_at_once_add_it_once(place, add_more, monkeypatch):
    encode, inside = encoding.encode, []

    def encode_while_another_adds(*arguments, **options):
        report = encode(*arguments, **options)
        if not inside:
            inside.append(None)
            inside.append(add_more())
        return report

    monkeypatch.setattr(encoding, "encode", encode_while_another_adds)
    assert add_more().encoded == 0
    assert inside[1].encoded == 6
    assert len(paths(place)) == len(set(paths(place))) == 42
    assert sorted(os.listdir(place / "index")) == ["000001", "000002", "index.json"]


def interrupt_before_append(add_more, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hashret.index.append", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add_more()


def test_a_killed_add_goes_on_where_it_stopped(place, add_more, monkeypatch):
    interrupt_before_append(add_more, monkeypatch)
    assert len(os.listdir(place / "index")) == 3
    monkeypatch.setattr(encoding._Run, "_write", None)  # nothing is encoded again
    assert add_more().encoded == 6
    assert len(paths(place)) == 42
    assert sorted(os.listdir(place / "index")) == ["000001", "000002", "index.json"]


def test_what_a_killed_add_left_goes_with_the_next_change(place, add_more, monkeypatch):
    interrupt_before_append(add_more, monkeypatch)
    remove(place / "index", [3])
    assert sorted(os.listdir(place / "index")) == ["000001", "index.json"]


def test_a_file_that_was_written_since_it_was_indexed_is_named(place, add_more):
    add_more()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert add_more().encoded == 0
    indexed = open_index(place / "index", "cpu").segments[-1].written
    for name, since in (("red/00.png", 1), ("blue/01.png", 2), ("green/00.png", -1)):
        os.utime(place / "more" / name, (indexed + since, indexed + since))
    (place / "link").symlink_to(place / "more")
    for folder in ("more", "link"):
        with pytest.warns(UserWarning, match=rf"^written to since it was indexed: {place / folder}.* and 1 more;"):
            assert add_more(place / folder).encoded == 0
    remove(place / "index", paths=["red/00.png"])
    with pytest.warns(UserWarning, match="^written to since it was indexed: .*/blue/01.png;"):
        assert add_more().encoded == 1
