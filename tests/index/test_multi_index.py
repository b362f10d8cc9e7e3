"""The tables over substrings answer as brute force does: whatever their number, among all codes or some of them."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same, brute_force, make_codes

from hashret import info
from hashret.bits import pack, pad, padded_width, unpack
from hashret.errors import HashretError
from hashret.index import build_index, compact, hamming, open_index, remove, segment, substrings
from hashret.index.changes import append
from hashret.index.distinct import group
from hashret.index.hamming import HammingStage
from hashret.index.substrings import Layout, Tables, expected_cost

multi_index = pytest.importorskip("hashret.index.multi_index", reason="needs numba")
ANY_COST = float("inf")


def make_tables(codes, bits, layout=None, grouped=None):
    """The tables of packed codes, and the codes with their items."""
    table = group(pad(codes, padded_width(bits)), grouped)
    return multi_index.make_tables(table.codes, bits, layout), table


@st.composite
def layouts(draw):
    """Codes of any length, cut into any number of substrings that the tables can have."""
    bits = draw(st.integers(8, 256))
    return Layout.of(bits, draw(st.integers(-(-bits // 14), max(-(-bits // 14), bits // 4))))


@settings(deadline=None, max_examples=150)
@given(
    layout=layouts(),
    n=st.integers(1, 2000),
    nq=st.integers(1, 20),
    k=st.integers(1, 2500),
    flips=st.sampled_from([0, 0.01, 0.1, 0.5]),
    grouped=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_tables_answer_as_brute_force(layout, n, nq, k, flips, grouped, seed):
    xb, xq = make_codes(n, layout.bits, seed, flips), make_codes(nq, layout.bits, seed + 1, flips)
    index = multi_index.MultiIndex(*make_tables(xb, layout.bits, layout, grouped))
    k = min(k, n)
    D, I, costs = index.search(xq, k, ANY_COST)
    assert (costs >= 0).all()
    assert_same((D, I), brute_force(xq, xb, k))


@settings(deadline=None, max_examples=60)
@given(layout=layouts(), radius=st.integers(0, 256), flips=st.sampled_from([0.01, 0.1, 0.5]), seed=st.integers(0, 99))
def test_all_codes_within_a_radius(layout, radius, flips, seed):
    xb, xq = make_codes(1500, layout.bits, seed, flips), make_codes(1, layout.bits, seed + 1, flips)
    tables, table = make_tables(xb, layout.bits, layout)
    D, numbers = multi_index.MultiIndex(tables, table).within(xq[0], radius, ANY_COST)
    distances = (unpack(table.codes, layout.bits) != unpack(xq, layout.bits)).sum(axis=1)
    assert np.array_equal(np.sort(numbers), np.flatnonzero(distances <= radius))
    assert np.array_equal(D, distances[numbers])


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("bits", [48, 100])
def test_a_part_of_the_codes_and_a_part_of_that(monkeypatch, grouped, bits):
    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: ANY_COST)
    xb, xq = make_codes(3000, bits, 0), make_codes(12, bits, 1)
    tables, table = make_tables(xb, bits, grouped=grouped)
    stage, kept = HammingStage(table, bits, "compiled", tables=tables), np.arange(3000)
    for seed in range(2):
        mask = np.isin(np.arange(3000), kept) & (np.random.default_rng(seed).random(3000) < 0.4)
        stage, kept = stage.subset(mask), np.flatnonzero(mask)
        D, I = brute_force(xq, xb[kept], 50)
        assert_same(stage.search(xq, 50), (D, kept[I]))
        assert stage._multi_index is not None
    for query, D, I in stage.within(xq, bits // 4):
        far, near = brute_force(xq[query : query + 1], xb[kept], len(kept))
        inside = far[0] <= bits // 4
        assert_same((D, I), (far[0][inside], kept[near[0][inside]]))


def test_a_search_that_would_cost_more_than_the_scan_gives_up(monkeypatch):
    xb, xq = make_codes(3000, 64, 0, 0.5), make_codes(40, 64, 1, 0.5)
    tables, table = make_tables(xb, 64)
    index = multi_index.MultiIndex(tables, table)
    assert (index.search(xq, 10, 0.0)[2] < 0).all()
    assert index.within(xq[0], 30, 0.0) is None
    D, I, costs = index.search(xq, 10, 2e4)
    answered = costs >= 0
    assert (costs[answered] <= 2e4).all()
    assert_same((D[answered], I[answered]), brute_force(xq[answered], xb, 10))

    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: 0.0)
    stage, asked = HammingStage(table, 64, "compiled", tables=tables).warm(), []
    search = stage._multi_index.search
    monkeypatch.setattr(stage._multi_index, "search", lambda xq, *rest: asked.append(len(xq)) or search(xq, *rest))
    for number in range(40):  # ever more queries go to the scan at once
        assert_same(stage.search(xq[number : number + 1], 10), brute_force(xq[number : number + 1], xb, 10))
    assert sum(asked) == 6  # after pauses of 0, 0, 1, 3, 7 and 15 queries
    assert next(stage.within(xq[:1], 20))[0] == 0


@pytest.mark.parametrize(("tables_ns", "scan_ns", "by_tables"), [(2e9, 1e9, False), (1e9, 2e9, True)])
def test_measured_times_correct_which_way_a_query_goes(monkeypatch, tables_ns, scan_ns, by_tables):
    xb, xq = make_codes(3000, 48, 0, 0.5), make_codes(300, 48, 1, 0.5)
    tables, table = make_tables(xb, 48)
    stage = HammingStage(table, 48, "compiled", tables=tables).warm()
    monkeypatch.setattr(hamming, "time", SimpleNamespace(perf_counter_ns=lambda: clock))
    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: 1.5e9)
    clock, ways, index, scan = 0.0, [], stage._multi_index, stage._scan
    of_tables, of_scan = index.search, scan.search

    def search_tables(*asked):
        nonlocal clock
        found = of_tables(*asked)
        clock += tables_ns if found[2][0] >= 0 else 0
        ways.append(found[2][0] >= 0)
        return found

    def search_scan(*asked):
        nonlocal clock
        clock += scan_ns
        return of_scan(*asked)

    monkeypatch.setattr(index, "search", search_tables)
    monkeypatch.setattr(stage, "_scan", SimpleNamespace(search=search_scan))
    for number in range(300):
        assert_same(stage.search(xq[number : number + 1], 10), brute_force(xq[number : number + 1], xb, 10))
    assert ways[0]
    assert ways[-1] == by_tables


def test_threads_share_the_queries(monkeypatch):
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 3)
    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: ANY_COST)
    xb, xq = make_codes(3000, 48, 0), make_codes(31, 48, 1)
    tables, table = make_tables(xb, 48)
    assert_same(HammingStage(table, 48, "compiled", tables=tables).search(xq, 20), brute_force(xq, xb, 20))


def test_tables_are_built_a_piece_at_a_time(monkeypatch):
    codes = pad(make_codes(5000, 40, 0), 8)
    whole = multi_index.make_tables(codes, 40)
    monkeypatch.setattr(multi_index, "_CODES_AT_ONCE", 300)
    for mine, theirs in zip(multi_index.make_tables(codes, 40)[2:5], whole[2:5], strict=True):
        assert np.array_equal(mine, theirs)
    layout = whole.layout
    for table, (offset, length) in enumerate(zip(layout.offsets, layout.lengths, strict=True)):
        values = unpack(codes, 40)[:, offset : offset + length] @ (1 << np.arange(length)[::-1])
        assert np.array_equal(whole.numbers[table], np.argsort(values, kind="stable"))
        assert np.array_equal(np.diff(whole.starts[table])[: 1 << length], np.bincount(values, minlength=1 << length))


@pytest.mark.parametrize("count", [0, 1, 96, 97, 5000])
@pytest.mark.parametrize("number_bits", [1, 9, 10, 27, 31, 32])
def test_keys_are_sorted_by_distance_and_number(count, number_bits):
    rng = np.random.default_rng(count)
    keys = rng.integers(0, 257, 6000).astype(np.uint64) << np.uint64(32)
    keys |= rng.integers(0, 1 << number_bits, 6000).astype(np.uint64)
    expected = np.concatenate([np.sort(keys[:count]), keys[count:]])
    multi_index._sort(keys, count, np.empty(6000, np.uint64), number_bits)
    assert np.array_equal(keys, expected)


def test_the_layout_follows_from_bits_and_count():
    for bits in (8, 12, 48, 64, 128, 256):
        for count in (10**5, 10**7, 10**8):
            layout = Layout.for_codes(bits, count)
            assert layout.lengths.sum() == bits
            assert 8 <= layout.lengths.min() <= layout.lengths.max() <= 18
            cost, numbers = expected_cost(bits, len(layout.offsets), count), range(-(-bits // 18), bits // 8 + 1)
            if bits > 48:
                assert cost <= min(expected_cost(bits, tables, count) for tables in numbers)
            else:  # 32 bits beside a code's number are all that is left of it
                assert (layout.rest, layout.whole) == (32, True)
                short = [tables for tables in numbers if bits - bits // tables <= 32]
                assert cost <= min(expected_cost(bits, tables, count) for tables in short)
    assert Layout.for_codes(48, 10**7).lengths.tolist() == [16, 16, 16]
    assert (Layout.of(48, 3).rest, Layout.of(48, 3).whole) == (32, True)
    assert (Layout.of(64, 4).rest, Layout.of(64, 4).whole) == (64, True)
    assert (Layout.of(128, 8).rest, Layout.of(128, 8).whole) == (64, False)


@pytest.fixture
def tables_from_few(monkeypatch):
    """Segments have tables from ten codes on, and queries ask them whatever they cost."""
    monkeypatch.setattr(substrings, "PAYS_FROM", 10)
    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: ANY_COST)


def test_an_index_with_tables_answers_as_one_without(codes, tmp_path, monkeypatch):
    plain, folder = tmp_path / "plain", tmp_path / "index"
    for index in (plain, folder):
        build_index(codes, index)
        append(index, codes)
        remove(index, ids=[3, 5, 40])
        monkeypatch.setattr(substrings, "PAYS_FROM", 10)
    monkeypatch.setattr(HammingStage, "_scan_ns", lambda *_: ANY_COST)
    queries = pack(np.random.default_rng(0).random((9, 24)) < 0.5)

    def check():
        mine, theirs = open_index(folder, "cpu", backend="compiled"), open_index(plain, "cpu", backend="faiss")
        for among in (None, {"ids": range(1, 60)}):
            asked = [None if among is None else one.select(**among) for one in (mine, theirs)]
            for k in (1, 20, 69):
                assert_same(mine.nearest(queries, k, asked[0]), theirs.nearest(queries, k, asked[1]))
            for a, b in zip(mine.within(queries, 9, asked[0]), theirs.within(queries, 9, asked[1]), strict=True):
                assert_same(a[1:], b[1:])
        return mine

    index = check()
    assert len(index.segments) == 2
    assert info(folder).facts["tables"] == ["3 substrings of 8 + 8 + 8 bits"] * 2
    assert info(plain).facts["tables"] == [None, None]
    assert all(one.stage._multi_index is not None for one in index.segments)
    for one in (plain, folder):  # both have tables then
        compact(one)
    assert len(check().segments) == 1
    assert (folder / open_index(folder, "cpu").segments[0].folder / "substring_rest.npy").exists()


@pytest.mark.parametrize("name", ["starts", "numbers", "rest"])
def test_no_damage_makes_the_search_read_elsewhere(tables_from_few, codes, tmp_path, name):
    build_index(codes, tmp_path / "index")
    path = tmp_path / "index" / "000001" / f"substring_{name}.npy"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    queries = pack(rng.random((5, 24)) < 0.5)
    before = open_index(tmp_path / "index", "cpu", backend="faiss").nearest(queries, 9)
    refusals = []
    for _ in range(30):
        path.write_bytes(whole[:128] + rng.integers(0, 256, len(whole) - 128, np.uint8).tobytes())
        try:
            _, positions = open_index(tmp_path / "index", "cpu", verify=False, backend="compiled").nearest(queries, 9)
            assert positions.shape == before[1].shape
        except HashretError as error:
            refusals.append(str(error))
    assert all("damaged" in line for line in refusals)
    assert refusals or name == "rest"
    with pytest.raises(HashretError, match="has changed"):
        open_index(tmp_path / "index", "cpu", verify=True)
    path.write_bytes(whole[:-4])
    with pytest.raises(HashretError, match="damaged"):
        open_index(tmp_path / "index", "cpu", verify=False)
    path.write_bytes(whole)
    assert_same(open_index(tmp_path / "index", "cpu", backend="compiled").nearest(queries, 9), before)


def test_tables_of_another_shape_are_refused(tables_from_few, codes, tmp_path):
    build_index(codes, tmp_path / "index")
    path = tmp_path / "index" / "000001" / "substring_starts.npy"
    np.save(path, np.zeros((2, 9), np.uint32))
    with pytest.raises(HashretError, match="damaged"):
        open_index(tmp_path / "index", "cpu", verify=False)


def test_without_numba_there_are_no_tables(codes, tmp_path, monkeypatch):
    monkeypatch.setattr(substrings, "PAYS_FROM", 10)
    build_index(codes, tmp_path / "with")
    monkeypatch.setattr(segment, "load_scan", lambda: None)
    build_index(codes, tmp_path / "without")
    monkeypatch.setattr(hamming, "has_compiled", lambda: False)
    queries = pack(np.random.default_rng(0).random((5, 24)) < 0.5)
    answers = [open_index(tmp_path / name, "cpu").nearest(queries, 9) for name in ("with", "without")]
    assert_same(*answers)
    assert not list((tmp_path / "without").glob("*/substring*"))


def test_tables_keep_the_numbers_of_a_part():
    codes = np.zeros((5, 4), np.uint8)
    none = np.empty((1, 0), np.uint32)
    part = Tables(codes, Layout.of(8, 1), none, none, none).subset(np.array([3, 1, 4]))
    assert part.renumbered.tolist() == [-1, 1, -1, 0, 2]
    assert part.subset(np.array([2, 0])).renumbered.tolist() == [-1, -1, -1, 1, 0]
