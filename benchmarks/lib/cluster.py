"""A sharded index as queues: queries fan out to all shards, answers come back late or not at all.

Every query asks each shard of one of its replicas; a replica is a queue (first come, first served) with some workers,
one query a worker. Round trips are added to the answers. A hedged query asks another replica of the shards that have
not answered after a while, and takes the first answer (Dean & Barroso, "The tail at scale", CACM 2013); the slower one
is not cancelled, and costs its work. Nothing here knows hashret: times come in as functions that draw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np


@dataclass(frozen=True)
class Cluster:
    """What answers.

    shards: each query asks all; replicas: copies of each; workers: queries that a machine answers at a time;
    shards_a_machine: shards that share those workers; dead: pairs (shard, replica) that never answer;
    hedge_after: seconds after which another replica is asked, None for never.
    """

    shards: int
    replicas: int = 1
    workers: int = 1
    shards_a_machine: int = 1
    dead: tuple = ()
    hedge_after: float | None = None


def simulate(cluster, arrivals, service, network, seed=0):
    """When each shard answers each query.

    Args:
        cluster: a `Cluster`.
        arrivals: times of the queries in seconds, ascending (q,).
        service: ``service(rng, n)`` -> n times that a worker takes, in seconds.
        network: ``network(rng, n)`` -> n round trips, in seconds.

    Returns:
        Seconds from the arrival of a query to the answer of each shard (q, shards), inf for none, and how many requests
        were sent for each that one must send at least.
    """
    rng = np.random.default_rng(seed)
    machines = cluster.shards // cluster.shards_a_machine
    free = np.zeros((machines, cluster.replicas, cluster.workers))  # when each worker is free
    alive = np.ones((cluster.shards, cluster.replicas), bool)
    for shard, replica in cluster.dead:
        alive[shard, replica] = False
    answers = np.full((len(arrivals), cluster.shards), np.inf)
    first = np.empty((len(arrivals), cluster.shards), np.int8)  # the replica asked first
    sent = 0

    def ask(now, shards, replicas):
        """Requests to some shards, one after the other on a machine: -> seconds until they answer."""
        seconds = np.full(len(shards), np.inf)
        work, trips = service(rng, len(shards)), network(rng, len(shards))
        for turn in range(cluster.shards_a_machine):
            of_turn = np.flatnonzero((shards % cluster.shards_a_machine == turn) & alive[shards, replicas])
            machine, replica = shards[of_turn] // cluster.shards_a_machine, replicas[of_turn]
            queue = free[machine, replica]
            worker = queue.argmin(axis=1)
            end = np.maximum(now, queue[np.arange(len(queue)), worker]) + work[of_turn]
            free[machine, replica, worker] = end
            seconds[of_turn] = end - now + trips[of_turn]
        return seconds

    everyone = np.arange(cluster.shards)
    hedges = arrivals + (np.inf if cluster.hedge_after is None else cluster.hedge_after)
    hedged = 0
    for query, now in enumerate(arrivals):
        while hedged < query and hedges[hedged] <= now:
            sent += _hedge(cluster, hedged, hedges[hedged], answers, first, ask, rng)
            hedged += 1
        first[query] = rng.integers(0, cluster.replicas, cluster.shards)
        answers[query] = ask(now, everyone, first[query])
        sent += cluster.shards
    if cluster.hedge_after is not None:
        for query in range(hedged, len(arrivals)):
            sent += _hedge(cluster, query, hedges[query], answers, first, ask, rng)
    return answers, sent / (len(arrivals) * cluster.shards)


def _hedge(cluster, query, now, answers, first, ask, rng):
    """Ask other replicas of the shards that have not answered a query: -> how many requests that were."""
    late = np.flatnonzero(answers[query] > cluster.hedge_after)
    if not len(late) or cluster.replicas == 1:
        return 0
    others = (first[query, late] + rng.integers(1, cluster.replicas, len(late))) % cluster.replicas
    again = cluster.hedge_after + ask(now, late, others)
    answers[query, late] = np.minimum(answers[query, late], again)
    return len(late)


def poisson(rate, queries, seed=0):
    """Arrival times of independent queries, ``rate`` a second."""
    return np.random.default_rng((seed, 1)).exponential(1 / rate, queries).cumsum()


def drawn_from(quantiles):
    """A function that draws from measured times, given by their quantiles from the least to the most."""
    quantiles = np.asarray(quantiles)
    grid = np.linspace(0, 1, len(quantiles))
    return lambda rng, n: np.interp(rng.random(n), grid, quantiles)


def replayed(times):
    """A function that gives measured times in the order in which they were measured, again and again: slow stretches of
    a machine stay together.
    """
    endless = cycle(np.ravel(times))
    return lambda rng, n: np.fromiter(islice(endless, n), float, n)


def with_pauses(service, probability, mean):
    """Times of which some meet a pause of the machine, exponential with a mean in seconds."""

    def draw(rng, n):
        return service(rng, n) + (rng.random(n) < probability) * rng.exponential(mean, n)

    return draw


def lognormal(median, p99):
    """A function that draws round trips from a lognormal distribution, seconds."""
    sigma = np.log(p99 / median) / 2.3263
    return lambda rng, n: median * np.exp(sigma * rng.standard_normal(n))


def until(answers, deadline):
    """What a query gets that waits for all shards, but no longer than a deadline: seconds (q,), share answered (q,)."""
    return np.minimum(answers.max(axis=1), deadline), (answers <= deadline).mean(axis=1)


def recall(answers, deadline, k=10, seed=0):
    """Recall@k of each query, its k nearest items being on shards of their own accord: (q,)."""
    rng = np.random.default_rng((seed, 2))
    shards = rng.integers(0, answers.shape[1], (len(answers), k))
    return np.take_along_axis(answers <= deadline, shards, axis=1).mean(axis=1)


def answers_a_shard(candidates, shards, misses=1e-6):
    """How many of its nearest each shard must send, so that the nearest of all are among them but for a share of
    queries; items are spread over the shards at random, so that a shard has Binomial(candidates, 1 / shards) of them.
    """
    if shards == 1:
        return candidates
    k = np.arange(candidates + 1)
    factorials = np.concatenate([[0], np.cumsum(np.log(np.arange(1, candidates + 1)))])
    ways = factorials[-1] - factorials[k] - factorials[candidates - k]
    log = ways - k * np.log(shards) + (candidates - k) * np.log1p(-1 / shards)
    more = 1 - np.cumsum(np.exp(log))  # P(a shard has more than k of them)
    return int(np.argmax(shards * more <= misses))
