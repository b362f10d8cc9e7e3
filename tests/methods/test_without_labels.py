"""CIBHash and Bi-half: their losses against plain loops, their views, and the way from a folder without labels."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import make_photo

from hashret import build_index, encode, train
from hashret.data import open_data
from hashret.data.feature_cache import FeatureCache, caches
from hashret.errors import HashretError
from hashret.methods import bihalf
from hashret.models.backbones import get_backbone
from hashret.models.heads import HeadOutput, descriptor, make_head
from hashret.models.weights import load_backbone
from hashret.training.feed import FeatureFeed, ViewFeed, Views, contrastive_augmentation
from methods.plain import loss_of, output, sigmoid

NONE = np.zeros((6, 0), np.uint8)  # labels of six photographs without any


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_cibhash_loss_by_hand():
    out = output()  # views of three photographs, then three others of the same
    u = out.logits.detach().numpy()
    v, codes = sigmoid(u), np.where(u >= 0, 1, -1)
    terms = []
    for i in range(6):
        other = (i + 3) % 6
        near = [np.exp(cosine(codes[i], codes[j]) / 0.4) for j in range(6) if j != i]
        contrast = -np.log(np.exp(cosine(codes[i], codes[other]) / 0.4) / sum(near))
        chances = [(v[i, k], v[other, k]) for k in range(4)]
        divergence = sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)) for p, q in chances)
        terms.append(contrast + 0.2 * divergence)
    loss = loss_of("cibhash", NONE, out, temperature=0.4, bottleneck=0.2)[1]
    assert loss.item() == pytest.approx(np.mean(terms))


def test_the_gradient_of_cibhash_is_that_of_its_codes_times_that_of_the_sigmoid():
    """The cosines by hand with the codes as free numbers, differentiated numerically, times v (1 - v)."""
    out = output(seed=4)
    loss_of("cibhash", NONE, out, temperature=0.5)[1].backward()
    u = out.logits.detach().numpy()

    def contrast(codes):
        total = 0.0
        for i in range(6):
            near = [np.exp(cosine(codes[i], codes[j]) / 0.5) for j in range(6) if j != i]
            total -= np.log(np.exp(cosine(codes[i], codes[(i + 3) % 6]) / 0.5) / sum(near))
        return total / 6

    codes, wanted = np.where(u >= 0, 1.0, -1.0), np.zeros((6, 4))
    for at in np.ndindex(6, 4):
        step = np.zeros((6, 4))
        step[at] = 1e-5
        wanted[at] = (contrast(codes + step) - contrast(codes - step)) / 2e-5
    assert out.logits.grad.numpy() == pytest.approx(wanted * sigmoid(u) * (1 - sigmoid(u)), abs=1e-8)


def test_bihalf_loss_and_gradient_by_hand():
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = output(seed=2).logits
    loss = loss_of("bihalf", NONE, HeadOutput(u, None, features), transport=6)[1]
    loss.backward()
    x, values = features.numpy(), u.detach().numpy()
    codes = -np.ones((6, 4))
    for bit in range(4):
        codes[np.argsort(values[:, bit])[3:], bit] = 1
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    kept = np.mean([(cosine(x[i], x[j]) - codes[i] @ codes[j] / 4) ** 2 for i, j in pairs])
    assert loss.item() == pytest.approx(kept + 3 * np.mean((values - codes) ** 2))
    slope = np.zeros((6, 4))
    for i, j in pairs:
        between = codes[i] @ codes[j] / 4
        error = -2 * (cosine(x[i], x[j]) - between) / 4 / len(pairs)
        slope[i] += error * (codes[j] - between * codes[i])
        slope[j] += error * (codes[i] - between * codes[j])
    assert u.grad.numpy() == pytest.approx(slope + 6 * (values - codes) / values.size)  # formula (9) there


def test_half_of_a_batch_has_each_bit():
    codes = bihalf.half_and_half(torch.randn(10, 7))
    assert (codes.sum(dim=0) == 0).all()
    assert (bihalf.half_and_half(torch.zeros(8, 3)).sum(dim=0) == 0).all()  # ties, too
    assert bihalf.half_and_half(torch.tensor([[3.0], [-1.0], [2.0], [1.0]]))[:, 0].tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize("hidden", [0, 7])
def test_the_perceptron_reads_the_descriptor(hidden):
    head = make_head({"kind": "perceptron", "hidden": hidden}, 8, 0, 16, 2)
    maps = torch.rand(3, 16, 2, 2)
    inner = 4 * descriptor(maps)
    if hidden:
        layer = head.hidden[0]
        inner = (inner @ layer.weight.T + layer.bias).clamp(min=0)
    read = head(maps)
    assert torch.allclose(read.logits, inner @ head.hash.weight.T + head.hash.bias, atol=1e-6)
    assert torch.allclose(read.fc_features, inner)
    assert head.fc_width == inner.shape[1]


@pytest.fixture
def album(tmp_path):
    """A folder of 24 photographs without labels: eight of each colour."""
    rng = np.random.default_rng(0)
    for number in range(24):
        make_photo(tmp_path / "album" / f"{number:02d}.png", ("red", "green", "blue")[number % 3], rng)
    return tmp_path / "album"


def view_feed(album, weights, cache, views=3):
    layers = load_backbone(weights, "vgg11")
    source = open_data(album)
    return source, layers, ViewFeed(
        views, source, layers, get_backbone("vgg11"), 32, "float32", torch.device("cpu"), cache, 0
    )  # fmt: skip


def test_the_first_view_is_the_photograph_and_the_others_are_of_it(album, weights, tmp_path):
    source, layers, feed = view_feed(album, weights, tmp_path / "cache")
    plain = FeatureFeed(
        source, layers, get_backbone("vgg11"), 32, "float32", torch.device("cpu"), tmp_path / "cache", 0
    )
    rows = np.arange(len(source))
    asis = next(feed.batches([rows], (0, 1)))[1]
    assert asis.shape == (24, 512, 1, 1)
    assert torch.allclose(descriptor(asis), plain.descriptors(rows), atol=2e-3)
    pair = feed.paired(rows, np.random.default_rng(0))
    assert np.array_equal(pair % 24, np.tile(rows, 2))
    assert set(pair // 24) == {1, 2, 3}
    assert (pair[:24] != pair[24:]).all()
    images = Views(3, contrastive_augmentation(32))(5, source.pixels(5, 32))
    assert np.array_equal(images[0], source.pixels(5, 32))
    maps = torch.from_numpy(feed.features[np.array([5])][0, 2]).float()
    again = layers(get_backbone("vgg11").normalize(torch.from_numpy(images[2:3]))).mean(dim=(2, 3))[0]
    assert torch.allclose(maps, again, rtol=2e-3, atol=1e-3)


def test_views_are_computed_once_and_lie_beside_the_feature_maps(album, weights, tmp_path, monkeypatch):
    source, layers, feed = view_feed(album, weights, tmp_path / "cache")
    kept = feed.features[np.arange(24)]
    assert kept.shape == (24, 4, 512)
    assert not np.array_equal(kept[:, 1], kept[:, 2])
    monkeypatch.setattr("hashret.data.feature_cache.FeatureCache._write", None)  # nothing is computed again
    again = view_feed(album, weights, tmp_path / "cache")[2]
    assert np.array_equal(again.features[np.arange(24)], kept)
    assert (FeatureCache(tmp_path / "cache", source, "other", 32, "float32").state() == 0).all()
    fingerprint = get_backbone("vgg11").fingerprint(layers)
    assert (FeatureCache(tmp_path / "cache", source, fingerprint, 32, "float32").state() == 0).all()
    assert len(caches(tmp_path / "cache")) == 1


def test_views_of_photographs_that_moved_do_not_pass_for_feature_maps(album, weights, tmp_path):
    _, layers, _ = view_feed(album, weights, tmp_path / "cache")
    moved = album.rename(tmp_path / "moved")
    fingerprint = get_backbone("vgg11").fingerprint(layers)
    plain = FeatureCache(tmp_path / "cache", open_data(moved), fingerprint, 32, "float32")
    plain._create()
    assert (plain.state() == 0).all()
    views = FeatureCache(tmp_path / "cache", open_data(moved), fingerprint, 32, "float32", views=3)
    views._create()
    assert (views.state() == 1).all()


@pytest.mark.parametrize("method", ["cibhash", "bihalf"])
def test_a_folder_without_labels_learns_and_is_searched(album, weights, tmp_path, method):
    options = {"bits": 16, "image_size": 32, "backbone": "vgg11", "weights": weights, "workers": 0, "device": "cpu"}
    record = train(album, tmp_path / "model.safetensors", method=method, epochs=12, **options)
    assert (record.train_images, record.heldout_images, record.best_epoch) == (24, 0, 12)
    assert record.epochs_run[-1]["loss"] < record.epochs_run[0]["loss"]
    encode(album, tmp_path / "model.safetensors", tmp_path / "codes", workers=0)
    index = build_index(tmp_path / "codes", tmp_path / "index")
    assert index.count == 24
    from hashret import Searcher

    hits = Searcher(tmp_path / "index", tmp_path / "model.safetensors", "cpu").search(album / "04.png", k=6)
    colours = [int(re.search(r"(\d+)\.png", hit.path)[1]) % 3 for hit in hits]
    assert colours.count(1) >= 5
    with pytest.raises(HashretError, match="frozen"):
        train(album, tmp_path / "m.safetensors", method="cibhash", finetune="all", **options)


def test_labels_choose_no_epoch_of_a_method_without_labels(photos, weights, tmp_path):
    options = {"bits": 16, "image_size": 32, "backbone": "vgg11", "weights": weights, "workers": 0, "device": "cpu"}
    train(photos, tmp_path / "model.safetensors", method="cibhash", epochs=6, heldout=0.2, **options)
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["best_epoch"] == 6
    assert all("heldout_map" in line for line in record["epochs_run"])
