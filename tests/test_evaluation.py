"""The figures of `evaluate` against plain rankings made of the same index."""

import json
import shutil

import numpy as np
import pytest
from conftest import make_photos
from test_metrics import all_orders, plain_ap

from hashret.bits import hamming
from hashret.data import open_data, protocols
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.evaluation import evaluate
from hashret.index import build_index, open_index, remove
from hashret.shards import ShardFolder


@pytest.fixture(scope="module")
def query_codes(photos, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("queries") / "codes"
    encode(photos, model, out, split="test", workers=0)
    return out


def shuffled_ap(distances, relevant, head, topk=None, rounds=300):
    """Mean AP over shuffles of the database, behind a fixed head."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(rounds):
        order = rng.permutation(len(distances))
        order = order[np.argsort(distances[order], kind="stable")]
        scores.append(plain_ap([*head, *relevant[order].tolist()], topk))
    return np.mean(scores), np.std(scores) / np.sqrt(rounds)


@pytest.mark.parametrize("candidates", [5, 36])
@pytest.mark.parametrize("topk", [None, 8])
def test_figures_are_those_of_plain_rankings(query_codes, index_folder, candidates, topk):
    result = evaluate(query_codes, index_folder, candidates=candidates, k=(1, 4), topk=topk, device="cpu").as_dict()
    index, queries = open_index(index_folder, "cpu"), ShardFolder(query_codes).load()
    D = hamming(queries.codes, index.codes())
    relevant = queries.labels[:, None] == np.asarray(index.labels)[None]
    plain = [shuffled_ap(D[q], relevant[q], [], topk) for q in range(12)]
    error = np.sqrt(sum(e**2 for _, e in plain)) / 12
    assert abs(result["hamming"]["map"] - np.mean([ap for ap, _ in plain])) <= 5 * error + 1e-9
    assert result["hamming"]["map_worst_ties"] <= result["hamming"]["map"] <= result["hamming"]["map_best_ties"]
    inside = D <= 2
    wanted = np.mean([relevant[q][inside[q]].mean() if inside[q].any() else 0 for q in range(12)])
    assert result["hamming"]["precision_radius_2"] == pytest.approx(wanted)
    reranked, errors, first = [], [], []
    for q in range(12):
        nearest = np.argsort(D[q], kind="stable")[:candidates]
        far = np.linalg.norm(index.hash_outputs[nearest] - queries.hash_outputs[q].astype(np.float32), axis=1)
        head = nearest[np.argsort(far, kind="stable")]
        tail = np.setdiff1d(np.arange(36), head)
        ap, e = shuffled_ap(D[q][tail], relevant[q][tail], relevant[q][head].tolist(), topk)
        reranked.append(ap)
        errors.append(e)
        first.append(relevant[q][head[:4]].mean())
    assert abs(result["reranked"]["map"] - np.mean(reranked)) <= 5 * np.linalg.norm(errors) / 12 + 1e-9
    assert result["reranked"]["precision_at"]["4"] == pytest.approx(np.mean(first))
    assert result["candidates"] == candidates


def test_photographs_are_encoded_first_and_figures_written(photos, query_codes, index_folder, model, tmp_path):
    options = {"device": "cpu"}
    out = tmp_path / "figures.json"
    from_photos = evaluate(
        photos, index_folder, model=model, split="test", out=out, protocol="colours", **options
    ).as_dict()
    from_codes = evaluate(query_codes, index_folder, **options).as_dict()
    assert from_photos["hamming"] == from_codes["hamming"]
    assert json.loads(out.read_text()) == from_photos
    assert from_photos["protocol"] == "colours"
    assert "12 queries, 36 database items" in from_codes["protocol"]


def test_queries_that_find_themselves_are_counted(photos, codes, query_codes, index_folder, model, tmp_path, recwarn):
    build_index([codes, query_codes], tmp_path / "index")
    remove(tmp_path / "index", paths=["*test/red/*"])
    for queries, index, own in (
        (codes, index_folder, "36 of 36 queries are photographs of the index"),
        (query_codes, tmp_path / "index", "8 of 12 queries are photographs of the index"),
        (query_codes, index_folder, ""),
    ):
        recwarn.clear()
        evaluate(queries, index, device="cpu", k=(1,))
        assert [own] * bool(own) == [
            str(note.message).partition(", too, and find themselves")[0]
            for note in recwarn
            if "find themselves" in str(note.message)
        ]
    with pytest.warns(UserWarning, match="36 of 36 queries are photographs of the index"):
        figures = evaluate(photos, index_folder, model=model, split="train", bits=24, device="cpu", k=(1,))
    assert figures.reranked.precision_at["1"] == 1


def test_several_labels(model, tmp_path):
    make_photos(tmp_path / "images", 4, 0)
    flags = {"red": "1 0 1", "green": "0 1 1", "blue": "1 1 0"}
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(4)]
    (tmp_path / "database.txt").write_text("\n".join([*lines, "images/red/00.png 0 1 0"]))
    encode(f"list:{tmp_path}/database.txt", model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    result = evaluate(tmp_path / "codes", tmp_path / "index", candidates=3, k=(1,), device="cpu").as_dict()
    rows = ShardFolder(tmp_path / "codes").load()
    relevant = (rows.labels.astype(int) @ rows.labels.T.astype(int)) > 0
    D = hamming(rows.codes, rows.codes)
    plain = [shuffled_ap(D[q], relevant[q], []) for q in range(13)]
    assert result["hamming"]["map"] == pytest.approx(np.mean([ap for ap, _ in plain]), abs=0.01)


def test_without_labels_there_is_nothing_to_score(photos, model, index_folder, tmp_path):
    encode(photos / "test" / "red", model, tmp_path / "codes", workers=0)
    with pytest.raises(HashretError, match="need labels"):
        evaluate(tmp_path / "codes", index_folder)


def test_nothing_is_encoded_where_there_are_no_labels(photos, model, index_folder, tmp_path, monkeypatch):
    encode(photos / "test" / "red", model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "unlabelled")
    monkeypatch.setattr("hashret.encoding.encode", None)
    with pytest.raises(HashretError, match="need labels"):
        evaluate(photos / "test" / "red", index_folder, model=model)
    with pytest.raises(HashretError, match="need labels"):
        evaluate(photos, tmp_path / "unlabelled", model=model, split="test")


def test_other_classes_are_refused(photos, model, index_folder, tmp_path):
    make_photos(tmp_path / "photos", 1, 0)
    for name in ("blue", "green", "red"):
        (tmp_path / "photos" / name).rename(tmp_path / "photos" / f"other {name}")
    encode(tmp_path / "photos", model, tmp_path / "codes", workers=0)
    with pytest.raises(HashretError, match="no class in common"):
        evaluate(tmp_path / "codes", index_folder)


def test_codes_that_tell_nothing_apart_are_named(photos, model, tmp_path):
    for number in range(24):
        (tmp_path / "same" / "abc"[number % 3]).mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "test" / "red" / "00.png", tmp_path / "same" / "abc"[number % 3] / f"{number}.png")
    encode(f"folder:{tmp_path / 'same'}", model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    with pytest.warns(UserWarning, match=r"24 photographs of 3 classes have 1 distinct code and mAP .* that of chance"):
        figures = evaluate(tmp_path / "codes", tmp_path / "index").as_dict()["hamming"]
    assert figures["map"] == pytest.approx(figures["map_by_chance"])


@pytest.mark.parametrize("wrong", [{"k": (0,)}, {"k": []}, {"candidates": 0}, {"topk": -1}])
def test_counts_below_one(query_codes, index_folder, wrong):
    with pytest.raises(HashretError, match="at least 1"):
        evaluate(query_codes, index_folder, **wrong)


def test_all_orders_of_ties_is_what_it_says():
    assert sorted(map(tuple, all_orders([0, 0, 1], [1, 0, 1]))) == [(0, 1, 1), (1, 0, 1)]


def test_the_protocol_of_the_data_is_recorded_and_says_what_counts(photos, model, tmp_path, monkeypatch, recwarn):
    everything = open_data(photos, "train")
    record = {"protocol": "toy", "train": "0-35", "database": "0-29", "test": "30-35"}
    monkeypatch.setattr(protocols.Protocol, "protocol_file", (record, "5" * 64))
    toy = protocols.Protocol("corel5k-21", 7, lambda folder, record, download: everything)
    monkeypatch.setitem(protocols.PROTOCOLS, "corel5k-21", toy)
    for part in ("database", "test"):
        encode(f"corel5k-21:{photos}", model, tmp_path / part, split=part, workers=0)
    build_index(tmp_path / "database", tmp_path / "index")
    result = evaluate(tmp_path / "test", tmp_path / "index", k=(1,), index_order=True).as_dict()
    assert not [note for note in recwarn if "find themselves" in str(note.message)]
    assert (result["protocol"], result["split_sha256"], result["map_at"]) == ("corel5k-21", "5" * 64, 7)
    figures = result["hamming"]
    assert figures["map_worst_ties"] <= figures["map_index_order"] <= figures["map_best_ties"]
    assert len(figures["curve"]["precision"]) == len(figures["curve"]["recall"]) == 25
    assert evaluate(tmp_path / "test", tmp_path / "index", topk=0).as_dict()["map_at"] == "all"
    assert evaluate(tmp_path / "test", tmp_path / "index", topk=3).as_dict()["map_at"] == 3
    with pytest.warns(UserWarning, match="30 of 30 queries are photographs of the index"):
        other = evaluate(tmp_path / "database", tmp_path / "index", k=(1,)).as_dict()  # queries that are no protocol's
    assert other["split_sha256"] is None
    assert other["protocol"].startswith("30 queries, 30 database items")
