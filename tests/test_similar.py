"""How similar hits are in words and percent, and the least that a search is asked for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from hashret import HashretError, Searcher, build_index, encode, query, train
from hashret.bits import binarize, pack
from hashret.cli import main
from hashret.data import vectors
from hashret.names import shown_path
from hashret.similar import LEVELS, bits_within, least_percent, nothing_so_similar, similarity


def test_how_similar():
    assert [similarity(hamming, 48) for hamming in (0, 12, 24, 48)] == [100, 50, 0, 0]


@pytest.mark.parametrize("bits", [8, 400, 512, 4096])
def test_only_equal_codes_are_fully_similar(bits):
    assert similarity(0, bits) == 100
    assert similarity(1, bits) <= 99
    assert bits_within("same", bits) == bits_within(99.5, bits) == 0


@pytest.mark.parametrize(
    ("least", "percent"),
    [("somewhat", 25), ("Very", 75), ("same", 100), ("60", 60), ("60 %", 60), (12.5, 12.5), (0, 0)],
)
def test_a_least_similarity_is_a_word_or_percent(least, percent):
    assert least_percent(least) == percent


@pytest.mark.parametrize("least", ["alike", "", "-1", "101", 150, "nan", float("inf"), [1], None])
def test_what_is_none(least):
    with pytest.raises(HashretError, match=r"one of somewhat \(25 %\), .* or a number from 0 to 100, not"):
        least_percent(least)


@pytest.mark.parametrize("bits", [8, 12, 24, 48, 256, 4096])
def test_bits_and_percent_agree(bits):
    for least in (*LEVELS, 0, 33, 99.5):
        within = bits_within(least, bits)
        assert similarity(within, bits) >= least_percent(least)
        assert within == bits or similarity(within + 1, bits) < least_percent(least)


def test_the_line_where_nothing_is_left():
    assert (
        nothing_so_similar("very", 42) == "no photograph is at least very similar (75 %); the nearest is 42 % similar"
    )
    assert nothing_so_similar(60, None) == "no photograph is at least 60 % similar"
    assert nothing_so_similar("same", 96).startswith("no photograph is at least fully similar (100 %)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index of vectors in four bunches, whose codes are nearly the same, similar or not at all."""
    folder = tmp_path_factory.mktemp("bunches")
    rng = np.random.default_rng(0)
    bunches = np.repeat(rng.standard_normal((4, 16)), 50, axis=0)
    vectors = np.float32(bunches + 0.6 * rng.standard_normal(bunches.shape))
    np.savez(folder / "vectors.npz", vectors=vectors[::2])
    np.savez(folder / "asked.npz", vectors=vectors[1::20])
    train(f"vectors:{folder / 'vectors.npz'}", folder / "model.safetensors", method="itq", bits=16)
    encode(f"vectors:{folder / 'vectors.npz'}", folder / "model.safetensors", folder / "codes")
    build_index(folder / "codes", folder / "index")
    return folder


@pytest.fixture(scope="module")
def searcher(folder):
    return Searcher(folder / "index", folder / "model.safetensors", "cpu")


@pytest.fixture(scope="module")
def asked(folder):
    return np.load(folder / "asked.npz")["vectors"]


def as_answer(hits):
    return [(hit.id, hit.hamming, hit.euclidean, hit.similarity) for hit in hits]


@pytest.mark.parametrize("rerank_by", ["cosine", "directions", None])
@pytest.mark.parametrize("least", ["somewhat", "similar", "very", "same", 0])
def test_hits_are_the_best_of_all_that_are_so_similar(searcher, asked, rerank_by, least):
    """Not what of the k best is so similar: the re-rank may put others before them."""
    everything = searcher.search_vectors(asked, 100, rerank_by=rerank_by)
    left = [[hit for hit in hits if similarity(hit.hamming, 16) >= least_percent(least)] for hits in everything]
    if least == "very":
        assert min(map(len, left)) < 7 < max(map(len, left)) < 100
    for every, wanted, got in zip(
        everything, left, searcher.search_vectors(asked, 7, rerank_by=rerank_by, least=least), strict=True
    ):
        assert as_answer(got) == as_answer(wanted[:7])
        assert [hit.rank for hit in got] == list(range(1, len(got) + 1))
        assert (got.nearest is None) == bool(wanted)
        if got.nearest:
            assert got.nearest.hamming == min(hit.hamming for hit in every)
            assert got.as_dict()["nearest"] == got.nearest.as_dict()
        else:
            assert "nearest" not in got.as_dict()


def test_where_nothing_is_left_the_nearest_is_named(searcher, asked):
    [hits] = searcher.search_vectors(-asked[:1], 3, least="same")
    assert list(hits) == []
    [[nearest]] = searcher.search_vectors(-asked[:1], 1, rerank_by=None)
    assert nearest.similarity < 100
    assert (hits.nearest.hamming, hits.nearest.similarity) == (nearest.hamming, nearest.similarity)
    codes = pack(binarize(searcher.encoder.encode(-asked[:1])))
    [by_code] = searcher.search_codes(codes, 3, least="same")
    assert (list(by_code), by_code.nearest.hamming) == ([], hits.nearest.hamming)


@pytest.mark.parametrize(("by", "two"), [("mean", [0, 1]), ("union", [0, 9])])
def test_several_as_one_query(searcher, asked, by, two):
    both = vectors(asked[two])
    everything, left = (searcher.search_together(both, 100, by=by, least=least) for least in (None, "very"))
    wanted = [hit for hit in everything if hit.similarity >= 75]
    if by == "mean":
        assert as_answer(left) == as_answer(wanted)
    else:  # which are near to one of both; the distance of a hit is that to the one it is nearest to
        each = searcher.search_vectors(asked[two], 100, least="very")
        assert {hit.id for hit in left} == {hit.id for hits in each for hit in hits}
        assert [hit.euclidean for hit in left] == sorted(hit.euclidean for hit in left)
    assert 0 < len(left) < len(everything)
    none = searcher.search_together(vectors(-asked[two]), 5, by=by, least="same")
    assert (list(none), none.least) == ([], 100)
    assert none.nearest


def test_a_photograph_itself_is_left_out_before_the_rest_is_judged(photos, model, index_folder):
    searcher = Searcher(index_folder, model, "cpu")
    itself = searcher.index.path(5)
    among = searcher.index.select(ids=[5])
    assert searcher.search(itself, 5, among=among, least="same")[0].id == 5
    alone = searcher.search(itself, 5, among=among, least="same", exclude_self=True)
    assert (list(alone), alone.nearest) == ([], None)


def test_words_take_it_too(model, index_folder):
    searcher = Searcher(index_folder, model, "cpu")
    everything, none = (searcher.search_words("green", 36, least=least) for least in (None, "same"))
    assert as_answer(none) == as_answer([hit for hit in everything if hit.similarity >= 100])
    assert len(none) < len(everything)


def test_radius_says_the_same_in_bits(searcher, asked):
    with pytest.raises(HashretError, match="radius and least both say how near a hit must be"):
        query(vectors=asked, searcher=searcher, radius=3, least="very")


def test_the_verb(folder, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    np.savez(tmp_path / "one.npz", vectors=-asked[:1])
    named = ["query", "--vector", str(tmp_path / "one.npz"), "--least"]
    found = json.loads(CliRunner().invoke(main, [*named, "same", "--json"]).output)
    assert found["hits"] == []
    done = CliRunner().invoke(main, [*named, "same"])
    line = nothing_so_similar("same", found["nearest"]["similarity"])
    assert (done.exit_code, done.output) == (0, f"{line}: {shown_path(found['nearest']['path'])}\n")
    wrong = CliRunner().invoke(main, [*named, "alike"])
    assert (wrong.exit_code, wrong.output.count("\n")) == (2, 1)
    assert "the least similarity is one of somewhat (25 %)" in wrong.output
