"""Words as queries: what a head knows of each class becomes a code, on every way to the answers."""

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import CLASSES
from PIL import Image

import hashret
from hashret import Searcher, build_index, encode, export, train
from hashret.bits import binarize
from hashret.cli import main
from hashret.errors import HashretError
from hashret.methods import METHODS, codewords, csq
from hashret.models import checkpoint
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.words import class_logits, known_words, names_in, word_outputs

LENGTHS = [12, 24]


@pytest.fixture(scope="module")
def taught(photos, weights, tmp_path_factory):
    """A folder with the model, codes and index of an encoder that has learned to draw photographs to codewords."""
    import os

    work = tmp_path_factory.mktemp("words")
    os.environ["HASHRET_CACHE"] = str(work / "cache")
    options = {"image_size": 32, "backbone": "vgg11", "width": 64, "dropout": 0.0, "epochs": 8, "batch_size": 8}
    options |= {"lr": 3e-3, "heldout": 0.0, "workers": 0, "device": "cpu", "weights": weights, "seed": 3}
    train(photos, work / "model.safetensors", method="vggh+", bits=LENGTHS, **options)
    encode(f"folder:{photos}", work / "model.safetensors", work / "codes", split="train", workers=0)
    build_index(work / "codes", work / "index")
    return work


@pytest.fixture
def encoder(model):
    return load_encoder(model, "cpu")


def test_a_classifiers_weights_are_taken_for_logits(encoder):
    weight = encoder.head.classifier.weight.numpy().astype(np.float64)
    single = weight - weight.mean(axis=0)
    wanted = single / np.linalg.norm(single, axis=1, keepdims=True)
    assert class_logits(encoder) == pytest.approx(wanted, abs=1e-6)
    several = load_several(encoder)
    assert class_logits(several) == pytest.approx(weight / np.linalg.norm(weight, axis=1, keepdims=True), abs=1e-6)
    for names in (["green"], ["red", "blue"]):
        rows = [CLASSES.index(name) for name in names]
        outputs = word_outputs(names, encoder)
        logits = np.log(outputs) - np.log1p(-outputs)
        assert np.sqrt(np.mean(logits**2)) == pytest.approx(4, abs=0.01)
        assert np.corrcoef(logits, wanted[rows].sum(axis=0))[0, 1] == pytest.approx(1, abs=1e-5)
        assert np.array_equal(binarize(outputs), wanted[rows].sum(axis=0) > 0)


def load_several(encoder):
    """The same encoder as if photographs had several labels."""
    import copy

    several = copy.copy(encoder)
    several.meta = encoder.meta | {"multi_label": True}
    return several


def test_where_two_words_disagree_the_bit_is_that_which_fewer_classes_share(encoder):
    encoder.head.classifier = None
    encoder.meta = encoder.meta | {
        "classes": ["a", "b", "c", "d"],
        "class_logits": {
            "24": [f"{word}{'81' * 16}" for word in ("7f818181" * 2, "817f7f7f" * 2, *["7f7f7f7f" * 2] * 2)]
        },
    }
    outputs = word_outputs(["a", "b"], encoder)
    assert binarize(outputs)[:8].tolist() == [False] * 8  # less common than one, as two others have them
    assert np.abs(outputs[:8] - 0.5).max() < 0.01
    assert outputs[8:].max() < 0.01


def test_names_of_classes(encoder):
    encoder.meta = encoder.meta | {"classes": ["bear", "Snow", "snow leopard", "IT", "it", "bread, white"]}
    assert names_in("bear, snow", encoder) == ["bear", "Snow"]
    assert names_in(" BEAR ,,bear", encoder) == ["bear"]
    assert names_in("bread, white", encoder) == ["bread, white"]
    assert names_in(["bread, white", "IT"], encoder) == ["bread, white", "IT"]
    for words, line in (
        ("beer", r"the encoder knows no class 'beer'; near to it is bear$"),
        ("bear, snow leopart", r"no class 'snow leopart'; near to it is snow leopard$"),
        ("It", r"no class 'It'; near to it are IT, it$"),
        ("xyz\n", r"no class 'xyz'; it knows bear, Snow, .*white$"),
        (" , ", r"no words to look for; the encoder knows bear"),
    ):
        with pytest.raises(HashretError, match=line):
            names_in(words, encoder)


@pytest.mark.parametrize("method", ["itq", "dpsh", "bihalf", "no-longer-there"])
def test_an_encoder_that_knows_no_classes_says_so(encoder, method):
    encoder.head.classifier = None
    encoder.meta = encoder.meta | {"method": method}
    assert known_words(encoder) == []
    with pytest.raises(
        HashretError, match=f"this encoder of {method} knows no classes, so it cannot be asked in words"
    ):
        names_in("red", encoder)


def test_codewords_are_kept_with_the_encoder(taught):
    encoder = load_encoder(taught / "model.safetensors", "cpu")
    wanted = None
    for bits in LENGTHS:
        wanted = codewords.codewords(3, bits, seed=3, first=wanted)  # which extends the one before
        shortened = encoder.shortened(bits)
        assert class_logits(shortened) == pytest.approx(wanted / bits**0.5)
        # As of earlier checkpoints, whose codewords are made again: they were drawn for each length by itself.
        del shortened.meta["class_logits"]
        earlier = codewords.codewords(3, bits, seed=3)
        assert class_logits(load_several(shortened)) == pytest.approx(earlier / bits**0.5)


@pytest.mark.parametrize(("method", "bits"), [("csq", [24]), ("dpsh", [12, 24]), ("ksh", [16])])
def test_what_is_kept_of_classes(photos, weights, tmp_path, method, bits):
    """Centres, or the means of the photographs of each class less that of all."""
    options = {"image_size": 32, "backbone": "vgg11", "width": 8, "epochs": 1, "batch_size": 8, "workers": 0, "seed": 5}
    options |= {"heldout": 0.0, "weights": weights, "device": "cpu"}
    train(photos, tmp_path / "m.safetensors", method=method, bits=bits, **options)
    encode(photos, tmp_path / "m.safetensors", tmp_path / "codes", split="train", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    encoder, index = load_encoder(tmp_path / "m.safetensors", "cpu"), hashret.open_index(tmp_path / "index")
    outputs, (_, _, labels) = np.asarray(index.hash_outputs), index.everything()
    for length in bits:
        known = class_logits(encoder.shortened(length))
        if method == "csq":
            wanted = csq.centres(3, length, seed=5).astype(float)
        else:
            means = np.stack([outputs[labels == number].mean(axis=0) for number in range(3)])
            wanted = (means - outputs.mean(axis=0))[:, :length]
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        assert known == pytest.approx(wanted, abs=0.02)  # a byte a bit


def test_an_encoder_without_labels_keeps_nothing_of_classes(photos, weights, tmp_path):
    options = {"image_size": 32, "backbone": "vgg11", "workers": 0, "weights": weights, "device": "cpu"}
    train(photos, tmp_path / "m.safetensors", method="itq", bits=8, **options)
    assert "class_logits" not in read_meta(tmp_path / "m.safetensors")
    assert known_words(load_encoder(tmp_path / "m.safetensors", "cpu")) == []


def test_damaged_class_logits_are_named(taught, tmp_path):
    net = checkpoint.build_network(read_meta(taught / "model.safetensors")).to_empty(device="cpu")
    for wrong in ({"24": ["zz"]}, {"none": ["00"]}, {"24": []}, [1]):
        meta = read_meta(taught / "model.safetensors") | {"class_logits": wrong}
        checkpoint.save_checkpoint(tmp_path / "m.safetensors", net, meta)
        with pytest.raises(HashretError, match="damaged: class_logits"):
            read_meta(tmp_path / "m.safetensors")
    encoder = load_encoder(taught / "model.safetensors", "cpu")
    for rows in (["00" * 24] * 4, ["00" * 23] * 3):
        encoder.meta["class_logits"]["24"] = rows
        with pytest.raises(HashretError, match="class_logits do not fit its classes and bits"):
            names_in("red", encoder)


@pytest.mark.parametrize("bits", LENGTHS)
def test_words_find_photographs_of_their_class(taught, tmp_path, bits):
    build_index(taught / "codes", tmp_path / "index", bits=bits)
    searcher = Searcher(tmp_path / "index", taught / "model.safetensors", "cpu")
    for name in CLASSES:
        hits = searcher.search_words(name, k=12)
        assert [hit.label for hit in hits] == [name] * 12
        assert [hit.euclidean for hit in hits] == sorted(hit.euclidean for hit in hits)
    both = searcher.search_words(["red", "blue"], k=24)
    assert {hit.label for hit in both} == {"red", "blue"}


def test_each_bit_speaks_as_the_search_by_hash_outputs_does(taught):
    searcher = Searcher(taught / "index", taught / "model.safetensors", "cpu")
    outputs = word_outputs(["green"], searcher.encoder)[None]
    for rerank_by in ("values", "directions", "asymmetric", None):
        [wanted] = searcher.hits(outputs, 7, rerank_by=rerank_by)
        assert searcher.search_words("green", 7, rerank_by=rerank_by) == wanted
    assert searcher.search_words("green", 7) == searcher.search_words("green", 7, rerank_by="directions")
    with pytest.raises(HashretError, match="words have no features to re-rank by cosine; take directions"):
        searcher.search_words("green", rerank_by="cosine")


def test_without_values_words_are_compared_with_bits(taught, tmp_path):
    build_index(taught / "codes", tmp_path / "index", values=False)
    searcher = Searcher(tmp_path / "index", taught / "model.safetensors", "cpu")
    assert searcher.search_words("red", 5) == searcher.search_words("red", 5, rerank_by="asymmetric")


def test_the_query_function_takes_words(taught):
    options = {"index": taught / "index", "model": taught / "model.safetensors", "device": "cpu", "k": 3}
    red, both = hashret.query(words=["RED", ["red", "blue"]], **options)
    assert (red.path, both.path) == ("red", "red, blue")
    [alone] = hashret.query(words="red", **options)
    assert alone.hits == red.hits
    assert alone.as_dict()["query"] == "red"
    [among] = hashret.query(words="red", label=["green"], **options)
    assert {hit.label for hit in among.hits} == {"green"}
    [near] = hashret.query(words="red", radius=24, **options)
    assert len(near.hits) == 36
    [union] = hashret.query(words=["red", "green"], together="union", **options | {"k": 24})
    assert {hit.label for hit in union.hits} == {"red", "green"}
    for wrong in ({"exclude_self": True}, {"vectors": "x.npy"}, {"photos": ["a.jpg"]}):
        with pytest.raises(HashretError, match="words or a text are asked for alone"):
            hashret.query(words="red", **options, **wrong)


def test_the_command_line(taught, tmp_path):
    def run(*arguments):
        given = ["query", "--index", f"{taught}/index", "--model", f"{taught}/model.safetensors", "--device", "cpu"]
        return CliRunner().invoke(main, [*given, *arguments])

    done = run("--words", "green", "--words", "red,blue", "-k", "2", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["query"], second["query"]) == ("green", "red, blue")
    assert [hit["label"] for hit in first["hits"]] == ["green"] * 2
    done = run("--words", "<green>", "-k", "2")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "the encoder knows no class '<green>'; near to it is green" in done.output
    done = run("--words", "green", "photo.jpg")
    assert "photographs, vectors, words and texts are asked for one after the other, not together" in done.output
    page, picture = tmp_path / "hits.html", tmp_path / "hits.png"
    done = run("--words", "green", "-k", "3", "--html", str(page), "--grid", str(picture))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == ["green"]
    assert (text.count("<li><figure"), text.count('figure class="query"')) == (3, 0)
    with Image.open(picture) as image:
        asked = np.asarray(image.convert("L"))[13:141, 10:138]
    assert 0.7 < (asked == 255).mean() < 1  # written, and not a grey square


def test_a_collection_takes_words(taught, memory):
    export(taught / "index", f"{memory}-of-words")
    wanted = Searcher(taught / "index", taught / "model.safetensors", "cpu").search_words("blue", 5)
    assert Searcher(f"{memory}-of-words", taught / "model.safetensors", "cpu").search_words("blue", 5) == wanted


def test_every_method_with_class_codes_keeps_them():
    """So that `class_codewords` and the checkpoint agree."""
    labels, rows = np.array([0, 1, 2, 1]), np.arange(4)
    for name in METHODS:
        method = METHODS[name](8, 0, {option.name: option.default for option in METHODS[name].options})
        wanted = method.class_codewords(3, 8, 0)
        if wanted is not None:
            method.begin(labels, rows)
            assert torch.equal(method.state["codewords"], torch.from_numpy(wanted).float()), name


def test_the_service_takes_words(taught):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    searcher = Searcher(taught / "index", taught / "model.safetensors", "cpu")
    with TestClient(create_app(taught / "index", taught / "model.safetensors", "cpu")) as client:
        assert client.get("/api/about").json()["words"] == list(CLASSES)
        answer = client.get("/api/query/words", params={"words": "Red, blue", "k": 7}).json()
        wanted = searcher.search_words("red, blue", 7)
        assert [(hit["id"], hit["euclidean"]) for hit in answer["hits"]] == [(hit.id, hit.euclidean) for hit in wanted]
        assert answer["query"]["name"] == "red, blue"
        again = client.get("/api/query/words?words=red&words=blue&k=7&label=blue&rerank_by=values").json()
        assert {hit["label"] for hit in again["hits"]} == {"blue"}
        refused = client.get("/api/query/words?words=rd")
        assert (refused.status_code, refused.json()["error"]) == (
            422,
            "the encoder knows no class 'rd'; near to it is red",
        )
        assert client.get("/api/query/words").json()["error"] == "words: field required"
    with TestClient(create_app(taught / "index", None, "cpu")) as client:
        assert client.get("/api/about").json()["words"] == []
        assert client.get("/api/query/words?words=red").status_code == 422
