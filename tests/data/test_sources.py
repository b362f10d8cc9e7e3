import hashlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from conftest import make_photos

from hashret.data import open_data
from hashret.data.batches import batches, split_rows
from hashret.errors import HashretError
from hashret.training import train
from hashret.training.held_out import hold_out


def test_class_folders_with_splits(photos):
    source = open_data(f"folder:{photos}", "train")
    assert len(source) == 36
    assert source.classes == ("blue", "green", "red")
    assert source.paths[0] == "blue/00.png"
    assert np.bincount(source.labels).tolist() == [12, 12, 12]
    assert len(open_data(photos, "test")) == 12
    assert open_data(photos, "database").paths == source.paths


def test_class_folders_without_splits(photos):
    assert len(open_data(f"folder:{photos}/train")) == 36
    assert len(open_data(f"folder:{photos}/train", "train")) == 36


def test_a_plain_folder_has_no_labels(photos):
    source = open_data(photos / "train" / "red")
    assert source.labels is None
    assert len(source) == 12
    with pytest.raises(HashretError, match="no labels"):
        source.require_labels()


@pytest.mark.parametrize(
    ("spec", "split", "line"),
    [
        ("folder:/no/such", None, "no such folder"),
        ("/no/such", None, "no such folder"),
        ("folder:", None, "names no place"),
        ("{photos}", None, "say which with --split"),
        ("{photos}", "validation", "no validation/ folder"),
        ("list:/no/such.txt", None, "no such list"),
    ],
)
def test_wrong_names_say_what_is_wrong(photos, spec, split, line):
    with pytest.raises(HashretError, match=line):
        open_data(spec.format(photos=photos), split)


def test_an_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(HashretError, match="no images"):
        open_data(tmp_path)


def test_one_class_is_not_enough(photos, tmp_path):
    make_photos(tmp_path, 1, 0)
    (tmp_path / "one").mkdir()
    (tmp_path / "red").rename(tmp_path / "one" / "red")
    with pytest.raises(HashretError, match="one class only"):
        open_data(tmp_path / "one").require_labels()


def test_where_all_are_of_one_class_the_method_without_labels_is_taken(tmp_path, weights):
    make_photos(tmp_path, 12, 0)
    (tmp_path / "one").mkdir()
    (tmp_path / "red").rename(tmp_path / "one" / "red")
    shape = {"bits": 8, "image_size": 32, "backbone": "vgg11", "weights": weights}
    assert train(tmp_path / "one", tmp_path / "model.safetensors", **shape).method == "itq"


def test_fingerprint_notices_a_changed_file_and_no_moved_folder(tmp_path):
    make_photos(tmp_path / "a", 2, 0)
    before = open_data(tmp_path / "a").fingerprint
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_data(tmp_path / "b").fingerprint == before
    (tmp_path / "b" / "red" / "00.png").write_bytes(b"other")
    assert open_data(tmp_path / "b").fingerprint != before


@pytest.fixture
def listed(tmp_path):
    """A label list above its photographs, as NUS-WIDE and Corel-5k have it."""
    make_photos(tmp_path / "images", 2, 0)
    folder = tmp_path / "small_3"
    folder.mkdir()
    (tmp_path / "labels.txt").write_text("blue green red\n")
    lines = ["images/red/00.png 0 0 1", "images/green/01.png 0 1 1", "images/blue/00.png 1 0 0"]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    (folder / "test.txt").write_text("images/red/01.png 0 0 1\n")
    return folder


def test_label_lists(listed):
    source = open_data(f"list:{listed}/train.txt")
    assert source.labels.tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 0]]
    assert source.classes == ("blue", "green", "red")
    assert source.file(1).exists()
    assert source.single_label() is source
    assert open_data(f"list:{listed}/test.txt").labels.tolist() == [[0, 0, 1]]
    assert open_data(f"list:{listed}/test.txt").single_label().labels.tolist() == [2]
    by_folder = open_data(f"list:{listed}", "train")
    assert by_folder.paths == source.paths
    assert open_data(f"list:{listed}/train.txt,root={listed.parent}").paths == source.paths


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ("images/red/00.png 0 2\n", "train.txt:1: a line must be"),
        ("images/red/00.png 0 1\nimages/red/01.png 0 1 1\n", "train.txt:2: 3 label columns, but 2"),
        ("", "is empty"),
        ("images/none.png 0 1\n", "root=DIR"),
    ],
)
def test_damaged_label_lists(listed, lines, line):
    (listed / "train.txt").write_text(lines)
    with pytest.raises(HashretError, match=line):
        open_data(f"list:{listed}/train.txt")


def test_the_real_lists(shared):
    with pytest.raises(HashretError, match=r"photographs .* are missing"):
        open_data(f"list:{shared}/data/nuswide21/train.txt")


class FakeCifar:
    """torchvision's CIFAR-10 archive, with eight images, on a local server."""

    def __init__(self, server, monkeypatch):
        from torchvision.datasets import CIFAR10

        folder, address = server
        base = folder / "cifar-10-batches-py"
        base.mkdir()
        classes = ["airplane", "cat"]
        checks = {}
        for number, name in enumerate(("data_batch_1", "test_batch")):
            rng = np.random.default_rng(number)
            batch = {
                "data": rng.integers(0, 256, (4, 3072), dtype=np.uint8),
                "labels": [0, 1, 1, 0],
                "filenames": [f"picture_s_{number}{i}.png" for i in range(4)],
            }
            (base / name).write_bytes(pickle.dumps(batch))
            checks[name] = self.md5(base / name)
        (base / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
        archive = folder / "cifar-10-python.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(base, "cifar-10-batches-py")
        self.first_test = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)[0]
        self.archive = archive
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
        monkeypatch.setattr(CIFAR10, "tgz_md5", self.md5(archive))
        monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", checks["data_batch_1"]]])
        monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", checks["test_batch"]]])
        meta = {"filename": "batches.meta", "key": "label_names", "md5": self.md5(base / "batches.meta")}
        monkeypatch.setattr(CIFAR10, "meta", meta)

    @staticmethod
    def md5(path):
        return hashlib.md5(path.read_bytes()).hexdigest()


def test_cifar10_is_downloaded_on_request_and_unpacked_once(tmp_path, server, monkeypatch):
    fake = FakeCifar(server, monkeypatch)
    home = tmp_path / "cifar"
    with pytest.raises(HashretError, match="add --download"):
        open_data(f"cifar10:{home}", "test")
    source = open_data(f"cifar10:{home}", "test", download=True)
    assert source.paths[0] == "test/airplane/picture_s_10.png"
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(source.pixels(0, 32).ravel(), fake.first_test)
    fake.archive.unlink()
    assert len(open_data(f"cifar10:{home}", "train")) == 4


def test_cifar10_that_cannot_be_fetched_names_the_way_out(tmp_path, server, monkeypatch):
    fake = FakeCifar(server, monkeypatch)
    fake.archive.unlink()
    with pytest.raises(HashretError, match="cifar10:DIR"):
        open_data(f"cifar10:{tmp_path / 'cifar'}", "train", download=True)


def test_changed_cifar10_files_are_not_unpickled(tmp_path, server, monkeypatch):
    FakeCifar(server, monkeypatch)
    home = tmp_path / "cifar"
    open_data(f"cifar10:{home}", "train", download=True)
    shutil.rmtree(home / "cifar10-png")
    (home / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(HashretError, match="whole and unchanged"):
        open_data(f"cifar10:{home}", "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_keep_the_order_and_name_what_cannot_be_read(tmp_path, workers):
    make_photos(tmp_path, 3, 0)
    (tmp_path / "green" / "01.png").write_bytes(b"")
    source = open_data(tmp_path)
    got = list(batches(source, 32, split_rows(list(range(9)), 4), workers))
    assert [batch.rows.tolist() for batch in got] == [[0, 1, 2, 3], [5, 6, 7], [8]]
    assert got[1].skipped == [(4, "empty file")]
    assert np.array_equal(got[1].images[0], source.pixels(5, 32))


def test_hold_out_takes_a_share_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 20, 1])
    train, held = hold_out(labels, 0.1, seed=3)
    assert np.bincount(labels[held], minlength=3).tolist() == [10, 2, 0]
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(121))
    assert np.array_equal(hold_out(labels, 0.1, seed=3)[1], held)
    assert not np.array_equal(hold_out(labels, 0.1, seed=4)[1], held)
    assert len(hold_out(labels, 0, seed=3)[1]) == 0


def old_rule(labels, share, seed):
    """What was held out before: one image at least of each class of two."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if labels.ndim == 1 else [np.arange(len(labels))]
    held = [rng.permutation(rows)[: max(1, round(share * len(rows)))] for rows in groups if len(rows) > 1]
    return np.sort(np.concatenate(held))


def test_what_recorded_runs_held_out_is_held_out_still():
    rng = np.random.default_rng(0)
    for labels in (
        rng.integers(0, 10, 2000),
        np.repeat(np.arange(3), 12),
        np.eye(21, dtype=np.uint8)[rng.integers(0, 21, 500)],
    ):
        assert np.array_equal(hold_out(labels, 0.05, seed=7)[1], old_rule(labels, 0.05, seed=7))


@pytest.mark.parametrize(
    ("sizes", "share", "wanted"),
    [
        ([100] * 5 + [2] * 20, 0.05, {100: 25, 2: 0}),  # once 45
        ([200] + [8] * 50, 0.05, {200: 10, 8: 20}),  # once 60
        ([3] * 10 + [2] * 10, 0.05, {3: 2, 2: 0}),
        ([2] * 100, 0.05, {2: 10}),  # half of all, once
        ([3] + [2] * 100, 0.05, {3: 1, 2: 9}),
        ([2] * 3, 0.05, {2: 1}),
        ([1] * 5 + [2], 0.05, {1: 0, 2: 1}),
        ([1] * 5, 0.5, {1: 0}),
        ([2] * 10, 0.9, {2: 10}),
    ],
)
def test_hold_out_takes_a_share_of_all_and_halves_no_small_class(sizes, share, wanted):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    train, held = hold_out(labels, share, seed=1)
    assert np.array_equal(np.sort([*train, *held]), np.arange(len(labels)))
    found = dict.fromkeys(wanted, 0)
    for label in labels[held]:
        found[sizes[label]] += 1
    assert found == wanted
    assert set(labels[train]) == set(labels)
    if 0 < len(held) < len(sizes):  # by lot: no class is always the one that gives
        assert len({tuple(hold_out(labels, share, seed)[1]) for seed in range(5)}) > 1


def test_hold_out_leaves_labels_that_few_have():
    labels = np.zeros((40, 3), np.uint8)
    labels[:, 0] = 1
    labels[[5, 9], 1] = 1
    labels[7, 2] = 1
    for seed in range(20):
        _, held = hold_out(labels, 0.5, seed)
        assert len(held) == 20
        assert not {5, 7, 9} & set(held.tolist())
