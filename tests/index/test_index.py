import shutil

import faiss
import numpy as np
import pytest
from conftest import make_model

from hashret.bits import pack
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.index import build_index, open_index
from hashret.index.rerank import directions, rerank, squared_distances
from hashret.shards import ShardFolder

SEGMENT = "000001"


def random_codes(n, bits, seed, clumped=True):
    rng = np.random.default_rng(seed)
    centres = rng.random((5, bits)) < 0.5
    flips = rng.random((n, bits)) < (0.02 if clumped else 0.5)
    return pack(centres[rng.integers(0, 5, n)] ^ flips)


@pytest.mark.parametrize("d", [12, 48, 4096])
def test_rerank_is_flat_l2_over_the_candidates(d):
    rng = np.random.default_rng(d)
    xb, xq = rng.random((300, d), dtype=np.float32), rng.random((7, d), dtype=np.float32)
    candidates = np.stack([rng.permutation(300)[:50] for _ in range(7)])
    D, order = rerank(xq, xb, candidates)
    for q in range(7):
        flat = faiss.IndexFlatL2(d)
        flat.add(xb[candidates[q]])
        wanted, places = flat.search(xq[q : q + 1], 50)
        assert np.array_equal(squared_distances(xq, xb, candidates)[q][places[0]], wanted[0])
        assert np.array_equal(D[q], np.sqrt(wanted[0]))
        assert np.array_equal(order[q], places[0])


def test_directions_are_unit_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 12)) * 3
    wanted = logits / np.linalg.norm(logits, axis=1, keepdims=True)
    assert directions(1 / (1 + np.exp(-logits))) == pytest.approx(wanted, abs=1e-5)
    assert np.isfinite(directions(np.array([[0.0, 1.0, 0.5], [0.5, 0.5, 0.5]]))).all()


def test_rerank_by_directions_is_the_order_of_the_cosine(monkeypatch):
    from hashret.index import rerank as module

    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 50)  # several blocks
    rng = np.random.default_rng(1)
    xq, xb = rng.random((7, 16), np.float32), rng.random((60, 16), np.float32)
    candidates = np.stack([rng.permutation(60)[:20] for _ in range(7)])
    D, order = rerank(xq, xb, candidates, "directions")
    for q in range(7):
        a, b = np.log(xq[q] / (1 - xq[q])), np.log(xb[candidates[q]] / (1 - xb[candidates[q]]))
        cosine = b @ a / np.linalg.norm(a) / np.linalg.norm(b, axis=1)
        assert order[q].tolist() == np.argsort(-cosine).tolist()
        assert D[q] == pytest.approx(np.sqrt(2 - 2 * np.sort(cosine)[::-1]), abs=1e-3)
    with pytest.raises(HashretError, match="cosine or euclidean"):
        rerank(xq, xb, candidates, "magic")


def test_rerank_keeps_the_order_of_equal_distances():
    xb = np.zeros((4, 8), np.float32)
    assert rerank(xb[:1], xb, np.array([[3, 1, 2, 0]]))[1].tolist() == [[0, 1, 2, 3]]


def test_an_index_finds_each_photograph_itself_first(codes, index_folder):
    index, rows = open_index(index_folder, "cpu"), ShardFolder(codes).load()
    hits = index.search(rows.codes, rows.hash_outputs, k=3)
    assert np.array_equal(hits.positions[:, 0], np.arange(36))
    assert (hits.euclidean[:, 0] == 0).all()
    assert (hits.hamming[:, 0] == 0).all()
    assert index.label(0) == "blue"
    assert index.path(35).endswith("red/11.png")
    assert np.array_equal(index.codes(), rows.codes)
    assert np.array_equal(index.hash_outputs, rows.hash_outputs.astype(np.float32))


def test_more_answers_than_items_and_fewer_candidates_than_answers(codes, index_folder):
    index, rows = open_index(index_folder, "cpu"), ShardFolder(codes).load()
    for values in (rows.hash_outputs, None):
        hits = index.search(rows.codes, values, k=1000)
        assert hits.positions.shape == (36, 36)
        assert (np.sort(hits.positions, axis=1) == np.arange(36)).all()
    assert index.search(rows.codes, rows.hash_outputs, k=10, candidates=3).positions.shape == (36, 10)


def test_candidates_bound_the_rerank(codes, index_folder):
    index, rows = open_index(index_folder, "cpu"), ShardFolder(codes).load()
    plain = index.search(rows.codes, None, k=8)
    assert np.isnan(plain.euclidean).all()
    hits = index.search(rows.codes, rows.hash_outputs, k=8, candidates=8)
    assert np.array_equal(np.sort(hits.positions, axis=1), np.sort(plain.positions, axis=1))
    assert (np.diff(hits.euclidean, axis=1) >= 0).all()


@pytest.mark.parametrize(("k", "candidates"), [(0, 10), (-1, 10), (5, 0)])
def test_k_below_one(codes, index_folder, k, candidates):
    rows = ShardFolder(codes).load()
    with pytest.raises(HashretError, match="at least 1"):
        open_index(index_folder, "cpu").search(rows.codes, rows.hash_outputs, k=k, candidates=candidates)


def test_codes_of_another_width(index_folder):
    with pytest.raises(HashretError, match="do not fit"):
        open_index(index_folder, "cpu").search(np.zeros((1, 6), np.uint8))


def test_several_shard_folders_make_one_index(photos, model, codes, tmp_path):
    encode(photos, model, tmp_path / "more", split="test", workers=0)
    meta = build_index([codes, tmp_path / "more"], tmp_path / "index").meta
    index = open_index(tmp_path / "index", "cpu")
    assert meta["count"] == len(index) == 48
    assert index.ids.tolist() == list(range(48))
    assert index.path(36).endswith("test/blue/00.png")


def test_shards_of_different_encoders_do_not_mix(photos, codes, tmp_path):
    other = make_model(tmp_path / "m.safetensors", seed=3)
    encode(photos, other, tmp_path / "more", split="test", workers=0)
    with pytest.raises(HashretError, match="different encoders"):
        build_index([codes, tmp_path / "more"], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_existing_output(codes, index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "index")
    with pytest.raises(HashretError, match="--overwrite"):
        build_index(codes, tmp_path / "index")
    build_index(codes, tmp_path / "index", overwrite=True)
    assert len(open_index(tmp_path / "index", "cpu")) == 36
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_no_photographs(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    encode(tmp_path / "photos", model, tmp_path / "codes", workers=0)
    with pytest.raises(HashretError, match="no photographs"):
        build_index(tmp_path / "codes", tmp_path / "index")
    with pytest.raises(HashretError, match="no such folder of shards"):
        build_index(tmp_path / "none", tmp_path / "index")


@pytest.mark.parametrize(
    "name", ["hamming.faiss", "planes.npy", "values.npy", "ids.npy", "labels.npy", "paths.bin", "path_ends.npy"]
)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_index_is_refused_before_faiss_reads_it(index_folder, tmp_path, name, damage):
    folder = tmp_path / "index"
    shutil.copytree(index_folder, folder)
    raw = bytearray((folder / SEGMENT / name).read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 0xFF
        (folder / SEGMENT / name).write_bytes(raw)
    elif damage == "truncated":
        (folder / SEGMENT / name).write_bytes(raw[:-3])
    else:
        (folder / SEGMENT / name).unlink()
    with pytest.raises(HashretError, match=f"damaged: {name}"):
        open_index(folder, "cpu")


def test_index_json_missing_or_damaged(index_folder, tmp_path):
    folder = tmp_path / "index"
    with pytest.raises(HashretError, match="no index at"):
        open_index(folder)
    shutil.copytree(index_folder, folder)
    (folder / "index.json").write_text('{"format": ')
    with pytest.raises(HashretError, match="is damaged"):
        open_index(folder)
    (folder / "index.json").unlink()
    with pytest.raises(HashretError, match=r"index.json is missing"):
        open_index(folder)


def test_a_gpu_asked_for_and_not_there(index_folder):
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        pytest.skip("there is a GPU here")
    with pytest.raises(HashretError, match="no GPU"):
        open_index(index_folder, "cuda")
