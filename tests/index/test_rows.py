import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashret.index.distinct import group
from hashret.index.paths import Paths, cut
from hashret.index.rows import ConcatRows, ItemCodes, concatenated
from hashret.shards import encode_paths


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=5), st.integers(0, 99))
def test_joined_arrays_read_as_one(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 99, (n, 3)) for n in sizes]
    one, whole = ConcatRows(parts), np.concatenate(parts)
    n = len(whole)
    assert (len(one), one.shape, one.dtype) == (n, whole.shape, whole.dtype)
    assert np.array_equal(one, whole)
    assert np.array_equal(one[:], whole)
    assert np.array_equal(one[1:-1], whole[1:-1])
    mask = rng.random(n) < 0.5
    assert np.array_equal(one[mask], whole[mask])
    if n:
        rows = rng.integers(0, n, (2, 5))
        assert np.array_equal(one[rows], whole[rows])
        row = int(rows[0, 0])
        assert np.array_equal(one[row], whole[row])
        assert np.array_equal(one[row - n], whole[row])


def test_a_single_array_stays_as_it_is():
    part = np.arange(3)
    assert concatenated([part]) is part


def test_codes_of_items_are_looked_up():
    codes = np.random.default_rng(0).integers(0, 3, (5000, 4), dtype=np.uint8)
    table = group(codes, True)
    found = ItemCodes(table)
    assert (len(found), found.shape) == (5000, (5000, 4))
    rows = np.array([4999, 0, 7, 7])
    assert np.array_equal(found[rows], codes[rows])
    assert np.array_equal(found[3], codes[3])
    assert np.array_equal(np.asarray(found), codes)


PATHS = ["a", "", "photos/2024/ä ü.jpg", "x" * 40 + ".jpg", "y" * 40 + ".jpg", "photos/\udcff.png", "b\n.png", "aa"]


def paths_of(names):
    raw, lengths = cut(encode_paths(names))
    return Paths(raw, np.cumsum(lengths))


def test_paths_are_cut_and_read():
    paths = paths_of(PATHS)
    assert [paths[row] for row in range(len(PATHS))] == PATHS
    rows = np.array([6, 2, 1, 2])
    raw, lengths = paths.cut_at(rows)
    again = Paths(raw, np.cumsum(lengths))
    assert [again[i] for i in range(4)] == [PATHS[row] for row in rows]


@pytest.mark.parametrize("at_once", [3, 2**18])
def test_paths_are_found(monkeypatch, at_once):
    monkeypatch.setattr("hashret.index.paths.ROWS_AT_ONCE", at_once)
    paths = paths_of([*PATHS, PATHS[0]])
    assert paths.find(["a", "b", "aaa", PATHS[3], PATHS[5], "no/such.jpg"]) == [
        (0, "a"), (3, PATHS[3]), (5, PATHS[5]), (8, "a"),
    ]  # fmt: skip
    assert paths.find([]) == []
    assert [row for row, _ in paths.find(PATHS)] == list(range(9))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("ab/", max_size=20), min_size=1, max_size=30), st.lists(st.text("ab/", max_size=20), max_size=9)
)
def test_paths_are_found_as_a_dictionary_finds_them(names, wanted):
    paths = paths_of(names)
    assert paths.find(wanted) == [(row, name) for row, name in enumerate(names) if name in wanted]
