"""Hits: what a search answers with, in order, and what is taken from such answers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from .files import StrPath
from .index import Item
from .results import Result
from .similar import least_percent, similarity


@dataclass(frozen=True)
class Hit(Result):
    """One answer.

    Attributes:
        rank: from 1.
        id: of the photograph.
        path: of its file.
        label: class names with spaces between, "" where unknown.
        hamming: distance in bits.
        euclidean: distance; None without re-rank.
        labels: the same class names one by one.
        columns: the number or text of the photograph in each column that others have added to the shards, by name.
        similarity: percent, see `hashret.similar.similarity`.
    """

    rank: int
    id: int
    path: str
    label: str
    hamming: int
    euclidean: float | None
    labels: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    similarity: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them, ``columns`` only where there are any."""
        return {name: value for name, value in super().as_dict().items() if name != "columns" or value}


class HitList(list[Hit]):
    """The `Hit` of one query, best first.

    Attributes:
        candidates: how many of the nearest were re-ranked, 0 without re-rank.
        ties_cut: whether photographs that are as near as the k-th nearest were not among them.
        least: percent of similarity that was asked for, or None.
        nearest: the nearest photograph, where none is as similar as ``least``, else None.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        candidates: int = 0,
        ties_cut: bool = False,
        least: float | None = None,
        nearest: Hit | None = None,
    ) -> None:
        super().__init__(hits)
        self.candidates, self.ties_cut, self.least, self.nearest = candidates, ties_cut, least, nearest

    def as_dict(self) -> dict[str, Any]:
        """Return the hits, the number of candidates and whether ties were cut off, for JSON, and ``nearest``."""
        nearest = {"nearest": self.nearest.as_dict()} if self.nearest else {}
        hits = [hit.as_dict() for hit in self]
        return {"hits": hits, "candidates": self.candidates, "ties_cut": self.ties_cut} | nearest

    def at_least(self, least: str | float | None) -> HitList:
        """Return the hits that are so similar; ``least`` as of `hashret.similar.least_percent`, None takes all."""
        if least is None:
            return self
        percent = least_percent(least)
        near = [hit for hit in self if hit.similarity is not None and hit.similarity >= percent]
        nearest = max(self, key=lambda hit: hit.similarity or 0, default=None)
        return HitList(_ranked(near), self.candidates, self.ties_cut, percent, None if near else nearest)


class QueryAnswer(NamedTuple):
    """The ``hits`` of a photograph, which was asked for by its ``path``."""

    path: str
    hits: HitList

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as plain types, for JSON."""
        return {"query": self.path} | self.hits.as_dict()


def hits_of(
    items: Sequence[Item], bits: int, hamming: Sequence[int], euclidean: Sequence[float], first: int = 1
) -> list[Hit]:
    """Return items of an index as hits, ranked from ``first`` on, with both distances; NaN stands for no re-rank.

    A distance beyond float32 is None, too: JSON has no word for infinity.
    """
    distances = [distance if math.isfinite(distance) else None for distance in euclidean]
    return [
        Hit(
            rank, item.id, item.path, item.label, differing, distance, item.labels, dict(item.columns),
            similarity(differing, bits),
        )
        for rank, (item, differing, distance) in enumerate(zip(items, hamming, distances, strict=True), first)
    ]  # fmt: skip


def union(answers: Sequence[HitList], k: int) -> HitList:
    """Return the k hits that are nearest to any of several queries, each once, by its least distance."""
    best: dict[int, Hit] = {}
    for hits in answers:
        for hit in hits:
            best[hit.id] = min(best.get(hit.id, hit), hit, key=_distance)
    most, cut = max(hits.candidates for hits in answers), any(hits.ties_cut for hits in answers)
    near = _ranked(sorted(best.values(), key=_distance)[:k])
    away = [hits.nearest for hits in answers if hits.nearest]
    nearest = None if near else min(away, key=_distance_of_codes, default=None)
    return HitList(near, most, cut, answers[0].least, nearest)


def without(path: StrPath, hits: HitList, k: int) -> HitList:
    """Return hits without those of a file."""
    file = os.path.realpath(path)
    others = _ranked([hit for hit in hits if os.path.realpath(hit.path) != file][:k])
    return HitList(others, hits.candidates, hits.ties_cut)


def _distance(hit: Hit) -> tuple[float, int, int]:
    return (hit.hamming if hit.euclidean is None else hit.euclidean, hit.hamming, hit.id)


def _distance_of_codes(hit: Hit) -> tuple[int, int]:
    return hit.hamming, hit.id


def _ranked(hits: Iterable[Hit]) -> list[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]
