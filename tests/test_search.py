import json
import re
import shutil

import numpy as np
import pytest
from conftest import make_model

import hashret
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.index import build_index, open_index
from hashret.index.resident import Resident
from hashret.queries import expand
from hashret.search import Searcher, query


@pytest.fixture(scope="module")
def searcher(index_folder, model):
    return Searcher(index_folder, model, "cpu")


def test_a_photograph_of_the_database_finds_itself_with_its_bits(photos, searcher):
    """The query's values are the database's to the last bit, though one was encoded alone and one in a batch."""
    for row in (0, 17, 35):
        path = searcher.index.path(row)
        hits = searcher.search(path, k=5)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        assert (hits[0].id, hits[0].path, hits[0].hamming, hits[0].euclidean) == (row, path, 0, 0.0)
        assert np.array_equal(searcher.encode([path])[0].astype(np.float32), searcher.index.hash_outputs[row])


def test_many_photographs_give_what_each_gives_alone(photos, searcher):
    paths = [photos / "test" / colour / "01.png" for colour in ("red", "blue")]
    assert searcher.search_many(paths, k=4) == [searcher.search(path, k=4) for path in paths]


def test_a_gpu_holds_the_index_once_that_pays(photos, index_folder, model, searcher):
    """The CPU stands in for the GPU."""
    index = Resident(open_index(index_folder, "cpu"), "cpu", few_queries=0)
    other = Searcher(index, model, "cpu")
    assert index._comparisons_until_load == 36 * 24 * 4
    index._comparisons_until_load = 100  # bytes, where 36 codes are compared with a query
    paths = [photos / "test" / colour / "01.png" for colour in ("red", "blue")]
    for number, on_device in ((1, False), (2, True)):
        for got, wanted in zip(*(s.search_many(paths[:number], k=4) for s in (other, searcher)), strict=True):
            assert [(hit.rank, hit.path, hit.hamming) for hit in got] == [(w.rank, w.path, w.hamming) for w in wanted]
            assert [hit.euclidean for hit in got] == pytest.approx([hit.euclidean for hit in wanted], abs=1e-6)
        assert (index.outputs_on_device is not None) == on_device
    index = Resident(open_index(index_folder, "cpu"), "cpu")
    Searcher(index, model, "cpu").warm()
    assert index.outputs_on_device is not None


def test_directions_find_the_photograph_itself_first(photos, searcher):
    path = photos / "train" / "green" / "03.png"
    hits = searcher.search(path, k=36, rerank_by="directions")
    assert hits[0].path == str(path)
    assert hits[0].euclidean == pytest.approx(0, abs=1e-3)
    assert [hit.euclidean for hit in hits] == sorted(hit.euclidean for hit in hits)
    assert max(hit.euclidean for hit in hits) <= 2


def test_without_rerank_the_order_is_by_hamming_distance(photos, searcher):
    hits = searcher.search(photos / "test" / "red" / "00.png", k=36, rerank_by=None)
    assert [hit.euclidean for hit in hits] == [None] * 36
    assert (np.diff([hit.hamming for hit in hits]) >= 0).all()
    assert json.loads(json.dumps(hits[0].as_dict()))["rank"] == 1


def test_the_query_function_takes_folders(photos, index_folder, model):
    results = query([photos / "test" / "red", photos / "test" / "blue" / "00.png"], index_folder, model, k=2)
    assert len(results) == 5
    assert results[-1][0].endswith("blue/00.png")
    assert all(len(hits) == 2 for _, hits in results)


def test_an_index_without_what_is_asked_for_is_named(photos, index_folder, model):
    red = photos / "test" / "red" / "00.png"
    with pytest.warns(UserWarning, match="no photograph of what --label, --path and --id ask for together"):
        [(_, hits)] = query([red], index_folder, model, label=["red"], path=["*/green/*"])
    assert hits == []
    with pytest.warns(UserWarning, match=r"; --path 'train/green/\*' asks for what lies in a folder$"):
        query([red], index_folder, model, path="train/green/")


def test_an_index_of_another_encoder_is_refused(index_folder, tmp_path):
    other = make_model(tmp_path / "other.safetensors", seed=5)
    with pytest.raises(HashretError, match="another encoder"):
        Searcher(index_folder, other)


def test_a_checkpoint_that_is_replaced_before_it_is_loaded_is_refused(index_folder, model, tmp_path, monkeypatch):
    """Words, explanations and several runtimes load the encoder of a searcher only when they are asked for."""
    monkeypatch.setattr(hashret.search, "ready_encoder", lambda *_: "what encodes photographs without torch")
    own = tmp_path / "model.safetensors"
    shutil.copy(model, own)
    searcher = Searcher(index_folder, own, "cpu")
    make_model(own, seed=5)
    with pytest.raises(HashretError, match="replaced by another encoder"):
        _ = searcher.encoder
    shutil.copy(model, own)
    assert searcher.encoder.fingerprint == searcher.index.meta["encoder"]


def test_the_query_computes_in_the_precision_of_the_database(photos, model, tmp_path):
    for precision in ("float32", "bfloat16"):
        encode(photos, model, tmp_path / precision, split="train", precision=precision, workers=0)
        build_index(tmp_path / precision, tmp_path / f"{precision}.index")
        searcher = Searcher(tmp_path / f"{precision}.index", model, "cpu")
        assert searcher.encoder.compute_dtype == precision
        assert searcher.search(searcher.index.path(3), k=1)[0].euclidean == 0


def test_photographs_that_cannot_be_read(photos, searcher, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(HashretError, match="not an image"):
        searcher.search(tmp_path / "text.jpg")
    with pytest.raises(HashretError, match="no such file"):
        expand([tmp_path / "none.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(HashretError, match="no images"):
        expand([tmp_path / "empty"])
    with pytest.raises(HashretError, match="no photographs"):
        searcher.search_many([])


def test_saturated_values_still_order_the_answers(photos, tmp_path):
    """A well-trained hash layer is near 0 and 1 everywhere; float16 values would all be equal there."""
    from safetensors.torch import load_file

    from hashret.models.checkpoint import build_network, read_meta, save_checkpoint

    plain = make_model(tmp_path / "plain.safetensors")
    net = build_network(read_meta(plain))
    tensors = load_file(plain)
    for name in ("head.hash.weight", "head.hash.bias"):
        tensors[name] = tensors[name] * 0.05
    tensors["head.hash.bias"] += 9
    net.load_state_dict(tensors, assign=True)
    meta = {name: value for name, value in read_meta(plain).items() if name not in ("format", "fingerprint")}
    save_checkpoint(tmp_path / "m.safetensors", net, meta)
    encode(photos, tmp_path / "m.safetensors", tmp_path / "codes", split="train", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    searcher = Searcher(tmp_path / "index", tmp_path / "m.safetensors", "cpu")
    assert searcher.index.hash_outputs.min() > 0.999
    hits = searcher.search(searcher.index.path(20), k=36)
    assert hits[0].id == 20
    assert {hit.hamming for hit in hits} == {0}
    assert len({hit.euclidean for hit in hits}) > 20
    assert len(np.unique(searcher.index.hash_outputs.astype(np.float16), axis=0)) < 5


@pytest.mark.parametrize("candidates", [None, 4])
def test_as_many_others_are_found_where_a_file_is_indexed_several_times(index_folder, model, tmp_path, candidates):
    shutil.copytree(index_folder, tmp_path / "index")
    itself = open_index(index_folder).path(7)
    for _ in range(3):
        hashret.add(tmp_path / "index", [itself], model, again=True)
    searcher, once = Searcher(tmp_path / "index", model, "cpu"), Searcher(index_folder, model, "cpu")
    wanted = once.search(itself, 36, exclude_self=True)
    assert len(wanted) == 35
    assert searcher.search(itself, 36, exclude_self=True) == wanted
    found = searcher.search_many([itself, once.index.path(0)], 4, candidates=candidates, exclude_self=True)
    assert [hit.rank for hit in found[0]] == [1, 2, 3, 4]
    assert itself not in {hit.path for hit in found[0]}
    if candidates is None:
        assert found[0] == wanted[:4]


@pytest.mark.parametrize("wrong", [10**30, -(10**30), "seven"])
def test_what_can_be_no_id_is_refused_in_one_line(searcher, wrong):
    line = re.escape(f"an id is a whole number from 0 to 2^63 - 1, not {wrong!r}")
    with pytest.raises(HashretError, match=line):
        query(searcher.index.path(0), searcher=searcher, ids=[3, wrong])
    with pytest.raises(HashretError, match=line):
        searcher.index.find(wrong)


def test_several_labels_are_named(index_folder):
    index = open_index(index_folder, "cpu")
    index.segments[0].labels = np.array([[1, 0, 1]] * 36, np.uint8)
    assert index.label(0) == "blue red"
    index.segments[0].labels = None
    assert index.label(0) == ""


def test_the_package_names_are_the_functions():
    assert hashret.Searcher is Searcher
    assert hashret.encode is encode
    assert set(hashret.__all__) <= set(dir(hashret))
    with pytest.raises(AttributeError):
        hashret.no_such_name  # noqa: B018


@pytest.mark.parametrize("options", [{"k": 2.0}, {"k": "3"}, {"k": 0}, {"candidates": 10.5}, {"candidates": 0}])
def test_numbers_that_are_none_are_one_line(index_folder, model, photos, options):
    searcher = hashret.Searcher(index_folder, model, device="cpu")
    with pytest.raises(HashretError, match="k and candidates must be whole numbers of at least 1, not"):
        searcher.search(next(photos.glob("test/*/*.png")), **options)
    with pytest.raises(HashretError, match="k and candidates must be whole numbers of at least 1, not"):
        searcher.search(next(photos.glob("test/*/*.png")), exclude_self=True, **options)
