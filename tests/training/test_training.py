import copy
import json
import os
import re
import shutil
import signal
import warnings

import numpy as np
import pytest
import torch
from conftest import CLASSES, make_photos
from helpers import kill_when, start, together, torchrun
from safetensors.torch import load_file, save_file

from hashret import distributed
from hashret.cli import main
from hashret.data import open_data, vectors
from hashret.data.feature_cache import FeatureCache
from hashret.distributed import rank
from hashret.errors import HashretError
from hashret.methods import get_method
from hashret.models.backbones import get_backbone
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.network import HashNet
from hashret.training import feed, loop, parallel, run_files
from hashret.training.feed import Augment, FeatureFeed
from hashret.training.held_out import HeldOutMap
from hashret.training.start import train

SMALL = {
    "method": "am-vggh", "bits": 16, "image_size": 32, "backbone": "vgg11", "width": 32, "dropout": 0.1, "epochs": 3,
    "batch_size": 8, "lr": 1e-3, "heldout": 0.2, "workers": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def head(weights):
    return SMALL | {"weights": weights, "finetune": "head"}


@pytest.mark.parametrize("method", ["am-vggh", "vggh"])
def test_training_the_head_learns_the_colours(photos, head, tmp_path, method):
    out = tmp_path / "model.safetensors"
    record = train(f"folder:{photos}", out, **head | {"method": method, "epochs": 60, "lr": 3e-3, "width": 64})
    assert record.epochs_run[-1]["loss"] < record.epochs_run[0]["loss"]
    assert max(epoch["heldout_map"] for epoch in record.epochs_run) > 0.9
    assert json.loads((tmp_path / "model.json").read_text())["fingerprint"] == read_meta(out)["fingerprint"]
    assert record.train_images + record.heldout_images == 36
    assert read_meta(out)["attention"] == (method == "am-vggh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    source = open_data(photos, "test")
    images = np.stack([source.pixels(i, 32) for i in range(len(source))])
    encoder = load_encoder(out, "cpu")
    values = torch.from_numpy(encoder.hash_outputs(images)).float()
    scores = encoder.head.classifier(values)
    assert (scores.argmax(1).numpy() == source.labels).mean() > 0.9


def test_convolutions_stay_frozen_with_head_and_move_with_all(photos, head, weights, tmp_path):
    wanted = torch.load(weights, weights_only=True)["features.0.weight"]
    train(photos, tmp_path / "head.safetensors", **head | {"epochs": 1})
    assert torch.equal(load_file(tmp_path / "head.safetensors")["features.0.weight"], wanted)
    train(photos, tmp_path / "all.safetensors", **head | {"epochs": 1, "finetune": "all"})
    assert not torch.equal(load_file(tmp_path / "all.safetensors")["features.0.weight"], wanted)


@pytest.mark.parametrize("arch", ["vgg11_bn", "vgg11"])
def test_training_from_scratch(photos, tmp_path, arch):
    options = SMALL | {"weights": "none", "finetune": "all", "backbone": arch, "epochs": 6, "augment": "crop"}
    record = train(photos, tmp_path / "model.safetensors", **options)
    assert max(epoch["heldout_map"] for epoch in record.epochs_run) > 0.9


def test_several_labels_a_photograph(head, tmp_path):
    make_photos(tmp_path / "images", 6, 0)
    flags = {"red": "1 0 1", "green": "0 1 1", "blue": "0 0 1"}
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(6)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    record = train(f"list:{tmp_path}/train.txt", tmp_path / "model.safetensors", **head | {"epochs": 20})
    assert record.multi_label
    assert record.epochs_run[-1]["loss"] < record.epochs_run[0]["loss"]


@pytest.mark.parametrize("finetune", ["head", "all"])
def test_the_same_seed_gives_the_same_encoder(photos, head, tmp_path, finetune):
    options = head | {"finetune": finetune, "epochs": 2}
    prints = [
        train(photos, tmp_path / f"{name}.safetensors", **options | {"seed": seed}).fingerprint
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.filterwarnings("ignore:the method .* has no use for")
@pytest.mark.parametrize("method", ["am-vggh", "csq", "cnnh", "ksh", "lsh"])
def test_large_seeds_train(photos, head, tmp_path, method):
    prints = set()
    for seed in (20261128120000, 2**53 - 1):
        report = train(photos, tmp_path / "m.safetensors", overwrite=True, **head | {"method": method, "seed": seed})
        assert report.seed == load_encoder(tmp_path / "m.safetensors", "cpu").meta["seed"] == seed
        prints.add(report.fingerprint)
    assert len(prints) == 2


def test_rare_labels_do_not_make_the_bits_constant(head, tmp_path):
    """Three groups of photographs, each with two labels of its own among eighteen."""
    make_photos(tmp_path / "images", 8, 0)
    own = {"red": (0, 1), "green": (2, 3), "blue": (4, 5)}
    flags = {c: " ".join("1" if i in own[c] else "0" for i in range(18)) for c in own}
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(8)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    for method in ("vggh", "am-vggh"):
        options = head | {"method": method, "epochs": 30, "width": 64, "overwrite": True}
        record = train(f"list:{tmp_path}/train.txt", tmp_path / "model.safetensors", **options)
        assert record.epochs_run[0]["loss"] < 0.5  # not log 2: the frequencies are known from the start
        assert max(epoch["heldout_map"] for epoch in record.epochs_run) > 0.7


@pytest.mark.parametrize(("finetune", "method"), [("head", "cnnh"), ("all", "am-vggh")])
def test_a_killed_training_resumes_to_the_same_encoder(photos, head, tmp_path, finetune, method):
    options = head | {"finetune": finetune, "epochs": 4, "method": method}
    whole = train(photos, tmp_path / "whole.safetensors", **options)
    out = tmp_path / "broken.safetensors"
    state = tmp_path / ".broken.safetensors.training" / "state.pt"
    code = f"import torch; torch.set_num_threads({torch.get_num_threads()}); from hashret.training.start import train; "
    code += f"train({str(photos)!r}, {str(out)!r}, **{options!r})"
    assert kill_when(start(code, OMP_NUM_THREADS="2"), state.exists), "it ended before it could be killed"
    assert not out.exists()
    with pytest.raises(HashretError, match=r"--resume"):
        train(photos, out, **options)
    with pytest.raises(HashretError, match=r"other settings: lr 0\.001"):
        train(photos, out, **options | {"resume": True, "lr": 0.01})
    record = train(photos, out, **options | {"resume": True})
    assert len(record.epochs_run) == 4
    assert record.seconds > sum(epoch["seconds"] for epoch in record.epochs_run) - 0.3  # those before the kill, too
    assert record.fingerprint == whole.fingerprint
    assert not state.parent.exists()
    with pytest.raises(HashretError, match="complete"):
        train(photos, out, **options | {"resume": True})


def test_a_training_resumes_only_over_the_labels_it_began_with(photos, head, tmp_path, monkeypatch):
    folder, out = tmp_path / "photos", tmp_path / "model.safetensors"
    shutil.copytree(photos / "train", folder)
    with monkeypatch.context() as killed:
        killed.setattr(loop.TrainingRun, "_finish", lambda *_: None)
        train(folder, out, **head)
    moved = folder / "red" / "00.png", folder / "blue" / "again.png"
    moved[0].rename(moved[1])  # as many photographs of as many classes as before
    with pytest.raises(HashretError, match="photographs or their labels changed since the unfinished training"):
        train(folder, out, **head | {"resume": True})
    path = tmp_path / ".model.safetensors.training" / "state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in state.items() if name not in ("digest", "sha256")}, path)
    train(folder, out, **head | {"resume": True})  # a state of an earlier release has no digest
    assert out.exists()


def test_a_training_on_vectors_resumes_only_over_the_labels_it_began_with(tmp_path, monkeypatch):
    x, labels = np.random.default_rng(0).normal(size=(40, 8)), np.repeat([0, 1], 20)
    options = {"method": "csq", "bits": 8, "width": 16, "epochs": 1, "batch_size": 8}
    with monkeypatch.context() as killed:
        killed.setattr(loop.TrainingRun, "_finish", lambda *_: None)
        train(vectors(x, labels=labels), tmp_path / "v.safetensors", **options)
    for others in (vectors(x, labels=labels[::-1].copy()), vectors(x, labels=labels, ids=np.arange(1, 41))):
        with pytest.raises(HashretError, match="changed since the unfinished training"):
            train(others, tmp_path / "v.safetensors", resume=True, **options)
    train(vectors(x, labels=labels), tmp_path / "v.safetensors", resume=True, **options)


def test_one_training_at_a_time_writes_a_checkpoint(photos, head, tmp_path, monkeypatch):
    out, save, refused = tmp_path / "model.safetensors", run_files._save, []
    options = head | {"epochs": 2}
    alone = train(photos, tmp_path / "alone.safetensors", **options)

    def save_while_others_begin(path, content):
        for way in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(HashretError, match="another hashret train writes to"):
                train(photos, out, **options | way)
            refused.append(way)
        save(path, content)

    monkeypatch.setattr(run_files, "_save", save_while_others_begin)
    assert train(photos, out, **options).fingerprint == alone.fingerprint
    assert refused
    names = [f"{name}.{end}" for name in ("alone", "model") for end in ("json", "safetensors")]
    assert sorted(os.listdir(tmp_path)) == names


def test_the_latest_epoch_within_a_standard_error_of_the_highest_is_kept(photos, head, tmp_path, monkeypatch):
    figures = iter([(0.5, 0.1), (0.9, 0.05), (0.8, 0.3), (0.86, 0.02), (0.84, 0.5)])
    # Two photographs whose average precisions have these means and standard errors.
    maps = (HeldOutMap((np.array([mean - error, mean + error]),)) for mean, error in figures)
    monkeypatch.setattr(loop, "held_out_map", lambda *arguments: next(maps))
    out = tmp_path / "model.safetensors"
    record = train(photos, out, **head | {"epochs": 5})
    assert record.best_epoch == 4
    assert read_meta(out)["heldout_map"] == 0.86
    last = train(photos, tmp_path / "last.safetensors", **head | {"epochs": 5, "heldout": 0.0})
    assert last.best_epoch == 5


def test_a_kill_between_the_network_and_the_state_keeps_them_a_pair(photos, head, tmp_path, monkeypatch):
    """Rounding, which depends on the number of processes, may keep an epoch before a kill and not after it."""
    figures = iter([0.5, 0.9, 0.3, 0.2])
    monkeypatch.setattr(loop, "held_out_map", lambda *arguments: HeldOutMap((np.full(2, next(figures)),)))
    save, saved, out = run_files._save, [], tmp_path / "model.safetensors"

    def save_until_killed(path, content):
        saved.append(path.name)
        if saved == ["best.pt", "state.pt"] * 2:
            raise KeyboardInterrupt
        save(path, content)

    with monkeypatch.context() as killed:
        killed.setattr(run_files, "_save", save_until_killed)
        with pytest.raises(KeyboardInterrupt):
            train(photos, out, **head)
    of_second = torch.load(tmp_path / ".model.safetensors.training" / "best.pt", weights_only=True)["net"]
    report = train(photos, out, **head | {"resume": True})
    assert all(torch.equal(tensor, of_second[name]) for name, tensor in load_file(out).items())
    assert (report.best_epoch, read_meta(out)["heldout_map"]) == (2, 0.9)
    assert [epoch["heldout_map"] for epoch in report.epochs_run] == [0.5, 0.9, 0.2]


@pytest.mark.parametrize(
    ("gains", "spread"),
    [
        ([0, 1, 2, 3, 2, 1, 0, 0, 0], 0.375),
        ([0, 1, 2, 3, 2.995, 2.99, 0, 0, 0], 0.625),
        ([0, 0, 0, 0, 0, 0, 0, 0, -1], 0.0),  # none is better than none
    ],
)
def test_of_spreads_that_held_out_images_cannot_tell_from_the_best_the_largest_is_chosen(
    photos, head, tmp_path, monkeypatch, gains, spread
):
    """Each spread is told by how many bits of its codes are one. The photographs differ by far more than it does."""
    choosing = []

    def marked(outputs, spread):
        choosing.append(spread)
        return np.tile(np.arange(outputs.shape[1]) < round(8 * spread), (len(outputs), 1))

    def found(queries, database, bits, labels):
        eighths = int(np.bitwise_count(database[0]).sum()) if choosing else 0
        of_image = np.random.default_rng(0).normal(size=50) + 0.1 * np.random.default_rng(eighths).normal(size=50)
        of_image -= of_image.mean()  # so that the mAP is known
        return HeldOutMap((gains[eighths] + of_image,))

    monkeypatch.setattr(loop, "dithered", marked)
    monkeypatch.setattr(loop, "held_out_map", found)
    record = train(photos, tmp_path / "model.safetensors", **head | {"epochs": 1, "dither": True})
    assert record.dither_spread == spread


def test_a_large_state_is_written_now_and_then_and_changes_nothing(photos, head, tmp_path, monkeypatch):
    fingerprint = train(photos, tmp_path / "small.safetensors", **head).fingerprint
    monkeypatch.setattr(loop, "_LARGE_STATE", 0)
    save, saved = run_files._save, []
    monkeypatch.setattr(run_files, "_save", lambda path, content: (saved.append(path.name), save(path, content)))
    for seconds, expected in ((60, []), (0, ["best.pt", "state.pt"])):
        monkeypatch.setattr(loop, "_STATE_EVERY", seconds)
        saved.clear()
        assert train(photos, tmp_path / "large.safetensors", overwrite=True, **head).fingerprint == fingerprint
        assert saved[:2] == expected
        assert saved.count("state.pt") == (0 if seconds else head["epochs"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_feature_maps_on_a_gpu_train_the_same_encoder(photos, head, tmp_path, monkeypatch):
    options = head | {"device": "cuda"}
    train(photos, tmp_path / "held.safetensors", **options)
    monkeypatch.setattr(feed, "_SHARE_OF_GPU", 2**40)
    train(photos, tmp_path / "read.safetensors", **options)
    assert_alike(tmp_path / "held.safetensors", tmp_path / "read.safetensors")


def test_existing_checkpoints_are_kept(photos, head, tmp_path):
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(HashretError, match="--overwrite"):
        train(photos, out, **head)
    assert out.read_bytes() == b"precious"
    train(photos, out, **head | {"epochs": 1, "overwrite": True})
    assert read_meta(out)["bits"] == 16
    with pytest.raises(HashretError, match="no unfinished training"):
        train(photos, tmp_path / "new.safetensors", **head | {"resume": True})
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"bits": 7}, "8 to 256 bits"),
        ({"image_size": 50}, "multiple of 32"),
        ({"method": "dpsh2"}, "no method 'dpsh2'"),
        ({"weights": "none"}, "nothing to freeze"),
        ({"epochs": 0}, "epochs"),
        ({"heldout": 1.0}, "held-out share"),
        ({"finetune": "tail"}, "finetune must be head, last:N or all"),
        ({"augment": "blur"}, "augment must be"),
        ({"views": 2, "augment": "none"}, "take another --augment"),
        ({"views": 2, "finetune": "all"}, "leave --views out"),
        ({"views": 2, "method": "itq"}, "itq takes no cached views"),
        ({"views": -1}, "number of views must be a whole number, at least 0, not -1"),
        ({"epochs": 2.0}, "number of epochs must be a whole number"),
        ({"batch_size": 1}, "batch size must be a whole number, at least 2, not 1"),
        ({"image_size": -32}, "image size must be"),
        ({"bits": 12.5}, r"code length must be 8 to 256 bits, not 12\.5"),
        ({"bits": "48"}, "code length must be 8 to 256 bits, not '48'"),
        ({"width": -3}, "width must be a whole number, at least 1, not -3"),
        ({"dropout": 1.5}, r"dropout must be at least 0 and below 1, not 1\.5"),
        ({"lr": -1.0}, r"the learning rate must be above 0, not -1\.0"),
        ({"lr": 0}, "the learning rate must be above 0, not 0"),
        ({"lr": float("nan")}, "the learning rate must be above 0, not nan"),
        ({"lr": float("inf")}, "the learning rate must be above 0, not inf"),
        ({"backbone_lr": 0.0, "finetune": "all"}, "the backbone's learning rate must be above 0"),
        ({"weight_decay": -1.0}, "weight decay must be at least 0"),
        ({"workers": -1}, "number of decoding processes must be"),
        ({"seed": -1}, "the seed must be a whole number, at least 0 and below 9007199254740992, not -1"),
        ({"seed": 2**53}, "the seed must be"),
        ({"seed": 0.5}, "the seed must be"),
        ({"backbone_lr": 1e-4}, "a backbone that is frozen has no learning rate; leave --backbone-lr out, or add"),
        ({"backbone_lr": 1e-4, "method": "itq"}, "has no learning rate; leave --backbone-lr out$"),
        ({"augment": "crop"}, "without that augmentation; leave --augment out, or add --views N"),
        ({"augment": "crop", "method": "cibhash"}, "without that augmentation; leave --augment out$"),
        ({"metric": "euclidean"}, "photographs have no metric, which is of vectors; leave --metric out"),
        ({"gate": "ajar"}, "gate must be"),
        ({"weights": "/no/such.pth"}, "no weights at"),
        ({"backbone": "resnet"}, "no backbone"),
        ({"lr": 1e6, "epochs": 20}, "lower --lr"),
    ],
)
def test_impossible_settings(photos, head, tmp_path, wrong, line):
    with pytest.raises(HashretError, match=line):
        train(photos, tmp_path / "model.safetensors", **head | wrong)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"method": "lsh", "epochs": 3, "width": 16, "gate": "half"},
            "the method lsh has no use for width, epochs, gate, which are left out",
        ),
        ({"method": "vggh", "gate": "half", "epochs": 1}, "the method vggh has no use for gate, which is left out"),
        ({"method": "am-vggh", "gate": "half", "epochs": 1, "lr": 1e-3, "dropout": 0.1}, None),
    ],
)
def test_settings_that_a_method_has_no_use_for_are_said(photos, weights, tmp_path, options, line):
    small = {name: SMALL[name] for name in ("bits", "backbone", "image_size", "workers", "device")}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(photos, tmp_path / "model.safetensors", weights=weights, **small | options)
    assert [str(one.message) for one in said if "no use" in str(one.message)] == ([line] if line else [])


def test_unlabelled_photographs_cannot_train(photos, head, tmp_path):
    with pytest.raises(HashretError, match="no labels"):
        train(photos / "train" / "red", tmp_path / "model.safetensors", **head)


@pytest.mark.parametrize(("method", "several"), [("itq", True), ("hashnet", True), ("itq", False)])
@pytest.mark.filterwarnings("ignore:the method itq has no use for")
def test_images_that_are_nearly_all_held_out_leave_too_few(head, tmp_path, method, several):
    make_photos(tmp_path / "images", 4, 0)
    flags = {"red": "1 0 1", "green": "0 1 1", "blue": "0 0 1"} if several else dict.fromkeys(CLASSES, "1 0 0")
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(4)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    line = "where 11 of 12 train images are held out, 1 is left to learn from; lower --heldout"
    with pytest.raises(HashretError, match=line):
        train(f"list:{tmp_path}/train.txt", tmp_path / "m.safetensors", **head | {"method": method, "heldout": 0.99})


def test_unreadable_train_images_are_left_out(head, tmp_path):
    make_photos(tmp_path / "photos", 8, 0)
    (tmp_path / "photos" / "red" / "03.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "blue" / "03.png").write_bytes(b"")
    record = train(tmp_path / "photos", tmp_path / "a.safetensors", **head)
    assert record.train_images + record.heldout_images == 22
    record = train(tmp_path / "photos", tmp_path / "b.safetensors", **head | {"finetune": "all"})
    assert np.isfinite(record.epochs_run[-1]["loss"])


def test_features_are_computed_once_for_all_heads(photos, head, tmp_path, monkeypatch):
    computed = []
    write = FeatureCache._write
    monkeypatch.setattr(FeatureCache, "_write", lambda self, *a: (computed.append(1), write(self, *a))[1])
    for bits, method, seed in ((16, "am-vggh", 0), (24, "vggh", 0), (16, "am-vggh", 1)):
        options = {"bits": bits, "method": method, "seed": seed, "epochs": 1, "cache": tmp_path / "cache"}
        train(photos, tmp_path / f"{bits}{method}{seed}.safetensors", **head | options)
    assert len(computed) == 1
    train(photos, tmp_path / "other.safetensors", **head | {"image_size": 64, "epochs": 1, "cache": tmp_path / "cache"})
    assert len(computed) == 2


def test_a_killed_feature_cache_goes_on_where_it_stopped(photos, tmp_path, monkeypatch):
    source, vgg11, cpu = open_data(photos, "train"), get_backbone("vgg11"), torch.device("cpu")
    arguments = (source, vgg11.build(), vgg11, 32, "float32", cpu, tmp_path / "cache", 0)
    whole = FeatureFeed(*arguments).feature_maps[:]
    folder = next((tmp_path / "cache" / "features").iterdir())
    state = np.fromfile(folder / "state.u8", np.uint8)
    state[10:] = 0
    state.tofile(folder / "state.u8")
    raw = np.fromfile(folder / "features.f16", np.float16).reshape(36, -1)
    raw[10:] = 0
    raw.tofile(folder / "features.f16")
    asked = []
    reference = type(source).reference
    monkeypatch.setattr(type(source), "reference", lambda self, row: (asked.append(row), reference(self, row))[1])
    assert np.array_equal(FeatureFeed(*arguments).feature_maps[:], whole)
    assert asked == list(range(10, 36))
    for name in ("features.f16", "state.u8"):
        whole_file = (folder / name).read_bytes()
        (folder / name).write_bytes(whole_file + b"more")
        with pytest.raises(HashretError, match="remove that folder"):
            FeatureFeed(*arguments)
        (folder / name).write_bytes(whole_file)


@pytest.mark.parametrize("kind", [kind for kind in feed.AUGMENTS if kind != "none"])
def test_augmentation_depends_on_seed_and_row_alone(photos, kind):
    image = np.random.default_rng(0).integers(256, size=(3, 32, 32), dtype=np.uint8)
    one = Augment(kind, 32, (0, 1, 0))
    assert np.array_equal(one(5, image), one(5, image))
    assert not np.array_equal(one(5, image), one(6, image))
    assert not np.array_equal(one(5, image), Augment(kind, 32, (0, 2, 0))(5, image))
    assert one(5, image).shape == image.shape
    assert Augment("none", 32, (0, 1, 0))(5, image) is image


@pytest.mark.parametrize("kind", ["shift", "shift-flip"])
def test_a_shift_moves_by_an_eighth_at_most_and_mirrors_the_edge(kind):
    image = np.random.default_rng(0).integers(256, size=(3, 32, 32), dtype=np.uint8)
    framed = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
    shifted = [framed[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    mirrored = [one[:, :, ::-1] for one in shifted] if kind == "shift-flip" else []
    seen = [Augment(kind, 32, (0, 1))(row, image) for row in range(60)]
    where = {
        next(i for i, one in enumerate(shifted + mirrored) if np.array_equal(one, augmented)) for augmented in seen
    }
    assert len(where) > 30
    assert (max(where) >= len(shifted)) == (kind == "shift-flip")


def test_the_command_line_takes_each_kind_of_augmentation():
    option = next(option for option in main.commands["train"].params if option.name == "augment")
    assert tuple(option.type.choices) == feed.AUGMENTS


def feed_of_views(photos, cache, views):
    source, vgg11, cpu = open_data(photos, "train"), get_backbone("vgg11"), torch.device("cpu")
    torch.manual_seed(0)
    return FeatureFeed(source, vgg11.build(), vgg11, 32, "float32", cpu, cache, 0, views=views, augment="crop-flip")


def test_an_epoch_takes_a_cached_view_of_each_photograph(photos, tmp_path):
    plain, feed = (feed_of_views(photos, tmp_path / "cache", views) for views in (0, 3))
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2
    rows = np.arange(36)
    views = torch.stack([feed._cached(4 * rows + number) for number in range(4)], dim=1)
    assert torch.allclose(views[:, 0], next(plain.batches([rows], (0, 1)))[1], atol=1e-3)
    net = HashNet(8, 3, 32, "vgg11", width=16).eval()
    assert np.allclose(feed.hash_outputs(net, rows, "float32"), plain.hash_outputs(net, rows, "float32"), atol=1e-3)

    def drawn(epoch, batches):
        read = torch.cat([maps for _, maps in feed.batches(batches, (0, epoch))])
        same = (read[:, None] == views[np.concatenate(batches)]).flatten(2).all(dim=2)
        assert (same.sum(dim=1) == 1).all()
        return same.int().argmax(dim=1)

    first = drawn(1, [rows])
    assert set(first.tolist()) == {0, 1, 2, 3}
    assert torch.equal(drawn(1, [rows]), first)
    assert torch.equal(drawn(1, [rows[:5], rows[5:]]), first)  # however the photographs are shared out
    assert torch.equal(drawn(1, [rows[::-1]]), first.flip(0))
    assert not torch.equal(drawn(2, [rows]), first)


def test_one_block_of_feature_maps_at_a_time_is_in_memory(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "_MAPS_AT_ONCE", 10)
    steps, maps = [], feed_of_views(photos, tmp_path / "cache", 0)
    read, net = maps._read, HashNet(8, 3, 32, "vgg11", width=16).eval()
    monkeypatch.setattr(maps, "_read", lambda rows: (steps.append(len(rows)), read(rows))[1])
    net.head.register_forward_hook(lambda *_: steps.append("hashed"))
    maps.hash_outputs(net, np.arange(25), "float32")
    assert steps == [10, "hashed", 10, "hashed", 5, "hashed"]


@pytest.mark.parametrize("finetune", ["head", "last:1"])
def test_views_are_cached_for_every_later_run(photos, head, tmp_path, monkeypatch, finetune):
    computed = []
    write = FeatureCache._write
    monkeypatch.setattr(FeatureCache, "_write", lambda self, *a: (computed.append(1), write(self, *a))[1])
    options = head | {"finetune": finetune, "cache": tmp_path / "cache", "epochs": 2}
    several = train(photos, tmp_path / "views.safetensors", **options, views=2)
    assert (several.views, len(computed)) == (2, 1)
    train(photos, tmp_path / "again.safetensors", **options, views=2, seed=1)
    assert len(computed) == 1
    plain = train(photos, tmp_path / "plain.safetensors", **options)
    assert plain.epochs_run[0]["loss"] != several.epochs_run[0]["loss"]


def test_held_out_images_choose_how_far_thresholds_are_spread(photos, head, tmp_path, caplog):
    """The training is the same, and the spread is one of those that find most of them."""
    options = head | {"method": "csq", "bits": [8, 16], "heldout": 0.3}
    plain = train(photos, tmp_path / "plain.safetensors", **options)
    assert plain.dither_spread == 0
    caplog.set_level("INFO", "hashret")
    report = train(photos, tmp_path / "dithered.safetensors", dither=True, **options)
    assert [epoch["loss"] for epoch in report.epochs_run] == [epoch["loss"] for epoch in plain.epochs_run]
    said = re.search(r"thresholds spread by (\S+): held-out mAP (\S+), without (\S+)", caplog.text)
    assert float(said[1]) == report.dither_spread == load_encoder(tmp_path / "dithered.safetensors", "cpu").dither
    assert float(said[2]) >= float(said[3])
    assert (report.fingerprint == plain.fingerprint) == (report.dither_spread == 0)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"heldout": 0}, r"held-out images say how far .* leave --dither out"),
        ({"method": "itq"}, r"itq has no thresholds to spread; leave --dither out"),
    ],
)
def test_thresholds_that_cannot_be_spread(photos, head, tmp_path, other, line):
    with pytest.raises(HashretError, match=line):
        train(photos, tmp_path / "model.safetensors", dither=True, **head | other)


def test_the_backbone_has_a_learning_rate_of_its_own(photos, head, weights, tmp_path):
    before = torch.load(weights, weights_only=True)
    moved = {}
    for rate in (1e-3, 1e-5):
        out = tmp_path / f"{rate}.safetensors"
        report = train(photos, out, **head | {"finetune": "last:1", "epochs": 1, "lr": 1e-3, "backbone_lr": rate})
        assert (report.lr, report.backbone_lr) == (1e-3, rate)
        after = load_file(out)
        moved[rate] = {
            name: float((after[name] - tensor).abs().mean()) for name, tensor in before.items() if name in after
        }
    assert any(moved[1e-3].values())
    for name, distance in moved[1e-3].items():
        assert moved[1e-5][name] <= distance / 20


# Of the options, those under which the loss of a batch is no mean of those of its photographs.
@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({"method": "am-vggh", "balance": 0.5}, 3),
        ({"method": "dnnh"}, 2),
        ({"method": "ksh"}, 2),
        ({"method": "cibhash", "bits": [8, 16]}, 3),
        ({"method": "bihalf"}, 2),
        ({"method": "dpsh", "finetune": "all", "epochs": 1}, 3),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else str(value),
)
def test_several_processes_learn_what_one_does(photos, head, tmp_path, options, processes):
    """Batches of 8 among 3, one of them unreadable; 29 train images leave 5 out."""
    shutil.copytree(photos / "train", tmp_path / "photos")
    (tmp_path / "photos" / "red" / "03.png").write_bytes(b"no picture")
    options = head | {"precision": "float32"} | options
    alone = train(tmp_path / "photos", tmp_path / "alone.safetensors", **options)
    found = together(train, processes, tmp_path / "photos", tmp_path / "shared.safetensors", **options)
    assert [record.processes for record in found] == [processes] * processes
    for one, other in zip(alone.epochs_run, found[0].epochs_run, strict=True):
        assert (other["loss"] or 0) == pytest.approx(one["loss"] or 0, rel=1e-3)  # a fit has none
        assert other["heldout_map"] == pytest.approx(one["heldout_map"], abs=0.02)
    assert_alike(tmp_path / "alone.safetensors", tmp_path / "shared.safetensors")


class ByCell(torch.nn.Module):
    """Dropout of each cell of a map as a row of its own, as of the windows of a transformer."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.3)

    def forward(self, x):
        n, channels, height, width = x.shape
        rows = self.dropout(x.permute(0, 2, 3, 1).reshape(-1, channels))
        return rows.reshape(n, height, width, channels).permute(0, 3, 1, 2)


class WithMore(torch.nn.Sequential):
    """Layers that have another which nothing passes."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.more = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self[1](self[0](x))


def _first_layers():
    torch.manual_seed(2)
    return torch.nn.Conv2d(3, 24, 16, stride=16), torch.nn.ReLU()


def with_dropout():
    return torch.nn.Sequential(*_first_layers(), torch.nn.Conv2d(24, 32, 1), torch.nn.Dropout(0.3))


def with_dropout_by_cell():
    return torch.nn.Sequential(*_first_layers(), torch.nn.Conv2d(24, 32, 1), ByCell())


def with_more():
    return WithMore(*_first_layers())


@pytest.mark.parametrize(
    ("layers", "finetune"), [(with_dropout, "last:1"), (with_dropout_by_cell, "last:1"), (with_more, "all")]
)
def test_several_processes_train_layers_of_others_as_one_does(photos, head, tmp_path, layers, finetune):
    options = head | {"backbone": f"{__name__}:{layers.__name__}", "weights": "pretrained", "finetune": finetune}
    options |= {"precision": "float32", "epochs": 2, "cache": tmp_path / "cache"}
    alone = train(photos, tmp_path / "alone.safetensors", **options)
    found = together(train, 2, photos, tmp_path / "shared.safetensors", **options)[0]
    for one, other in zip(alone.epochs_run, found.epochs_run, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert other["heldout_map"] == pytest.approx(one["heldout_map"], abs=0.02)
    assert_alike(tmp_path / "alone.safetensors", tmp_path / "shared.safetensors")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_normalization_by_all_processes_keeps_layers_and_activations(mode):
    """Here by one process. Stages of a network are other modules, which have the same layers."""
    timm_layers = pytest.importorskip("timm.layers", reason="needs hashret[timm]")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), timm_layers.BatchNormAct2d(4))
    plain = copy.deepcopy(layers)
    stage = torch.nn.Sequential(*layers)
    parallel.synchronize_normalization(stage)
    assert repr(layers) == repr(plain)
    x = torch.randn(5, 3, 2, 2)
    for _ in range(2):
        for module in (layers, plain):
            getattr(module, mode)()
        assert torch.equal(stage(x), plain(x))
    assert all(torch.equal(one, other) for one, other in zip(layers.buffers(), plain.buffers(), strict=True))


def with_normalization():
    return torch.nn.Sequential(*_first_layers(), torch.nn.Conv2d(24, 32, 2, stride=2), torch.nn.BatchNorm2d(32))


@pytest.mark.filterwarnings("ignore:the codes tell photographs hardly apart")
def test_single_photographs_are_not_normalized(photos, head, tmp_path):
    """Of a batch, or of what a process computes of it, where maps have one cell."""
    folder = few_photos(photos, tmp_path / "few")
    options = head | {"backbone": f"{__name__}:with_normalization", "weights": "pretrained", "finetune": "all"}
    options |= {"method": "dpsh", "batch_size": 2, "heldout": 0.0, "epochs": 2}
    with pytest.warns(UserWarning, match="2 of 4 steps of training were left out"):
        report = train(folder, tmp_path / "model.safetensors", **options)
    assert all(np.isfinite(epoch["loss"]) for epoch in report.epochs_run)
    shared = together(train, 2, folder, tmp_path / "shared.safetensors", **options)[0]
    assert all(np.isfinite(epoch["loss"]) for epoch in shared.epochs_run)


@pytest.mark.parametrize("method", ["dpsh", "bihalf"])
@pytest.mark.filterwarnings("ignore:the method bihalf has no use for")
def test_a_loss_has_what_its_method_says_that_it_reads(photos, head, tmp_path, monkeypatch, method):
    of_class, there = get_method(method), []
    loss = of_class.loss

    def seen(self, output, *others):
        there.append(output.fc_features is not None)
        return loss(self, output, *others)

    monkeypatch.setattr(of_class, "loss", seen)
    train(photos, tmp_path / "model.safetensors", **head | {"method": method, "epochs": 1})
    assert set(there) == {method == "bihalf"}


def assert_alike(one, other):
    """Checkpoints differ by rounding alone, which Adam makes larger where gradients are nearly zero."""
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-3)


def die_after(number, *arguments, **options):
    distributed._BEAT, distributed._SILENCE = 0.05, 0.5
    end_epoch = loop.TrainingRun._end_epoch

    def end(self, *parts):
        end_epoch(self, *parts)
        if rank() == 1 and len(self.epochs) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.TrainingRun._end_epoch = end
    return train(*arguments, **options)


@pytest.mark.parametrize("finetune", ["head", "all"])
def test_a_training_that_lost_a_process_resumes_with_any_number(photos, head, tmp_path, finetune):
    options = head | {"finetune": finetune, "precision": "float32"}
    whole = together(train, 2, photos, tmp_path / "whole.safetensors", **options)[0]
    out = tmp_path / "broken.safetensors"
    told, gone = together(die_after, 2, 1, photos, out, **options)
    assert "was lost" in str(told)
    assert isinstance(told, HashretError)
    assert gone == -signal.SIGKILL
    assert not out.exists()
    state = tmp_path / ".broken.safetensors.training"
    shutil.copytree(state, tmp_path / ".other.safetensors.training")
    resumed = together(train, 2, photos, out, resume=True, **options)[0]
    assert len(resumed.epochs_run) == 3
    assert resumed.fingerprint == whole.fingerprint
    train(photos, tmp_path / "other.safetensors", resume=True, **options)
    assert_alike(tmp_path / "whole.safetensors", tmp_path / "other.safetensors")


@pytest.mark.parametrize("method", ["dpsh", "hashnet", "dch", "bihalf"])
@pytest.mark.filterwarnings("ignore:the method bihalf has no use for")
@pytest.mark.filterwarnings("ignore:the codes tell photographs hardly apart")
def test_a_batch_with_one_readable_photograph_is_left_out(photos, head, tmp_path, method):
    folder = few_photos(photos, tmp_path / "few")
    options = head | {"method": method, "finetune": "all", "batch_size": 2, "heldout": 0.0, "epochs": 2}
    with pytest.warns(UserWarning, match="2 of 4 steps of training were left out, since fewer than two images of"):
        report = train(folder, tmp_path / "model.safetensors", **options)
    assert all(np.isfinite(epoch["loss"]) for epoch in report.epochs_run)


def few_photos(photos, folder):
    """Two photographs of each of two classes, one of which is none."""
    for colour in ("red", "blue"):
        (folder / colour).mkdir(parents=True)
        for number in range(2):
            shutil.copy(photos / "train" / colour / f"{number:02d}.png", folder / colour)
    (folder / "red" / "00.png").write_bytes(b"no picture")
    return folder


@pytest.mark.filterwarnings("ignore:the codes tell photographs hardly apart")
def test_several_processes_leave_out_the_same_batches(photos, head, tmp_path):
    folder = few_photos(photos, tmp_path / "few")
    options = head | {"method": "dpsh", "finetune": "all", "batch_size": 2, "heldout": 0.0, "lr": 1e-4}
    options |= {"precision": "float32", "dropout": 0.0}
    alone = train(folder, tmp_path / "alone.safetensors", **options)
    found = together(train, 2, folder, tmp_path / "shared.safetensors", **options)
    for one, other in zip(alone.epochs_run, found[0].epochs_run, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert_alike(tmp_path / "alone.safetensors", tmp_path / "shared.safetensors")


def test_photographs_none_of_which_can_be_read_with_another_end_a_training(photos, head, tmp_path):
    folder = few_photos(photos, tmp_path / "few")
    (folder / "blue" / "00.png").write_bytes(b"no picture")
    (folder / "blue" / "01.png").write_bytes(b"no picture")
    options = head | {"method": "dpsh", "finetune": "all", "batch_size": 2, "heldout": 0.0}
    with pytest.raises(HashretError, match="no batch of epoch 1 has two train images that can be read"):
        train(folder, tmp_path / "model.safetensors", **options)


def test_torchrun(photos, head, tmp_path):
    options = head | {"data": f"folder:{photos}", "out": tmp_path / "model.safetensors", "epochs": 2}
    arguments = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    process = torchrun("train", *arguments)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "16 bits, epoch" in output
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["processes"] == 2
    assert load_encoder(tmp_path / "model.safetensors", "cpu").bits == 16


def test_a_folder_of_fewer_photographs_than_a_batch_is_one_batch(photos, head, tmp_path):
    large = train(photos, tmp_path / "large.safetensors", **head | {"batch_size": 640})
    whole = train(photos, tmp_path / "whole.safetensors", **head | {"batch_size": large.train_images})
    assert [epoch["loss"] for epoch in large.epochs_run] == [epoch["loss"] for epoch in whole.epochs_run]


def _random_lite0() -> dict[str, torch.Tensor]:
    layers = get_backbone("efficientnet_lite0").build()
    for module in layers.modules():  # random weights let nothing through before their outputs are normalised
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    layers.train()(torch.randn(4, 3, 32, 32))
    return layers.state_dict()


def test_a_pooled_head_starts_from_the_librarys_last_convolution(photos, tmp_path):
    state = _random_lite0() | {"conv_head.weight": torch.randn(1280, 320, 1, 1)}
    state |= {f"bn2.{name}": torch.rand(1280) for name in ("weight", "bias", "running_mean", "running_var")}
    save_file(state, tmp_path / "lite0.safetensors")
    out = tmp_path / "model.safetensors"
    train(
        photos, out, method="vggh", backbone="efficientnet_lite0", weights=tmp_path / "lite0.safetensors",
        image_size=32, bits=8, epochs=1, lr=1e-30, cache=tmp_path / "cache", workers=0,
    )  # fmt: skip
    first = load_encoder(out, "cpu").head.fc[0]
    scale = state["bn2.weight"] / torch.sqrt(state["bn2.running_var"] + 1e-3)
    assert torch.allclose(first.weight, state["conv_head.weight"] * scale[:, None, None, None])
    assert torch.allclose(first.bias, state["bn2.bias"] - state["bn2.running_mean"] * scale)


def test_without_a_method_labels_decide(photos, tmp_path):
    weights = tmp_path / "lite0.safetensors"
    save_file(_random_lite0(), weights)
    common = {
        "weights": weights,
        "image_size": 32,
        "bits": 8,
        "batch_size": 8,
        "cache": tmp_path / "cache",
        "workers": 0,
    }
    report = train(photos, tmp_path / "labelled.safetensors", epochs=1, **common)
    assert (report.method, report.arch) == ("hashnet", "efficientnet_lite0")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, photo in enumerate(sorted((photos / "train").rglob("*.png"))):
        shutil.copy(photo, flat / f"{number}.png")
    report = train(flat, tmp_path / "unlabelled.safetensors", **common)
    assert (report.method, report.arch) == ("itq", "efficientnet_lite0")
    for method in ("am-vggh", "lsh", "dpsh"):  # as the paper has them
        with pytest.raises(HashretError, match="does not hold the weights of vgg16") as raised:
            train(photos, tmp_path / "paper.safetensors", method=method, **common)
        assert "--backbone" in raised.value.hint
