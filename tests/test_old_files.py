"""Files written by an earlier hashret still open and give the same answers.

`tests/old/` was written by the code of commit c4582a0: five checkpoints of a VGG-11 whose weights are mostly zero, so
that they are small when compressed, and what that code made with the first of them: shards, an index with photographs
added and removed, a feature cache and a Milvus Lite collection. `recorded.json` holds what that code answered.
`cache-2` is the feature cache that commit f3d27b0 made of the same photographs in /nowhere, the first of format 2. The
verbs are run as in a shell, so that this test depends on no Python name.
"""

import json
import lzma
import os
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from hashret.cli import main

OLD = Path(__file__).parent / "old"
RECORDED = json.loads((OLD / "recorded.json").read_text())
QUERIES = ("photos/test/red/00.png", "photos/test/blue/01.png")
WRITTEN = 1_700_000_000  # time in seconds of each photograph when the feature cache was filled; git does not keep it


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder of the files that are kept compressed."""
    folder = tmp_path_factory.mktemp("unpacked")
    for file in OLD.glob("*.xz"):
        (folder / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    return folder


@pytest.fixture
def old(unpacked, tmp_path, monkeypatch):
    """A copy of the old files as the working folder."""
    root = shutil.copytree(OLD, tmp_path / "old", ignore=shutil.ignore_patterns("*.xz"))
    for file in unpacked.iterdir():
        (root / file.name).hardlink_to(file)
    for photograph in (root / "photos").rglob("*.png"):
        os.utime(photograph, (WRITTEN, WRITTEN))
    monkeypatch.chdir(root)
    return root


def run(*arguments):
    """Run a verb and return what it wrote to stdout; there must be neither an error nor a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def check_query(index, recorded):
    """Compare the hits of the recorded queries; distances of hash outputs may differ in the last digits."""
    lines = run(
        "query",
        *QUERIES,
        "--index",
        index,
        "--model",
        "am-vggh.safetensors",
        "-k",
        6,
        "--rerank-by",
        "values",
        "--json",
    ).splitlines()
    for line, expected in zip(lines, recorded, strict=True):
        for hit, expected_hit in zip(json.loads(line)["hits"], expected, strict=True):
            assert {name: hit[name] for name in expected_hit} == expected_hit | {
                "euclidean": pytest.approx(expected_hit["euclidean"], abs=1e-3)
            }


@pytest.mark.parametrize("name", RECORDED["hash_outputs"])
def test_a_checkpoint_gives_the_same_hash_outputs(old, name):
    assert json.loads(run("info", f"{name}.safetensors", "--json"))["kind"] == "checkpoint"
    options = ("--split", "test", "--precision", "float32", "--workers", 0, "--out", "new")
    run("encode", "photos", "--model", f"{name}.safetensors", *options)
    with h5py.File("new/codes-00000.h5") as file:
        np.testing.assert_allclose(file["values"][:], RECORDED["hash_outputs"][name], atol=1e-3)


def test_an_index_gives_the_same_hits_and_figures(old):
    check_query("index", RECORDED["index"])
    figures = json.loads(run("evaluate", "codes-test", "--index", "index", "--rerank-by", "values"))
    for name in ("queries", "database", "bits", "encoder", "distinct_codes"):
        assert figures[name] == RECORDED["evaluate"][name]
    for stage, name in (("hamming", "map"), ("hamming", "map_worst_ties"), ("reranked", "map")):
        assert figures[stage][name] == pytest.approx(RECORDED["evaluate"][stage][name])
    assert figures["hamming"]["curve"] == RECORDED["evaluate"]["hamming"]["curve"]


def test_an_index_is_changed_further(old):
    run("add", "index", "photos/test", "--model", "am-vggh.safetensors", "--workers", 0)
    run("remove", "index", "--id", 12)
    run("compact", "index")
    described = json.loads(run("info", "index", "--json"))
    assert (described["count"], described["segments"]) == (16 + 6 - 1, 1)


def test_shards_build_an_index(old):
    assert json.loads(run("info", "codes", "--json"))["complete"]
    run("build-index", "--codes", "codes", "--out", "new")
    assert json.loads(run("info", "new", "--json"))["count"] == 15


@pytest.mark.parametrize("cache", ["cache", "cache-2"])
def test_a_feature_cache_is_read(old, cache):
    [folder] = Path(cache, "features").iterdir()
    before = (folder / "features.f16").stat()
    options = ("--split", "train", "--model", "am-vggh.safetensors", "--precision", "float32", "--workers", 0)
    run("encode", "photos", *options, "--out", "new", "--cache", cache, "--fill-cache")
    [folder] = (path for path in Path(cache, "features").iterdir() if path.is_dir())  # not computed anew in another
    after = (folder / "features.f16").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    described = json.loads((folder / "info.json").read_text())
    assert (described["format"], described["shape"]) == (2, [512, 1, 1])
    assert json.loads(run("cache", "list", "--cache", cache, "--json"))["photographs"] == 15
    run("encode", "photos", *options, "--out", "computed", "--cache", "none")
    with h5py.File("new/codes-00000.h5") as used, h5py.File("computed/codes-00000.h5") as computed:
        np.testing.assert_allclose(used["values"][:], computed["values"][:], atol=1e-3)


def test_a_collection_gives_the_same_hits(old):
    pytest.importorskip("milvus_lite", reason="needs hashret[milvus]")
    check_query("milvus:photos.db#photos", RECORDED["collection"])


def test_a_training_record_is_reported(old):
    pytest.importorskip("matplotlib", reason="needs hashret[report]")
    assert "report.html" in run("report", "dpsh.safetensors")
    assert "Held-out mAP by epoch" in Path("report.html").read_text()
