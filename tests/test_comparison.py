"""Two photographs beside each other."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from hashret import Searcher, compare, train
from hashret.cli import main
from hashret.errors import HashretError
from hashret.similar import similarity


def test_codes_and_distance_are_those_of_a_search(photos, model, index_folder):
    first, second = photos / "test" / "red" / "00.png", photos / "train" / "green" / "01.png"
    searcher = Searcher(index_folder, model, "cpu")
    [hit] = [hit for hit in searcher.search(first, 36, rerank_by="directions") if hit.path == str(second)]
    found = compare(first, second, model, device="cpu")
    assert (found.first, found.second, found.bits, found.hamming) == (str(first), str(second), 24, hit.hamming)
    assert found.distance == pytest.approx(hit.euclidean, abs=1e-5)
    assert found.similarity == similarity(hit.hamming, 24)
    same = compare(first, first, model, device="cpu")
    assert (same.hamming, same.similarity, same.distance) == (0, 100, 0)


def test_the_verb(photos, model, tmp_path, monkeypatch):
    shutil.copy(model, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    pair = [str(photos / "test" / "red" / name) for name in ("00.png", "01.png")]
    done = CliRunner().invoke(main, ["compare", *pair])
    assert done.exit_code == 0
    found = compare(*pair)
    assert done.output == f"{found}\n"
    assert f"are {found.similarity} % similar: {found.hamming} of 24 bits differ" in done.output
    assert json.loads(CliRunner().invoke(main, ["compare", *pair, "--json"]).output) == found.as_dict()


def test_what_cannot_be_compared(photos, model, tmp_path):
    photo = photos / "test" / "red" / "00.png"
    (tmp_path / "no.png").write_text("not a picture")
    with pytest.raises(HashretError, match=r"cannot read .*no\.png"):
        compare(photo, tmp_path / "no.png", model)
    vectors = np.random.default_rng(0).random((40, 8), np.float32)
    train(vectors, tmp_path / "vectors.safetensors", method="itq", bits=8)
    with pytest.raises(HashretError, match="of vectors, not of photographs"):
        compare(photo, photo, tmp_path / "vectors.safetensors")
