"""The re-rank's three distances and the calibration of its candidates, against brute force."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import stage_of

from hashret.bits import binarize, dithered, hamming, pack, pad, padded_width, unpack
from hashret.errors import HashretError
from hashret.index import calibration, rerank
from hashret.index.calibration import calibrate, kth_distances
from hashret.index.rerank import CHOICES, directions, squared_asymmetric_distances, squared_distances
from hashret.vectors import unit


def make_values(n, bits, seed, clumps=20, decimals=None):
    """Values as a hash layer gives them, in clumps; few decimals make ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(clumps, bits))[rng.integers(0, clumps, n)] + rng.normal(size=(n, bits)) / 2
    values = 1 / (1 + np.exp(-logits))
    return (values if decimals is None else values.round(decimals)).astype(np.float32)


def make_rows(values):
    """What the re-rank reads, by feature."""
    of_features = dict.fromkeys(("features", "cosine", "euclidean"), values)
    return {"values": values, "directions": values, "asymmetric": pack(binarize(values)), **of_features}


@pytest.mark.parametrize("bits", [8, 12, 48, 100, 256])
@pytest.mark.parametrize("padded", [False, True])
def test_asymmetric_distances_are_those_to_the_unpacked_bits(bits, padded):
    rng = np.random.default_rng(bits)
    xq, codes = rng.random((5, bits), dtype=np.float32), pack(rng.random((70, bits)) < 0.5)
    candidates = rng.integers(0, 70, (5, 30))
    wanted = ((xq[:, None].astype(np.float64) - unpack(codes, bits)[candidates]) ** 2).sum(axis=2)
    D = squared_asymmetric_distances(xq, pad(codes, padded_width(bits)) if padded else codes, candidates)
    assert D.dtype == np.float32
    assert np.allclose(D, wanted, rtol=1e-5, atol=0)


def test_asymmetric_distances_of_saturated_values_keep_their_digits():
    xq = np.array([[1 - 2**-20] * 4 + [2**-20] * 8], np.float32)
    codes = pack(np.array([[1] * 4 + [0] * 8, [1] * 5 + [0] * 7]))
    D = squared_asymmetric_distances(xq, codes, np.array([[0, 1]]))
    assert D[0] == pytest.approx([12 * 2**-40, 11 * 2**-40 + (1 - 2**-20) ** 2], rel=1e-6)


def test_asymmetric_distances_of_bits_are_hamming_distances():
    codes = pack(np.random.default_rng(0).random((40, 20)) < 0.5)
    D = squared_asymmetric_distances(unpack(codes, 20).astype(np.float32), codes, np.tile(np.arange(40), (40, 1)))
    assert np.array_equal(D, hamming(codes, codes))


def test_codes_too_short_for_the_values():
    with pytest.raises(HashretError, match="cannot hold 20 bits"):
        squared_asymmetric_distances(np.zeros((1, 20), np.float32), np.zeros((3, 2), np.uint8), np.zeros((1, 1), int))


@pytest.mark.parametrize("features", CHOICES)
def test_candidates_below_zero_come_last_at_infinity(features):
    values = make_values(6, 12, 0)
    candidates = np.array([[-1, 4, -1, 2], [1, -1, 0, -7]])
    D, order = rerank.rerank(values[:2], make_rows(values)[features], candidates, features)
    assert np.isinf(D).tolist() == [[False, False, True, True]] * 2
    assert order[:, 2:].tolist() == [[0, 2], [1, 3]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 60), st.integers(8, 70), st.sampled_from(CHOICES), st.integers(0, 10**6))
def test_rerank_is_a_stable_sort_of_distances(nq, c, bits, features, seed):
    rng = np.random.default_rng(seed)
    values = make_values(30, bits, seed, clumps=3, decimals=1)
    candidates = rng.integers(-1, 30, (nq, c))  # repeated ones tie
    D, order = rerank.rerank(values[:nq], make_rows(values)[features], candidates, features)
    one, other = values[:nq, None], values[candidates]
    if features == "directions":
        one, other = directions(one), directions(other)
    if features == "cosine":
        one, other = unit(one), unit(other)
    if features == "asymmetric":
        other = binarize(other)
    exact = ((one.astype(np.float64) - other) ** 2).sum(axis=2)
    exact[candidates < 0] = np.inf
    assert D.dtype == np.float32
    assert np.allclose(D**2, np.sort(exact, axis=1), rtol=1e-4, atol=1e-5)
    unsorted = rerank._DISTANCES[features](values[:nq], make_rows(values)[features], candidates)
    assert np.array_equal(order, np.argsort(unsorted, axis=1, kind="stable"))
    assert np.array_equal(D, np.sqrt(np.sort(unsorted, axis=1)))


def test_equal_distances_stay_as_they_came():
    values = np.tile(make_values(1, 16, 0), (5, 1))
    values[4] = 1 - values[4]
    candidates = np.array([[3, 4, 0, 2, 1, 3]])
    for features, rows in make_rows(values).items():
        assert rerank.rerank(values[:1], rows, candidates, features)[1].tolist() == [[0, 2, 3, 4, 5, 1]]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["<f2", "|i1", "|u1", "<f4"])
def test_features_of_any_stored_type_are_compared_in_float32(metric, dtype, monkeypatch):
    """In float16 the squares of 300 are infinite already, and in int8 those of 12."""
    monkeypatch.setattr(rerank, "_NUMBERS_AT_ONCE", 500)  # so that there are several blocks
    rng = np.random.default_rng(0)
    xq = rng.normal(size=(5, 40)).astype(np.float32) * 100
    xb = (rng.normal(size=(60, 40)) * (9000 if dtype == "<f2" else 40)).clip(-128 if dtype != "|u1" else 0, 9000)
    xb = (xb if dtype in ("<f2", "<f4") else xb.clip(0 if dtype == "|u1" else -128, 127)).astype(dtype)
    xb[7] = 0
    candidates = rng.integers(0, 60, (5, 30))
    candidates[0, 3] = 7
    D = rerank.squared(xq, xb, candidates, metric)
    one, other = xq[:, None].astype(np.float64), xb.astype(np.float64)[candidates]
    if metric == "cosine":
        one, other = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300) for x in (one, other))
    exact = ((one - other) ** 2).sum(axis=-1)
    if metric == "cosine":
        exact[candidates == 7] = 4.001
        assert D[0].argmax() == 3
    assert np.allclose(D, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_by_cosine_what_is_close_is_ordered_by_its_distance_and_a_copy_comes_first(dtype, monkeypatch):
    monkeypatch.setattr(rerank, "_NUMBERS_AT_ONCE", 1000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 64)).astype(np.float16).astype(np.float32)
    steps = np.geomspace(1e-5 if dtype == "<f4" else 1e-2, 0.5, 100)[rng.permutation(100)]
    xb = x[0] + (rng.normal(size=(100, 64)) * steps[:, None])
    xb = np.vstack([xb * rng.uniform(0.5, 2, (100, 1)), 2 * x[0], -x[0]]).astype(dtype)
    D, order = rerank.rerank(x, xb, np.tile([*range(102), -1], (2, 1)), "cosine")
    one, other = (y.astype(np.float64) / np.linalg.norm(y.astype(np.float64), axis=1)[:, None] for y in (x, xb))
    exact = np.linalg.norm(one[:, None] - other, axis=2)
    assert (order[0, 0], D[0, 0]) == (100, 0)
    for query in range(2):
        assert np.allclose(D[query, :102], exact[query, order[query, :102]], rtol=1e-3, atol=2e-7)
    in_order = exact[0, order[0, :102]]
    assert (np.diff(in_order[in_order < 0.03]) > -2e-7).all()
    assert order[:, 102].tolist() == [102, 102]


def test_cosine_of_lengths_beyond_float32():
    x = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    scales = np.array([[1e-30], [1e25], [1], [1e-16], [1e16], [1e37]], np.float32)
    D = rerank.squared(x[:2], x * scales, np.array([[5, 4, 3, 2, 1, 0, -1]] * 2), "cosine")
    assert np.allclose(D[:, :6], rerank.squared(x[:2], x, np.array([[5, 4, 3, 2, 1, 0]] * 2), "cosine"), atol=1e-6)
    assert np.isinf(D[:, 6]).all()


def test_by_cosine_a_row_of_zeros_is_never_first_and_never_nan():
    xb = np.array([[0, 0], [-1, -1], [-2, 0]], np.float32)
    D, order = rerank.rerank(np.array([[1, 1], [0, 0]], np.float32), xb, np.array([[0, 1, 2]] * 2), "cosine")
    assert np.isfinite(D).all()
    assert order.tolist() == [[2, 1, 0], [1, 2, 0]]


def test_no_more_threads_than_queries(monkeypatch):
    values, all_threads = make_values(20, 12, 0), faiss.omp_get_max_threads()
    threads, compute = [], faiss.fvec_L2sqr_by_idx

    def counted(*args):
        threads.append(faiss.omp_get_max_threads())
        compute(*args)

    monkeypatch.setattr(faiss, "fvec_L2sqr_by_idx", counted)
    one = np.vstack([squared_distances(values[q : q + 1], values, np.arange(20)[None]) for q in range(3)])
    assert np.array_equal(one, squared_distances(values[:3], values, np.tile(np.arange(20), (3, 1))))
    assert threads == [1, 1, 1, min(3, all_threads)]
    assert faiss.omp_get_max_threads() == all_threads


def test_a_rerank_that_is_not_there():
    with pytest.raises(
        HashretError, match="compares values, directions, asymmetric, features, cosine or euclidean, not magic"
    ):
        rerank.rerank(np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32), np.zeros((1, 1), int), "magic")


# --- calibration --------------------------------------------------------------------------------------------------


def make_stage(values, **choices):
    return stage_of(pack(binarize(values)), values.shape[1], **choices)


def brute_recall(values, candidates, k, rows, features="values", spread=0):
    """Mean share of the k nearest, by what is compared, that are among so many candidates of a query's plain code."""
    codes, queries, n = pack(dithered(values, spread)), pack(binarize(values)), len(values)
    shares = []
    for row in rows:
        others = np.delete(np.arange(n), row)
        if features == "values":
            exact = squared_distances(values[row : row + 1], values, others[None])[0]
        elif features == "directions":
            exact = ((directions(values[others]) - directions(values[row])) ** 2).sum(axis=1)
        else:
            exact = ((values[row] - unpack(codes, values.shape[1])[others]) ** 2).sum(axis=1)
        near = np.argsort(hamming(queries[row : row + 1], codes[others])[0], kind="stable")[:candidates]
        shares.append(min(1, (exact[near] <= np.sort(exact)[k - 1]).sum() / k))
    return np.mean(shares)


@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(2, 150),
    bits=st.integers(8, 40),
    k=st.integers(1, 20),
    recall=st.sampled_from([0.5, 0.8, 0.9, 0.99, 1.0]),
    decimals=st.sampled_from([None, 1]),
    seed=st.integers(0, 10**6),
)
def test_calibration_reaches_the_recall_and_fewer_candidates_do_not(n, bits, k, recall, decimals, seed):
    values = make_values(n, bits, seed, decimals=decimals)
    found = calibrate(make_stage(values), values, k, recall, sample=n)
    k = min(k, n - 1)
    assert (found.k, found.sample) == (k, n)
    assert k <= found.candidates <= n
    assert found.recall >= recall
    assert found.recall == pytest.approx(brute_recall(values, found.candidates, k, range(n)))
    fewer = found.candidates - max(1, found.candidates // 20)
    assert found.candidates == k or brute_recall(values, fewer, k, range(n)) < recall - 1e-9


def test_half_the_calibrated_candidates_are_too_few():
    values = make_values(1000, 32, 1)
    found = calibrate(make_stage(values), values, k=10, recall=0.95, sample=1000)
    assert 20 < found.candidates < 500
    assert brute_recall(values, found.candidates // 2, 10, range(1000)) < 0.95 - 0.02


def test_the_sample_is_of_the_seed():
    values = make_values(500, 24, 2)
    stage = make_stage(values)
    answers = [calibrate(stage, values, recall=0.9, sample=20, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1
    assert answers[0].sample == 20
    assert type(answers[0].recall) is float
    assert calibrate(stage, values, sample=10**6).sample == 500


def test_the_k_nearest_in_blocks(monkeypatch, tmp_path):
    values = make_values(100, 16, 3, decimals=1)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    rows = np.arange(0, 100, 3)  # more than faiss is given at once
    exact = ((values[rows, None].astype(np.float64) - values) ** 2).sum(axis=2)
    exact[np.arange(len(rows)), rows] = np.inf
    for block in (15, 64, 10**6):
        monkeypatch.setattr(calibration, "ROWS_AT_ONCE", block)
        for k in (1, 20, 99):
            found = kth_distances(values[rows], mapped, rows, k)
            assert found == pytest.approx(np.sort(exact, axis=1)[:, k - 1], rel=1e-5)


def test_blocks_of_queries_do_not_change_the_answer(monkeypatch, tmp_path):
    values = make_values(200, 16, 4)
    whole = calibrate(make_stage(values), values, recall=0.8)
    np.save(tmp_path / "values.npy", values)
    monkeypatch.setattr(calibration, "PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(calibration, "ROWS_AT_ONCE", 70)
    assert calibrate(make_stage(values), np.load(tmp_path / "values.npy", mmap_mode="r"), recall=0.8) == whole


def test_equal_photographs_all_count():
    """Of many equal items any k are right, and the query need not be among its own first answers."""
    values = np.repeat(make_values(4, 16, 5), 50, axis=0)
    for grouped in (False, True):
        found = calibrate(make_stage(values, grouped=grouped), values, k=10, recall=1.0)
        assert (found.candidates, found.recall) == (10, 1.0)


@pytest.mark.parametrize("features", ["values", "directions", "asymmetric"])
@pytest.mark.parametrize("spread", [0, 0.75])
def test_calibration_is_by_the_distance_of_the_rerank_and_by_the_codes_of_queries(features, spread):
    """Codes of what is searched may have spread thresholds, which those of queries never have."""
    values = make_values(400, 24, 6)
    codes = pack(dithered(values, spread))
    stage = stage_of(codes, 24)
    found = calibrate(stage, values, 5, 0.9, rerank_by=features, sample=400)
    assert found == calibrate(stage, values, 5, 0.9, rerank_by=features, sample=400, codes=codes)
    assert found.recall >= 0.9
    near = pytest.approx(brute_recall(values, found.candidates, 5, range(400), features, spread), abs=3e-3)
    assert found.recall == near  # float32 draws
    fewer = found.candidates - max(1, found.candidates // 20)
    assert brute_recall(values, fewer, 5, range(400), features, spread) < 0.9
    assert calibrate(stage, values, 5, 1.0, rerank_by=features, sample=50).recall == 1


def test_calibration_by_features_asks_with_the_codes_of_queries():
    values, x = make_values(400, 24, 6), np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    codes = pack(dithered(values, 0.75))
    found = calibrate(stage_of(codes, 24), x, 5, 0.5, rerank_by="cosine", sample=400, hash_outputs=values)
    exact, apart = -(unit(x) @ unit(x).T), hamming(pack(binarize(values)), codes).astype(float)
    for matrix in (exact, apart):
        np.fill_diagonal(matrix, np.inf)
    wanted, near = np.argsort(exact, axis=1)[:, :5], np.argsort(apart, axis=1, kind="stable")[:, : found.candidates]
    assert found.recall == np.mean([np.isin(a, b).mean() for a, b in zip(wanted, near, strict=True)])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_calibration_by_vectors(metric, dtype):
    """Counted with the vectors of which the codes are the signs, not with hash outputs."""
    rng = np.random.default_rng(8)
    x = (rng.normal(size=(300, 24)) * rng.uniform(0.1, 3, (300, 1))).astype(dtype)
    points = unit(x) if metric == "cosine" else x.astype(np.float32)
    codes = pack(x > 0)
    found = calibrate(stage_of(codes, 24), x, 5, 0.9, rerank_by=metric, sample=300)
    exact = ((points[:, None].astype(np.float64) - points) ** 2).sum(axis=2)
    apart = hamming(codes, codes).astype(float)
    for matrix in (exact, apart):
        np.fill_diagonal(matrix, np.inf)
    wanted, near = np.argsort(exact, axis=1)[:, :5], np.argsort(apart, axis=1, kind="stable")

    def share(candidates):
        return np.mean([np.isin(a, b[:candidates]).mean() for a, b in zip(wanted, near, strict=True)])

    assert found.recall == pytest.approx(share(found.candidates), abs=1e-9)
    assert found.recall >= 0.9 > share(found.candidates - found.candidates // 20 - 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k and the sample must be at least 1, not 0"),
        ({"sample": 1.5}, "k and the sample must be at least 1, not 1.5"),
        ({"recall": "0.9"}, "above 0 and at most 1, not '0.9'"),
        ({"sample": 0}, "at least 1, not 0"),
        ({"recall": 0}, "above 0 and at most 1, not 0"),
        ({"recall": 1.01}, "not 1.01"),
        ({"recall": float("nan")}, "not nan"),
        ({"rerank_by": "magic"}, "not magic"),
    ],
)
def test_calibrations_that_cannot_be(wrong, message):
    values = make_values(10, 8, 0)
    with pytest.raises(HashretError, match=message):
        calibrate(make_stage(values), values, **wrong)


def test_nothing_to_calibrate():
    values = make_values(1, 8, 0)
    with pytest.raises(HashretError, match="fewer than two"):
        calibrate(make_stage(values), values)
