"""Hamming stage on GPUs: exact, though a GPU orders ties as it likes. Stand-ins here, and a real one where there is."""

import types

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import assert_same, brute_force, make_codes

from hashret.bits import hamming
from hashret.index import hamming as stage_module
from hashret.index.hamming import HammingStage

MAX_K = 50


class FakeGpuIndex:
    """Stands in for faiss.GpuIndexBinaryFlat: at one distance, any codes in any order."""

    def __init__(self, resources, flat, config):
        self.codes, self.device, self.searches = (
            faiss.vector_to_array(flat.xb).reshape(flat.ntotal, -1),
            config.device,
            [],
        )

    def search(self, xq, k):
        assert k <= min(MAX_K, len(self.codes))
        self.searches.append(k)
        D = hamming(xq, self.codes)
        order = np.lexsort((np.random.default_rng(k).random(D.shape), D), axis=1)[:, :k]
        return np.take_along_axis(D, order, 1), order


class FakeReplicas:
    """Stands in for faiss.IndexBinaryReplicas, which shares the queries between copies."""

    def __init__(self):
        self.copies = []

    def addIndex(self, index):
        self.copies.append(index)

    def search(self, xq, k):
        parts = [
            copy.search(some, k) for copy, some in zip(self.copies, np.array_split(xq, len(self.copies)), strict=True)
        ]
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


@pytest.fixture
def gpus(monkeypatch):
    """A function that puts a number of stand-ins in the place of faiss's GPUs."""

    def put(number):
        fake = types.SimpleNamespace(
            get_num_gpus=lambda: number,
            StandardGpuResources=object,
            GpuIndexBinaryFlatConfig=types.SimpleNamespace,
            GpuIndexBinaryFlat=FakeGpuIndex,
            IndexBinaryReplicas=FakeReplicas,
        )
        names = ("IndexBinaryFlat", "omp_get_max_threads", "omp_set_num_threads")
        fake.__dict__.update({name: getattr(faiss, name) for name in names})
        monkeypatch.setattr(stage_module, "faiss", fake)
        monkeypatch.setattr(stage_module, "GPU_MAX_K", MAX_K)

    return put


def on_gpu(xb, bits, grouped=None):
    return HammingStage.from_codes(xb, bits, "cuda", grouped=grouped)


@pytest.mark.filterwarnings("ignore:the CPU answers")
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.integers(8, 256),
    n=st.integers(1, 1500),
    nq=st.integers(1, 30),
    k=st.integers(1, 1700),
    flips=st.sampled_from([0, 0.01, 0.1, 0.5]),
    grouped=st.sampled_from([None, True, False]),
    seed=st.integers(0, 10**6),
)
def test_answers_are_exact_whatever_the_order_of_ties(gpus, bits, n, nq, k, flips, grouped, seed):
    gpus(1)
    xb, xq = make_codes(n, bits, seed, flips), make_codes(nq, bits, seed + 1, flips)
    assert_same(on_gpu(xb, bits, grouped).search(xq, k), brute_force(xq, xb, k))


def test_the_cpu_answers_what_a_gpu_cannot_and_that_is_said_once(gpus, recwarn):
    gpus(1)
    xb, xq = make_codes(3000, 48, 0, 0.5), make_codes(20, 48, 1, 0.5)
    stage = on_gpu(xb, 48)
    assert_same(stage.search(xq, 5), brute_force(xq, xb, 5))
    assert not recwarn
    asked = len(stage.gpu.searches)
    for k in (MAX_K, 2000):
        assert_same(stage.search(xq, k), brute_force(xq, xb, k))
    assert len(stage.gpu.searches) == asked  # it could not know
    assert [str(said.message) for said in recwarn] == [
        f"the CPU answers queries that take more than the GPU's {MAX_K} nearest codes"
    ]


def test_only_queries_that_tie_at_the_cut_are_left_to_the_cpu(gpus, monkeypatch):
    gpus(1)
    line = np.tril(np.ones((40, 200), bool), -1)  # code i is at distance |i - j| from code j
    xb = np.packbits(np.concatenate([line, np.eye(200, dtype=bool)]), axis=1)  # and 200 at 1 from code 0
    xq = np.packbits(line[[0, 39, 38]], axis=1)
    stage, asked = on_gpu(xb, 200, grouped=False), []
    on_cpu = stage._on_cpu
    monkeypatch.setattr(stage, "_on_cpu", lambda xq, k: asked.append(len(xq)) or on_cpu(xq, k))
    with pytest.warns(UserWarning, match="the CPU answers"):
        assert_same(stage.search(xq, 20), brute_force(xq, xb, 20))
    assert asked == [1]


def test_a_search_among_some_photographs_leaves_the_gpu_with_a_word(gpus):
    gpus(1)
    xb, xq = make_codes(300, 48, 0), make_codes(5, 48, 1)
    mask = np.arange(300) % 3 == 0
    stage = on_gpu(xb, 48)
    with pytest.warns(UserWarning, match="on the CPU"):
        part = stage.subset(mask)
    assert part.gpu is None
    assert_same(part.search(xq, 10), brute_force(xq, xb, 10, np.flatnonzero(mask)))


@pytest.mark.filterwarnings("ignore:the CPU answers")
def test_several_gpus_share_the_queries(gpus):
    gpus(2)
    xb, xq = make_codes(3000, 48, 0), make_codes(7, 48, 1)
    stage = on_gpu(xb, 48)
    assert_same(stage.search(xq, 20), brute_force(xq, xb, 20))
    assert [copy.device for copy in stage.gpu.copies] == [0, 1]
    assert all(copy.searches for copy in stage.gpu.copies)


@pytest.mark.skipif(not getattr(faiss, "get_num_gpus", lambda: 0)(), reason="faiss sees no GPU here")
@pytest.mark.filterwarnings("ignore:the CPU answers")
@pytest.mark.parametrize("bits", [12, 24, 48, 64, 128, 256])
@pytest.mark.parametrize("flips", [0.02, 0.5])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_real_gpu_answers_as_brute_force(bits, flips, grouped):
    xb, xq = make_codes(20_000, bits, 0, flips), make_codes(100, bits, 1, flips)
    stage = on_gpu(xb, bits, grouped)
    assert stage.gpu is not None
    for k in (1, 100, 1000, 3000):
        assert_same(stage.search(xq, k), brute_force(xq, xb, k))
