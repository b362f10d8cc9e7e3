"""Thresholds that are spread: of the photographs that are searched, and never of a query."""

import json
import math

import numpy as np
import pytest
from conftest import make_model
from safetensors.numpy import load_file, save_file

from hashret import Searcher, build_index, encode, evaluate
from hashret.bits import binarize, dithered, hamming, pack
from hashret.errors import HashretError
from hashret.files import read_json, write_json
from hashret.index import append, open_index
from hashret.metrics import average_precision, count_by_distance
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.shards import ShardFolder, read_shard

SPREAD = 0.75


def plain_dithered(outputs, spread):
    """One bit after the other."""
    rows = []
    for row in outputs.tolist():
        logits = [math.log(p / (1 - p)) for p in (min(max(p, 1e-7), 1 - 1e-7) for p in row)]
        size = math.sqrt(sum(x * x for x in logits) / len(logits))
        fractions = [sum(int(digit) / 2 ** (i + 1) for i, digit in enumerate(f"{n:b}"[::-1])) for n in range(1, 99)]
        rows.append([x / size >= spread * (2 * f - 1) for x, f in zip(logits, fractions, strict=False)])
    return rows


def test_bits_are_those_of_a_plain_reference():
    outputs = np.random.default_rng(0).beta(0.2, 0.2, (40, 48)).astype(np.float32)
    for spread in (0.25, 0.75, 2):
        assert dithered(outputs, spread).tolist() == plain_dithered(outputs, spread)
    assert np.array_equal(dithered(outputs, 0), binarize(outputs))
    assert not np.array_equal(dithered(outputs, SPREAD), binarize(outputs))


def test_of_any_number_of_first_bits_the_thresholds_lie_evenly():
    """Found by logits of one size and either sign: a bit is 1 where a threshold is not above its logit."""
    steps, ones = np.linspace(-1, 1, 401), []
    for step in steps:
        logits = np.where(np.arange(64) < 63, step, math.sqrt(64 - 63 * step**2))  # a mean square of 1
        ones.append(dithered(1 / (1 + np.exp(-logits[None])), SPREAD)[0])
    thresholds = np.sort(steps[np.argmax(ones, axis=0)[:63]])
    assert np.allclose(thresholds, SPREAD * (np.arange(1, 64) / 32 - 1), atol=0.006)
    for first in (8, 12, 24, 48):
        gaps = np.diff(np.sort(steps[np.argmax(ones, axis=0)[:first]]))
        assert gaps.max() <= 2.01 * SPREAD * 2 / first + 0.01


def test_saturated_outputs_keep_their_bits_and_nan_is_refused():
    outputs = np.array([[0, 1, 0, 1, 1, 1, 0, 0]], np.float32)
    assert np.array_equal(dithered(outputs, 0.99), outputs == 1)
    assert dithered(np.full((1, 8), 0.5), SPREAD).tolist() == [[t <= 0 for t in (0, -4, 4, -6, 2, -2, 6, -7)]]
    with pytest.raises(HashretError, match="NaN"):
        dithered(np.array([[0.1, np.nan]]), SPREAD)


@pytest.fixture(scope="module")
def spread(photos, tmp_path_factory):
    """A folder with a dithered model, codes of train and test, and an index."""
    work = tmp_path_factory.mktemp("spread")
    make_model(work / "model.safetensors", dither=SPREAD)
    for part in ("train", "test"):
        encode(photos, work / "model.safetensors", work / part, split=part, workers=0, shard_size=10)
    build_index(work / "train", work / "index")
    return work


def test_photographs_that_are_searched_have_them_and_outputs_are_as_they_were(photos, spread, tmp_path):
    plain = load_encoder(make_model(tmp_path / "plain.safetensors"), "cpu")
    encoder, codes = load_encoder(spread / "model.safetensors", "cpu"), ShardFolder(spread / "train").load()
    files = [path.decode() for path in codes.paths.tolist()]
    assert np.array_equal(codes.hash_outputs, plain.encode(files))
    assert np.array_equal(codes.codes, pack(dithered(codes.hash_outputs, SPREAD)))
    assert not np.array_equal(codes.codes, pack(binarize(codes.hash_outputs)))
    assert (encoder.dither, plain.dither) == (SPREAD, 0)
    assert encoder.fingerprint != plain.fingerprint


def test_queries_have_plain_thresholds(photos, spread):
    searcher = Searcher(spread / "index", spread / "model.safetensors", device="cpu")
    index, test = open_index(spread / "index", "cpu"), ShardFolder(spread / "test").load()
    files = [path.decode() for path in test.paths.tolist()]
    wanted = np.sort(hamming(pack(binarize(test.hash_outputs)), index.codes()), axis=1)[:, :5]
    for rerank_by in (None, "directions"):
        answers = searcher.search_many(files, k=5, candidates=5, rerank_by=rerank_by)
        found = [sorted(hit.hamming for hit in answer) for answer in answers]
        assert found == wanted.tolist()


def test_an_indexed_photograph_is_asked_for_as_its_file_is(spread, tmp_path):
    """Also by the service, which need not encode it: unless the index keeps its code alone."""
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    index = open_index(spread / "index", "cpu")
    differing = np.any(pack(binarize(np.asarray(index.hash_outputs))) != index.codes(), axis=1)
    number = int(np.flatnonzero(differing)[0])
    with TestClient(create_app(spread / "index", spread / "model.safetensors", "cpu")) as client:
        asked = client.get(f"/api/items/{number}/query?k=5&candidates=5").json()
        with open(index.path(number), "rb") as file:
            uploaded = client.post("/api/query?k=5&candidates=5", content=file.read()).json()
    for answer in ("hits", "hamming_hits"):
        assert asked[answer] == uploaded[answer]
    assert asked["query"]["code"] == uploaded["query"]["code"] != index.code(number).tobytes().hex()
    build_index(spread / "train", tmp_path / "bare", values=False)
    with TestClient(create_app(tmp_path / "bare", None, "cpu")) as client:
        alone = client.get(f"/api/items/{number}/query?k=1").json()
    assert (alone["hits"][0]["id"], alone["hits"][0]["hamming"]) == (number, 0)


def test_evaluate_scores_what_a_query_would_find(photos, spread):
    index, test = open_index(spread / "index", "cpu"), ShardFolder(spread / "test").load()
    plain = test.as_queries().codes
    assert np.array_equal(plain, pack(binarize(test.hash_outputs)))
    labels = np.asarray(index.labels)
    wanted, as_searched = (
        average_precision(count_by_distance(codes, index.codes(), test.labels, labels, 24)).mean()
        for codes in (plain, test.codes)
    )
    assert wanted != pytest.approx(as_searched)
    for queries, options in ((spread / "test", {}), (f"folder:{photos}", {"split": "test"})):
        scores = evaluate(queries, spread / "index", model=spread / "model.safetensors", device="cpu", **options)
        assert scores.hamming.map == pytest.approx(wanted)


def test_what_is_added_has_them_and_a_plain_encoder_does_not_mix(photos, spread, tmp_path):
    build_index(spread / "train", tmp_path / "index")
    append(tmp_path / "index", spread / "test")
    index = open_index(tmp_path / "index", "cpu")
    assert np.array_equal(index.codes(), pack(dithered(np.asarray(index.hash_outputs), SPREAD)))
    plain = make_model(tmp_path / "plain.safetensors")
    encode(photos, plain, tmp_path / "plain", split="test", workers=0)
    with pytest.raises(HashretError, match="another encoder"):
        append(tmp_path / "index", tmp_path / "plain")


def test_an_earlier_hashret_refuses_them_and_others_stay_as_they_were(photos, spread, tmp_path):
    """It would take codes of photographs that are searched for queries."""
    encode(photos, make_model(tmp_path / "plain.safetensors"), tmp_path / "plain", split="test", workers=0)
    for folder, number in ((spread / "test", 2), (tmp_path / "plain", 1)):
        manifest = read_json(folder / "codes.json", "manifest")
        assert (manifest["format"], "dither" in manifest) == (number, number == 2)
        assert read_shard(folder / "codes-00000.h5")[1]["format"] == number
    write_json(
        tmp_path / "plain" / "codes.json", read_json(tmp_path / "plain" / "codes.json", "manifest") | {"format": 3}
    )
    with pytest.raises(HashretError, match=r"by a later hashret \(format 3\); upgrade"):
        ShardFolder(tmp_path / "plain")


def test_a_dither_that_is_no_spread_is_damage(spread, tmp_path):
    path = tmp_path / "model.safetensors"
    meta = read_meta(spread / "model.safetensors") | {"dither": -1}
    save_file(load_file(spread / "model.safetensors"), path, {"hashret": json.dumps(meta)})
    with pytest.raises(HashretError, match="dither"):
        load_encoder(path, "cpu")
