"""What searches finds the index of a folder of photographs, and its encoder, without being told."""

import json
import shutil

import pytest
from click.testing import CliRunner
from conftest import make_model, make_photo, make_photos
from numpy.random import default_rng

import hashret
from hashret.cli import main
from hashret.errors import HashretError
from hashret.opening import find_model
from hashret.places import find_index


@pytest.fixture
def photos(tmp_path, model, monkeypatch):
    """9 photographs with an index of their own, its encoder beside it; one of the folders is the working folder."""
    folder = make_photos(tmp_path / "photos", 3, seed=3)
    (folder / ".hashret").mkdir()
    shutil.copy(model, folder / ".hashret" / "model.safetensors")
    hashret.sync(folder, workers=0)
    monkeypatch.chdir(folder / "red")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_verbs_find_the_index_from_a_folder_below(photos):
    assert find_index() == photos / ".hashret" / "index"
    assert find_model(index=find_index()) == photos / ".hashret" / "model.safetensors"
    done = run("query", "00.png", "-k", "1")
    assert (done.exit_code, "00.png" in done.stdout) == (0, True), done.output
    assert run("explain", "00.png", "--out", photos.parent / "explain.png").exit_code == 0
    shutil.copy("00.png", "copy.png")
    assert "9 unchanged, 1 new; 0 encoded, 10 in the index" in run("sync", photos).stdout
    done = run("duplicates")
    assert "copy.png" in done.stdout, done.output
    assert len(hashret.Searcher().search("00.png", 3)) == 3
    assert len(hashret.query(["00.png"], photos)[0].hits) == 10  # a folder with an index of its own


@pytest.mark.parametrize(
    ("verb", "rest"),
    [
        ("add", ["{new}"]), ("remove", ["--id", "0"]), ("compact", []), ("relocate", ["--root", "{others}"]),
        ("duplicates", ["--by", "codes"]),
    ],
)  # fmt: skip
def test_every_verb_takes_the_index_alike(verb, rest, photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "others", ignore=shutil.ignore_patterns(".hashret"))
    places = {"new": make_photo(tmp_path / "new.png", "red", default_rng(5)), "others": tmp_path / "others"}
    rest = [word.format(**places) for word in rest]
    outcomes = set()
    for way in ("option", "argument", "variable", "found"):
        index = tmp_path / way / "index"
        shutil.copytree(photos / ".hashret", index.parent)
        hashret.relocate(index, photos)
        monkeypatch.chdir(index.parent if way == "found" else photos / "red")
        named = {"option": ["--index", index], "argument": [index]}.get(way, [])
        if way == "variable":
            monkeypatch.setenv("HASHRET_INDEX", str(index))
        done = run(verb, *named, *rest)
        monkeypatch.delenv("HASHRET_INDEX", raising=False)
        assert done.exit_code == 0, (way, done.output)
        opened = hashret.open_index(index)
        outcomes.add((len(opened), opened.root))
    assert len(outcomes) == 1
    assert outcomes != {(9, str(photos))} or verb in ("compact", "duplicates")
    own = hashret.open_index(photos / ".hashret" / "index")
    assert (len(own), own.root) == (9, str(photos))  # which would be found from there, if none were named


def test_info_is_of_the_index_that_is_found(photos):
    assert run("info").stdout == run("info", photos / ".hashret" / "index").stdout


def test_what_is_named_or_nearer_comes_first(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHRET_INDEX", "elsewhere")
    assert find_index() == "elsewhere"
    assert run("query", "00.png").exit_code == 2
    monkeypatch.setenv("HASHRET_INDEX", str(photos))  # as with --index
    assert run("query", "00.png").exit_code == 0
    monkeypatch.delenv("HASHRET_INDEX")
    shutil.copytree(photos / ".hashret" / "index", photos / "red" / "index")
    assert find_index() == "index"
    assert find_index(photos) == photos / ".hashret" / "index"
    assert find_index("milvus:http://host:19530#photos") == "milvus:http://host:19530#photos"
    monkeypatch.chdir(tmp_path)
    assert find_index() == "index"
    assert "no photographs and no index at index" in run("duplicates").stderr


def test_the_encoder_of_an_index_comes_before_another(photos, model, monkeypatch, tmp_path):
    make_model(photos / "red" / "model.safetensors", seed=7)
    assert find_model(index=find_index()) == photos / ".hashret" / "model.safetensors"
    (photos / ".hashret" / "model.safetensors").rename(tmp_path / "mine.safetensors")
    with pytest.raises(HashretError, match="built by another encoder than model"):
        hashret.Searcher()
    monkeypatch.setenv("HASHRET_MODEL", str(tmp_path / "mine.safetensors"))
    assert len(hashret.Searcher().search("00.png")) == 9
    assert run("sync", photos).exit_code == 0
    monkeypatch.delenv("HASHRET_MODEL")
    assert len(hashret.Searcher().search("00.png")) == 9  # the index remembers where it was
    (tmp_path / "mine.safetensors").rename(photos / "red" / "model.safetensors")
    assert len(hashret.Searcher().search("00.png")) == 9


def test_serve_finds_both(photos, monkeypatch):
    pytest.importorskip("uvicorn", reason="needs hashret[serve]")
    from hashret.service import app

    asked = []

    def create(index, model, *_, **__):
        asked.extend([index, model])
        raise HashretError("enough")

    monkeypatch.setattr(app, "create_app", create)
    assert run("serve").exit_code == 2
    assert asked == [photos / ".hashret" / "index", photos / ".hashret" / "model.safetensors"]


def test_add_and_evaluate_need_no_model(photos, tmp_path):
    make_photos(tmp_path / "more", 1, seed=8)
    done = run("add", photos / ".hashret" / "index", tmp_path / "more", "--workers", "0")
    assert "3 photographs added" in done.stdout, done.output
    assert "1 photograph removed" in run("remove", photos, "--path", photos / "red" / "00.png").stdout
    assert "11 photographs" in run("compact", photos).stdout
    assert "0 photographs added" in run("add", photos, tmp_path / "more", "--workers", "0").stdout
    done = run("evaluate", tmp_path / "more", "-k", "1")  # of three labels, in an index of which these alone are known
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries"] == 3
