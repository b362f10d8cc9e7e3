"""The protocols' sets: disjoint, of the right size, the committed ones, and refused on other data."""

import hashlib
import importlib.util
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photo, make_photos

from hashret.data import open_data, protocols
from hashret.data.feature_cache import FeatureCache
from hashret.errors import HashretError

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rows", [[0], [0, 1, 2], [1, 3, 4, 9], [5, 6, 8, 9, 10]])
def test_rows_are_read_as_they_were_written(rows):
    assert protocols.parse_rows(protocols.format_rows(np.array(rows))).tolist() == rows


@pytest.mark.parametrize(("name", "train", "database", "test"), [
    ("cifar10-1", 5000, 59_000, 1000), ("cifar10-2", 50_000, 50_000, 10_000), ("corel5k-21", 3947, 3947, 443),
])  # fmt: skip
def test_committed_sets(name, train, database, test):
    record, sha256 = protocols.PROTOCOLS[name].protocol_file
    sets = {part: protocols.parse_rows(record[part]) for part in protocols.SETS}
    assert [len(sets[part]) for part in protocols.SETS] == [train, database, test]
    assert all((np.diff(rows) > 0).all() for rows in sets.values())
    assert not set(sets["test"]) & set(sets["database"])
    assert set(sets["train"]) <= set(sets["database"])
    assert max(rows.max() for rows in sets.values()) < record["images"]
    path = Path(protocols.__file__).parent / "splits" / f"{name}.json"
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """The shared archives' lists and the names of their photographs, each an empty file."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("cifar10-png", "corel5k"):
        with tarfile.open(shared / "data" / f"{name}.tar") as archive:
            for member in archive:
                path = folder / name / member.name
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif path.suffix == ".txt":
                    archive.extract(member, folder / name, filter="data")
                else:
                    path.touch()
    return {"cifar10-1": folder / "cifar10-png", "corel5k-21": folder / "corel5k" / "corel5k"}


def test_cifar10_1_has_a_hundred_queries_and_500_train_images_a_class(real):
    for part, count in (("test", 100), ("train", 500)):
        source = open_data(f"cifar10-1:{real['cifar10-1']}", part)
        assert np.bincount(source.labels).tolist() == [count] * 10
        assert all(source.paths[i].split("/")[1] == source.classes[source.labels[i]] for i in range(0, len(source), 97))
        assert source.protocol["name"] == "cifar10-1"


def test_corel5k_21_is_its_lists(real):
    folder = real["corel5k-21"]
    for part in protocols.SETS:
        source = open_data(f"corel5k-21:{folder}", part)
        plain = open_data(f"list:{folder}/corel5k_21/{part}.txt")
        order = np.argsort(plain.paths)
        assert source.paths == tuple(np.array(plain.paths)[order])
        assert np.array_equal(source.labels, plain.labels[order])
        assert source.classes == plain.classes


def test_the_committed_files_are_what_the_script_makes(real, shared, tmp_path, monkeypatch):
    make = tool("make_splits")
    words = ["make_splits", "--cifar10", real["cifar10-1"], "--corel5k", real["corel5k-21"] / "corel5k_21"]
    words += ["--nuswide", shared / "data" / "nuswide21", "--out", tmp_path]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    make.main()
    for path in (Path(protocols.__file__).parent / "splits").glob("*.json"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_other_photographs_are_refused(photos, tmp_path):
    with pytest.raises(HashretError, match="60,000 with their original names are wanted, 48 are there"):
        open_data(f"cifar10-1:{photos}", "train")
    with pytest.raises(HashretError, match="no set 'validation'"):
        open_data(f"cifar10-1:{photos}", "validation")


def test_subsets_share_the_feature_cache_of_the_whole(photos, tmp_path):
    whole = open_data(photos, "train")
    part, other = whole.subset([3, 1, 30]), whole.subset(range(5))
    assert part.paths == (whole.paths[3], whole.paths[1], whole.paths[30])
    assert part.labels.tolist() == whole.labels[[3, 1, 30]].tolist()
    nested = part.subset([2, 0])
    assert nested.whole is whole
    assert nested.rows.tolist() == [30, 3]
    caches = [FeatureCache(tmp_path, source, "w", 32, "float32") for source in (whole, part, other)]
    assert len({cache.folder for cache in caches}) == 1
    computed = []

    class Mean:
        """Stands in for convolutions: each photograph's features are its mean."""

        def __call__(self, images):
            import torch

            computed.append(len(images))
            return torch.from_numpy(images.mean(axis=(1, 2, 3), keepdims=True)).half().expand(-1, 512, 1, 1)

    caches[1].fill(Mean(), workers=0)
    assert sum(computed) == 3
    assert caches[0].state().sum() == 3
    caches[2].fill(Mean(), workers=0)
    assert sum(computed) == 3 + 5 - 2  # rows 1 and 3 were there
    wanted = [whole.pixels(row, 32).mean() for row in (1, 3)]
    assert caches[1].open()[np.array([1, 0])][:, 0, 0, 0] == pytest.approx(wanted, rel=1e-3)
    assert np.array_equal(caches[2].open()[np.array([1, 3])], caches[1].open()[np.array([1, 0])])


@pytest.fixture
def nuswide(tmp_path, monkeypatch):
    """A NUS-WIDE of ten photographs and three of five concepts, in its own formats, and the literature's lists."""
    lists, truth = tmp_path / "lists", tmp_path / "truth"
    for folder in (lists, truth / "ImageList", truth / "AllLabels"):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i:04d}_{i * 7}.jpg" for i in range(10)]
    concepts = {name: rng.integers(0, 2, 10) for name in ("animal", "beach", "clouds", "dog", "sky")}
    concepts["sky"][:] = 1
    concepts["beach"][0] = concepts["dog"][0] = 0  # a train photograph on which they differ from the sky
    concepts["animal"][7] = concepts["clouds"][7] = concepts["sky"][7] = 0  # none of the three: not in the protocol
    (truth / "ImageList/Imagelist.txt").write_text("".join(f"actor\\{name}\n" for name in names))
    for name, flags in concepts.items():
        (truth / f"AllLabels/Labels_{name}.txt").write_text("".join(f"{flag}\n" for flag in flags))
    columns = np.stack([concepts[name] for name in ("animal", "clouds", "sky")], axis=1)
    lines = [f"images/{name} {' '.join(map(str, columns[i]))}\n" for i, name in enumerate(names)]
    for part, rows in (("train", (0, 2, 3, 5, 8, 9)), ("test", (1, 4))):
        (lists / f"{part}.txt").write_text("".join(lines[i] for i in rows))
    record = {"protocol": "nuswide-21", "lists": {
        part: hashlib.sha256((lists / f"{part}.txt").read_bytes()).hexdigest() for part in ("train", "test")
    }}  # fmt: skip
    monkeypatch.setattr(protocols.Protocol, "protocol_file", (record, "0" * 64))
    return lists, truth, names, columns


def test_nuswide_21_from_its_ground_truth(nuswide):
    lists, truth, names, columns = nuswide
    count, concepts = tool("nuswide_database").make_database(lists, truth)
    assert concepts == ["animal", "clouds", "sky"]
    inside = [i for i in range(10) if columns[i].any() and i not in (1, 4)]
    assert count == len(inside)
    with pytest.raises(HashretError, match=r"photographs under .*, first images/0000_0\.jpg"):
        open_data(f"nuswide-21:{lists}", "train")
    for name in names:
        make_photo(lists / "images" / name, "red", np.random.default_rng(0))
    parts = {part: open_data(f"nuswide-21:{lists}", part) for part in protocols.SETS}
    assert set(parts["database"].paths) == {f"images/{names[i]}" for i in inside}
    assert set(parts["train"].paths) <= set(parts["database"].paths)
    assert parts["test"].labels.tolist() == columns[[1, 4]].tolist()
    assert parts["test"].protocol["topk"] == 5000


def test_nuswide_21_names_all_that_is_wanting(nuswide, tmp_path):
    lists = nuswide[0]
    with pytest.raises(HashretError, match=r"database\.txt \(made by tools.*; 8 of 8 photographs under .*NUS-WIDE"):
        open_data(f"nuswide-21:{lists}", "train")
    (lists / "test.txt").unlink()
    with pytest.raises(HashretError, match=r"test\.txt, the literature's list"):
        open_data(f"nuswide-21:{lists}", "train")
    (lists / "train.txt").write_text("images/a.jpg 0 1 1\n")
    with pytest.raises(HashretError, match="that file is another one"):
        open_data(f"nuswide-21:{lists}", "train")


def test_real_nuswide_lists_are_known_and_the_photographs_are_named_as_missing(shared):
    with pytest.raises(HashretError, match=r"12,\d+ of 12,\d+ photographs under .*, first images/"):
        open_data(f"nuswide-21:{shared}/data/nuswide21", "train")


def test_corel5k_learns_from_fewer_columns_than_photographs(tmp_path):
    make_photos(tmp_path / "images", 2, 0)
    (tmp_path / "corel5k_21").mkdir()
    for part in protocols.SETS:
        (tmp_path / "corel5k_21" / f"{part}.txt").write_text("images/red/00.png 0 1\n")
    with pytest.raises(HashretError, match=r"4,390 with their original names are wanted, 1 are there"):
        open_data(f"corel5k-21:{tmp_path}", "train")
