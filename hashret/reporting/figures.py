"""The numbers of a run's report, each computed exactly from the codes; `run_report` puts them on a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..errors import HashretError
from ..evaluation import open_trial, score
from ..index import open_index
from ..metrics import (
    average_precision,
    count_by_distance,
    distance_histograms,
    is_relevant,
    precision_at,
    separation,
    unique_rows,
)
from ..progress import Progress
from ..shards import ShardFolder, decode_path
from .bits import BitStatistics, average_precision_without, bit_statistics, indicator
from .confusion import confusion, extremes, mean_by_label

NEAREST = 100  # ranks that the confusion between classes counts
_RANKS = 1000  # up to which precision is given
_HITS = 8  # shown of each query
_LEAST_SAMPLE = 100  # queries that bits are dropped on, where there are so many
_PAIRS = 3_000_000_000  # distances computed for that, about, unless the least sample wants more
_SEED = 0


@dataclass(frozen=True)
class Figures:
    """All numbers of a run; None where there is no material.

    Attributes:
        metrics: as `hashret.evaluation.evaluate` gives them: of these codes, or else as they were recorded.
        ap: average precision of each query, (nq,).
        by_rank, distances, dropped, classes: see the functions of this module.
        codes, photographs, names: `BitStatistics` of the database, how many it holds, and the names of its classes.
        best, worst: lists of `Example`.
    """

    metrics: dict | None = None
    ap: np.ndarray | None = None
    by_rank: dict | None = None
    distances: dict | None = None
    dropped: dict | None = None
    classes: dict | None = None
    codes: BitStatistics | None = None
    photographs: int | None = None
    names: tuple = ()
    best: tuple = ()
    worst: tuple = ()

    def __str__(self):
        words = [f"mAP {self.metrics['hamming']['map']:.4f}"] if self.metrics else []
        words += [f"{self.codes.effective:.1f} effective bits of {len(self.codes.ones)}"] if self.codes else []
        return ", ".join(words) or "the record alone"

    def as_dict(self):
        """All of it as plain types, for JSON."""
        found = {name: getattr(self, name) for name in ("metrics", "by_rank", "distances", "dropped", "classes")}
        codes = self.codes
        found["bits"] = codes and {
            "photographs": self.photographs, "distinct_codes": codes.distinct, "effective": codes.effective,
            "rare": codes.rare.tolist(), "copies": codes.copies, "ones": codes.ones.tolist(),
            "entropy": codes.entropy.tolist(), "correlation": codes.correlation.tolist(),
            "information": None if codes.information is None else codes.information.tolist(),
        }  # fmt: skip
        found["ap"] = None if self.ap is None else self.ap.tolist()
        return found | {name: [asdict(example) for example in getattr(self, name)] for name in ("best", "worst")}


def measure(parts, device="auto"):
    """Compute what a `hashret.reporting.run.Run` has the material for: -> `Figures`.

    Raises:
        HashretError: parts of different encoders, damaged or unfinished ones.
    """
    if not parts.index:
        return Figures(parts.metrics)
    index = open_index(parts.index, device)
    if not len(index):
        raise HashretError(f"every photograph of {parts.index} was removed; there is nothing to report on")
    recorded = _recorded(parts, index)
    labels = None if index.labels is None else np.asarray(index.labels)[index.alive]
    found = {
        "codes": bit_statistics(index.codes()[index.alive], index.bits, labels), "photographs": len(index),
        "names": tuple(index.meta["classes"]),
    }  # fmt: skip
    if not _is_scorable(parts, index):
        return Figures(recorded or None, **found)
    kept = all(segment.hash_outputs is not None for segment in index.segments)
    rerank_by = recorded.get("rerank_by", "values" if kept else "asymmetric")
    trial = open_trial(parts.queries, parts.index, device=device, rerank_by=rerank_by)
    topk = {"all": 0}.get(recorded.get("map_at"), recorded.get("map_at"))
    scores = score(trial, recorded.get("candidates", 1000), rerank_by, topk=topk, protocol=recorded.get("protocol"))
    topk = None if scores.figures["map_at"] == "all" else scores.figures["map_at"]
    ap = average_precision(scores.counts, topk=topk)
    best, worst = examples(trial, scores, ap)
    return Figures(
        scores.figures, ap, precision_by_rank(scores), distance_figures(scores.counts),
        dropped_bits(trial, topk), class_figures(trial, scores, ap), **found, best=best, worst=worst,
    )  # fmt: skip


def _is_scorable(parts, index):
    """Whether there are queries, and labels of both them and the index."""
    if not parts.queries or index.labels is None:
        return False
    return bool(ShardFolder(parts.queries).manifest["classes"])


def _recorded(parts, index):
    """The recorded figures, or {} where they are of other codes. Raises HashretError if the training record is."""
    encoder = index.meta["encoder"]
    if parts.record and parts.record.get("fingerprint", encoder) != encoder:
        raise HashretError(
            f"the index {parts.index} was built by another encoder than {parts.path} has; "
            "encode and build the index again, or name its own with --index"
        )
    return parts.metrics if parts.metrics and parts.metrics.get("encoder") == encoder else {}


def precision_by_rank(scores):
    """Precision at some k: -> lists ``k``, ``hamming`` (expected over ties), ``reranked``."""
    last = min(_RANKS, int(scores.counts.total[0].sum()))
    ks = np.unique(np.geomspace(1, last, 30).round().astype(int))
    hamming = [float(precision_at(scores.counts, k).mean()) for k in ks]
    reranked = [float(precision_at(scores.tail, k, scores.head).mean()) for k in ks]
    return {"k": ks.tolist(), "hamming": hamming, "reranked": reranked}


def distance_figures(counts):
    """Pairs of query and item by distance, ``alike`` and ``unlike``, their means, and how well they separate."""
    alike, unlike = distance_histograms(counts)
    bits = np.arange(len(alike))
    means = [float(pairs @ bits / pairs.sum()) if pairs.sum() else None for pairs in (alike, unlike)]
    return {
        "alike": alike.tolist(), "unlike": unlike.tolist(), "mean_alike": means[0], "mean_unlike": means[1],
        "separation": None if None in means else separation(alike, unlike),
    }  # fmt: skip


def dropped_bits(trial, topk=None):
    """mAP that is ``lost`` when one bit is left out of all codes, (bits,), on a sample of the queries where it is long.

    ``error`` is the standard error of each loss over the queries, ``map`` the sample's mAP by all bits.
    """
    bits, count = trial.index.bits, len(trial.queries)
    distinct = len(unique_rows(trial.codes, trial.labels)[0])
    size = min(count, max(_LEAST_SAMPLE, _PAIRS // (bits * distinct)))
    rows = np.sort(np.random.default_rng(_SEED).permutation(count)[:size])
    data = (trial.queries.codes[rows], trial.codes, trial.queries.labels[rows], trial.labels, bits)
    progress = Progress("dropping each bit", bits, "bits")
    whole = average_precision(count_by_distance(*data), topk=topk)
    lost = whole - average_precision_without(*data, topk, progress)
    progress.close()
    error = lost.std(axis=1, ddof=1) / np.sqrt(size) if size > 1 else np.full(bits, np.nan)
    return {
        "queries": size, "sampled": size < count, "seed": _SEED, "map": float(whole.mean()),
        "lost": lost.mean(axis=1).tolist(), "error": plain(error),
    }  # fmt: skip


def class_figures(trial, scores, ap):
    """Confusion among the `NEAREST` hits, and mAP and number of queries by class; None where a class has no query."""
    names, queries = trial.classes, trial.queries
    nearest = min(NEAREST, len(trial.codes))
    progress = Progress("confusion", len(queries), "queries")
    matrix = confusion(
        queries.codes, trial.codes, queries.labels, trial.labels, scores.counts, nearest, len(names), progress
    )
    progress.close()
    return {
        "names": list(names), "nearest": nearest, "several": queries.labels.ndim == 2, "confusion": plain(matrix),
        "map": plain(mean_by_label(ap, queries.labels, len(names))),
        "queries": indicator(queries.labels, len(names)).sum(axis=0).astype(int).tolist(),
    }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A hit of a query; ``good`` where the two are alike."""

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
    answers: tuple


def examples(trial, scores, ap):
    """The queries of best and of worst average precision, see `extremes`: two lists of `Example`.

    Those that nothing in the database is like are left out.
    """
    able = np.flatnonzero(scores.counts.relevant.sum(axis=1))
    chosen = extremes(ap[able], trial.queries.codes[able], trial.queries.labels[able])
    how = scores.figures["candidates"], scores.figures["rerank_by"]
    return [[_example(trial, able[row], ap, *how) for row in rows] for rows in chosen]


def _example(trial, row, ap, candidates, rerank_by):
    queries, index, one = trial.queries, trial.index, slice(row, row + 1)
    features = None if queries.fc_features is None else queries.fc_features[one]
    found = index.search(queries.codes[one], queries.hash_outputs[one], _HITS, candidates, rerank_by, features=features)
    rows = found.rows[0]
    good = is_relevant(queries.labels[one], trial.labels_by_row[rows])[0]
    answers = tuple(
        Answer(index.path(hit), index.label(hit), int(bits), float(distance), bool(like))
        for hit, bits, distance, like in zip(rows, found.hamming[0], found.euclidean[0], good, strict=True)
    )
    names = trial.classes
    label = " ".join(names[n] for n in np.flatnonzero(indicator(queries.labels[one], len(names))))
    return Example(decode_path(queries.paths[row]), label, float(ap[row]), answers)


def plain(array):
    """An array as nested lists, for JSON: NaN is None."""
    return np.where(np.isnan(array), None, array).tolist()
