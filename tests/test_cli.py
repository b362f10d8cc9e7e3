"""The verbs as a user runs them, and one clear line with exit code 2 for each mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_model
from PIL import Image

from hashret.cli import main

NO_FEATURES = "this index keeps no features; encode its photographs with --features\n"


def hashret(*arguments, **options):
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)


@pytest.fixture
def workplace(photos, model, codes, index_folder, tmp_path, monkeypatch):
    """A folder in which every verb has run."""
    shutil.copy(model, tmp_path / "model.safetensors")
    shutil.copytree(codes, tmp_path / "codes")
    shutil.copytree(index_folder, tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verbs_follow_one_another_without_options(photos, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "model.safetensors")
    assert "36 encoded, 0 skipped" in hashret("encode", photos / "train").output
    assert "36 photographs, 24 bits" in hashret("build-index").output
    found = hashret("query", photos / "train" / "red" / "03.png")
    assert found.exit_code == 0
    assert found.output.splitlines()[1].split()[:6] == ["1", "100", "%", "0", "0", "red"]
    assert len(found.output.splitlines()) == 11


def test_train_leaves_what_encode_finds(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"image-size": 32, "backbone": "vgg11", "weights": "none", "finetune": "all", "width": 16, "epochs": 1}
    small = [text for name, value in small.items() for text in (f"--{name}", value)]
    done = hashret("train", "--data", f"folder:{photos}", "--bits", 12, "--batch-size", 8, *small)
    assert done.exit_code == 0, done.output
    assert "12 bits" in done.output
    assert hashret("encode", photos, "--split", "test").exit_code == 0
    described = json.loads(hashret("info", "codes", "--json").output)
    assert (described["kind"], described["bits"], described["images"], described["complete"]) == (
        "shards",
        12,
        12,
        True,
    )


def test_query_outputs(workplace, photos):
    photo, other = photos / "test" / "red" / "00.png", photos / "test" / "blue" / "00.png"
    done = hashret("query", photo, other, "-k", 3, "--json", "--grid", "hits.png", "--html", "hits.html")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["hits"]) for line in lines] == [3, 3]
    assert lines[0]["query"] == str(photo)
    names = {"rank", "id", "path", "label", "hamming", "euclidean", "labels", "similarity"}
    assert set(lines[0]["hits"][0]) == names
    assert Image.open("hits.png").size[0] > 4 * 128
    assert "data:image/webp" in (workplace / "hits.html").read_text()
    from_stdin = hashret("query", "-", "-k", 3, "--json", input=f"{photo}\n{other}\n")
    assert from_stdin.stdout == done.stdout
    assert len(hashret("query", photos / "test" / "red", "--json").output.splitlines()) == 4
    assert " - " in hashret("query", photo, "--no-rerank").output


def test_pages_have_maps_unless_told_otherwise(workplace, photos):
    photo = photos / "test" / "red" / "00.png"
    assert hashret("query", photo, "-k", 3, "--html", "hits.html").exit_code == 0
    assert hashret("query", photo, "-k", 3, "--html", "plain.html", "--no-maps").exit_code == 0
    assert hashret("query", photo, photo, "--html", "mean.html", "--together", "mean").exit_code == 0
    assert "map cells" in (workplace / "hits.html").read_text()
    for page in ("plain.html", "mean.html"):
        assert "map cells" not in (workplace / page).read_text()


def test_explain_draws_and_prints(workplace, photos):
    photo = photos / "test" / "red" / "00.png"
    done = hashret("explain", photo, "--index", "index", "-k", 2)
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 5
    assert done.stderr.splitlines()[-1] == "explain.png: 1 photograph, 2 hits"
    assert Image.open("explain.png").size[1] > 3 * 128
    again = ("explain", "-", "--index", "index", "-k", 2, "--json", "--overwrite")
    shown = hashret(*again, input=f"{photo}\n")
    [line] = shown.stdout.splitlines()
    assert shown.stderr == "explain.png: 1 photograph, 2 hits\n"
    assert [hit["id"] for hit in json.loads(line)["hits"]] == [hit["id"] for hit in hits_of(photo, "-k", 2)]
    hashret("explain", photo, "--out", "one.png", env={"HASHRET_INDEX": "index"})
    assert Image.open("one.png").size[1] < 2 * 128 + 128


def test_an_index_is_added_to_removed_from_and_compacted(workplace, photos):
    new = photos / "test" / "red" / "00.png"
    assert "1 photograph added" in hashret("add", "index", new).output
    assert hashret("query", new, "-k", 1).output.splitlines()[1].split()[-1] == str(new)
    assert "11 photographs added" in hashret("add", "index", photos, "--split", "test").output
    assert "0 photographs added" in hashret("add", "index", new, photos / "test").output
    assert "1 photograph added" in hashret("add", "index", new, "--again").output
    assert "0 photographs added" in hashret("add", "index", os.path.relpath(new)).output
    described = json.loads(hashret("info", "index", "--json").output)
    assert (described["count"], described["segments"], described["removed"]) == (49, 4, 0)
    named = hashret("remove", "index", "--path", f"{photos}/test/*", "--dry-run").output.splitlines()
    assert named[-1] == "index: would be: 13 photographs removed"
    assert len(named) == 14
    assert all(line.startswith(f"{photos}/test/") for line in named[:-1])
    assert "13 photographs removed" in hashret("remove", "index", "--path", f"{photos}/test/*").output
    assert "1 photograph removed" in hashret("remove", "index", "--id", 3).output
    assert "1 photograph removed" in hashret("remove", "index", "--path", "green/0[3].png").output
    assert "34 photographs" in hashret("compact", "index").output
    described = json.loads(hashret("info", "index", "--json").output)
    assert (described["count"], described["segments"], described["removed"]) == (34, 1, 0)
    assert hashret("query", new).exit_code == 0


def hits_of(*arguments):
    done = hashret("query", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)["hits"]


def test_query_among_some(workplace, photos):
    photo = photos / "train" / "red" / "03.png"
    assert [hit["label"] for hit in hits_of(photo, "-k", 50, "--label", "blue")] == ["blue"] * 12
    assert len(hits_of(photo, "-k", 50, "--label", "blue", "--label", "red")) == 24
    assert {hit["path"] for hit in hits_of(photo, "--path", "green/0[01].png")} == {
        str(photos / "train" / "green" / name) for name in ("00.png", "01.png")
    }
    assert sorted(hit["id"] for hit in hits_of(photo, "--id", 5, "--id", 7)) == [5, 7]
    assert hits_of(photo)[0]["path"] == str(photo)
    others = hits_of(photo, "--exclude-self", "-k", 35)
    assert str(photo) not in [hit["path"] for hit in others]
    assert [hit["rank"] for hit in others] == list(range(1, 36))
    everything = hits_of(photo, "-k", 50, "--no-rerank")
    inside = [hit for hit in everything if hit["hamming"] <= 2]
    assert hits_of(photo, "--radius", 2) == inside
    assert len(hits_of(photo, "--rerank-by", "asymmetric")) == 10
    assert len(hits_of(photo, "--recall", "0.9", "-k", 5)) == 5


def test_several_photographs_as_one_query(workplace, photos):
    two = [photos / "train" / colour / "03.png" for colour in ("red", "blue")]
    union = hits_of(*two, "--together", "union", "-k", 6)
    assert {hit["path"] for hit in union[:2]} == set(map(str, two))
    assert [hit["euclidean"] for hit in union] == sorted(hit["euclidean"] for hit in union)
    assert len({hit["id"] for hit in union}) == 6
    mean = hits_of(*two, "--together", "mean", "-k", 6)
    assert hits_of(two[0], two[0], "--together", "mean", "-k", 6) == hits_of(two[0], "-k", 6)
    assert len(mean) == 6


def test_an_index_of_codes_alone(workplace, photos):
    photo = photos / "train" / "red" / "03.png"
    assert hashret("build-index", "--no-values", "--out", "small").exit_code == 0
    assert len(hits_of(photo, "--index", "small", "--rerank-by", "asymmetric")) == 10
    done = hashret("query", photo, "--index", "small")
    assert done.exit_code == 2
    assert "--rerank-by asymmetric" in done.stderr


@pytest.mark.filterwarnings("default")  # the photograph that is added has no label, and evaluate says so
def test_rerank_by_the_features_before_the_hash_layer(workplace, photos):
    from hashret.index import open_index
    from hashret.models.checkpoint import load_encoder
    from hashret.shards import ShardFolder

    done = hashret("query", photos / "test" / "red" / "00.png", "--rerank-by", "features")
    assert (done.exit_code, done.stderr) == (2, "hashret: " + NO_FEATURES)
    for split in ("train", "test"):
        assert hashret("encode", photos, "--split", split, "--features", "--out", f"full-{split}").exit_code == 0
    assert hashret("build-index", "--codes", "full-train", "--out", "full").exit_code == 0
    index, rows = open_index("full", "cpu"), ShardFolder("full-test").load()
    assert index.segments[0].fc_features.shape == (36, 32)
    assert rows.fc_features.shape == (12, 32)
    hits = hits_of(rows.paths[5].decode(), "--index", "full", "--rerank-by", "features", "-k", 36)
    wanted = np.linalg.norm(index.segments[0].fc_features - rows.fc_features[5], axis=1)
    assert [hit["euclidean"] for hit in hits] == pytest.approx(np.sort(wanted), abs=1e-5)
    encoder = load_encoder("model.safetensors", "cpu")
    logits = rows.fc_features @ encoder.head.hash.weight.numpy().T + encoder.head.hash.bias.numpy()
    assert rows.hash_outputs == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-4)
    assert "1 photograph added" in hashret("add", "full", photos / "test" / "red" / "00.png").output
    assert "37 photographs" in hashret("compact", "full").output
    assert open_index("full", "cpu").segments[0].fc_features.shape == (37, 32)
    done = hashret("evaluate", "full-test", "--index", "full", "--rerank-by", "features")
    assert json.loads(done.stdout)["rerank_by"] == "features"
    assert done.stderr.startswith("note: 1 of 12 queries are photographs of the index, too, and find themselves")
    assert "\nnote: 1 of 37 photographs of the index have no label" in done.stderr
    done = hashret("evaluate", "full-test", "--index", "full", "--rerank-by", "features", "--candidates", 50)
    hashret("encode", photos, "--split", "test", "--out", "plain-test")
    done = hashret("evaluate", "plain-test", "--index", "full", "--rerank-by", "features")
    assert done.exit_code == 2
    assert "--features" in done.stderr


def test_the_index_may_be_named_by_the_environment(workplace, photos):
    (workplace / "index").rename("elsewhere")
    photo = photos / "test" / "red" / "00.png"
    assert hashret("query", photo).exit_code == 2
    assert hashret("query", photo, env={"HASHRET_INDEX": "elsewhere"}).exit_code == 0


def test_info_describes_everything(workplace):
    for path, kind in (("index", "index"), ("codes", "shards"), ("model.safetensors", "checkpoint")):
        output = hashret("info", path).output
        assert output.split()[1] == kind
        assert "24" in output
    assert "rows" in hashret("info", "codes/codes-00000.h5").output


def test_info_counts_a_part_of_a_folder(photos):
    counts = [
        json.loads(hashret("info", photos, "--json", *split).stdout)["photographs"]
        for split in ((), ("--split", "test"))
    ]
    assert counts == [48, 12]


@pytest.mark.filterwarnings("default")  # it says that 10 candidates are fewer than share the least distance
def test_evaluate_prints_json(workplace, photos):
    done = hashret("evaluate", photos, "--split", "test", "-k", 5, "--candidates", 10, "--out", "figures.json")
    assert done.stderr.splitlines()[-1] == "figures.json: figures of 12 queries"
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries"] == 12
    assert list(json.loads((workplace / "figures.json").read_text())["hamming"]["precision_at"]) == ["5"]


MISTAKES = {
    "no such photograph": (["query", "none.jpg"], "no such file"),
    "no photograph": (["query"], "name a photograph"),
    "not an image": (["query", "text.jpg"], "not an image"),
    "empty folder": (["encode", "empty"], "no images"),
    "no such folder": (["encode", "nowhere"], "no such folder"),
    "a photograph as a folder": (["encode", "PHOTO"], "is a file, not a folder; name the folder that it lies in"),
    "sync a file": (["sync", "PHOTO"], "is a file, not a folder; name a folder of photographs"),
    "wrong bits": (["train", "--data", "PHOTOS", "--bits", "7"], "8 to 256"),
    "wrong size": (["train", "--data", "PHOTOS", "--image-size", "100"], "multiple of 32"),
    "wrong method": (["train", "--data", "PHOTOS", "--method", "nosuch"], "no method"),
    "no weights": (["train", "--data", "PHOTOS", "--weights", "none.pth", "--out", "new"], "no weights at"),
    "checkpoint exists": (["train", "--data", "PHOTOS", "--weights", "none", "--finetune", "all"], "--overwrite"),
    "k of 0": (["query", "PHOTO", "-k", "0"], "at least 1"),
    "candidates of 0": (["query", "PHOTO", "--candidates", "0"], "at least 1"),
    "no index": (["query", "PHOTO", "--index", "nowhere"], "no index at"),
    "no model": (["query", "PHOTO", "--model", "nowhere"], "no checkpoint at"),
    "another encoder": (["query", "PHOTO", "--model", "other.safetensors"], "another encoder"),
    "damaged checkpoint": (["encode", "PHOTOS", "--split", "train", "--model", "text.jpg", "--out", "new"], "damaged"),
    "damaged shard": (["build-index", "--codes", "broken-codes", "--out", "new"], "is damaged"),
    "damaged index": (["query", "PHOTO", "--index", "broken-index"], "is damaged"),
    "no such class": (["query", "PHOTO", "--label", "purple"], "its classes: blue, green, red"),
    "exclude self within": (["query", "PHOTO", "--exclude-self", "--radius", "2"], "neither"),
    "recall of 2": (["query", "PHOTO", "--recall", "2"], "recall"),
    "together within": (["query", "PHOTO", "--together", "mean", "--radius", "2"], "leave --together out"),
    "candidates within": (
        ["query", "PHOTO", "--candidates", "20", "--rerank-by", "values", "--radius", "2"],
        "by their codes alone, of each query on its own; leave --candidates, --rerank-by out",
    ),
    "candidates of no re-rank": (["query", "PHOTO", "--candidates", "20", "--no-rerank"], "leave --candidates out"),
    "candidates twice": (["query", "PHOTO", "--candidates", "20", "--recall", "0.9"], "take one of them"),
    "hits of no index": (["explain", "PHOTO", "-k", "2"], "name it with --index"),
    "a split of shards": (["evaluate", "codes", "--split", "test"], "leave --split out"),
    "a split of an index": (["info", "index", "--split", "test"], "not split; leave --split out"),
    "yes to nothing": (["remove", "--id", "3", "--yes"], "--yes goes with --gone"),
    "radius below 0": (["query", "PHOTO", "--radius", "-1"], "radius"),
    "explain nothing": (["explain"], "name a photograph: hashret explain"),
    "explain text": (["explain", "text.jpg"], "cannot read text.jpg: not an image"),
    "explain with no model": (["explain", "PHOTO", "--model", "nowhere"], "no checkpoint at"),
    "explain into a photograph": (["explain", "PHOTO", "--out", "PHOTO.jpg"], "should end in .png"),
    "explain over what is there": (["explain", "PHOTO", "--out", "shown.png"], "--overwrite"),
    "explain hits of another encoder": (
        ["explain", "PHOTO", "--index", "index", "--model", "other.safetensors"],
        "another encoder",
    ),
    "add to no index": (["add", "--index", "nowhere", "PHOTO"], "no index at nowhere; make one with hashret sync"),
    "add to a folder that is not there": (["add", "nowhere", "PHOTO"], "no such folder: nowhere"),
    "add no photographs": (["add", "index"], "name photographs to add"),
    "an index named twice": (["compact", "index", "--index", "other"], "named twice: other and index"),
    "the same shards twice": (["build-index", "codes", "./codes/", "--out", "new"], "./codes/ is named twice"),
    "codes named twice": (["build-index", "codes", "--codes", "codes", "--out", "new"], "not both ways"),
    "too many names": (["export", "index", "codes", "milvus:x.db"], "at most, not also milvus:x.db"),
    "shards as an index": (
        ["query", "PHOTO", "--index", "codes"],
        "build an index of them with hashret build-index codes",
    ),
    "sync into shards": (["sync", "album", "--index", "codes"], "codes is a folder of shards; name another place"),
    "duplicates of nothing": (["duplicates", "nowhere"], "no photographs and no index at nowhere; name"),
    "duplicates of a file": (["duplicates", "text.jpg"], "no photographs and no index at text.jpg; name"),
    "relocate to nowhere": (["relocate", "--root", "nowhere"], "no such folder: nowhere"),
    "shards are complete": (
        ["encode", "PHOTOS", "--split", "train", "--shard-size", "10"],
        "hashret add takes new photographs",
    ),
    "weights that are none": (
        ["train", "--data", "PHOTOS", "--weights", "text.jpg", "--out", "new"],
        "are damaged, or",
    ),
    "info of a photograph": (["info", "PHOTO"], "00.png is a photograph; name a folder"),
    "a choice that is none": (["train", "--data", "PHOTOS", "--gate", "ajar"], "'unit', 'open', 'half'"),
    "add nothing there": (["add", "index", "nowhere"], "no such folder"),
    "add with another encoder": (["add", "index", "PHOTO", "--model", "other.safetensors"], "another encoder"),
    "add a split folder": (["add", "index", "PHOTOS"], "--split"),
    "remove nothing named": (["remove", "index"], "--id, --path or --gone"),
    "remove an unknown id": (["remove", "index", "--id", "999"], "no photograph with id 999"),
    "remove an unknown path": (["remove", "index", "--path", "no/*"], "no photograph no/*"),
    "compact no index": (["compact", "nowhere"], "no index at"),
    "no shards": (["build-index", "--codes", "nowhere", "--out", "new"], "no such folder of shards"),
    "not shards": (
        ["build-index", "--codes", "empty", "--out", "new"],
        "codes.json is missing; if these are photographs",
    ),
    "the root as shards": (["build-index", "--codes", "/", "--out", "new"], "no shards in /"),
    "index exists": (["build-index"], "--overwrite"),
    "shards exist": (["encode", "PHOTOS", "--split", "test"], "another run"),
    "shards of another encoder": (
        ["evaluate", "PHOTOS", "--split", "test", "--model", "other.safetensors"],
        "different",
    ),
    "grid not a png": (["query", "PHOTO", "--grid", "a.jpg"], "should end in .png"),
    "no cuda": (["query", "PHOTO", "--device", "cuda"], "--device cpu"),
    "unwritable": (["query", "PHOTO", "--grid", "text.jpg/a.png"], "cannot write"),
    "info of nothing": (["info", "nowhere"], "no such file"),
    "info of something else": (["info", "empty"], "neither"),
    "not our folder to replace": (
        ["encode", "PHOTOS", "--split", "test", "--out", "album", "--overwrite"],
        "is no folder",
    ),
    "not an index to replace": (["build-index", "--out", "album", "--overwrite"], "is no index"),
    "not a checkpoint to replace": (["train", "--data", "PHOTOS", "--out", "album", "--overwrite"], "is no checkpoint"),
    "no figures to replace": (["evaluate", "codes", "--out", "index/index.json"], "holds no figures of an evaluation"),
    "a failed build keeps the old index": (["build-index", "--codes", "broken-codes", "--overwrite"], "is damaged"),
    "a failed training keeps the old one": (
        ["train", "--data", "PHOTOS", "--weights", "no.pth", "--overwrite"],
        "no.pth",
    ),
    "an option that is none": (["query", "PHOTO", "--nosuch"], "No such option"),
    "lengths that are no numbers": (["train", "--bits", "12,x"], "with commas between. Try '"),
    "an option without its value": (["train"], "Missing option '--data'"),
    "a verb that is none": (["retrieve"], "No such command"),
    "fewer ranks than none": (["evaluate", "codes", "--topk", "-1"], "topk at least 1"),
    "not the protocol's photographs": (["encode", "cifar10-1:PHOTOS", "--out", "new"], "no CIFAR-10 in"),
    "unknown features": (["query", "PHOTO", "--rerank-by", "magic"], "'cosine', 'euclidean'"),
    "split missing": (["encode", "PHOTOS", "--out", "new"], "--split"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(workplace, photos, tmp_path, mistake):
    import torch

    if mistake == "no cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    (workplace / "text.jpg").write_text("no picture")
    (workplace / "shown.png").write_bytes(b"a map of before")
    (workplace / "empty").mkdir()
    (workplace / "album").mkdir()
    (workplace / "album" / "wedding.jpg").write_bytes(b"dear to somebody")
    make_model(workplace / "other.safetensors", seed=7)
    shutil.copytree("codes", "broken-codes")
    (workplace / "broken-codes" / "codes-00001.h5").write_bytes(b"broken")
    shutil.copytree("index", "broken-index")
    (workplace / "broken-index" / "000001" / "values.npy").write_bytes(b"broken")
    before = set(workplace.rglob("*"))
    arguments, line = MISTAKES[mistake]
    named = {"PHOTOS": str(photos), "PHOTO": str(photos / "test" / "red" / "00.png")}
    done = hashret(*(named.get(argument, argument) for argument in arguments))
    assert done.exit_code == 2, (done.output, done.exception)
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert " Try '" not in done.stderr or done.stderr.partition(" Try '")[0][-1] in ".?)"
    assert set(workplace.rglob("*")) == before


def test_methods_are_listed_with_their_papers():
    listed, options = hashret("methods").output.split("\n\n")
    lines = listed.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"am-vggh+", "vggh+", "am-vggh", "vggh", "dpsh", "dnnh", "cnnh+", "cnnh", "ksh", "itq", "lsh"} <= set(names)
    assert "Liu" in lines[names.index("ksh")]
    assert [line.split()[0] for line in lines if "no labels" in line] == ["itq", "lsh", "cibhash", "bihalf"]
    balance = [line for line in options.splitlines() if "--option balance=" in line]
    assert len(balance) == 1
    assert "(am-vggh+, vggh+, am-vggh, vggh)" in balance[0]


@pytest.mark.parametrize("verb", main.commands)
def test_every_verb_has_help_with_an_example(verb):
    done = hashret(verb, "--help")
    assert done.exit_code == 0
    assert f"Example: hashret {verb}" in done.output or f"hashret {verb}" in done.output.split("Example:")[1]


def test_the_help_has_every_verb_in_one_section_and_comes_where_none_is_named():
    done = hashret()
    assert (done.exit_code, done.output) == (0, hashret("--help").output)
    verbs = [line.split()[0] for line in done.output.partition("Start here:")[2].splitlines() if line.startswith("  ")]
    assert sorted(verbs) == sorted(main.commands)
    assert "More:" not in done.output


def test_hits_open_in_the_browser(workplace, photos, monkeypatch):
    opened = []
    monkeypatch.setattr(click, "launch", opened.append)
    photo = photos / "test" / "red" / "00.png"
    assert hashret("query", photo, "--open", "--no-maps").exit_code == 0
    assert hashret("query", photo, "--open", "--html", "own.html", "--no-maps").exit_code == 0
    assert [Path(page).name for page in opened] == ["hits.html", "own.html"]
    assert all("<html" in Path(page).read_text() for page in opened)


def test_verbs_that_write_say_what_they_did_as_json(photos, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "model.safetensors")

    def said(*arguments):
        done = hashret(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert said("encode", photos / "train", "--workers", 0)["encoded"] == 36
    built = said("build-index")
    assert (built["count"], built["bits"], built["classes"]) == (36, 24, ["blue", "green", "red"])
    assert said("add", "index", photos / "test" / "red", "--workers", 0)["encoded"] == 4
    assert said("remove", "index", "--id", 0)["count"] == 1
    assert said("compact", "index")["count"] == 39
    assert said("relocate", "index", "--root", photos)["root"] == str(photos)
    small = ("--method", "itq", "--bits", 8, "--out", "small.safetensors", "--workers", 0, "--image-size", 32)
    weights = ("--backbone", "vgg11", "--weights", "none", "--finetune", "all")
    trained = hashret("train", "--data", photos, *small, *weights, "--json")
    assert trained.exit_code == 2  # and no half of an object
    assert trained.stdout == ""
    report = said("train", "--data", photos, *small[2:], *weights, "--method", "vggh", "--epochs", 1, "--width", 8)
    assert report["bits"] == 8


def test_the_shell_completes_verbs_and_options(monkeypatch):
    monkeypatch.setenv("_HASHRET_COMPLETE", "bash_complete")
    for words, wanted in (("hashret qu", ["query"]), ("hashret query --re", ["--recall", "--rerank-by"])):
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = CliRunner().invoke(main, prog_name="hashret", env=environment)
        assert [line.removeprefix("plain,") for line in done.output.splitlines()] == wanted


@pytest.mark.parametrize(
    "arguments", [["compact"], ["evaluate", "codes"], ["serve"], ["sync"]], ids=lambda words: words[0]
)
def test_a_working_folder_that_is_gone_is_one_line(arguments, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    done = hashret(*arguments)
    line = "hashret: the working folder is no longer there; change into one that is\n"
    assert (done.exit_code, done.stderr) == (2, line)


def test_module_and_command_are_the_same():
    done = subprocess.run([sys.executable, "-m", "hashret", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("python -m hashret, version") or "version" in done.stdout
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["methods"], ["--help"], ["--version"], []], ids=str)
def test_a_full_disk_under_what_is_printed_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "hashret", *arguments], stdout=full, stderr=subprocess.PIPE)
        silent = subprocess.run([sys.executable, "-m", "hashret", *arguments], stdout=full, stderr=full)
    assert done.stderr == b"hashret: cannot write to standard output: No space left on device\n"
    assert (done.returncode, silent.returncode) == (2, 2)
