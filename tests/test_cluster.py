"""The simulation of `benchmarks/lib/cluster.py` against what queueing theory and order statistics say."""

from math import comb, factorial

import numpy as np
import pytest

from benchmarks.lib.cluster import (
    Cluster,
    answers_a_shard,
    drawn_from,
    lognormal,
    poisson,
    recall,
    replayed,
    simulate,
    until,
    with_pauses,
)

QUERIES = 40_000


def at_once(rng, n):
    return np.zeros(n)


def exponential(rng, n):
    return rng.exponential(1.0, n)


def constant(rng, n):
    return np.ones(n)


def response(cluster, rate, service, network=at_once, queries=QUERIES):
    """Seconds of each query in the steady state, and the requests sent for one."""
    answers, sent = simulate(cluster, poisson(rate, queries), service, network)
    return answers[queries // 10 :], sent


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_with_exponential_times(load):
    """M/M/1: the time in the system is exponential with mean 1 / (1 - load)."""
    found = response(Cluster(1), load, exponential)[0][:, 0]
    assert found.mean() == pytest.approx(1 / (1 - load), rel=0.06)
    for share in (0.5, 0.9, 0.99):
        assert np.quantile(found, share) == pytest.approx(-np.log(1 - share) / (1 - load), rel=0.12)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_with_constant_times(load):
    """M/D/1: Pollaczek and Khinchine's mean wait is load / (2 (1 - load))."""
    found = response(Cluster(1), load, constant)[0][:, 0]
    assert found.mean() - 1 == pytest.approx(load / (2 * (1 - load)), rel=0.06)


def test_several_workers():
    """M/M/c: Erlang's C formula."""
    workers, load = 4, 0.8
    offered = workers * load
    waits = offered**workers / factorial(workers) / (1 - load)
    waits /= sum(offered**k / factorial(k) for k in range(workers)) + waits
    found = response(Cluster(1, workers=workers), workers * load, exponential)[0][:, 0]
    assert found.mean() - 1 == pytest.approx(waits / (workers * (1 - load)), rel=0.12)


@pytest.mark.parametrize("shards", [10, 100])
def test_fan_out_waits_for_the_slowest(shards):
    """Without queues, the quantile q of the slowest of n is the quantile q^(1/n) of one."""
    answers, sent = response(Cluster(shards), 1e-6, exponential, queries=4000)
    assert sent == 1
    for share in (0.5, 0.9):
        wanted = -np.log(1 - share ** (1 / shards))
        assert np.quantile(until(answers, np.inf)[0], share) == pytest.approx(wanted, rel=0.05)


def test_a_hedge_is_the_lesser_of_two():
    """P(answer later than t) = P(X > t) P(X > t - h) beyond h, and exp(-h) of the requests are sent again."""
    answers, sent = response(Cluster(1, replicas=2, hedge_after=1.0), 1e-6, exponential)
    assert sent == pytest.approx(1 + np.exp(-1), rel=0.02)
    for seconds in (1.5, 2.0):
        assert (answers > seconds).mean() == pytest.approx(np.exp(-seconds) * np.exp(-(seconds - 1)), rel=0.05)


def test_hedges_queue_up_in_the_order_of_time():
    """Two replicas, both busy for 10 s: the hedge of the first query begins before the second query, not after it."""
    work = iter([10.0, 1.0, 1.0, 1.0])
    answers, _ = simulate(
        Cluster(1, replicas=2, hedge_after=2.0), np.array([0.0, 3.0]),
        lambda rng, n: np.array([next(work) for _ in range(n)]), at_once, seed=3,
    )  # fmt: skip
    assert answers[0, 0] == 3  # hedged at 2, 1 s of work on the free replica
    assert answers[1, 0] in (1, 3)  # at once there, or hedged from the busy one


def test_shards_on_one_machine_share_its_workers():
    """Four pieces of work of one second on two workers end after 1, 1, 2 and 2 seconds."""
    answers, _ = simulate(Cluster(4, workers=2, shards_a_machine=4), np.array([0.0]), constant, at_once)
    assert sorted(answers[0]) == [1, 1, 2, 2]
    answers, _ = simulate(Cluster(4, workers=2, shards_a_machine=2), np.array([0.0]), constant, at_once)
    assert sorted(answers[0]) == [1, 1, 1, 1]


def test_a_dead_shard_takes_its_share_of_the_recall():
    answers, _ = response(Cluster(10, dead=((3, 0),)), 1e-6, constant, queries=5000)
    assert np.isinf(answers[:, 3]).all()
    seconds, share = until(answers, 5.0)
    assert (seconds == 5).all()
    assert share == pytest.approx(0.9)
    assert recall(answers, 5.0).mean() == pytest.approx(0.9, abs=0.01)
    assert recall(answers, 0.5).max() == 0
    whole, _ = response(Cluster(10, replicas=2, dead=((3, 0),), hedge_after=2.0), 1e-6, constant, queries=500)
    assert recall(whole, 5.0).min() == 1
    assert set(whole[:, 3]) == {1, 3}


def test_times_are_drawn_as_they_were_measured():
    rng = np.random.default_rng(0)
    measured = rng.gamma(2, 3, 5000)
    again = drawn_from(np.quantile(measured, np.linspace(0, 1, 401)))(rng, 50_000)
    for share in (0.01, 0.5, 0.99):
        assert np.quantile(again, share) == pytest.approx(np.quantile(measured, share), rel=0.05)
    assert again.max() <= measured.max()
    trips = lognormal(0.3, 1.5)(rng, 100_000)
    assert np.quantile(trips, 0.5) == pytest.approx(0.3, rel=0.03)
    assert np.quantile(trips, 0.99) == pytest.approx(1.5, rel=0.05)
    assert with_pauses(constant, 0.1, 5.0)(rng, 100_000).mean() == pytest.approx(1.5, rel=0.03)


def test_slow_stretches_make_queues_that_the_same_times_in_any_order_do_not():
    times = np.tile([0.5] * 300 + [1.5] * 100, QUERIES // 400)
    service = replayed(times.reshape(-1, 4))
    assert np.array_equal(np.concatenate([service(None, n) for n in (3, 7, QUERIES)]), np.resize(times, QUERIES + 10))
    together, _ = response(Cluster(1), 1.0, replayed(times))
    apart, _ = response(Cluster(1), 1.0, drawn_from(np.sort(times)))
    assert together.mean() > 5 * apart.mean()


@pytest.mark.parametrize(("candidates", "shards"), [(1000, 10), (1000, 100), (100, 7)])
def test_how_many_answers_a_shard_must_send(candidates, shards):
    def more(k):  # exactly, in rational numbers
        fits = sum(comb(candidates, i) * (shards - 1) ** (candidates - i) for i in range(k + 1))
        return 1 - fits / shards**candidates

    found = answers_a_shard(candidates, shards)
    assert shards * more(found) <= 1e-6 < shards * more(found - 1)
    assert answers_a_shard(candidates, 1) == candidates
