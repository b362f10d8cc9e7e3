"""Ties at the distance of the candidates: nothing as near as the answers is left out unless that is said."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from hashret.bits import binarize, pack
from hashret.cli import main
from hashret.engines import export
from hashret.evaluation import evaluate
from hashret.files import write_json
from hashret.index import build_index, open_index
from hashret.index import database as module
from hashret.index.resident import Resident
from hashret.opening import open_database
from hashret.service.answers import answer
from hashret.service.live import Snapshot
from hashret.service.schema import SearchParameters
from hashret.shards import MANIFEST, Shard, encode_paths, shard_name, write_shard

BITS, ONE_CODE, OTHERS = 16, 3000, 500
CUT = "more photographs are as near as the answers"


def make_index(folder):
    """3,000 photographs of one code but other values, and 500 of others; each 50th is a query, too."""
    rng = np.random.default_rng(0)
    values = rng.random((ONE_CODE + OTHERS, BITS)).astype(np.float32)
    values[:ONE_CODE] = 0.55 + 0.4 * values[:ONE_CODE]
    labels = (np.arange(len(values)) >= ONE_CODE).astype(int)
    for name, step in (("codes", 1), ("queries", 50)):
        some = values[::step]
        paths = encode_paths([f"{n}.png" for n in range(len(some))])
        shard = Shard(pack(binarize(some)), some, np.arange(len(some)), paths, labels[::step])
        write_shard(folder / name / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
        manifest = {"bits": BITS, "encoder": "e", "precision": "float32", "image_size": 32, "shards": 1}
        write_json(folder / name / MANIFEST, manifest | {"classes": ["alike", "other"], "protocol": None})
    build_index(folder / "codes", folder / "index")
    return folder / "index"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("ties"))


@pytest.fixture(scope="module")
def index(folder):
    return open_index(folder, "cpu")


ASKED = [2999, 1500, 3, 3100]  # three of the one code, of which two are not among its first 1,000, and another


def asked(index):
    values = np.asarray(index.hash_outputs[np.array(ASKED)])
    return pack(binarize(values)), values


def check_finds_itself(database, values_index):
    codes, values = asked(values_index)
    assert database.search(codes, values, 10).positions[:, 0].tolist() == ASKED
    hits = database.search(codes, values, 10, rerank_by="values")
    assert hits.positions[:, 0].tolist() == ASKED
    assert hits.euclidean[:, 0].tolist() == [0] * 4
    assert not hits.cut.any()
    assert hits.candidates.tolist() == [ONE_CODE] * 3 + [1000]
    far = np.linalg.norm(np.asarray(values_index.hash_outputs[:ONE_CODE]) - values[1], axis=1)
    assert hits.positions[1].tolist() == np.argsort(far, kind="stable")[:10].tolist()
    told = database.search(codes, values, 10, 1000)
    assert told.cut.tolist() == [True, True, True, False]
    assert told.candidates.tolist() == [1000] * 4
    assert told.positions[:, 0].tolist()[2:] == ASKED[2:]
    assert (told.positions[:2] < 1000).all()  # as ids have it
    assert not database.search(codes, values, 10, ONE_CODE).cut.any()  # the tie ends with the last candidate


def test_a_photograph_finds_itself_among_all_of_its_code(index):
    check_finds_itself(index, index)


def test_no_query_is_reranked_twice(index, monkeypatch):
    """Whether ties are cut is known before the first re-rank."""
    shapes, rerank = [], index.reranked
    monkeypatch.setattr(index, "reranked", lambda *asked: shapes.append(asked[1].shape) or rerank(*asked))
    index.search(*asked(index), 10)
    assert sorted(shapes) == [(1, 1000)] + 3 * [(1, ONE_CODE)]


def test_the_copy_on_a_gpu_takes_the_same_candidates(index):
    """The CPU stands in for the GPU."""
    resident = Resident(index, "cpu", few_queries=0).warm()
    codes, values = asked(index)
    for candidates in (None, 1000, ONE_CODE):
        got, wanted = (place.search(codes, values, 10, candidates) for place in (resident, index))
        for name in ("positions", "hamming", "candidates", "cut"):
            assert np.array_equal(getattr(got, name), getattr(wanted, name)), name
        assert got.euclidean == pytest.approx(wanted.euclidean, abs=1e-6)


def test_a_collection_takes_the_same_candidates(folder, index, milvus):
    export(folder, f"{milvus}#ties")
    check_finds_itself(open_database(f"{milvus}#ties", "cpu"), index)


def test_more_than_can_be_taken_is_said(index, monkeypatch):
    monkeypatch.setattr(module, "MOST_CANDIDATES", 2000)
    codes, values = asked(index)
    hits = index.search(codes, values, 10)
    assert hits.cut.tolist() == [True, True, True, False]
    assert hits.candidates.tolist() == [2000, 2000, 2000, 1000]
    assert (hits.positions[1, 0], hits.positions[0, 0] == 2999) == (1500, False)


def test_the_service_takes_the_same_candidates(index):
    codes, values = asked(index)
    for candidates, itself, cut in ((None, True, False), (1000, False, True)):
        parameters = SearchParameters(k=10, candidates=candidates)
        got = answer(Snapshot(index, None), codes[0], values[0], parameters, ("values", values[:1]))
        assert got.ties_cut == cut
        assert got.candidates == (1000 if cut else ONE_CODE)
        assert (got.hits[0].id == 2999) == itself


def test_among_some_photographs(index):
    codes, values = asked(index)
    among = index.select(ids=range(1400, 3500))
    hits = index.search(codes[:2], values[:2], 10, among=among)
    assert hits.positions[:, 0].tolist() == ASKED[:2]
    assert hits.candidates.tolist() == [1600, 1600]


def test_fewer_photographs_than_candidates(index):
    codes, values = asked(index)
    among = index.select(ids=range(5))
    for candidates in (None, 3, 5, 9):
        hits = index.search(codes, values, 2, candidates, among=among)
        assert hits.cut.tolist() == [candidates == 3] * 4
        assert hits.positions.shape == (4, 2)


def test_without_rerank_nothing_is_a_candidate(index):
    hits = index.search(asked(index)[0], None, 10)
    assert (hits.candidates.tolist(), hits.cut.tolist()) == ([0] * 4, [False] * 4)


def test_evaluate_keeps_to_its_number_and_says_so(folder):
    with pytest.warns(UserWarning, match="60 of 70 queries have more"):
        cut = evaluate(folder.parent / "queries", folder, k=(1,), device="cpu").as_dict()
    assert (cut["candidates"], cut["queries_with_ties_cut"]) == (1000, 60)
    whole = evaluate(folder.parent / "queries", folder, candidates=ONE_CODE, k=(1,), device="cpu").as_dict()
    assert whole["queries_with_ties_cut"] == 0


@pytest.mark.filterwarnings("default")
def test_query_says_what_it_left_out(photos, model, tmp_path, monkeypatch):
    """As a user sees it, with a smaller usual number."""
    from conftest import make_photos

    from hashret.encoding import encode

    monkeypatch.setattr(module, "CANDIDATES", 5)
    flat = make_photos(tmp_path / "photos", 3, 0)
    same = (flat / "red" / "00.png").read_bytes()
    for number in range(9):
        (flat / "red" / f"{number:02d}.png").write_bytes(same)
    encode(flat, model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    photo = flat / "red" / "00.png"

    def query(*more):
        arguments = ["query", photo, "--index", tmp_path / "index", "--model", model, "-k", 2, "--label", "red", *more]
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done

    done = query("--json")
    assert done.stderr == ""
    assert {name: json.loads(done.stdout)[name] for name in ("candidates", "ties_cut")} == {
        "candidates": 9, "ties_cut": False,
    }  # fmt: skip
    done = query("--candidates", 4, "--json")
    assert {name: json.loads(done.stdout)[name] for name in ("candidates", "ties_cut")} == {
        "candidates": 4, "ties_cut": True,
    }  # fmt: skip
    assert done.stderr.startswith(f"note: {CUT} than the 4 candidates; those of the highest ids were left out")
    done = query("--candidates", 4, flat / "red" / "01.png", flat / "blue" / "00.png")
    assert f"note: {CUT} of 3 of 3 queries than the 4 candidates" in done.stderr
    assert query("--no-rerank").stderr == ""
