"""The Hamming stage answers as faiss `IndexBinaryFlat` does, whatever the engine: distances, items, order."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same, brute_force, make_codes, stage_of

from hashret.errors import HashretError
from hashret.index import hamming as stage_module
from hashret.index.distinct import Grouping, group
from hashret.index.hamming import has_compiled

ENGINES = ["faiss", pytest.param("compiled", marks=pytest.mark.skipif(not has_compiled(), reason="needs numba"))]


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=120)
@given(
    bits=st.integers(8, 256),
    n=st.integers(1, 3000),
    nq=st.integers(1, 40),
    k=st.integers(1, 3500),
    flips=st.sampled_from([0, 0.01, 0.1, 0.5]),
    grouped=st.sampled_from([None, True, False]),
    seed=st.integers(0, 10**6),
)
def test_every_engine_answers_as_brute_force(engine, bits, n, nq, k, flips, grouped, seed):
    xb, xq = make_codes(n, bits, seed, flips), make_codes(nq, bits, seed + 1, flips)
    stage = stage_of(xb, bits, backend=engine, grouped=grouped)
    assert_same(stage.search(xq, k), brute_force(xq, xb, k))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bits", [12, 24, 32, 48, 64])
def test_the_answers_are_those_of_faiss_over_the_codes_as_they_are(engine, bits):
    xb, xq = make_codes(20_000, bits, 0), make_codes(50, bits, 1)
    flat = faiss.IndexBinaryFlat(8 * xb.shape[1])
    flat.add(xb)
    stage = stage_of(xb, bits, backend=engine)
    assert stage.table.grouped
    for k in (1, 100, 3000):
        assert_same(stage.search(xq, k), flat.search(xq, k))


@pytest.mark.skipif(not has_compiled(), reason="needs numba")
@pytest.mark.parametrize(
    ("n", "nq", "k"), [(300_000, 1, 100), (300_000, 40, 100), (300_000, 2, 299_999), (9000, 3, 9000)]
)
@pytest.mark.parametrize("flips", [0.03, 0.5])
def test_threads_share_the_queries_or_the_codes(monkeypatch, n, nq, k, flips):
    from hashret.index import scan

    monkeypatch.setattr(scan, "_PAIRS_A_THREAD", 1000)
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 4)
    xb, xq = make_codes(n, 48, 2, flips), make_codes(nq, 48, 3, flips)
    stage = stage_of(xb, 48, backend="compiled")
    assert_same(stage.search(xq, k), brute_force(xq, xb, k))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400), st.integers(1, 300), st.sampled_from([0.01, 0.5]), st.booleans(), st.integers(0, 10**6),
    st.sampled_from(["faiss", "compiled"] if has_compiled() else ["faiss"]),
)  # fmt: skip
def test_a_subset_answers_as_the_codes_it_leaves(n, k, flips, grouped, seed, engine):
    xb, xq = make_codes(n, 24, seed, flips), make_codes(5, 24, seed + 1, flips)
    mask = np.random.default_rng(seed).random(n) < 0.3
    stage = stage_of(xb, 24, backend=engine, grouped=grouped).subset(mask)
    assert len(stage) == mask.sum()
    assert_same(stage.search(xq, k), brute_force(xq, xb, k, np.flatnonzero(mask)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(8, 100), st.integers(0, 20), st.booleans(), st.integers(0, 10**6))
def test_within_a_radius(n, bits, radius, grouped, seed):
    xb, xq = make_codes(n, bits, seed), make_codes(4, bits, seed + 1)
    stage = stage_of(xb, bits, grouped=grouped)
    D, rows = brute_force(xq, xb, n)
    for query, found, items in stage.within(xq, radius):
        inside = D[query] <= radius
        assert_same((found, items), (D[query][inside], rows[query][inside]))


def test_a_negative_radius():
    with pytest.raises(HashretError, match="radius"):
        list(stage_of(make_codes(9, 48, 0), 48).within(make_codes(1, 48, 0), -1))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), max_size=5), st.sampled_from([12, 48, 100]), st.integers(0, 10**6))
def test_grouping_keeps_codes_in_the_order_of_first_appearance(sizes, bits, seed):
    from hashret.bits import pad, padded_width

    blocks = [pad(make_codes(n, bits, seed + i), padded_width(bits)) for i, n in enumerate(sizes)]
    grouping = Grouping(grouped=True)
    for block in blocks:
        grouping.add(block)
    table = grouping.table()
    if not sum(sizes):
        assert table.count == 0
        return
    codes = np.concatenate(blocks)
    first = {}
    for row, code in enumerate(codes):
        first.setdefault(bytes(code), []).append(row)
    assert [bytes(code) for code in table.codes] == list(first)
    lists = np.split(table.items, table.starts[1:-1])
    assert [list(rows) for rows in lists] == list(first.values())
    assert np.array_equal(table.by_item(), codes)


def test_codes_that_do_not_repeat_are_not_grouped():
    assert group(make_codes(5000, 48, 0, 0.01)).grouped
    assert not group(make_codes(5000, 48, 0, 0.5)).grouped
    codes = make_codes(300_000, 64, 0, 0.5)
    grouping = Grouping()
    for start in range(0, len(codes), 50_000):
        grouping.add(codes[start : start + 50_000])
    assert grouping.keys is None  # it gave up on the way
    assert np.array_equal(grouping.table().codes, codes)


def test_no_codes_and_no_queries():
    stage = stage_of(make_codes(0, 48, 0), 48)
    assert [found.shape for found in stage.search(make_codes(3, 48, 0), 5)] == [(3, 0), (3, 0)]
    stage = stage_of(make_codes(9, 48, 0), 48)
    assert [found.shape for found in stage.search(make_codes(0, 48, 0), 5)] == [(0, 5), (0, 5)]
    with pytest.raises(HashretError, match="at least 1"):
        stage.search(make_codes(3, 48, 0), 0)


def test_the_compiled_scan_is_loaded_when_it_pays(monkeypatch):
    xb, xq = make_codes(1000, 48, 0), make_codes(10, 48, 1)
    stage = stage_of(xb, 48)
    monkeypatch.setattr(stage_module, "_is_compiled", lambda: True)
    stage.search(xq, 5)
    assert stage._scan is None
    assert stage_of(xb, 48, backend="faiss").warm()._scan is None
    monkeypatch.setattr(stage_module, "has_compiled", lambda: False)
    assert stage.warm()._scan is None
    assert_same(stage.search(xq, 5), brute_force(xq, xb, 5))
    with pytest.raises(HashretError, match=r"hashret\[fast\]"):
        stage_of(xb, 48, backend="compiled")
    with pytest.raises(HashretError, match="engine"):
        stage_of(xb, 48, backend="fast")


@pytest.mark.skipif(not has_compiled(), reason="needs numba")
def test_searching_loads_the_compiled_scan_when_it_has_cost_as_much(monkeypatch):
    xb, xq = make_codes(1000, 48, 0), make_codes(10, 48, 1)
    for known, name in ((True, "_COMPARISONS_TO_LOAD"), (False, "_COMPARISONS_TO_COMPILE")):
        monkeypatch.setattr(stage_module, "_is_compiled", lambda known=known: known)
        monkeypatch.setattr(stage_module, name, 25_000)
        stage = stage_of(xb, 48, grouped=False)
        loaded = []
        for _ in range(4):
            assert_same(stage.search(xq, 5), brute_force(xq, xb, 5))
            loaded.append(stage._scan is not None)
        assert loaded == [False, False, True, True]
    stage_of(xb, 48, backend="compiled").search(xq, 5)
    assert isinstance(stage_module._is_compiled(), bool)
    calls = []
    monkeypatch.setattr("hashret.index.scan.compile_scan", lambda: calls.append(1))
    stage_module.compile_for(10)
    assert not calls
    stage_module.compile_for(10**6)
    assert calls


@pytest.mark.skipif(not has_compiled(), reason="needs numba")
def test_warm_loads_the_compiled_scan():
    assert stage_of(make_codes(1000, 48, 0), 48).warm()._scan is not None
