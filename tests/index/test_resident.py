"""An index that a device holds answers as the index does: on the CPU here, and on a GPU where there is one."""

import types

import faiss
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashret.bits import binarize, pack, pad, padded_width
from hashret.errors import HashretError
from hashret.index import Index, rerank, resident, torch_nearest
from hashret.index.distinct import group
from hashret.index.hamming import HammingStage
from hashret.index.resident import Resident
from hashret.index.segment import Segment
from hashret.index.threads import at_most

HAS_GPU = torch.cuda.is_available() and getattr(faiss, "get_num_gpus", lambda: 0)() > 0


@pytest.fixture(autouse=True)
def one_thread():
    """The threads of torch and of faiss would spin against each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with at_most(1):
        yield
    torch.set_num_threads(threads)


class HeldSegment(Segment):
    """A segment in memory, of values of which a share was removed."""

    def __init__(self, values, bits, grouped, removed, rng):
        self.meta, self.hash_outputs, self.fc_features = {"count": len(values)}, values, None
        self.columns = {"hash_outputs": values}
        self.removed = np.flatnonzero(rng.random(len(values)) < removed)
        table = group(pad(pack(binarize(values)), padded_width(bits)), grouped)
        self.stage = HammingStage(table, bits, "faiss")


def make_values(n, bits, seed, flips):
    """Values around five centres, few decimals of them, so that distances tie."""
    rng = np.random.default_rng(seed)
    ones = (np.random.default_rng(bits).random((5, bits)) < 0.5)[rng.integers(0, 5, n)] ^ (
        rng.random((n, bits)) < flips
    )
    return np.abs(ones - 0.4 * rng.random((n, bits)).round(1)).astype(np.float32)


def make_index(sizes, bits, seed=0, flips=0.02, grouped=None, removed=0):
    rng = np.random.default_rng(seed)
    segments = [
        HeldSegment(make_values(n, bits, seed + 2 + i, flips), bits, grouped, removed, rng) for i, n in enumerate(sizes)
    ]
    return Index({"bits": bits}, segments)


def hold(index, device="cpu"):
    """The index on a device, which answers batches of any size."""
    return Resident(index, device, few_queries=0).warm()


def assert_same(index, held, xq, k, candidates, rerank_by="values"):
    """Both stages: the first is equal, the second up to rounding."""
    codes = pack(binarize(xq))
    wanted, got = index.search(codes, None, k), held.search(codes, None, k)
    assert np.array_equal(got.positions, wanted.positions)
    assert np.array_equal(got.hamming, wanted.hamming)
    assert np.isnan(got.euclidean).all()
    wanted, got = (part.search(codes, xq, k, candidates, rerank_by) for part in (index, held))
    assert [array.dtype for array in vars(got).values()] == [array.dtype for array in vars(wanted).values()]
    assert got.positions.shape == wanted.positions.shape
    near = 2e-3 if rerank_by == "directions" else 1e-5
    assert np.allclose(got.euclidean, wanted.euclidean, atol=near)
    # Another row at a place is one at the same distance.
    squared = rerank.squared(xq, np.asarray(index.hash_outputs), got.positions, rerank_by)
    assert np.allclose(got.euclidean, np.sqrt(squared), atol=near)
    assert np.array_equal(np.bitwise_count(index.codes()[got.positions] ^ codes[:, None]).sum(2), got.hamming)
    first = index.search(codes, None, max(k, candidates)).positions
    for chosen, among in zip(got.positions, first, strict=True):
        assert len(np.unique(chosen)) == np.isin(chosen, among).sum() == len(chosen)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.integers(8, 130),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=3),
    nq=st.integers(1, 20),
    k=st.integers(1, 500),
    candidates=st.integers(1, 500),
    flips=st.sampled_from([0, 0.02, 0.5]),
    grouped=st.booleans(),
    removed=st.sampled_from([0, 0.3]),
    rerank_by=st.sampled_from(["values", "directions"]),
    seed=st.integers(0, 10**6),
)
def test_it_answers_as_the_index(bits, sizes, nq, k, candidates, flips, grouped, removed, rerank_by, seed):
    index = make_index(sizes, bits, seed, flips, grouped, removed)
    xq = make_values(nq, bits, seed + 1, flips)
    assert_same(index, hold(index), xq, k, candidates, rerank_by)


def test_work_in_many_small_portions_is_the_same(monkeypatch):
    monkeypatch.setattr(torch_nearest, "_PAIRS_AT_ONCE", 500)
    monkeypatch.setattr(torch_nearest, "ROWS_AT_ONCE", 70)
    monkeypatch.setattr(resident, "_NUMBERS_AT_ONCE", 30_000)
    for grouped in (True, False):
        index = make_index([500, 300], 48, grouped=grouped)
        assert_same(index, hold(index), make_values(40, 48, 1, 0.02), 30, 90)


class Careless(torch_nearest.DeviceCodes):
    """Stands in for a GPU: at one distance any codes in any order, and few of them."""

    def __init__(self, codes, device, resources):
        super().__init__(codes, device, resources)
        self.most = min(len(codes), 60)

    def search(self, xq, k):
        assert k <= self.most
        D, rows = super().search(xq, self.flat.ntotal)
        order = np.lexsort((np.random.default_rng(k).random(D.shape), D.numpy()), axis=1)[:, :k]
        return D.gather(1, torch.from_numpy(order)), rows.gather(1, torch.from_numpy(order))


def test_faiss_searches_on_the_stream_of_torch(monkeypatch):
    """The calls that a GPU takes, with stand-ins for faiss's GPU classes and for torch's stream."""
    streams = []

    class Resources:
        def setDefaultStream(self, device, stream):
            streams.append((device, faiss.cast_cudastream_t_to_integer(stream)))

    class GpuIndex(faiss.IndexBinaryFlat):
        def __init__(self, resources, bits, config):
            super().__init__(bits)
            assert (type(resources), config.device) == (Resources, 1)

    device = types.SimpleNamespace(type="cuda", index=1)
    monkeypatch.setattr(faiss, "GpuIndexBinaryFlatConfig", types.SimpleNamespace)
    monkeypatch.setattr(faiss, "GpuIndexBinaryFlat", GpuIndex)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=1234))
    table = group(pad(pack(make_values(5000, 48, 0, 0.5) >= 0.5), 8), False)
    flat = torch_nearest.DeviceCodes(table.codes, device, Resources())
    assert flat.most == 2048
    D, rows = flat.search(torch.from_numpy(table.codes[:20].copy()), 5)
    assert streams == [(None, 1234)]  # the queries lie on the CPU
    assert D[:, 0].tolist() == [0] * 20
    assert rows[:, 0].tolist() == list(range(20))


@pytest.mark.filterwarnings("ignore:the CPU answers")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=3),
    k=st.integers(1, 120),
    candidates=st.integers(1, 120),
    flips=st.sampled_from([0, 0.02, 0.5]),
    grouped=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_a_gpu_that_cuts_off_ties_is_seen_through(sizes, k, candidates, flips, grouped, seed):
    index = make_index(sizes, 24, seed, flips, grouped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resident, "DeviceCodes", Careless)
        held = hold(index)
    assert_same(index, held, make_values(12, 24, seed + 1, flips), k, candidates)


def test_what_it_cannot_do_the_index_does_with_a_word_each(recwarn):
    index = make_index([300], 24)
    index.alive = np.ones(300, bool)
    xq = make_values(3, 24, 1, 0.02)
    codes, held = pack(binarize(xq)), hold(index)
    for _ in range(2):
        for ask in (
            {"among": index.select(), "hash_outputs": None},
            {"rerank_by": "asymmetric"},
            {"rerank_by": "asymmetric", "k": 400},
        ):
            wanted, got = (part.search(codes, **{"hash_outputs": xq, **ask}) for part in (index, held))
            assert np.array_equal(wanted.positions, got.positions)
    assert sorted(str(said.message) for said in recwarn) == [
        "a re-rank by asymmetric is done by the CPU",
        "a search among some photographs is done by the CPU",
    ]


def test_values_that_do_not_fit(monkeypatch):
    index = make_index([300], 48)
    xq = make_values(3, 48, 1, 0.02)
    codes = pack(binarize(xq))
    monkeypatch.setattr(resident, "_free", lambda device: 300 * 4 * 48)
    assert hold(index).outputs_on_device is not None
    monkeypatch.setattr(resident, "_free", lambda device: 300 * 4 * 48 - 1)
    held = hold(index)
    assert held.outputs_on_device is None
    assert np.array_equal(held.search(codes, None, 20).positions, index.search(codes, None, 20).positions)
    with pytest.warns(UserWarning, match="values that are not on the GPU"):
        assert np.array_equal(held.search(codes, xq, 20).positions, index.search(codes, xq, 20).positions)


def test_mistakes_are_the_same_as_the_index_makes_of_them():
    index = make_index([300], 24)
    xq = make_values(3, 24, 1, 0.02)
    codes, held = pack(binarize(xq)), hold(index)
    for ask, message in (
        ({"k": 0}, "at least 1"),
        ({"candidates": 0}, "at least 1"),
        ({"rerank_by": "colour"}, "the re-rank compares"),
        ({"codes": codes[:, :2]}, "do not fit"),
    ):
        with pytest.raises(HashretError, match=message):
            held.search(**{"codes": codes, "hash_outputs": xq, **ask})
    assert held.search(codes[:0], xq[:0], 5).positions.shape == (0, 5)


def test_an_index_without_values_says_so():
    index = make_index([300], 24)
    index.segments[0].hash_outputs, index.segments[0].columns = None, {}
    xq = make_values(3, 24, 1, 0.02)
    with pytest.raises(HashretError, match="keeps no values"):
        hold(index).search(pack(binarize(xq)), xq)


def test_nothing_is_left():
    index = make_index([30, 20], 24, removed=1)
    xq = make_values(3, 24, 1, 0.02)
    assert hold(index).search(pack(binarize(xq)), xq).positions.shape == (3, 0)


@pytest.mark.skipif(not HAS_GPU, reason="faiss or torch sees no GPU here")
@pytest.mark.filterwarnings("ignore:the CPU answers")
@pytest.mark.parametrize("bits", [12, 24, 48, 64, 128, 256])
@pytest.mark.parametrize("flips", [0.02, 0.5])
def test_a_real_gpu_answers_as_the_index(bits, flips):
    index = make_index([20_000, 3000], bits, flips=flips, removed=0.1)
    held = hold(index, "cuda")
    for nq, k, candidates in ((1, 10, 1000), (100, 100, 1000), (1000, 1000, 1), (5, 10, 5000)):
        assert_same(index, held, make_values(nq, bits, 1, flips), k, candidates)
    with torch.cuda.stream(torch.cuda.Stream()):
        assert_same(index, held, make_values(30, bits, 3, flips), 10, 100, "directions")
