"""Several lengths of code from one training: the first bits of a code are a code, on the whole way to the answers."""

import itertools
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_photos
from methods.plain import SINGLE, make, output

import hashret
from hashret import Searcher, build_index, encode, evaluate, train
from hashret.bits import lengths_of, pack, prefix, unpack
from hashret.cli import main
from hashret.errors import HashretError
from hashret.index import append, compact, open_index
from hashret.methods import get_method, lsh
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.heads import make_head
from hashret.shards import ShardFolder

LENGTHS = [9, 16, 24]


@pytest.fixture(scope="module")
def nested(photos, weights, tmp_path_factory):
    """A folder with model, codes of train and test, and an index, of an encoder for codes of 9, 16 and 24 bits."""
    import os

    work = tmp_path_factory.mktemp("nested")
    os.environ["HASHRET_CACHE"] = str(work / "cache")
    options = {"image_size": 32, "backbone": "vgg11", "width": 64, "dropout": 0.0, "epochs": 20, "batch_size": 8}
    options |= {"lr": 3e-3, "heldout": 0.2, "workers": 0, "device": "cpu", "weights": weights}
    train(photos, work / "model.safetensors", method="vggh", bits=[24, 9, 16], **options)
    for part in ("train", "test"):
        encode(f"folder:{photos}", work / "model.safetensors", work / part, split=part, shard_size=10, workers=0)
    build_index(work / "train", work / "index")
    return work


def test_prefix_is_the_first_bits():
    bits = np.random.default_rng(0).random((50, 40)) < 0.5
    for length in (8, 9, 15, 16, 23, 40):
        assert np.array_equal(prefix(pack(bits), length), pack(bits[:, :length]))


def test_the_loss_is_the_mean_over_the_lengths():
    out = output(bits=4, classes=6)  # scores of three classes for two lengths
    method = make("vggh")
    method.train_with([get_method("vggh")(3, 0, method.chosen)])
    labels, rows = torch.as_tensor(SINGLE), np.arange(6)
    one, other = (
        method.loss(out._replace(scores=out.scores[:, part]), labels, rows) for part in (slice(3), slice(3, 6))
    )
    assert method.nested_loss(out, labels, rows).item() == pytest.approx((one.item() + other.item()) / 2)
    pairs = make("dpsh", quantization=0.1)
    pairs.train_with([get_method("dpsh")(3, 0, pairs.chosen)])
    by_hand = [pairs.loss(out._replace(logits=out.logits[:, :bits]), labels, rows).item() for bits in (3, 4)]
    assert pairs.nested_loss(out, labels, rows).item() == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize("name", ["csq", "am-vggh+", "cnnh"])
def test_lengths_ask_the_same_of_the_bits_that_they_share(name):
    """And ask no less of them than a training for one length, whose classes are as far apart."""
    labels, rows = np.repeat(np.arange(10), 3), np.arange(30)
    together, alone = ([get_method(name)(bits) for bits in (12, 24, 48)] for _ in range(2))
    together[-1].train_with(together[:-1])
    asked = [[of_classes(method, labels, rows) for method in some] for some in (together, alone)]
    for shorter, longer in itertools.pairwise(asked[0]):
        assert np.array_equal(shorter, longer[:, : shorter.shape[1]])
    for ours, own in zip(*asked, strict=True):
        assert nearest(ours) >= nearest(own)


def of_classes(method, labels, rows):
    """What a method draws the photographs of ten classes to, three of each: (10, bits) of 0 and 1."""
    method.begin(labels, rows)
    if "codewords" in method.state:
        return (method.state["codewords"] > 0).numpy()
    codes = method.state["codes"].numpy()
    assert np.array_equal(codes[::3], codes[2::3])
    return codes[::3]


def nearest(words):
    """The distance of the two nearest of some words, in bits."""
    return min((words[i] != words[j]).sum() for i, j in itertools.combinations(range(len(words)), 2))


def test_each_length_has_a_classifier_of_its_own_bits():
    head = make_head({"kind": "fc", "width": 6, "attention": False, "lengths": [8, 12]}, 12, 3, 4, 1).eval()
    read = head(torch.randn(2, 4, 1, 1))
    short, whole = head.shorter[0], head.classifier
    assert (short.in_features, whole.in_features) == (8, 12)
    assert torch.allclose(read.prefix([8, 12], 0).scores, short(read.hash_outputs[:, :8]))
    assert torch.allclose(read.prefix([8, 12], 1).scores, whole(read.hash_outputs))
    assert read.prefix([8, 12], 0).logits.shape == (2, 8)


def test_the_checkpoint_and_the_codes_say_the_lengths(nested):
    meta = read_meta(nested / "model.safetensors")
    assert (meta["bits"], lengths_of(meta)) == (24, LENGTHS)
    assert json.loads((nested / "model.json").read_text())["lengths"] == LENGTHS
    folder = ShardFolder(nested / "train")
    assert lengths_of(folder.manifest) == LENGTHS
    assert folder.load().hash_outputs.shape[1] == 24


def test_each_length_finds_the_colours(nested):
    for bits in LENGTHS:
        figures = evaluate(nested / "test", nested / "index", bits=bits)
        assert figures.bits == bits
        assert figures.hamming.map > 0.7  # 0.39 by chance


@pytest.mark.parametrize("bits", LENGTHS)
def test_an_index_of_the_first_bits_is_that_of_the_codes_cut_off(nested, tmp_path, photos, bits):
    built = build_index(nested / "train", tmp_path / "index", bits=bits)
    assert (built.bits, lengths_of(built.meta)) == (bits, [length for length in LENGTHS if length <= bits])
    index, whole = open_index(tmp_path / "index"), ShardFolder(nested / "train").load()
    assert np.array_equal(index.codes(), pack(unpack(whole.codes, 24)[:, :bits]))
    assert np.array_equal(index.hash_outputs[np.arange(len(whole))], whole.hash_outputs[:, :bits])
    photo = str(photos / "test/red/00.png")
    searcher = Searcher(tmp_path / "index", nested / "model.safetensors", "cpu")
    outputs = load_encoder(nested / "model.safetensors", "cpu").shortened(bits)
    assert searcher.encode([photo]).shape == (1, bits)
    assert outputs.bits == bits
    hits = searcher.search(photo, k=36, rerank_by="values")
    query = load_encoder(nested / "model.safetensors", "cpu").hash_outputs(
        hashret.open_data(photos, "test").subset([8]).pixels(0, 32)[None]
    )[0, :bits]
    distance = {
        int(i): np.linalg.norm(row[:bits] - query) for i, row in zip(whole.ids, whole.hash_outputs, strict=True)
    }
    differ = {
        int(i): int((unpack(code[None], 24)[0, :bits] != (query >= 0.5)).sum())
        for i, code in zip(whole.ids, whole.codes, strict=True)
    }
    assert [hit.hamming for hit in hits] == [differ[hit.id] for hit in hits]
    assert [hit.euclidean for hit in hits] == pytest.approx([distance[hit.id] for hit in hits], abs=1e-5)
    cut, written = (evaluate(nested / "test", where, bits=bits) for where in (tmp_path / "index", nested / "index"))
    assert cut.hamming == written.hamming
    assert cut.reranked == written.reranked


def test_photographs_are_added_to_an_index_of_the_first_bits(nested, tmp_path):
    build_index(nested / "train", tmp_path / "index", bits=9)
    assert append(tmp_path / "index", nested / "test") == 12
    hashret.remove(tmp_path / "index", [0])
    compact(tmp_path / "index")
    index = open_index(tmp_path / "index")
    codes = [unpack(ShardFolder(nested / part).load().codes, 24)[:, :9] for part in ("train", "test")]
    assert np.array_equal(index.codes(), pack(np.concatenate(codes)[1:]))
    assert lengths_of(index.meta) == [9]


def test_explanations_and_pages_are_of_the_bits_that_are_searched(nested, tmp_path, photos):
    build_index(nested / "train", tmp_path / "index", bits=16)
    arguments = [
        "explain",
        str(photos / "test/red/00.png"),
        "--index",
        str(tmp_path / "index"),
        "--json",
        "--out",
        str(tmp_path / "map.png"),
    ]
    done = CliRunner().invoke(main, [*arguments, "--model", str(nested / "model.safetensors")])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["code"]) == 16
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    client = TestClient(create_app(tmp_path / "index", nested / "model.safetensors", device="cpu"))
    with client, open(photos / "test/red/00.png", "rb") as photo:
        answer = client.post("/api/query", files={"photo": photo}).json()
    assert len(answer["query"]["values"]) == 16


def test_lengths_that_were_not_trained_are_refused(nested, model, codes, tmp_path):
    for run in (
        lambda: build_index(nested / "train", tmp_path / "index", bits=12),
        lambda: evaluate(nested / "test", nested / "index", bits=12),
        lambda: load_encoder(nested / "model.safetensors", "cpu").shortened(12),
    ):
        with pytest.raises(HashretError, match="trained for codes of 9 or 16 or 24 bits, not of 12"):
            run()
    with pytest.raises(HashretError, match="codes of 24 bits, not of 12"):  # an encoder of one length
        build_index(codes, tmp_path / "index", bits=12)
    assert not (tmp_path / "index").exists()


def test_the_command_line_takes_several_lengths(nested, tmp_path):
    index, test = str(nested / "index"), str(nested / "test")
    done = CliRunner().invoke(main, ["evaluate", test, "--index", index, "--bits", "9,24", "-q"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert [one["bits"] for one in figures] == [9, 24]
    assert figures[1]["hamming"]["map"] == evaluate(nested / "test", nested / "index").hamming.map
    out = ["--out", str(tmp_path / "figures.json")]
    done = CliRunner().invoke(main, ["evaluate", test, "--index", index, "--bits", "9,24", *out])
    assert isinstance(done.exception, HashretError | SystemExit)
    assert not (tmp_path / "figures.json").exists()
    built = ["build-index", "--codes", str(nested / "train"), "--out", str(tmp_path / "index"), "--bits", "9"]
    assert CliRunner().invoke(main, built).exit_code == 0
    assert open_index(tmp_path / "index").bits == 9
    done = CliRunner().invoke(main, ["train", "--data", "x", "--bits", "12,many"])
    assert done.exit_code == 2
    assert "whole number" in done.output


def test_a_resumed_training_has_the_centres_of_each_length(photos, weights, tmp_path, monkeypatch):
    options = {"image_size": 32, "backbone": "vgg11", "width": 32, "dropout": 0.0, "epochs": 2, "batch_size": 8}
    options |= {"workers": 0, "device": "cpu", "weights": weights, "method": "csq", "bits": [8, 12]}
    whole = train(photos, tmp_path / "whole.safetensors", **options)
    from hashret.training import loop

    class Killed(Exception):
        pass

    def kill(run, *_, **__):
        if len(run.epochs) == 1:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainingRun, "_end_epoch", after(loop.TrainingRun._end_epoch, kill))
        with pytest.raises(Killed):
            train(photos, tmp_path / "broken.safetensors", **options)
    with pytest.raises(HashretError, match=r"other settings: .*lengths"):
        train(photos, tmp_path / "broken.safetensors", resume=True, **options | {"bits": 12})
    again = train(photos, tmp_path / "broken.safetensors", resume=True, **options)
    assert again.fingerprint == whole.fingerprint


def after(function, then):
    """A function that calls another, and then a second one."""

    def called(*args, **options):
        function(*args, **options)
        then(*args, **options)

    return called


def test_the_bits_of_itq_are_those_of_the_first_length_that_has_them():
    x = torch.nn.functional.normalize(torch.randn(200, 40, generator=torch.Generator().manual_seed(0)), dim=1)

    def weight(*lengths):
        method = lsh.ITQ(lengths[-1])
        method.train_with([lsh.ITQ(length) for length in lengths[:-1]])
        head = make_head({"kind": "projection"}, lengths[-1], 0, 40, 1)
        with torch.no_grad():
            method.fit(head, x, None, 0)
        return head.weight.detach()

    nested = weight(8, 12, 20)
    assert torch.allclose(nested[:, :8], weight(8), atol=1e-4)
    assert torch.allclose(nested[:, 8:12], weight(12)[:, 8:], atol=1e-4)
    assert torch.allclose(nested[:, 12:], weight(20)[:, 12:], atol=1e-4)


@pytest.mark.parametrize("method", ["am-vggh+", "dpsh", "dnnh", "cnnh+", "ksh", "lsh", "cibhash", "greedyhash"])
def test_methods_train_several_lengths(weights, tmp_path, method):
    photos = make_photos(tmp_path / "photos", 6, 0)
    options = {"image_size": 32, "backbone": "vgg11", "width": 32, "epochs": 1, "batch_size": 8, "workers": 0}
    record = train(photos, tmp_path / "m.safetensors", method=method, bits=[8, 12], weights=weights, **options)
    assert lengths_of(read_meta(tmp_path / "m.safetensors")) == [8, 12]
    assert (
        load_encoder(tmp_path / "m.safetensors", "cpu").shortened(8).head(torch.rand(1, 512, 1, 1)).logits.shape[1] == 8
    )
    assert record.bits == 12
