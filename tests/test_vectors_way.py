"""Vectors on the whole way: train, encode, build-index, query, evaluate, add, by the command line and from Python."""

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

import hashret
from hashret.cli import main
from hashret.data import vectors
from hashret.errors import HashretError
from hashret.models.encoder import Encoder
from hashret.shards import ShardFolder
from hashret.vectors import unit

WIDTH, CLASSES = 20, 4


def clumps(n, seed, positive=False):
    """Vectors around a few centres, with the number of their centre; after a ReLU, as it were, with ``positive``."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    x = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))[labels] + 0.3 * rng.normal(size=(n, WIDTH))
    return (np.abs(x) if positive else x).astype(np.float32), labels


X, LABELS = clumps(300, 1)
Q, ASKED = clumps(20, 2)


def run(*args):
    done = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with an ITQ encoder of `X` by the cosine, its shards and its index."""
    folder = tmp_path_factory.mktemp("built")
    source = vectors(X, labels=LABELS)
    hashret.train(source, folder / "m.safetensors", method="itq", bits=16)
    hashret.encode(source, folder / "m.safetensors", folder / "codes", shard_size=128)
    hashret.build_index(folder / "codes", folder / "index")
    return folder


def searcher(folder):
    return hashret.Searcher(folder / "index", folder / "m.safetensors", "cpu")


def nearest(x, q, metric):
    """The rows of x by their distance from q, exactly."""
    x, q = (unit(x), unit(q)) if metric == "cosine" else (x, q)
    return np.argsort(((q.astype(np.float64)[:, None] - x) ** 2).sum(axis=2), axis=1, kind="stable")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_whole_way_by_the_command_line(tmp_path, monkeypatch, metric):
    monkeypatch.chdir(tmp_path)
    np.savez("base.npz", emb=3 * X, labels=LABELS)
    np.savez("asked.npz", emb=3 * Q, labels=ASKED)
    run("train", "--data", "vectors:base.npz", "--method", "itq", "--bits", 16, "--metric", metric)
    run("encode", "vectors:base.npz")
    run("build-index")
    answers = run("query", "--vector", "asked.npz", "-k", 5, "--json").splitlines()
    answers = [json.loads(line) for line in answers]
    assert [answer["query"] for answer in answers] == [f"{tmp_path}/asked.npz::emb#{row}" for row in range(20)]
    expected = nearest(3 * X, 3 * Q, metric)[:, :5]  # 300 candidates are all
    assert [[hit["id"] for hit in answer["hits"]] for answer in answers] == expected.tolist()
    assert answers[0]["hits"][0]["path"] == f"{tmp_path}/base.npz::emb#{expected[0, 0]}"
    figures = json.loads(run("evaluate", "vectors:asked.npz", "-k", 1))
    assert figures["rerank_by"] == metric
    assert figures["reranked"]["map"] > 0.9
    assert figures["hamming"]["map"] > 0.8
    run("encode", "vectors:asked.npz", "--out", "codes-test", "--vectors", "float16")
    assert json.loads(run("evaluate", "codes-test"))["reranked"]["map"] == pytest.approx(
        figures["reranked"]["map"], abs=0.01
    )
    assert "20 photographs added" in run("add", "index", "vectors:asked.npz", "vectors:base.npz")
    assert json.loads(run("info", "index", "--json"))["count"] == 320
    assert len(json.loads(run("query", "--vector", "asked.npz", "--together", "mean", "--json"))["hits"]) == 10
    assert run("query", "--vector", "asked.npz", "--radius", 3)
    others = [
        json.loads(line) for line in run("query", "--vector", "base.npz", "--exclude-self", "--json").splitlines()
    ]
    assert all(hit["path"] != answer["query"] for answer in others for hit in answer["hits"])


@pytest.mark.parametrize("method", ["lsh", "ksh", "vggh", "am-vggh+", "dpsh", "dnnh", "cnnh+"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_every_kind_of_method_learns_from_vectors(tmp_path, method, metric):
    model = tmp_path / "m.safetensors"
    x = 1000 * X if metric == "euclidean" else X
    report = hashret.train(
        vectors(x, labels=LABELS), model, method=method, bits=16, epochs=3, batch_size=16, width=64, metric=metric
    )
    assert report.metric == metric
    hashret.encode(vectors(x, labels=LABELS), model, tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    asked = vectors(1000 * Q if metric == "euclidean" else Q, labels=ASKED)
    figures = hashret.evaluate(asked, tmp_path / "index", model=model)
    assert figures.hamming.map > (0.6 if method == "lsh" else 0.75)
    assert figures.rerank_by == (metric if method == "lsh" else "directions")


def test_a_code_is_the_same_alone_and_in_a_batch(built):
    encoder = hashret.load_encoder(built / "m.safetensors", "cpu")
    together = encoder.encode(X)
    assert np.array_equal(np.vstack([encoder.encode(x) for x in X[:40]]), together[:40])
    assert np.array_equal(ShardFolder(built / "codes").load().hash_outputs, together)


@pytest.mark.parametrize("method", ["itq", "vggh+"])
def test_bits_differ_where_all_numbers_are_positive(tmp_path, method):
    x, labels = clumps(200, 3, positive=True)
    hashret.train(
        vectors(x, labels=labels), tmp_path / "m.safetensors", method=method, bits=16, epochs=3, batch_size=16
    )
    bits = hashret.load_encoder(tmp_path / "m.safetensors", "cpu").encode(x) >= 0.5
    assert (bits.mean(axis=0) > 0.1).all()
    assert (bits.mean(axis=0) < 0.9).all()


def test_vectors_are_searched_as_they_come(built):
    s = searcher(built)
    expected = nearest(X, Q, "cosine")[:, :3].tolist()
    wide = np.zeros((40, 2 * WIDTH), np.float64)
    wide[::2, ::2] = Q
    forms = [Q, Q.astype(">f8"), np.asfortranarray(Q), wide[::2, ::2], Q.tolist()]
    for form in forms:
        assert [[hit.id for hit in hits] for hits in s.search_vectors(form, 3)] == expected
    [hits] = s.search_vectors(Q[0], 3)
    assert [hit.id for hit in hits] == expected[0]
    rounded = [[hit.id for hit in hits] for hits in s.search_vectors((30 * Q).astype(np.int8), 3)]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(rounded, expected, strict=True)]) > 2
    among = s.index.select(ids=range(50))
    assert all(hit.id < 50 for hits in s.search_vectors(Q, 3, among=among) for hit in hits)
    assert [hit.euclidean for hit in s.search_vectors(Q[0], 3, rerank_by=None)[0]] == [None] * 3


def test_float16_whose_squares_overflow(tmp_path):
    x = (X * 9000).clip(-60000, 60000).astype(np.float16)
    hashret.train(x, tmp_path / "m.safetensors", method="itq", bits=16, metric="euclidean")
    hashret.encode(x, tmp_path / "m.safetensors", tmp_path / "codes")
    assert ShardFolder(tmp_path / "codes").load().fc_features.dtype == np.float16
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    s = searcher(tmp_path)
    asked = x[:9]
    found = [[hit.id for hit in hits] for hits in s.search_vectors(asked, 4)]
    assert found == nearest(x.astype(np.float64), asked.astype(np.float64), "euclidean")[:, :4].tolist()


@pytest.mark.parametrize("store", [None, "float16", "none"])
def test_what_is_kept_to_compare(tmp_path, built, store):
    hashret.encode(X, built / "m.safetensors", tmp_path / "codes", vectors=store)
    hashret.build_index(tmp_path / "codes", tmp_path / "index", values=False)
    s = hashret.Searcher(tmp_path / "index", built / "m.safetensors", "cpu")
    choice = s.index.rerank_choice("auto")
    assert choice == ("asymmetric" if store == "none" else "cosine")
    assert len(s.search_vectors(Q, 3)) == len(Q)
    if store == "none":
        with pytest.raises(HashretError, match="keeps no features"):
            s.search_vectors(Q, 3, rerank_by="euclidean")


def test_candidates_for_a_recall_are_measured_on_the_vectors(tmp_path, built):
    """Also where no hash outputs are kept, and not for what these say is nearest."""
    hashret.build_index(built / "codes", tmp_path / "index", values=False)
    s = hashret.Searcher(tmp_path / "index", built / "m.safetensors", "cpu")
    answers = hashret.query(vectors=X, searcher=s, k=4, recall=0.95)
    found = [{hit.id for hit in answer.hits} for answer in answers]
    shares = [len(a & set(b)) / 4 for a, b in zip(found, nearest(X, X, "cosine")[:, :4].tolist(), strict=True)]
    assert np.mean(shares) >= 0.94
    taken = answers[0].hits.candidates
    assert taken == s.index.calibrate(4, 0.95, rerank_by="auto").candidates < len(X)
    hashret.encode(X, built / "m.safetensors", tmp_path / "codes", vectors="none")
    hashret.build_index(tmp_path / "codes", tmp_path / "bare", values=False)
    with pytest.raises(HashretError, match="keeps no values to calibrate on"):
        hashret.query(vectors=X[:1], index=tmp_path / "bare", model=built / "m.safetensors", recall=0.9)


def test_whole_numbers_are_kept_as_they_came(tmp_path):
    x = (30 * X).clip(-128, 127).astype(np.int8)
    hashret.train(x, tmp_path / "m.safetensors", method="lsh", bits=16)
    hashret.encode(x, tmp_path / "m.safetensors", tmp_path / "codes")
    assert np.array_equal(ShardFolder(tmp_path / "codes").load().fc_features, x)
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    assert searcher(tmp_path).search_vectors(x[5], 1)[0][0].id == 5


def test_numbers_beyond_float16_are_refused(tmp_path, built):
    x = X.copy()
    x[7, 0] = 1e5
    with pytest.raises(HashretError, match=r"#7 holds numbers beyond those of float16; keep vectors as float32"):
        hashret.encode(x, built / "m.safetensors", tmp_path / "codes", vectors="float16")


def test_nothing_to_encode_is_one_line(tmp_path, built):
    with pytest.raises(HashretError, match="nothing to encode: there are no photographs and no vectors in vectors"):
        hashret.encode(np.zeros((0, WIDTH)), built / "m.safetensors", tmp_path / "codes")
    assert not (tmp_path / "codes").exists()
    hashret.encode(X[:3], built / "m.safetensors", tmp_path / "codes")  # and as an earlier hashret left it
    manifest = json.loads((tmp_path / "codes" / "codes.json").read_text())
    (tmp_path / "codes" / "codes.json").write_text(json.dumps(manifest | {"shards": 0, "images": 0}))
    (tmp_path / "codes" / "codes-00000.h5").unlink()
    with pytest.raises(HashretError, match=r"there are no photographs in .*codes"):
        hashret.evaluate(tmp_path / "codes", built / "index")


def test_rows_without_numbers_are_named_and_skipped(tmp_path, built):
    x = X[:10].copy()
    x[3, 2], x[8, 0] = np.nan, np.inf
    report = hashret.encode(x, built / "m.safetensors", tmp_path / "codes", shard_size=4)
    assert (report.encoded, report.skipped) == (8, 2)
    assert [(line["id"], line["reason"].split()[1].rstrip(",")) for line in report.unreadable] == [
        (3, "NaN"),
        (8, "infinity"),
    ]
    assert report.unreadable[0]["path"].endswith("#3")
    unreadable = {}
    answers = hashret.query(vectors=x, searcher=searcher(built), unreadable=unreadable, k=1)
    assert [int(answer.path.rpartition("#")[2]) for answer in answers] == [0, 1, 2, 4, 5, 6, 7, 9]
    assert next(iter(unreadable.values())) == "holds NaN"
    with pytest.raises(HashretError, match=r"cannot use the vector .*#0: it holds NaN"):
        searcher(built).search_vectors(x[3])
    report = hashret.train(x, tmp_path / "m.safetensors", method="lsh", bits=8)
    assert report.train_images == 8


def test_a_row_of_zeros_is_never_nan_and_never_first(tmp_path, built):
    x = np.vstack([np.zeros((1, WIDTH), np.float32), X[:30]])
    hashret.encode(x, built / "m.safetensors", tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    s = hashret.Searcher(tmp_path / "index", built / "m.safetensors", "cpu")
    for hits in s.search_vectors(np.vstack([Q, -Q]), 31):
        assert hits[-1].id == 0
        assert np.isfinite([hit.euclidean for hit in hits]).all()
    assert np.isfinite([hit.euclidean for hit in s.search_vectors(np.zeros(WIDTH), 31)[0]]).all()


def test_ids_that_were_given_are_those_of_hits(tmp_path, built):
    ids = np.random.default_rng(0).permutation(1000)[:300] * 7
    model, index = built / "m.safetensors", tmp_path / "index"
    hashret.encode(vectors(X, ids=ids, labels=LABELS), model, tmp_path / "codes", shard_size=64)
    hashret.build_index(tmp_path / "codes", index)
    s = hashret.Searcher(index, model, "cpu")
    expected = ids[nearest(X, Q, "cosine")[:, :3]].tolist()
    assert [[hit.id for hit in hits] for hits in s.search_vectors(Q, 3)] == expected
    assert s.index.find(int(ids[5]))[1].path.endswith("#5")
    with pytest.raises(HashretError, match=r"has a row of id 3, and ids up to \d+ are given already; give higher ids"):
        hashret.add(index, vectors(Q, ids=range(3, 23)), model)
    hashret.add(index, vectors(Q, ids=range(8000, 8020)), model)
    assert hashret.Searcher(index, model, "cpu").search_vectors(Q[4], 1)[0][0].id == 8004
    hashret.remove(index, ids=[8004, int(ids[5])])
    hashret.compact(index)
    assert hashret.Searcher(index, model, "cpu").search_vectors(Q[5], 1)[0][0].id == 8005


def test_vectors_that_share_a_path_are_all_added_or_counted(tmp_path, built):
    model, index = built / "m.safetensors", tmp_path / "index"

    def documents(start, stop, name="doc"):
        return vectors(X[start:stop], paths=[f"{name}{row // 3}" for row in range(stop - start)])

    hashret.encode(documents(0, 9), model, tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hashret.add(index, documents(9, 18, "new"), model).encoded == 9
        assert hashret.add(index, vectors(X[18:20], paths=["single", "other"]), model).encoded == 2
        assert hashret.add(index, vectors(X[18:20], paths=["single", "other"]), model).encoded == 0
    for again in (documents(9, 18, "new"), documents(20, 29)):
        with pytest.warns(
            UserWarning, match="9 vectors are left out whose path another vector has already, as (new|doc)0"
        ):
            assert hashret.add(index, again, model).encoded == 0
    with pytest.warns(UserWarning, match="^1 vectors are left out .* as doc0; .* give ids, or take --again"):
        assert hashret.add(index, vectors(X[30:32], paths=["doc0", "doc9"]), model).encoded == 1
    assert hashret.add(index, documents(20, 29), model, again=True).encoded == 9
    np.savez(tmp_path / "chunks.npz", vectors=X[40:46], paths=["p", "p", "q", "q", "r", "s"])
    file = f"vectors:{tmp_path / 'chunks.npz'}"
    with pytest.warns(UserWarning, match="^6 vectors are left out .* as p; "):
        assert hashret.add(index, [file, file], model).encoded == 6


def test_vectors_of_one_document_are_no_copies_of_a_file(tmp_path, built):
    (tmp_path / "doc.txt").touch()
    near = np.vstack([X[:1], X[:1] + 1e-3, X[1:2]])
    source = vectors(near, paths=[str(tmp_path / "doc.txt"), str(tmp_path / "doc.txt"), "other"])
    hashret.encode(source, built / "m.safetensors", tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [group] = hashret.duplicates(tmp_path / "index", by="features")
    assert [photograph.id for photograph in group] == [0, 1]


def test_what_does_not_fit_is_one_line(tmp_path, built, model, photos):
    s = searcher(built)
    with pytest.raises(HashretError, match="vectors of 7 numbers do not fit an encoder of 20"):
        s.search_vectors(Q[:, :7])
    with pytest.raises(HashretError, match="vectors of 7 numbers do not fit an encoder of 20"):
        hashret.encode(X[:, :7], built / "m.safetensors", tmp_path / "codes")
    with pytest.raises(HashretError, match="this encoder takes photographs, and vectors has vectors"):
        hashret.encode(X, model, tmp_path / "codes")
    with pytest.raises(HashretError, match=r"this encoder takes vectors, and folder:.* has photographs"):
        hashret.encode(f"folder:{photos}", built / "m.safetensors", tmp_path / "codes", split="test")
    with pytest.raises(HashretError, match="this index is of vectors, not of photographs"):
        s.search(photos / "test" / "red" / "00.png")
    with pytest.raises(HashretError, match="itq gives at most 20 bits of 20 numbers, not 24; take lsh"):
        hashret.train(X, tmp_path / "m.safetensors", method="itq", bits=24)
    with pytest.raises(HashretError, match="compared by cosine or euclidean, not manhattan"):
        hashret.train(X, tmp_path / "m.safetensors", method="itq", bits=16, metric="manhattan")
    with pytest.raises(HashretError, match="vectors have no backbone; leave --image-size, --finetune out"):
        hashret.train(X, tmp_path / "m.safetensors", method="itq", bits=16, image_size=64, finetune="last:1")
    with pytest.raises(HashretError, match="have no features; leave --features out"):
        hashret.encode(X, built / "m.safetensors", tmp_path / "codes", features=True)
    with pytest.raises(HashretError, match="photographs have no vectors to keep; leave --vectors out"):
        hashret.encode(f"folder:{photos}", model, tmp_path / "codes", split="test", vectors="float16")
    with pytest.raises(HashretError, match="kept as float32, float16 or none, not int4"):
        hashret.encode(X, built / "m.safetensors", tmp_path / "codes", vectors="int4")


def test_another_scale_is_one_line(tmp_path):
    for metric in ("cosine", "euclidean"):
        model = tmp_path / f"{metric}.safetensors"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of no option: none was given
            hashret.train(unit(X), model, method="itq", bits=16, metric=metric)
    encoder = hashret.load_encoder(tmp_path / "cosine.safetensors", "cpu")
    with pytest.warns(UserWarning, match=r"not of unit length, as those were .*; by cosine, lengths do not count"):
        codes = encoder.encode(5 * Q)
    assert np.allclose(codes, encoder.encode(unit(Q)), atol=1e-6)
    encoder = hashret.load_encoder(tmp_path / "euclidean.safetensors", "cpu")
    with pytest.raises(HashretError, match=r"not of unit length, .*; scale them as those were scaled"):
        encoder.encode(5 * Q)


def test_a_large_set_is_fitted_to_a_sample(tmp_path, monkeypatch):
    from hashret.training import vector_feed

    monkeypatch.setattr(vector_feed, "_MOST_NUMBERS", 0)
    monkeypatch.setattr(vector_feed, "_LEAST_ROWS", 150)
    hashret.train(vectors(X, labels=LABELS), tmp_path / "m.safetensors", method="itq", bits=16)
    hashret.train(vectors(X, labels=LABELS), tmp_path / "k.safetensors", method="ksh", bits=16)
    assert hashret.load_encoder(tmp_path / "k.safetensors", "cpu").head.anchors.shape == (150, WIDTH)


def test_a_killed_run_goes_on(tmp_path, built):
    np.save(tmp_path / "x.npy", X)
    encoded = [f"vectors:{tmp_path / 'x.npy'}", built / "m.safetensors", tmp_path / "codes"]
    hashret.encode(*encoded, shard_size=64)
    whole = [path.read_bytes() for path in sorted((tmp_path / "codes").glob("*.h5"))]
    (tmp_path / "codes" / "codes-00002.h5").unlink()
    (tmp_path / "codes" / "skipped.jsonl").unlink()
    hashret.encode(*encoded, shard_size=64)
    assert [path.read_bytes() for path in sorted((tmp_path / "codes").glob("*.h5"))] == whole


def test_the_service_answers_vectors(built):
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    expected = nearest(X, Q, "cosine")[:, :4].tolist()
    with TestClient(create_app(built / "index", built / "m.safetensors", "cpu")) as client:
        assert client.get("/api/about").json()["encoder"]["vector_width"] == WIDTH
        for row in range(5):
            answer = client.post("/api/query/vector?k=4", json={"vector": Q[row].tolist()}).json()
            assert [hit["id"] for hit in answer["hits"]] == expected[row]
            assert answer["hits"][0]["label"] == str(LABELS[expected[row][0]])
        again = client.post("/api/query/values?k=4", json={"values": answer["query"]["values"]})
        assert again.json()["hits"][0]["euclidean"] is not None
        answer = client.get("/api/items/17/query?k=4").json()
        assert [hit["id"] for hit in answer["hits"]] == nearest(X, X[17:18], "cosine")[0, :4].tolist()
        wrong = {"vectors of 3 numbers": [1.0] * 3, "holds NaN": [float("nan")] * WIDTH, "numbers": []}
        for message, vector in wrong.items():
            body, kind = json.dumps({"vector": vector}), {"content-type": "application/json"}
            refused = client.post("/api/query/vector", content=body, headers=kind)
            assert refused.status_code == 422
            assert message in refused.json()["error"]
        refused = client.post("/api/query", content=b"x")
        assert (refused.status_code, refused.json()["error"]) == (
            422, "this index is of vectors: search by one at /api/query/vector"
        )  # fmt: skip
        assert client.get("/api/items/17/maps").status_code == 422
        assert client.get("/api/items/17/thumbnail").status_code == 404


def test_the_service_answers_vectors_whose_distance_is_beyond_float32(tmp_path, monkeypatch):
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    hashret.train(X, tmp_path / "m.safetensors", method="lsh", metric="euclidean", bits=16)
    hashret.encode(X, tmp_path / "m.safetensors", tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    far = [1e30] * WIDTH
    with TestClient(create_app(tmp_path / "index", tmp_path / "m.safetensors", "cpu")) as client:
        answer = client.post("/api/query/vector?k=4", json={"vector": far}).json()
        endless = np.full((1, 16), np.nan, np.float32)  # as of sums of infinities
        monkeypatch.setattr(Encoder, "encode", lambda *_: endless)
        refused = client.post("/api/query/vector", json={"vector": far})
    monkeypatch.undo()
    assert [hit["euclidean"] for hit in answer["hits"]] == [None] * 4
    [wanted] = searcher(tmp_path).search_vectors(np.array(far), k=4)
    assert [(hit["id"], hit["euclidean"]) for hit in answer["hits"]] == [(hit.id, hit.euclidean) for hit in wanted]
    line = "the vector is too long: its hash outputs are beyond float32"
    assert (refused.status_code, refused.json()) == (422, {"error": line})


def test_an_engine_answers_vectors(tmp_path, built):
    pytest.importorskip("milvus_lite")
    name = f"milvus:{tmp_path / 'v.db'}#v"
    hashret.export(built / "index", name)
    beside = hashret.Searcher(name, built / "m.safetensors", "cpu", values=built / "index")
    expected = nearest(X, Q, "cosine")[:, :3].tolist()
    assert [[hit.id for hit in hits] for hits in beside.search_vectors(Q, 3, candidates=300)] == expected
    alone = hashret.Searcher(name, built / "m.safetensors", "cpu")
    assert alone.index.rerank_choice("auto") == "directions"
    assert len(alone.search_vectors(Q, 3)) == len(Q)


def test_ids_too_far_apart_for_an_engine_are_refused(tmp_path, built):
    hashret.encode(vectors(X[:2], ids=[1, 2**60]), built / "m.safetensors", tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    with pytest.raises(HashretError, match="too far apart for an engine; encode its vectors without ids"):
        hashret.export(tmp_path / "index", f"milvus:{tmp_path / 'v.db'}#v")


def test_what_an_encoder_of_vectors_cannot_do_is_one_line(built, photos, tmp_path):
    photo = photos / "test" / "red" / "00.png"
    with pytest.raises(HashretError, match="this encoder is of vectors, which are no picture"):
        hashret.explain(photo, built / "m.safetensors", tmp_path / "map.png")
    with pytest.raises(HashretError, match="photographs and vectors are asked for one after the other"):
        hashret.query(photo, vectors=Q, searcher=searcher(built))


def test_a_distance_beyond_float32_is_none_in_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X * np.float32(1e20))
    run("train", "--data", "vectors:x.npy", "--metric", "euclidean", "--method", "itq", "--bits", "16")
    run("encode", "vectors:x.npy")
    run("build-index")
    answer = json.loads(run("query", "--vector", "x.npy", "-k", "300", "--json").splitlines()[0])
    assert {hit["euclidean"] for hit in answer["hits"][1:]} == {None}


def test_ksh_does_not_depend_on_where_the_origin_lies(tmp_path):
    """Distances do not; products of numbers far from it, by which they are computed, do."""
    maps = []
    for offset in (0, 1000):
        x = vectors(X + np.float32(offset), labels=LABELS)
        hashret.train(x, tmp_path / f"{offset}.safetensors", method="ksh", bits=16, metric="euclidean")
        hashret.encode(x, tmp_path / f"{offset}.safetensors", tmp_path / f"codes{offset}")
        hashret.build_index(tmp_path / f"codes{offset}", tmp_path / f"index{offset}")
        asked = vectors(Q + np.float32(offset), labels=ASKED)
        hashret.encode(asked, tmp_path / f"{offset}.safetensors", tmp_path / f"asked{offset}")
        found = hashret.evaluate(tmp_path / f"asked{offset}", tmp_path / f"index{offset}")
        maps.append(found.hamming.map)
    assert maps[1] == pytest.approx(maps[0], abs=0.03)


def test_vectors_of_any_scale_are_learned_from(tmp_path):
    hashret.train(vectors(X * np.float32(1e-7)), tmp_path / "m.safetensors", method="itq", bits=16, metric="euclidean")
    with pytest.raises(HashretError, match="the 30 vectors to learn from are all the same"):
        hashret.train(vectors(np.ones((30, 20))), tmp_path / "n.safetensors", method="itq", bits=16, metric="euclidean")


def test_a_class_without_photographs_cannot_be_asked_for_in_words(tmp_path):
    flags = np.zeros((len(X), 6), np.uint8)
    flags[np.arange(len(X)), LABELS] = 1
    flags[:, 5] = 1  # of which all have one, and of the class before none
    model = tmp_path / "m.safetensors"
    hashret.train(vectors(X, labels=flags), model, method="hashnet", bits=16, epochs=2, batch_size=32, width=32)
    hashret.encode(vectors(X, labels=flags), model, tmp_path / "codes")
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    s = hashret.Searcher(tmp_path / "index", model, "cpu")
    assert len(s.search_words("1", k=3)) == 3
    for word in ("4", "5"):
        with pytest.raises(HashretError, match=f"learned from no photograph of '{word}', .*; it knows 0, 1, 2, 3"):
            s.search_words(word)


def test_impossible_options_are_one_line(tmp_path):
    for options in ({"quantization": None}, {"quantization": [1]}):
        with pytest.raises(HashretError, match="the option quantization must be a number"):
            hashret.train(vectors(X, labels=LABELS), tmp_path / "m.safetensors", method="csq", options=options)
    assert hashret.train(vectors(X), tmp_path / "m.safetensors", method="itq", bits=np.array(16)).bits == 16
