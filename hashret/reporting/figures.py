"""The numbers of a run's report, each computed exactly from the codes; `hashret.reporting.page` shows them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HashretError
from ..evaluation import EvaluationSet, Scores, open_evaluation_set, score
from ..index import Database, open_index
from ..index.rerank import AUTO
from ..metrics import (
    Counts,
    Floats,
    average_precision,
    count_by_distance,
    distance_histograms,
    is_relevant,
    precision_at,
    separation,
    unique_rows,
)
from ..progress import Progress
from ..results import Result
from ..shards import ShardFolder, decode_path
from .bits import BitStatistics, average_precision_without, bit_statistics, indicator
from .confusion import confusion, extremes, mean_by_label
from .run import RunFiles

NEAREST = 100  # ranks that the confusion between classes counts
_RANKS = 1000  # up to which precision is given
_HITS = 8  # shown of each query
_LEAST_SAMPLE = 100  # queries that bits are dropped on, where there are so many
_PAIRS = 3_000_000_000  # distances computed for that, about, unless the least sample needs more
_SEED = 0


@dataclass(frozen=True)
class Answer:
    """A hit of a query; ``good`` where it is relevant to the query."""

    path: str
    label: str
    hamming: int
    euclidean: float
    good: bool


@dataclass(frozen=True)
class Example:
    """A query with its average precision and its first hits, in the order of `hashret query`."""

    path: str
    label: str
    ap: float
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Figures(Result):
    """All numbers of a run's report; None where the run has not what they are computed from.

    Attributes:
        metrics: figures as `hashret.evaluate` gives them, of these codes, or else as they were recorded.
        ap: average precision of each query, (nq,).
        by_rank, distances, dropped, classes: what `precision_by_rank`, `distance_figures`, `dropped_bits` and
            `class_figures` return.
        codes: statistics of the database's codes.
        photographs: number of photographs in the database.
        names: names of its classes.
        best, worst: the queries of best and of worst average precision.
    """

    metrics: dict[str, Any] | None = None
    ap: Floats | None = None
    by_rank: dict[str, Any] | None = None
    distances: dict[str, Any] | None = None
    dropped: dict[str, Any] | None = None
    classes: dict[str, Any] | None = None
    codes: BitStatistics | None = None
    photographs: int | None = None
    names: tuple[str, ...] = ()
    best: tuple[Example, ...] = ()
    worst: tuple[Example, ...] = ()

    def __str__(self) -> str:
        words = [f"mAP {self.metrics['hamming']['map']:.4f}"] if self.metrics else []
        words += [f"{self.codes.effective:.1f} effective bits of {len(self.codes.ones)}"] if self.codes else []
        return ", ".join(words) or "the record alone"

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as JSON has them."""
        figures = {name: getattr(self, name) for name in ("metrics", "by_rank", "distances", "dropped", "classes")}
        codes = self.codes
        figures["bits"] = codes and {
            "photographs": self.photographs, "distinct_codes": codes.distinct, "effective": codes.effective,
            "rare": codes.rare.tolist(), "copies": codes.copies, "ones": codes.ones.tolist(),
            "entropy": codes.entropy.tolist(), "correlation": codes.correlation.tolist(),
            "information": None if codes.information is None else codes.information.tolist(),
        }  # fmt: skip
        figures["ap"] = None if self.ap is None else self.ap.tolist()
        return figures | {name: [asdict(example) for example in getattr(self, name)] for name in ("best", "worst")}


def measure(files: RunFiles, device: str = "auto") -> Figures:
    """Compute the figures of a run, as many as its files allow.

    Raises:
        HashretError: the files are of different encoders, damaged or unfinished.
    """
    if not files.index:
        return Figures(files.metrics)
    index = open_index(files.index, device)
    if not len(index):
        raise HashretError(f"every photograph of {files.index} was removed; there is nothing to report on")
    recorded = _recorded(files, index)
    labels = None if index.labels is None else np.asarray(index.labels)[index.alive]
    database: dict[str, Any] = {
        "codes": bit_statistics(index.codes()[index.alive], index.bits, labels), "photographs": len(index),
        "names": tuple(index.meta["classes"]),
    }  # fmt: skip
    # Only queries with labels can be scored, and only against labels.
    if not files.queries or index.labels is None or not ShardFolder(files.queries).manifest["classes"]:
        return Figures(recorded or None, **database)
    rerank_by = recorded.get("rerank_by", index.rerank_choice(AUTO) if index.has_hash_outputs else "asymmetric")
    data = open_evaluation_set(files.queries, files.index, device=device, rerank_by=rerank_by)
    map_at, candidates = recorded.get("map_at"), recorded.get("candidates", 1000)
    scores = score(
        data, candidates, rerank_by, topk=0 if map_at == "all" else map_at, protocol=recorded.get("protocol")
    )
    map_at = scores.figures.map_at
    topk = map_at if isinstance(map_at, int) else None
    ap = average_precision(scores.counts, topk=topk)
    best, worst = examples(data, scores, ap)
    return Figures(
        scores.figures.as_dict(), ap, precision_by_rank(scores), distance_figures(scores.counts),
        dropped_bits(data, topk), class_figures(data, scores, ap), **database, best=best, worst=worst,
    )  # fmt: skip


def _recorded(files: RunFiles, index: Database) -> dict[str, Any]:
    """Return the recorded figures, or {} where they are of other codes.

    Raises:
        HashretError: the training record is of another encoder.
    """
    encoder = index.meta["encoder"]
    if files.record and files.record.get("fingerprint", encoder) != encoder:
        raise HashretError(
            f"the index {files.index} was built by another encoder than {files.path} has",
            hint="encode and build the index again, or name its own with --index",
        )
    return files.metrics if files.metrics and files.metrics.get("encoder") == encoder else {}


def precision_by_rank(scores: Scores) -> dict[str, Any]:
    """Return precision at several ranks ``k``: by ``hamming`` (expected over ties) and ``reranked``, three lists."""
    last = min(_RANKS, int(scores.counts.total[0].sum()))
    ks = np.unique(np.geomspace(1, last, 30).round().astype(int))
    hamming = [float(precision_at(scores.counts, k).mean()) for k in ks]
    reranked = [float(precision_at(scores.counts_behind, k, scores.reranked_prefix).mean()) for k in ks]
    return {"k": ks.tolist(), "hamming": hamming, "reranked": reranked}


def distance_figures(counts: Counts) -> dict[str, Any]:
    """Return relevant and irrelevant pairs of query and item by distance, their means, and how well they separate.

    The names are those of the JSON: ``alike`` for relevant and ``unlike`` for irrelevant pairs.
    """
    relevant, irrelevant = distance_histograms(counts)
    bits = np.arange(len(relevant))
    means = [float(pairs @ bits / pairs.sum()) if pairs.sum() else None for pairs in (relevant, irrelevant)]
    return {
        "alike": relevant.tolist(), "unlike": irrelevant.tolist(), "mean_alike": means[0], "mean_unlike": means[1],
        "separation": None if None in means else separation(relevant, irrelevant),
    }  # fmt: skip


def dropped_bits(data: EvaluationSet, topk: int | None = None) -> dict[str, Any]:
    """Return the mAP that is ``lost`` when one bit is left out of all codes, (bits,).

    Where that takes long, a sample of the queries stands for all. ``error`` is the standard error of each loss over the
    queries, ``map`` the mAP of the sample by all bits.
    """
    bits, count = data.index.bits, len(data.queries)
    distinct = len(unique_rows(data.codes, data.labels)[0])
    size = min(count, max(_LEAST_SAMPLE, _PAIRS // (bits * distinct)))
    sample = np.sort(np.random.default_rng(_SEED).permutation(count)[:size])
    asked = (data.queries.codes[sample], data.codes, data.query_labels[sample], data.labels, bits)
    progress = Progress("dropping each bit", bits, "bits")
    whole = average_precision(count_by_distance(*asked), topk=topk)
    lost = whole - average_precision_without(*asked, topk, progress)
    progress.close()
    error = lost.std(axis=1, ddof=1) / np.sqrt(size) if size > 1 else np.full(bits, np.nan)
    return {
        "queries": size, "sampled": size < count, "seed": _SEED, "map": float(whole.mean()),
        "lost": lost.mean(axis=1).tolist(), "error": plain(error),
    }  # fmt: skip


def class_figures(data: EvaluationSet, scores: Scores, ap: Floats) -> dict[str, Any]:
    """Return confusion among the `NEAREST` hits, and mAP and number of queries by class.

    Confusion and mAP are None where a class has no query.
    """
    names, queries, labels = data.classes, data.queries, data.query_labels
    nearest = min(NEAREST, len(data.codes))
    progress = Progress("confusion", len(queries), "queries")
    matrix = confusion(queries.codes, data.codes, labels, data.labels, scores.counts, nearest, len(names), progress)
    progress.close()
    return {
        "names": list(names), "nearest": nearest, "several": labels.ndim == 2, "confusion": plain(matrix),
        "map": plain(mean_by_label(ap, labels, len(names))),
        "queries": indicator(labels, len(names)).sum(axis=0).astype(int).tolist(),
    }  # fmt: skip


def examples(data: EvaluationSet, scores: Scores, ap: Floats) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the queries of best and of worst average precision, chosen by `extremes`.

    Queries to which nothing in the database is relevant are left out.
    """
    able = np.flatnonzero(scores.counts.relevant.sum(axis=1))
    best, worst = extremes(ap[able], data.queries.codes[able], data.query_labels[able])
    how = scores.figures.candidates, scores.figures.rerank_by

    def pictured(numbers: list[int]) -> tuple[Example, ...]:
        return tuple(_example(data, able[number], ap, *how) for number in numbers)

    return pictured(best), pictured(worst)


def _example(data: EvaluationSet, number: int, ap: Floats, candidates: int, rerank_by: str) -> Example:
    queries, index, one = data.queries, data.index, slice(number, number + 1)
    features = None if queries.fc_features is None else queries.fc_features[one]
    asked = queries.codes[one], queries.hash_outputs[one]
    hits = index.search(*asked, _HITS, candidates, rerank_by, query_features=features)
    relevant = is_relevant(data.query_labels[one], data.labels_by_position[hits.positions[0]])[0]
    items = index.items(hits.positions[0].tolist())
    answers = tuple(
        Answer(item.path, item.label, int(bits), float(distance), bool(good))
        for item, bits, distance, good in zip(items, hits.hamming[0], hits.euclidean[0], relevant, strict=True)
    )
    names = data.classes
    label = " ".join(names[n] for n in np.flatnonzero(indicator(data.query_labels[one], len(names))))
    return Example(decode_path(queries.paths[number]), label, float(ap[number]), answers)


def plain(array: npt.NDArray[np.floating]) -> Any:
    """Return an array as nested lists, for JSON; NaN becomes None."""
    return np.where(np.isnan(array), None, array).tolist()  # type: ignore[call-overload]
