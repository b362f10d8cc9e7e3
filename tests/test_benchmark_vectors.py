"""`benchmarks.run.vectors`: its figures on vectors whose answers are known, and the binary recipe."""

from argparse import Namespace

import numpy as np
import pytest

pytest.importorskip("numba")

from benchmarks.pages import vectors as page
from benchmarks.run import vectors
from hashret.vectors import unit


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    """150 vectors of 64 numbers, a few copies among them, and 33 queries, as a .npz."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(150, 64)).astype(np.float32)
    base[100:110] = base[:10]
    path = tmp_path_factory.mktemp("clouds") / "clouds.npz"
    np.savez(path, base=base, asked=base[::5] + rng.normal(size=(30, 64)), data="clouds", commit="0123456")
    return path


def test_what_looks_at_everything_finds_everything(clouds, monkeypatch):
    pytest.importorskip("usearch")
    monkeypatch.setattr(vectors, "BATCHES", (1, 16))
    run = vectors.measure(clouds, Namespace(rounds=1, seconds=0, families=["hashret", "numpy", "usearch"]))
    assert (run["items"], run["width"], run["queries"], run["features_commit"]) == (150, 64, 30, "0123456")
    by_name = {one["how"]: one for one in run["contestants"]}
    for how in ("hashret, 64 bits, float32", "usearch, f16, exact", "numpy, matrix product"):
        assert by_name[how]["recall"]["10"] >= 0.99
        assert set(by_name[how]["ms"]) == {"10, 1", "10, 16", "100, 1", "100, 16"}
    alone, kept = (by_name[f"hashret, 64 bits, {what}"] for what in ("codes alone", "float32"))
    assert alone["recall"]["10"] < 0.9
    assert kept["bytes_an_item"] - alone["bytes_an_item"] == pytest.approx(4 * 64, abs=2)


def test_the_best_trade_offs_are_what_nothing_faster_matches():
    points = ((3.0, 0.9), (1.0, 0.5), (2.0, 0.9), (4.0, 0.8), (5.0, 1.0))
    rows = [{"ms": {"10, 1": ms}, "recall": {"10": recall}} for ms, recall in points]
    assert page.best_trade_offs(rows) == [rows[1], rows[2], rows[4]]


def test_recall_counts_equal_items_and_nothing_twice():
    base, asked = unit(np.eye(4)[[0, 0, 1, 2]]), unit(np.eye(4)[:1])
    last = np.ones(1, np.float32)  # both copies of the first axis are as near as the nearest
    assert vectors.recall(np.array([[1]]), base, asked, last) == 1
    assert vectors.recall(np.array([[0, 0]]), base, asked, last) == 0.5
    assert vectors.recall(np.array([[0, -1]]), base, asked, last) == 0.5
    assert vectors.recall(np.array([[2, 2**62]]), base, asked, last) == 0


def test_rescoring_is_that_of_the_published_recipe():
    """The nearest by signs, in the order of the products of the query with the bits, or with int8 made float again."""
    rng = np.random.default_rng(1)
    base, asked = rng.normal(size=(60, 20)).astype(np.float32), rng.normal(size=(1, 20)).astype(np.float32)
    signs = (base > 0).astype(int)
    by_bits, by_int8 = (
        one.search for one in vectors.of_sentence_transformers(base, None) if "ubinary, 16 k rescored" in one.how
    )
    near = np.lexsort((np.arange(60), (signs != (asked > 0)).sum(axis=1)))[:32]
    scores = signs[near] @ asked[0]
    assert by_bits(asked, 2).tolist() == [near[np.argsort(-scores)[:2]].tolist()]
    least, steps = base.min(axis=0), np.ptp(base, axis=0) / 255
    again = least + np.floor((base - least) / steps).clip(0, 255) * steps
    scores = again[near] @ asked[0]
    assert by_int8(asked, 2).tolist() == [near[np.argsort(-scores)[:2]].tolist()]
