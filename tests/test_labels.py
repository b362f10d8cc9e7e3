"""Classes are matched by name: added to an index, built from several folders, or asked for by queries."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from hashret.bits import binarize, pack
from hashret.cli import main
from hashret.errors import HashretError
from hashret.evaluation import evaluate
from hashret.files import write_json
from hashret.index import append, build_index, compact, open_index, remove
from hashret.labels import renumbered, united
from hashret.shards import MANIFEST, Shard, ShardFolder, encode_paths, shard_name, write_shard

BITS = 16
NAMES = ("cat", "dog", "owl", "red panda", "tree")
CENTRES = dict(zip(NAMES, np.random.default_rng(0).random((5, BITS)) < 0.5, strict=True))


def shards(folder, classes, photos, several=False):
    """A folder of shards; ``photos``: the class names of each, whose code is that of the first, or None: no labels."""
    names = [[] if photo is None else photo if several else [photo] for photo in photos]
    values = np.array([CENTRES[name[0] if name else "cat"] for name in names], np.float32) * 0.8 + 0.1
    labels = None
    if classes:
        number = {name: classes.index(name) for name in classes}
        flags = np.zeros((len(names), len(classes)), np.uint8)
        for row, photo in zip(flags, names, strict=True):
            row[[number[name] for name in photo]] = 1
        labels = flags if several else np.array([number[photo[0]] for photo in names])
    paths = encode_paths([f"{folder.name}/{n}.png" for n in range(len(names))])
    shard = Shard(pack(binarize(values)), values, np.arange(len(names)), paths, labels)
    write_shard(folder / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
    manifest = {"bits": BITS, "encoder": "e", "precision": "float32", "image_size": 32, "shards": 1}
    write_json(folder / MANIFEST, manifest | {"classes": classes, "protocol": None})
    return folder


def names_in(index):
    """The class names of each photograph that was not removed."""
    return [index.label_names(row) for row in np.flatnonzero(index.alive)]


def found_by(index, label):
    return index.ids[np.flatnonzero(index.select(label=label).mask)].tolist()


@pytest.fixture
def cats(tmp_path):
    """An index of cats, dogs and owls, one label a photograph."""
    build_index(shards(tmp_path / "first", ["cat", "dog", "owl"], ["cat", "dog", "owl", "owl"]), tmp_path / "index")
    return tmp_path / "index"


def test_lists_of_classes_are_united_by_name():
    assert united(["cat", "dog"], ["ant", "dog", "cat"], []) == ["cat", "dog", "ant"]
    labels = np.array([1, -1, 0, 2])
    assert renumbered(labels, ["a", "b", "c"], ["c", "a", "x", "b"]).tolist() == [3, -1, 1, 0]
    assert renumbered(labels, ["a", "b", "c"], ["a", "b", "c", "d"]) is labels
    assert renumbered(labels, ["a", "a", "b"], ["a", "b"], several=True).tolist() == [[1, 0], [0, 0], [1, 0], [0, 1]]
    flags = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8)
    assert renumbered(flags, ["a", "b", "a"], ["b", "z", "a"]).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert renumbered(flags, ["a", "b", "c"], ["a", "b", "c", "d"]).tolist() == [[1, 0, 1, 0], [0] * 4, [0, 1, 0, 0]]
    with pytest.raises(HashretError, match="class number 2 of 2"):
        renumbered(labels, ["a", "b"], ["a", "b"])


def test_a_folder_that_lacks_a_class_or_brings_one_keeps_its_labels(cats, tmp_path):
    assert append(cats, shards(tmp_path / "fewer", ["cat", "owl"], ["owl", "cat"])) == 2
    append(cats, shards(tmp_path / "more", ["dog", "tree"], ["tree", "dog"]))
    append(cats, shards(tmp_path / "plain", [], [None]))
    wanted = [("cat",), ("dog",), ("owl",), ("owl",), ("owl",), ("cat",), ("tree",), ("dog",), ()]
    for _ in range(2):
        index = open_index(cats)
        assert index.meta["classes"] == ["cat", "dog", "owl", "tree"]
        assert names_in(index) == wanted
        assert found_by(index, "owl") == [2, 3, 4]
        assert found_by(index, ["tree", "dog"]) == [1, 6, 7]
        assert index.labels.tolist() == [0, 1, 2, 2, 2, 0, 3, 1, -1]
        compact(cats)


def test_labels_come_to_an_index_without_any(tmp_path):
    build_index(shards(tmp_path / "plain", [], [None, None]), tmp_path / "index")
    append(tmp_path / "index", shards(tmp_path / "cats", ["cat"], ["cat"]))
    index = open_index(tmp_path / "index")
    assert (names_in(index), found_by(index, "cat")) == ([(), (), ("cat",)], [2])


def test_one_label_and_several_go_together(cats, tmp_path):
    """What was written stays as it was; together, the labels are flags."""
    kept = (cats / "000001" / "labels.npy").read_bytes()
    append(cats, shards(tmp_path / "lists", ["tree", "dog"], [["dog", "tree"], []], several=True))
    append(cats, shards(tmp_path / "wider", ["red panda", "cat"], [["cat", "red panda"]], several=True))
    append(cats, shards(tmp_path / "one", ["owl"], ["owl"]))
    assert (cats / "000001" / "labels.npy").read_bytes() == kept
    wanted = [("cat",), ("dog",), ("owl",), ("owl",), ("dog", "tree"), (), ("cat", "red panda"), ("owl",)]
    for _ in range(2):
        index = open_index(cats)
        assert names_in(index) == wanted
        assert index.labels.shape == (8, 5)
        assert found_by(index, "dog") == [1, 4]
        assert found_by(index, "owl") == [2, 3, 7]
        item = index.items([6])[0]
        assert (item.label, item.code, item.labels) == ("cat red panda", None, ("cat", "red panda"))
        compact(cats)
    remove(cats, ids=[4, 6])
    assert names_in(open_index(cats)) == [("cat",), ("dog",), ("owl",), ("owl",), (), ("owl",)]


@pytest.mark.parametrize("several", [False, True])
def test_several_folders_make_one_index_by_the_names(tmp_path, several):
    second = [["tree"], ["dog", "cat"]] if several else ["tree", "dog"]
    folders = [
        shards(tmp_path / "1", ["cat", "dog"], ["dog", "cat"]),
        shards(tmp_path / "2", ["tree", "cat", "dog"], second, several),
        shards(tmp_path / "3", [], [None]),
    ]
    meta = build_index(folders, tmp_path / "index").meta
    assert meta["classes"] == ["cat", "dog", "tree"]
    wanted = [("dog",), ("cat",), ("tree",), ("cat", "dog") if several else ("dog",), ()]
    assert names_in(open_index(tmp_path / "index")) == wanted


def test_queries_and_index_are_compared_by_name(cats, tmp_path):
    """The test set lacks the dog, numbers the others otherwise, and has a class that the index lacks."""
    queries = shards(tmp_path / "queries", ["owl", "tree", "cat"], ["cat", "owl", "tree", "owl"])
    with pytest.warns(UserWarning, match="1 of 4 queries share no label"):
        found = evaluate(queries, cats, k=(1,), device="cpu").as_dict()
    assert found["hamming"]["precision_at"]["1"] == found["reranked"]["precision_at"]["1"] == 0.75
    assert found["hamming"]["map"] == found["reranked"]["map"] == 0.75
    assert found["hamming"]["map_answerable"] == found["reranked"]["map_answerable"] == 1
    assert (found["queries_without_relevant"], found["database_without_label"]) == (1, 0)


def test_the_same_figures_whatever_the_kind_of_labels(cats, tmp_path):
    one = evaluate(shards(tmp_path / "one", ["owl", "cat"], ["cat", "owl"]), cats, device="cpu").as_dict()
    flags = shards(tmp_path / "flags", ["cat", "owl"], [["cat"], ["owl"]], several=True)
    assert evaluate(flags, cats, device="cpu").as_dict()["hamming"] == one["hamming"]
    append(cats, shards(tmp_path / "none", [], [None]))
    with pytest.warns(UserWarning, match="1 of 5 photographs of the index have no label"):
        found = evaluate(flags, cats, device="cpu").as_dict()
    assert found["database_without_label"] == 1


def test_no_query_can_be_answered(cats, tmp_path):
    remove(cats, ids=[0])
    with pytest.warns(UserWarning, match="1 of 1 queries share no label"):
        found = evaluate(shards(tmp_path / "q", ["cat"], ["cat"]), cats, device="cpu").as_dict()
    assert (found["hamming"]["map"], found["hamming"]["map_answerable"]) == (0, None)
    with pytest.raises(HashretError, match=r"no class in common \(tree; cat, dog, owl\)"):
        evaluate(shards(tmp_path / "other", ["tree"], ["tree"]), cats, device="cpu")


def test_photographs_without_a_label_are_like_none(tmp_path):
    """Queries that have no label do not match photographs that have none."""
    folder = tmp_path / "codes"
    shards(folder, ["cat", "dog"], ["cat", "dog", "dog"])
    shard = replace(ShardFolder(folder).load(), labels=np.array([0, -1, -1]))
    write_shard(folder / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
    build_index(folder, tmp_path / "index")
    with pytest.warns(UserWarning, match="2 of 3"):
        found = evaluate(folder, tmp_path / "index", k=(1,), device="cpu").as_dict()
    assert found["hamming"]["map"] == found["reranked"]["precision_at"]["1"] == pytest.approx(1 / 3)


def test_the_report_counts_the_classes_of_both(cats, tmp_path):
    from hashret.reporting.figures import measure
    from hashret.reporting.page import _facts
    from hashret.reporting.run import RunFiles

    queries = shards(tmp_path / "queries", ["tree", "owl"], ["owl", "tree"])
    parts = RunFiles(tmp_path, index=cats, queries=queries)
    figures = measure(parts, "cpu")
    assert figures.classes["names"] == ["cat", "dog", "owl", "tree"]
    assert figures.classes["queries"] == [0, 0, 1, 1]
    assert figures.classes["map"] == [None, None, 1, 0]
    assert [example.label for example in figures.best] == ["owl"]
    assert [answer.good for answer in figures.best[0].answers] == [True, True, False, False]
    assert (
        _facts(parts, figures)["nothing relevant"] == "to 1 of the queries, which count as 0; mAP of the others 1.0000"
    )


@pytest.mark.filterwarnings("default")
def test_evaluate_prints_json_alone_and_notes_beside(cats, tmp_path):
    queries = shards(tmp_path / "queries", ["tree", "owl"], ["owl", "tree"])
    done = CliRunner().invoke(main, ["evaluate", str(queries), "--index", str(cats), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries_without_relevant"] == 1
    assert "note: 1 of 2 queries share no label" in done.stderr
