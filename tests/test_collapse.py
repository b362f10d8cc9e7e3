"""A training that learned nothing says so; one that cannot end well ends at once, in one line, and leaves what was."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_photos

from hashret.cli import main
from hashret.collapse import code_figures, collapsed
from hashret.errors import HashretError
from hashret.models.checkpoint import read_meta
from hashret.training import loop, run_files
from hashret.training.start import train

SMALL = {
    "bits": 8, "image_size": 32, "backbone": "vgg11", "width": 8, "epochs": 1, "batch_size": 4, "heldout": 0,
    "workers": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def head(weights):
    return SMALL | {"weights": weights}


def codes_of(numbers):
    """Codes of 8 bits by their numbers."""
    return np.array(numbers, np.uint8)[:, None]


def test_figures_of_codes_by_hand():
    labels = np.repeat([0, 1], 20)
    codes = codes_of([0b00000000] * 20 + [0b11111110] * 10 + [0b11111111] * 10)
    figures = code_figures(codes, 8, labels)
    assert figures == {
        "photographs": 40, "distinct": 3, "entropy": 1.5, "used_bits": 8, "map": 1.0,
        "chance": pytest.approx(figures["chance"]),
    }  # fmt: skip
    order = np.random.default_rng(0)
    plain = []
    for _ in range(2000):  # 19 of the other 39 are relevant
        ranks = np.sort(order.choice(39, 19, replace=False)) + 1
        plain.append((np.arange(1, 20) / ranks).mean())
    assert figures["chance"] == pytest.approx(np.mean(plain), abs=3 * np.std(plain) / np.sqrt(2000))
    held = code_figures(codes[::-1], 8, labels[::-1], held=20)  # nothing among the others is relevant to these
    assert "map" not in held
    assert code_figures(codes, 8) == {
        name: figures[name] for name in ("photographs", "distinct", "entropy", "used_bits")
    }


@pytest.mark.parametrize("several", [False, True])
def test_one_code_finds_what_chance_does(several):
    labels = np.random.default_rng(0).integers(0, 4, 60)
    labels = np.eye(4, dtype=np.uint8)[labels] if several else labels
    for held in (0, 15):
        figures = code_figures(codes_of([7] * 60), 8, labels, held)
        assert figures["map"] == pytest.approx(figures["chance"])
        said = collapsed(figures, 8, None if several else 4)
        assert "have 1 distinct code and mAP" in said
        assert ("of 4 classes" in said) != several


def test_photographs_without_a_label_are_not_asked_for():
    rng = np.random.default_rng(1)
    labels, codes = rng.integers(-1, 3, 80), codes_of(rng.integers(0, 8, 80))
    flags = (labels[:, None] == np.arange(3)).astype(np.uint8)
    for held in (0, 20):
        assert code_figures(codes, 8, labels, held) == code_figures(codes, 8, flags, held)


def test_codes_that_tell_classes_apart_pass():
    labels = np.repeat(np.arange(5), 20)
    figures = code_figures(codes_of(1 << labels), 8, labels)
    assert (figures["distinct"], collapsed(figures, 8, 5)) == (5, None)
    assert collapsed(figures | {"distinct": 4}, 8, 5) == "100 photographs of 5 classes have 4 distinct codes"
    assert collapsed(figures | {"distinct": 32}, 8, 1000) is None  # 8 bits have no 1,000 codes to give
    assert collapsed(figures | {"map": 0.2, "chance": 0.19}, 8, 5) == "mAP 0.200 is that of chance, 0.190"
    assert collapsed({"photographs": 3, "distinct": 3}, 48) is None
    assert collapsed({"photographs": 300, "distinct": 5}, 48) == "300 photographs have 5 distinct codes"


@pytest.mark.filterwarnings("default")
def test_a_training_that_learned_nothing_says_so_and_records_it(photos, weights, tmp_path):
    options = {"weights": weights, "method": "vggh", "lr": 1e-9, "width": 8, "epochs": 1, "batch-size": 8, "bits": 8}
    options |= {
        "image-size": 32,
        "backbone": "vgg11",
        "heldout": 0.3,
        "workers": 0,
        "device": "cpu",
        "out": tmp_path / "m.safetensors",
    }
    done = CliRunner().invoke(main, ["train", f"--data=folder:{photos}", *(f"--{n}={v}" for n, v in options.items())])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["codes"]["distinct"] < 3
    assert record["warning"].startswith("the codes tell photographs hardly apart: 36 photographs of 3 classes have ")
    assert record["warning"].endswith("lower --lr (it was 1e-09), try another --method, or look at the labels")
    assert f"note: {record['warning']}\n" in done.stderr


def test_a_training_that_learned_is_silent(photos, head, tmp_path):
    record = train(photos, tmp_path / "model.safetensors", **head | {"method": "itq"})
    assert record.warning is None
    assert record.codes["distinct"] >= 3
    assert record.codes["map"] > 1.5 * record.codes["chance"]


@pytest.fixture
def alike(tmp_path):
    """Twelve times one photograph, in two classes."""
    folder = make_photos(tmp_path / "alike", 1, 0)
    shutil.rmtree(folder / "green")
    for colour in ("red", "blue"):
        for number in range(6):
            target = folder / colour / f"{number:02d}.png"
            if target != folder / "red" / "00.png":
                shutil.copy(folder / "red" / "00.png", target)
    return folder


@pytest.mark.parametrize("method", ["itq", "lsh", "ksh"])
def test_photographs_that_are_all_the_same_cannot_be_fitted(alike, head, tmp_path, method):
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(HashretError, match="12 train images all look the same"):
        train(alike, out, **head | {"method": method, "overwrite": True})
    assert out.read_bytes() == b"precious"


def test_photographs_that_are_all_the_same_are_learned_in_vain(alike, head, tmp_path):
    with pytest.warns(UserWarning, match="12 photographs of 2 classes have 1 distinct code and mAP 0.5"):
        train(alike, tmp_path / "model.safetensors", **head | {"method": "dpsh"})


@pytest.mark.parametrize("method", ["itq", "lsh", "ksh"])
def test_fewer_photographs_than_bits(photos, head, tmp_path, method):
    folder = tmp_path / "few"
    for colour in ("red", "blue"):
        (folder / colour).mkdir(parents=True)
        for number in range(2):
            shutil.copy(photos / "train" / colour / f"{number:02d}.png", folder / colour)
    record = train(folder, tmp_path / "model.safetensors", **head | {"method": method, "bits": 64})
    assert record.codes["distinct"] >= 2


def test_a_fit_that_gives_no_numbers_leaves_what_was(photos, head, tmp_path, monkeypatch):
    from hashret.methods.lsh import LSH

    def broken(self, projection, x, labels, seed):
        projection.weight.fill_(float("nan"))

    def failing(self, projection, x, labels, seed):
        raise np.linalg.LinAlgError("Matrix is not positive definite")

    out = tmp_path / "model.safetensors"
    out.write_bytes(b"precious")
    for function, why in ((broken, "its projections are not numbers"), (failing, "Matrix is not positive definite")):
        monkeypatch.setattr(LSH, "fit", function)
        with pytest.raises(HashretError, match=rf"lsh cannot be fitted to 36 images \({why}\)"):
            train(photos, out, **head | {"method": "lsh", "overwrite": True})
        assert out.read_bytes() == b"precious"


def test_weights_that_are_no_numbers_after_the_last_step_leave_what_was(photos, head, tmp_path):
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(HashretError, match="weights are no longer numbers after epoch 1; lower --lr"):
        train(photos, out, **head | {"batch_size": 36, "lr": 1e39, "overwrite": True})
    assert out.read_bytes() == b"precious"


@pytest.fixture
def not_reached(monkeypatch):
    """Nothing is computed."""

    def computed(*_):
        raise AssertionError("computed first")

    monkeypatch.setattr("hashret.training.start.FeatureFeed", computed)


def test_what_fails_at_the_end_is_tried_at_the_start(photos, head, tmp_path, not_reached, monkeypatch):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / "record.json").mkdir()
    for name, line in (
        ("folder.safetensors", "is no checkpoint; name another"),
        ("file/model.safetensors", "cannot write .*file"),
        ("kept.safetensors", r"kept.json exists already; add --overwrite to replace that training record"),
        ("record.safetensors", "record.json exists already and is no training record"),
        ("model.json", r"the name of the training record; name the checkpoint \*.safetensors"),
        ("m" * 252, "cannot write"),
    ):
        with pytest.raises(HashretError, match=line):
            train(photos, tmp_path / name, **head)
    monkeypatch.setattr(run_files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    with pytest.raises(HashretError, match=r"training writes up to \d+ MiB beside .*, and 1 MiB are free there"):
        train(photos, tmp_path / "model.safetensors", **head | {"width": 512})
    assert sorted(path.name for path in tmp_path.iterdir() if "." in path.name[1:]) == [
        "folder.safetensors", "kept.json", "record.json",
    ]  # fmt: skip


def test_a_training_resumes_only_with_the_classes_it_began_with(photos, head, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "train", folder)
    out = tmp_path / "model.safetensors"
    monkeypatch.setattr(loop.TrainingRun, "_finish", lambda *_: None)  # as if it had been killed
    train(folder, out, **head)
    (folder / "red").rename(folder / "rot")
    with pytest.raises(HashretError, match="photographs or their labels changed since the unfinished training"):
        train(folder, out, **head | {"resume": True})


def test_names_that_are_not_utf8_train(photos, head, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "train", folder)
    (folder / "red").rename(folder / "rou\udcff")
    record = train(folder, tmp_path / "model.safetensors", **head | {"method": "dpsh"})
    assert record.classes == read_meta(tmp_path / "model.safetensors")["classes"] == ["blue", "green", "rou\udcff"]
