"""`hashret evaluate`: retrieval metrics of a query set against an index."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .collapse import QUERIES, collapsed, map_by_chance
from .engines import shown
from .errors import HashretError, warn
from .files import check_writable, read_json, write_json
from .index import Database
from .labels import renumbered, united
from .metrics import (
    Counts,
    average_precision,
    average_precision_by_index,
    count_by_distance,
    is_relevant,
    precision_at,
    precision_recall,
    precision_within,
    recall_within,
)
from .opening import open_database
from .progress import Progress, takes_quiet
from .shards import MANIFEST, Shard, ShardFolder

_QUERIES_AT_ONCE = 1000
RADIUS = 2


@takes_quiet
def evaluate(
    queries,
    index="index",
    *,
    model="model.safetensors",
    split=None,
    candidates=1000,
    rerank_by="values",
    k=(1, 10, 100),
    topk=None,
    index_order=False,
    values=None,
    device="auto",
    protocol=None,
    out=None,
    exclude=(),
    include=(),
):
    """Score a query set against an index, with and without the re-rank: -> dict, also written to ``out`` as JSON.

    Two photographs are relevant to each other when they share a label, by its name. Without the re-rank, figures are
    expectations over the order of items at equal Hamming distance, with the worst and the best order beside them. With
    it, the first ``candidates`` items, no more and no fewer, are ordered by Euclidean distance and the rest follow by
    Hamming distance.

    A query to which nothing in the index is relevant counts as 0 in every mean. ``queries_without_relevant`` says how
    many there are, ``map_answerable`` is the mAP of the others, None where there are none. ``map_by_chance`` is the mAP
    of a random order. To ``queries_with_ties_cut`` more photographs are at the least distance than ``candidates``: the
    ids decide which of these are re-ranked.

    Args:
        queries: folder of shards, or a data source (see `hashret.data.open_data`) to be encoded by ``model``.
        index: folder of an index, or a collection in an engine.
        split, exclude, include: of the data source.
        rerank_by: what the re-rank compares, "values" or "directions", see `hashret.index.rerank`.
        candidates: nearest by Hamming distance that are re-ranked.
        k: for precision@k.
        topk: ranks that count for mAP, 0 for all ("mAP@all"); None for what the protocol says, else all.
        index_order: give mAP with ties in the order of the index, too, as code without care for ties has it.
        values: see `hashret.Searcher`.
        protocol: name to record; by default that of the data, or queries and index are described.
    """
    if candidates < 1 or min(k) < 1 or (topk is not None and topk < 0):
        raise HashretError("candidates and k must be at least 1, topk at least 1, or 0 for all ranks")
    if out:
        check_writable(out)
        _check_replaced(out)
    trial = open_trial(queries, index, model, split, device, rerank_by, values, exclude, include)
    result = score(trial, candidates, rerank_by, k, topk, index_order, protocol).figures
    _warn(result, len(trial.classes) if trial.labels.ndim == 1 else None)
    if out:
        write_json(out, result)
    return result


def _check_replaced(path):
    """Raise HashretError where there is a file that holds no figures of `evaluate`, which alone are written over."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    try:
        figures = "map_at" in read_json(path, "file")
    except HashretError:
        figures = False
    if not figures:
        raise HashretError(f"{path} exists already and holds no figures of an evaluation; name another with --out")


def _warn(figures, classes):
    """Say what lowers the figures without being the codes' fault, and where the codes themselves are of no use."""
    if lacking := figures["queries_without_relevant"]:
        others = figures["hamming"]["map_answerable"]
        others = "" if others is None else f"; the mAP of the others is {others:.4f} (map_answerable)"
        warn(
            f"{lacking:,} of {figures['queries']:,} queries share no label with any photograph of the index and count "
            f"as 0 in mAP{others}"
        )
    if cut := figures["queries_with_ties_cut"]:
        warn(
            f"{cut:,} of {figures['queries']:,} queries have more photographs at the least distance than the "
            f"{figures['candidates']:,} candidates; the re-rank had those of the lowest ids: take more --candidates"
        )
    if lacking := figures["database_without_label"]:
        warn(
            f"{lacking:,} of {figures['database']:,} photographs of the index have no label and count as wrong answers"
        )
    found = {"photographs": figures["database"], "distinct": figures["distinct_codes"]}
    if figures["queries"] - figures["queries_without_relevant"] >= QUERIES:
        found |= {"map": figures["hamming"]["map"], "chance": figures["hamming"]["map_by_chance"]}
    if wrong := collapsed(found, figures["bits"], classes):
        warn(f"the codes tell photographs hardly apart: {wrong}; train another encoder")


@dataclass(frozen=True)
class Trial:
    """Queries and the index that is asked, found to fit, their labels by one list of classes.

    Attributes:
        queries: a `Shard`; ``manifest``: what is said of it.
        index: the `hashret.index.Database`.
        classes: names of the classes of both.
        rows, codes, labels: of the database, what was removed left out: int64 (nb,), packed codes uint8 (nb, w),
            (nb,) or (nb, classes) as the queries' are.
    """

    queries: Shard
    manifest: dict
    index: Database
    classes: list
    rows: np.ndarray
    codes: np.ndarray
    labels: np.ndarray

    @cached_property
    def labels_by_row(self):
        """Labels of the database by the rows that a search gives."""
        found = np.zeros((self.rows.max(initial=-1) + 1, *self.labels.shape[1:]), self.labels.dtype)
        found[self.rows] = self.labels
        return found

    @property
    def protocol(self):
        """The protocol that both the queries' and the index's photographs are sets of, or {}."""
        q, d = self.manifest.get("protocol") or {}, self.index.meta.get("protocol") or {}
        same = q.get("split") == d.get("split") and (q.get("set"), d.get("set")) == ("test", "database")
        return q if same else {}


@dataclass(frozen=True)
class Scores:
    """What `score` finds: ``figures`` as `evaluate` gives them, and what they were made from.

    ``counts`` of each query; ``head`` bool (nq, candidates), which of the re-ranked are alike; ``tail``, the `Counts`
    of what follows them.
    """

    figures: dict
    counts: Counts
    head: np.ndarray
    tail: Counts


def open_trial(
    queries,
    index="index",
    model="model.safetensors",
    split=None,
    device="auto",
    rerank_by="values",
    values=None,
    exclude=(),
    include=(),
):
    """Open queries and index for `score`: -> `Trial`. Arguments and errors as of `evaluate`."""
    database = open_database(index, device, values)
    manifest, query = _load_queries(queries, model, split, database, device, exclude, include)
    if manifest["encoder"] != database.meta["encoder"]:
        raise HashretError(f"{queries} and {shown(index)} were encoded by different encoders")
    rows, codes, labels = database.everything()
    if query.labels is None or labels is None:
        raise HashretError("metrics need labels of both queries and index; encode class folders or a label list")
    if rerank_by == "features" and query.fc_features is None:
        raise HashretError(f"{queries} keeps no features to re-rank by; encode it with --features")
    if query.skipped:
        count, first = len(query.skipped), query.skipped[0]
        warn(
            f"{count:,} of {count + len(query):,} queries cannot be read and are left out, as {first['path']}: "
            f"{first['reason']}"
        )
    if not len(query):
        raise HashretError(f"no queries in {queries}")
    if not len(database):
        raise HashretError(f"every photograph of {shown(index)} was removed; there is nothing to score against")
    known, asked = database.meta["classes"], manifest["classes"]
    if not set(known) & set(asked):
        raise HashretError(
            f"{queries} and {shown(index)} have no class in common ({_some_names(asked)}; {_some_names(known)}); "
            "encode both from the same data set"
        )
    classes, several = united(known, asked), 2 in (query.labels.ndim, labels.ndim)
    query = replace(query, labels=renumbered(query.labels, asked, classes, several))
    labels = renumbered(labels, known, classes, several)
    return Trial(query, manifest, database, classes, rows, codes, labels)


def _some_names(names, most=3):
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def score(trial, candidates=1000, rerank_by="values", k=(1, 10, 100), topk=None, index_order=False, protocol=None):
    """Score the queries of a `Trial`: -> `Scores`. Arguments as of `evaluate`."""
    query, database, known = trial.queries, trial.index, trial.protocol
    topk = (known.get("topk") if topk is None else topk) or None
    started = time.perf_counter()
    progress = Progress("scoring", len(query), "queries")
    counts = count_by_distance(query.codes, trial.codes, query.labels, trial.labels, database.bits, progress)
    progress.close()
    answerable = counts.relevant.any(axis=1)
    hamming = _hamming_figures(counts, k, topk, answerable)
    if index_order:
        by_index = average_precision_by_index(query.codes, trial.codes, query.labels, trial.labels, topk)
        hamming["map_index_order"] = float(by_index.mean())
    hamming_seconds = time.perf_counter() - started
    head, tail = _reranked(trial, counts, candidates, rerank_by)
    reranked = average_precision(tail, topk=topk, head=head)
    unlabelled = trial.labels < 0 if trial.labels.ndim == 1 else ~trial.labels.any(axis=1)
    result = {
        "protocol": protocol
        or known.get("name", f"{len(query)} queries, {len(database)} database items, alike if they share a label"),
        "split_sha256": known.get("split"),
        "queries": len(query),
        "queries_without_relevant": int((~answerable).sum()),
        "database": len(database),
        "database_without_label": int(unlabelled.sum()),
        "bits": database.bits,
        "encoder": database.meta["encoder"],
        "map_at": topk or "all",
        "candidates": min(candidates, len(database)),
        "queries_with_ties_cut": int((_nearest_ties(counts) > candidates).sum()),
        "rerank_by": rerank_by,
        "hamming": hamming,
        "reranked": {
            "map": float(reranked.mean()),
            "map_answerable": _mean(reranked[answerable]),
            "precision_at": {str(n): float(precision_at(tail, n, head).mean()) for n in k},
        },
        "distinct_codes": len(np.unique(trial.codes, axis=0)),
        "hamming_seconds": round(hamming_seconds, 2),
        "seconds": round(time.perf_counter() - started, 2),
    }
    return Scores(result, counts, head, tail)


def _load_queries(queries, model, split, database, device, exclude, include):
    """Manifest and rows of the query set, encoded first where they are photographs."""
    if (Path(queries) / MANIFEST).exists():
        shards = ShardFolder(queries)
        return shards.manifest, shards.load()
    from .encoding import encode

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "codes"
        encode(
            queries, model, out, split=split, device=device, precision=database.meta["precision"],
            exclude=exclude, include=include,
        )  # fmt: skip
        shards = ShardFolder(out)
        return shards.manifest, shards.load()


def _mean(scores):
    return float(scores.mean()) if len(scores) else None


def _nearest_ties(counts):
    """How many photographs share the least distance to each query: -> (nq,)."""
    return counts.total[np.arange(len(counts.total)), (counts.total > 0).argmax(axis=1)]


def _hamming_figures(counts, k, topk, answerable):
    scores = average_precision(counts, topk=topk)
    figures = {"map": float(scores.mean()), "map_answerable": _mean(scores[answerable])}
    figures["map_by_chance"] = map_by_chance(counts, topk)
    for ties in ("worst", "best"):
        figures[f"map_{ties}_ties"] = float(average_precision(counts, ties, topk).mean())
    figures["precision_at"] = {str(n): float(precision_at(counts, n).mean()) for n in k}
    figures[f"precision_radius_{RADIUS}"] = float(precision_within(counts, RADIUS).mean())
    figures[f"recall_radius_{RADIUS}"] = float(recall_within(counts, RADIUS).mean())
    precision, recall = precision_recall(counts)
    figures["curve"] = {"precision": precision.round(5).tolist(), "recall": recall.round(5).tolist()}
    return figures


def _reranked(trial, counts, candidates, rerank_by):
    """Relevance of the re-ranked head, bool (nq, c), and the Counts of what follows it."""
    heads, total, relevant = [], counts.total.copy(), counts.relevant.copy()
    query, database, labels = trial.queries, trial.index, trial.labels_by_row
    progress = Progress("re-ranking", len(query), "queries")
    for start in range(0, len(query), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        features = None if query.fc_features is None else query.fc_features[some]
        hits = database.search(
            query.codes[some], query.hash_outputs[some], candidates, candidates, rerank_by, query_features=features
        )
        n = len(hits.positions)
        if query.labels.ndim == 1:
            head = (labels[hits.positions] == query.labels[some, None]) & (query.labels[some, None] >= 0)
        else:
            head = np.stack(
                [is_relevant(query.labels[start + i, None], labels[hits.positions[i]])[0] for i in range(n)]
            )
        cell = hits.hamming + (database.bits + 1) * np.arange(n)[:, None]
        for into, cells in ((total, cell.ravel()), (relevant, cell[head])):
            into[some] -= np.bincount(cells, minlength=into[some].size).reshape(n, -1)
        heads.append(head)
        progress.add(n)
    progress.close()
    return np.concatenate(heads), Counts(total, relevant)
