"""Labels that are not there for all photographs, and classes that no photograph has."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hashret import methods
from hashret.data import open_data, vectors
from hashret.errors import HashretError
from hashret.methods import METHODS, get_method
from hashret.methods.similarity import share_a_label
from hashret.models.checkpoint import load_encoder
from hashret.training.held_out import hold_out
from hashret.training.start import train
from hashret.words import class_logits, known_words, word_outputs

SMALL = {
    "bits": 16, "image_size": 32, "backbone": "vgg11", "width": 32, "epochs": 2, "batch_size": 8, "heldout": 0.2,
    "workers": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def head(weights, tmp_path):
    return SMALL | {"weights": weights, "cache": tmp_path / "cache"}


def without_some_labels(source):
    labels = source.labels.copy()
    labels[::4] = -1
    return replace(source, labels=labels), np.flatnonzero(labels >= 0)


@pytest.mark.filterwarnings("ignore:the method ksh has no use")
@pytest.mark.filterwarnings("ignore:the codes tell photographs hardly apart")
@pytest.mark.parametrize("method", ["hashnet", "dpsh", "csq", "vggh+", "vggh", "cnnh", "ksh"])
def test_photographs_without_a_label_are_not_learned_from(photos, head, tmp_path, method):
    """What is learned is what is learned from the others alone."""
    whole = open_data(photos, "train")
    some, labelled = without_some_labels(whole)
    alone = train(whole.subset(labelled), tmp_path / "alone.safetensors", method=method, **head)
    line = re.escape(f"9 of 36 train images have no label, and {method} does not learn from them")
    with pytest.warns(UserWarning, match=line):
        report = train(some, tmp_path / "some.safetensors", method=method, **head)
    assert (report.train_images, report.heldout_images) == (alone.train_images, alone.heldout_images)
    assert report.epochs_run[-1]["heldout_map"] == alone.epochs_run[-1]["heldout_map"]
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("alone", "some"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore:the method bihalf has no use for width")
def test_a_method_that_needs_no_labels_learns_from_all_and_holds_out_those_that_have_one(photos, head, tmp_path):
    some, _ = without_some_labels(open_data(photos, "train"))
    report = train(some, tmp_path / "some.safetensors", method="bihalf", **head)
    assert (report.train_images, report.heldout_images) == (36 - 6, 6)  # two of the nine of each class with a label
    none = replace(some, labels=np.full(36, -1))
    assert train(none, tmp_path / "none.safetensors", method="bihalf", **head).train_images == 36


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_no_photograph_has_are_none_to_learn_from(photos, head, tmp_path, several):
    source = open_data(photos, "train")
    none = replace(source, labels=np.zeros((36, 3), np.uint8) if several else np.full(36, -1))
    with pytest.raises(HashretError, match="none of the 36 train images has a label; take a method that needs no"):
        train(none, tmp_path / "none.safetensors", method="hashnet", **head)


def test_flags_none_of_which_is_set_say_which_labels_are_not_there(photos, head, tmp_path):
    source = open_data(photos, "train")
    flags = np.eye(3, dtype=np.uint8)[source.labels]
    flags[::4] = 0
    report = train(replace(source, labels=flags), tmp_path / "some.safetensors", method="hashnet", **head)
    assert report.train_images + report.heldout_images == 36
    assert report.heldout_images == round(0.2 * 27)


@pytest.mark.parametrize("several", [False, True])
def test_only_photographs_with_a_label_are_held_out(several):
    numbers = np.repeat([-1, 0, 1, 2], 10)
    labels = (numbers[:, None] == np.arange(3)).astype(np.uint8) if several else numbers
    learned, held = hold_out(labels, 0.2, seed=0)
    assert len(held) == 6
    assert (numbers[held] >= 0).all()
    assert np.array_equal(np.sort(np.concatenate([learned, held])), np.arange(40))


def test_photographs_without_a_label_share_none():
    labels = torch.tensor([-1, 0, -1, 0])
    assert share_a_label(labels, labels).nonzero().tolist() == [[1, 1], [1, 3], [3, 1], [3, 3]]


def test_vectors_without_a_label_are_no_class(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([-1, 0, 1], 20)
    data = vectors(rng.normal(size=(60, 8)).astype(np.float32), labels=labels)
    with pytest.warns(UserWarning, match="20 of 60 train images have no label"):
        report = train(data, tmp_path / "v.safetensors", method="csq", bits=8, width=16, epochs=1, batch_size=8)
    assert report.classes == ["0", "1"]
    assert report.train_images + report.heldout_images == 40


@pytest.mark.filterwarnings("ignore:20 of 60 train images have no label")
def test_vectors_are_centred_by_those_that_are_learned_from(tmp_path):
    rng = np.random.default_rng(0)
    labels, x = np.repeat([-1, 0, 1], 20), rng.normal(size=(60, 8)).astype(np.float32)
    x[labels < 0] += 50
    learned = np.flatnonzero(labels >= 0)[hold_out(labels[labels >= 0], 0.3, seed=0)[0]]
    data = vectors(x, labels=labels)
    options = {"method": "csq", "bits": 8, "width": 16, "epochs": 1, "batch_size": 8, "heldout": 0.3}
    train(data, tmp_path / "v.safetensors", metric="euclidean", **options)
    kept = load_file(tmp_path / "v.safetensors")
    centred = x[learned] - x[learned].mean(axis=0)
    assert kept["head.attention.mean"].numpy() == pytest.approx(x[learned].mean(axis=0), abs=1e-5)
    assert float(kept["head.attention.scale"]) == pytest.approx(1 / centred.std(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:the codes tell photographs hardly apart")
@pytest.mark.parametrize("method", ["csq", "vggh+", "vggh", "hashnet"])
def test_classes_that_no_photograph_has_are_classes_of_the_encoder(photos, head, tmp_path, method):
    source = open_data(photos, "train")
    named = replace(source, classes=(*source.classes, "violet", "white"))
    train(named, tmp_path / "m.safetensors", method=method, **head | {"bits": [8, 16]})
    encoder = load_encoder(tmp_path / "m.safetensors", "cpu")
    for length in (8, 16):
        known = class_logits(encoder.shortened(length))
        assert known.shape == (5, length)
        assert known[:3].any(axis=1).all()
    unlearned = [] if method == "hashnet" else ["violet", "white"]  # it has neither codewords nor a classifier
    assert known_words(encoder) == [*source.classes, *unlearned]
    searched = word_outputs(["red", "white"], encoder)
    assert np.isfinite(searched).all()


def test_a_checkpoint_that_keeps_fewer_classes_than_it_names_opens(photos, head, tmp_path):
    """As the last release made it where the last classes of a list had no photographs."""
    source = open_data(photos, "train")
    train(source, tmp_path / "m.safetensors", method="csq", **head)
    encoder = load_encoder(tmp_path / "m.safetensors", "cpu")
    before = class_logits(encoder)
    other = load_encoder(tmp_path / "m.safetensors", "cpu")
    other.meta["classes"] = [*source.classes, "violet", "white"]
    assert np.array_equal(class_logits(other)[:3], before)
    assert not class_logits(other)[3:].any()
    assert np.isfinite(word_outputs(["violet", "red"], other)).all()


def test_a_method_that_counts_the_classes_of_its_labels_writes_a_checkpoint_that_opens(photos, head, tmp_path):
    """As a plugin may do."""

    @methods.register
    class Counting(get_method("csq")):
        name = "counting"

        def begin(self, labels, source_rows):
            words = self.class_codewords(int(labels.max()) + 1, self.bits, self.seed)
            self.state = {"codes": torch.from_numpy(words[labels] > 0), "codewords": torch.from_numpy(words).float()}

    try:
        source = open_data(photos, "train")
        named = replace(source, classes=(*source.classes, "violet"))
        train(named, tmp_path / "m.safetensors", method="counting", **head)
        assert class_logits(load_encoder(tmp_path / "m.safetensors", "cpu")).shape == (4, 16)
    finally:
        del METHODS["counting"]
