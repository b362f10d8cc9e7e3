"""Codes that others made: every way of packing them, and the whole way without an encoder."""

import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import hashret
from hashret.bits import hamming
from hashret.cli import main
from hashret.errors import HashretError
from hashret.index.changes import exchange
from hashret.index.given import packed

X = np.random.default_rng(0).normal(size=(200, 64))
Q = np.random.default_rng(1).normal(size=(7, 64))


def numpy_packed(x):
    return np.packbits(x > 0, axis=1)


def ubinary(x):
    """As sentence-transformers packs with precision="ubinary"."""
    return np.packbits(x > 0, axis=-1)


def binary(x):
    """As sentence-transformers packs with precision="binary": bytes less 128."""
    return (np.packbits(x > 0).reshape(len(x), -1) - 128).astype(np.int8)


def faiss_packed(x):
    """As faiss.real_to_binary packs: the first bit of a byte is its lowest."""
    return np.packbits(x > 0, axis=1, bitorder="little")


@pytest.mark.parametrize(
    ("pack", "order"), [(numpy_packed, "big"), (ubinary, "big"), (binary, "big"), (faiss_packed, "little")]
)
def test_every_way_of_packing_gives_the_same_codes(pack, order):
    assert np.array_equal(packed(pack(X), order=order), np.packbits(X > 0, axis=1))


def test_faiss_packs_so():
    import faiss

    given = np.empty((len(X), 8), np.uint8)
    x = np.ascontiguousarray(X, np.float32)
    faiss.real_to_binary(x.size, faiss.swig_ptr(x), faiss.swig_ptr(given))
    assert np.array_equal(given, faiss_packed(X))


@pytest.mark.parametrize("width", [64, 1024])
@pytest.mark.parametrize(("pack", "suffix"), [(binary, ""), (faiss_packed, ",order=little")])
def test_the_whole_way_without_an_encoder(tmp_path, monkeypatch, width, pack, suffix):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    x, q = rng.normal(size=(200, width)), rng.normal(size=(7, width))
    x[150:] = x[100:150]  # codes repeat
    labels = np.arange(200) % 3
    np.savez("base.npz", codes=pack(x), labels=labels, ids=np.arange(200) * 2)
    np.savez("asked.npz", codes=pack(q), labels=np.arange(7) % 3)

    def run(*args):
        done = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    run("build-index", "--codes", f"codes:base.npz{suffix}")
    answers = [json.loads(line) for line in run("query", "--vector", f"codes:asked.npz{suffix}", "--json").splitlines()]
    D = hamming(numpy_packed(q), numpy_packed(x))
    nearest = np.argsort(D, axis=1, kind="stable")[:, :10]
    assert [[hit["id"] for hit in one["hits"]] for one in answers] == (2 * nearest).tolist()
    assert [[hit["hamming"] for hit in one["hits"]] for one in answers] == np.take_along_axis(D, nearest, 1).tolist()
    figures = json.loads(run("evaluate", f"codes:asked.npz{suffix}"))
    assert figures["hamming"]["map"] == pytest.approx(figures["reranked"]["map"], abs=0.02)
    assert (figures["bits"], figures["queries"]) == (width, 7)
    np.savez("more.npz", codes=pack(q), ids=np.arange(7) + 1000)
    assert "7 photographs added" in run("add", "index", f"codes:more.npz{suffix}")
    searcher = hashret.Searcher("index")
    assert [hits[0].id for hits in searcher.search_codes(numpy_packed(q))] == list(range(1000, 1007))
    assert searcher.search_codes(numpy_packed(q)[3], 1)[0][0].hamming == 0
    with pytest.raises(HashretError, match="nobody knows the encoder of this index"):
        searcher.search_vectors(q)


def test_a_file_of_codes_named_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("c.npy", numpy_packed(X))
    np.savez("c.npz", codes=numpy_packed(X), others=numpy_packed(-X).astype(np.uint8)[:, :, None], labels=range(200))
    np.savez("two.npz", one=numpy_packed(X), other=numpy_packed(-X))
    os.symlink("c.npy", "link.npy")
    os.link("c.npy", "hard.npy")
    again = ["codes:./c.npy", "codes:link.npy", "codes:hard.npy", "codes:c.npy,bits=64"]
    pairs = [("codes:c.npy", name) for name in again]
    pairs += [("codes:c.npz", f"codes:c.npz{suffix}") for suffix in ("::codes", "#codes", ",labels=labels")]
    for one, other in pairs:
        with pytest.raises(HashretError, match=rf"{re.escape(other)} is named twice"):
            hashret.build_index([one, other], "index")
        with pytest.raises(HashretError, match=rf"{re.escape(one)} is named twice"):
            hashret.build_index([other, one], "index")
    assert hashret.build_index(["codes:two.npz::one", "codes:two.npz::other"], "index").count == 400
    with pytest.raises(HashretError, match=r"codes:c\.npz#codes is named twice"):
        hashret.add("index", ["codes:c.npz", "codes:c.npz#codes"])


def test_ids_that_would_pass_int64_are_refused_and_the_index_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("high.npz", codes=numpy_packed(X[:2]), ids=[5, 2**63 - 3])
    np.savez("more.npz", codes=numpy_packed(X[2:4]))
    np.savez("one.npz", codes=numpy_packed(X[2:3]))
    hashret.build_index("codes:high.npz", "index")
    with pytest.raises(HashretError, match=r"ids end at 2\^63 - 2, and .*; the highest id of the index is too high"):
        hashret.add("index", "codes:more.npz")
    with pytest.raises(HashretError, match=r"ids end at 2\^63 - 2"):
        exchange("index", np.zeros(2, bool), [({"codes": numpy_packed(X[:2])}, ["a", "b"])], generation=1)
    assert len(hashret.open_index("index")) == 2
    assert hashret.add("index", "codes:one.npz").encoded == 1
    assert hashret.open_index("index").ids[-1] == 2**63 - 2
    with pytest.raises(HashretError, match=r"ids end at 2\^63 - 2"):
        hashret.add("index", "codes:one.npz", again=True)
    assert len(hashret.open_index("index")) == 3


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """An index of 20 codes with the labels 0, 1 and 2, in the working folder, and the codes."""
    monkeypatch.chdir(tmp_path)
    codes = numpy_packed(X[:20])
    np.savez("c.npz", codes=codes, labels=np.arange(20) % 3)
    hashret.build_index("codes:c.npz", "index")
    return codes


def test_one_or_several_of_any_kind_say_what_a_query_is_among(labelled):
    searcher = hashret.Searcher("index")

    def found(**among):
        hits = hashret.query(vectors="codes:c.npz", searcher=searcher, k=20, **among)[0].hits
        return sorted(hit.id for hit in hits)

    for ids in ([0], np.array([0]), 0, np.int64(0), np.array(0), (0,), {0}, range(1)):
        assert found(ids=ids) == [0]
    assert found(ids=np.array([2, 1, 1])) == [1, 2]
    for ids in ((), None, np.array([], int), range(0)):
        assert len(found(ids=ids)) == 20
    assert found(label="1") == found(label=np.array(["1"])) == list(range(1, 20, 3))
    assert found(path="*#7") == found(path=np.array(["*#7"])) == found(path=Path("*#7")) == [7]
    assert len(found(label="", path="")) == 20
    assert len(searcher.index.select(ids=5)) == 1
    assert hashret.remove("index", ids=5).count == 1
    with pytest.raises(HashretError, match="no class 5 in this index"):
        searcher.index.select(label=5)
    for path in (5, [5], [None]):
        with pytest.raises(HashretError, match=r"a path or a pattern is a text, not (5|None)"):
            searcher.index.select(path=path)


def test_a_search_is_among_a_selection_of_the_same_state_alone(labelled):
    index = hashret.open_index("index")
    for among in ([1, 2], np.ones(20, bool), "1"):
        for search in (
            lambda among: index.search(labelled, k=2, among=among),
            lambda among: [*index.within(labelled, 3, among)],
        ):
            with pytest.raises(
                HashretError, match=r"among what select returned, not (list|ndarray|str); index\.select"
            ):
                search(among)
    ones = index.select(label="1")
    assert hashret.open_index("index").search(labelled[:1], k=20, among=ones).positions.size == 7  # the same files
    np.savez("d.npz", codes=labelled[::-1])
    hashret.build_index("codes:d.npz", "other")
    hashret.remove("index", ids=[0])
    for other in ("index", "other"):
        opened = hashret.open_index(other)
        with pytest.raises(HashretError, match="of another index, or of another state of this one; select again"):
            opened.search(labelled[:1], k=3, among=ones)
        with pytest.raises(HashretError, match="select again"):
            list(opened.within(labelled[:1], 3, ones))
    assert index.search(labelled[:1], k=20, among=ones).positions.size == 7


def test_queries_that_are_no_packed_codes_are_one_line(labelled):
    index = hashret.open_index("index")
    signed = (labelled.astype(int) - 128).astype(np.int8)  # whose bytes, cast, would be other codes
    for wrong in (labelled[0], labelled.tolist(), signed, labelled.astype(float), labelled.astype(int)):
        with pytest.raises(
            HashretError, match=r"queries are packed codes, uint8 \(n, width\), and not .*; Searcher\.search_codes"
        ):
            index.search(wrong)
    for radius in (2.5, float("nan"), "3", -1, None):
        with pytest.raises(HashretError, match="the radius is a number of bits, not"):
            list(index.within(labelled[:1], radius))
        if radius is not None:
            with pytest.raises(HashretError, match="numbers from 0 up, and the radius is a whole one"):
                hashret.duplicates("index", by="codes", radius=radius)
    with pytest.raises(HashretError, match="numbers from 0 up"):
        hashret.duplicates("index", distance="0.5")


def test_odd_numbers_of_bits(tmp_path):
    codes = np.packbits(X[:, :20] > 0, axis=1)
    np.save(tmp_path / "c.npy", codes)
    built = hashret.build_index(f"codes:{tmp_path / 'c.npy'},bits=20", tmp_path / "index")
    assert built.bits == 20
    searcher = hashret.Searcher(tmp_path / "index")
    assert searcher.search_codes(codes[5], 1)[0][0].hamming == 0
    [answer, *_] = hashret.query(vectors=f"codes:{tmp_path / 'c.npy'}", searcher=searcher, k=1)
    assert answer.hits[0].hamming == 0
    with pytest.raises(HashretError, match="there are ones behind the 20 bits"):
        searcher.search_codes(codes | 1)
    with pytest.raises(HashretError, match="the codes have 24 bits, and those of the index 20"):
        hashret.query(vectors=f"codes:{tmp_path / 'c.npy'},bits=24", searcher=searcher)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (X, {}, "packed codes are bytes, uint8 or int8"),
        (np.zeros((3, 0), np.uint8), {}, "do not have 0 bits"),
        (np.ones((3, 3), np.uint8), {"bits": 20}, "there are ones behind the 20 bits"),
        (np.zeros((3, 3), np.uint8), {"bits": 25}, "codes of 3 bytes do not have 25 bits"),
        (np.zeros((3, 600), np.uint8), {}, "of 8 to 4096"),
        (np.zeros((3, 3), np.uint8), {"order": "odd"}, "big or little, not odd"),
    ],
)
def test_what_is_no_code(array, options, message):
    with pytest.raises(HashretError, match=message):
        packed(array, **options)


def test_codes_of_another_width_are_one_line(tmp_path):
    np.save(tmp_path / "c.npy", numpy_packed(X))
    hashret.build_index(f"codes:{tmp_path / 'c.npy'}", tmp_path / "index")
    with pytest.raises(HashretError, match="queries of 4 bytes do not fit an index of 64 bits"):
        hashret.Searcher(tmp_path / "index").search_codes(numpy_packed(Q)[:, :4])
    with pytest.raises(HashretError, match="bits=x is no number of bits"):
        hashret.build_index(f"codes:{tmp_path / 'c.npy'},bits=x", tmp_path / "index", overwrite=True)


def test_a_file_of_codes_that_was_written_anew_is_added_by_its_ids(tmp_path):
    file, index = tmp_path / "batch.npz", tmp_path / "index"
    codes = numpy_packed(X)
    np.savez(file, codes=codes[:10], ids=np.arange(10))
    hashret.build_index(f"codes:{file}", index)
    np.savez(file, codes=codes[5:25], ids=np.arange(5, 25))
    assert hashret.add(index, f"codes:{file}").encoded == 15
    np.savez(file, codes=codes[30:40], ids=np.arange(100, 110))
    assert hashret.add(index, f"codes:{file}").encoded == 10
    opened = hashret.open_index(index)
    assert opened.ids[:].tolist() == [*range(25), *range(100, 110)]
    assert np.array_equal(opened.codes_at(np.arange(35)), np.concatenate([codes[:25], codes[30:40]]))


def test_codes_without_ids_that_were_written_anew_are_warned_of(tmp_path):
    file, index = tmp_path / "batch.npy", tmp_path / "index"
    np.save(file, numpy_packed(X)[:10])
    hashret.build_index(f"codes:{file}", index)
    os.utime(file, (10**10, 10**10))
    with pytest.warns(
        UserWarning, match=r"^written to since it was indexed: .*batch.npy#0 and 9 more; the index keeps"
    ):
        assert hashret.add(index, f"codes:{file}").encoded == 0


def test_codes_that_share_a_path_are_all_added_or_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("base.npz", codes=ubinary(X[:2]))
    np.savez("more.npz", codes=ubinary(X[2:6]), paths=["a", "a", "b", "c"])
    hashret.build_index("codes:base.npz", "index")
    assert hashret.add("index", "codes:more.npz").encoded == 4
    with pytest.warns(UserWarning, match="2 vectors are left out whose path another vector has already, as a"):
        assert hashret.add("index", "codes:more.npz").encoded == 0


def test_a_name_is_found_though_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("c.npz", codes=ubinary(X[:4]), ids=np.array(["b", "photos", "7", "x/photos"]))
    hashret.build_index("codes:c.npz", "index")
    (tmp_path / "photos").mkdir()
    (tmp_path / "7").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as of a file that was written since
        assert hashret.add("index", "codes:c.npz").encoded == 0
    index = hashret.open_index("index")
    for name, rows in (("photos", [1]), ("7", [2]), ("b", [0]), ("x/photos", [3])):
        assert np.flatnonzero(index.select(path=name).mask).tolist() == rows
    assert len(index.select(path=str(tmp_path / "photos"))) == 0
    assert hashret.remove("index", paths="photos").count == 1
    with pytest.raises(HashretError, match="no photograph photos in the index"):
        hashret.remove("index", paths="photos")


def test_codes_with_names_that_were_made_whole_are_not_added_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = [str(tmp_path / name) for name in ("docs", "b")]  # as hashret once took ids that are texts
    np.savez("whole.npz", codes=ubinary(X[:2]), paths=np.array(whole))
    np.savez("c.npz", codes=ubinary(X[:3]), ids=np.array(["docs", "b", "new"]))
    hashret.build_index("codes:whole.npz", "index")
    assert hashret.add("index", "codes:c.npz").encoded == 1


def test_names_that_never_were_files_are_not_gone(tmp_path, monkeypatch):
    np.savez(tmp_path / "named.npz", codes=numpy_packed(X)[:20], ids=np.array([f"doc-{n}" for n in range(20)]))
    np.save(tmp_path / "plain.npy", numpy_packed(X)[20:30])
    hashret.build_index([f"codes:{tmp_path / 'named.npz'}", f"codes:{tmp_path / 'plain.npy'}"], tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="^20 names in the index are not of files, and stay"):
        assert hashret.remove(tmp_path / "index", gone=True, yes=True).count == 0
    (tmp_path / "plain.npy").unlink()
    with pytest.warns(UserWarning, match="20 names"):
        assert hashret.remove(tmp_path / "index", gone=True, yes=True).count == 10


def test_codes_are_served_beside_a_model_of_others(tmp_path, model):
    testclient = pytest.importorskip("fastapi.testclient")
    from hashret.service.app import create_app

    np.save(tmp_path / "c.npy", numpy_packed(X))
    hashret.build_index(f"codes:{tmp_path / 'c.npy'}", tmp_path / "index")
    with testclient.TestClient(create_app(tmp_path / "index", model, "cpu"), base_url="http://localhost") as client:
        assert client.get("/api/items/5/query?k=1").json()["hits"][0]["id"] == 5
        assert client.post("/api/query", content=b"x").json()["error"].startswith("this service was started without")
