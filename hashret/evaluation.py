"""`hashret evaluate`: retrieval metrics of a query set against an index."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bits import Codes, Distances, Labels, Positions, check_length
from .collapse import QUERIES, collapsed, map_by_chance
from .data import Source, as_source
from .engines import refuse_engine, shown
from .errors import HashretError, refuse_given, warn
from .files import StrPath, check_writable, read_json, write_json
from .index import Database, Index, open_index
from .index.changes import write_shortened
from .index.given import CodeFile, is_code_file
from .index.rerank import AUTO, OF_FEATURES
from .labels import renumbered, united
from .metrics import (
    Counts,
    Floats,
    Ints,
    Relevant,
    average_precision,
    average_precision_by_index,
    count_by_distance,
    has_label,
    is_relevant,
    precision_at,
    precision_recall,
    precision_within,
    recall_within,
)
from .opening import find_model, open_database
from .places import find_index
from .progress import Progress, takes_quiet
from .renamed import forwarding, old_attributes, old_keywords
from .results import Result, WasDict
from .shards import MANIFEST, Shard, ShardFolder, decode_path

__getattr__ = forwarding(__name__)
_QUERIES_AT_ONCE = 1000
RADIUS = 2


@dataclass(frozen=True)
class HammingFigures(Result):
    """Figures of the Hamming order, means over the queries and expectations over the order of ties.

    Attributes:
        map: mean average precision.
        map_answerable: mAP of the queries to which something is relevant; None where there are none.
        map_by_chance: mAP of a random order.
        map_worst_ties, map_best_ties: mAP with ties in the worst and in the best order.
        precision_at: precision of the first k, by k as text.
        precision_radius_2, recall_radius_2: precision and recall of what is within two bits.
        curve: ``precision`` and ``recall`` within each radius.
        map_index_order: mAP with ties in the order of the index; None where it was not asked for.
    """

    map: float
    map_answerable: float | None
    map_by_chance: float
    map_worst_ties: float
    map_best_ties: float
    precision_at: dict[str, float]
    precision_radius_2: float
    recall_radius_2: float
    curve: dict[str, list[float]]
    map_index_order: float | None = None


@dataclass(frozen=True)
class RerankedFigures(Result):
    """Figures of the re-ranked order: ``map``, ``map_answerable`` and ``precision_at`` as of `HammingFigures`."""

    map: float
    map_answerable: float | None
    precision_at: dict[str, float]


@dataclass(frozen=True)
class Evaluation(WasDict):
    """The figures of `evaluate`.

    Attributes:
        protocol: name of the protocol, or what queries and index are.
        split_sha256: checksum of the protocol's file; None without one.
        queries, database: how many queries and photographs of the index were scored.
        queries_without_relevant: queries to which nothing is relevant; each counts as 0 in every mean.
        database_without_label: photographs of the index without a label; they count as wrong answers.
        bits: bits of a code.
        encoder: fingerprint of the encoder.
        map_at: number of ranks that count for mAP, or "all".
        candidates: how many of the nearest were re-ranked.
        queries_with_ties_cut: queries with more photographs at the least distance than ``candidates``; the ids decide
            which of these were re-ranked.
        rerank_by: what the re-rank compared.
        hamming, reranked: figures without and with the re-rank.
        distinct_codes: number of different codes in the index.
        hamming_seconds, seconds: time that the figures took, without and with the re-rank.
    """

    protocol: str
    split_sha256: str | None
    queries: int
    queries_without_relevant: int
    database: int
    database_without_label: int
    bits: int
    encoder: str
    map_at: int | str
    candidates: int
    queries_with_ties_cut: int
    rerank_by: str
    hamming: HammingFigures
    reranked: RerankedFigures
    distinct_codes: int
    hamming_seconds: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        figures = super().as_dict()
        if self.hamming.map_index_order is None:
            del figures["hamming"]["map_index_order"]
        return figures


@takes_quiet
def evaluate(
    queries: StrPath | Source | npt.NDArray[np.number],
    index: StrPath | None = None,
    *,
    model: StrPath | None = None,
    split: str | None = None,
    candidates: int = 1000,
    rerank_by: str = AUTO,
    k: Sequence[int] = (1, 10, 100),
    topk: int | None = None,
    index_order: bool = False,
    values: StrPath | None = None,
    device: str = "auto",
    protocol: str | None = None,
    out: StrPath | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    bits: int | None = None,
) -> Evaluation:
    """Score a query set against an index, with and without the re-rank.

    Two photographs are relevant to each other when they share a label, by its name. Without the re-rank, figures are
    expectations over the order of items at equal Hamming distance, with the worst and the best order beside them. With
    it, the first ``candidates`` items, no more and no fewer, are ordered by Euclidean distance and the rest follow by
    Hamming distance.

    Args:
        queries: folder of shards, or a data source (see `hashret.data.open_data`) to be encoded by ``model``, or an
            open source, or an array of vectors.
        index, model: see `hashret.Searcher`.
        split, exclude, include: of the data source.
        rerank_by: what the re-rank compares, see `hashret.index.rerank`; "auto" is "directions", or as
            vectors that need no labels were encoded.
        candidates: nearest by Hamming distance that are re-ranked.
        k: for precision@k.
        topk: ranks that count for mAP, 0 for all ("mAP@all"); None for what the protocol says, else all.
        index_order: give mAP with ties in the order of the index, too, as code without care for ties has it.
        values: see `hashret.Searcher`.
        protocol: name to record; by default that of the data, or queries and index are described.
        out: JSON file to write the figures to, too.
        bits: length of the codes, one that the encoder was trained for; None for that of the index.

    Raises:
        HashretError: queries and index do not fit, have no labels, have no class in common, or no codes of that length.
    """
    if not len(k):
        raise HashretError("k is empty; precision@k takes at least 1 number")
    if candidates < 1 or min(k) < 1 or (topk is not None and topk < 0):
        raise HashretError("candidates and k must be at least 1, topk at least 1, or 0 for all ranks")
    if out:
        check_writable(out)
        _check_replaced(out)
    index = find_index(index)
    evaluation_set = open_evaluation_set(
        queries, index, model, split, device, rerank_by=rerank_by, values=values, exclude=exclude, include=include
    )
    with contextlib.ExitStack() as stack:
        if bits not in (None, evaluation_set.index.bits):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            evaluation_set = _shortened(evaluation_set, index, bits, folder / "index", device)
        figures = score(evaluation_set, candidates, rerank_by, k, topk, index_order, protocol).figures
    _warn(figures, len(evaluation_set.classes) if evaluation_set.labels.ndim == 1 else None)
    if out:
        write_json(out, figures.as_dict())
    return figures


def _shortened(evaluation_set: EvaluationSet, index: StrPath, bits: int, folder: Path, device: str) -> EvaluationSet:
    """Return an evaluation set with the first bits of its codes, of which an index is written to a new folder."""
    refuse_engine(index)
    write_shortened(open_index(index, "cpu"), folder, bits)
    database = open_database(folder, device)
    known, classes, labels = database.meta["classes"], evaluation_set.classes, evaluation_set.labels
    positions, codes, own = database.everything()
    assert own is not None  # as the whole index has labels
    labels = renumbered(own, known, classes, labels.ndim == 2)
    return replace(
        evaluation_set, queries=evaluation_set.queries.shortened(bits), index=database, positions=positions,
        codes=codes, labels=labels,
    )  # fmt: skip


def _check_replaced(path: StrPath) -> None:
    """Raise HashretError where a file holds something else than figures of `evaluate`, which alone are written over."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    try:
        figures = "map_at" in read_json(path, "file")
    except HashretError:
        figures = False
    if not figures:
        what = f"{path} exists already and holds no figures of an evaluation"
        raise HashretError(what, hint="name another with --out")


def _warn(figures: Evaluation, classes: int | None) -> None:
    """Say what lowers the figures without being the codes' fault, and where the codes themselves are of no use."""
    if figures.queries_without_relevant:
        answerable = figures.hamming.map_answerable
        others = "" if answerable is None else f"; the mAP of the others is {answerable:.4f} (map_answerable)"
        warn(
            f"{figures.queries_without_relevant:,} of {figures.queries:,} queries share no label with any photograph "
            f"of the index and count as 0 in mAP{others}"
        )
    if figures.queries_with_ties_cut:
        warn(
            f"{figures.queries_with_ties_cut:,} of {figures.queries:,} queries have more photographs at the least "
            f"distance than the {figures.candidates:,} candidates; the re-rank had those of the lowest ids: take more "
            "--candidates"
        )
    if figures.database_without_label:
        warn(
            f"{figures.database_without_label:,} of {figures.database:,} photographs of the index have no label and "
            "count as wrong answers"
        )
    known: dict[str, Any] = {"photographs": figures.database, "distinct": figures.distinct_codes}
    if figures.queries - figures.queries_without_relevant >= QUERIES:
        known |= {"map": figures.hamming.map, "chance": figures.hamming.map_by_chance}
    if wrong := collapsed(known, figures.bits, classes):
        warn(f"the codes tell photographs hardly apart: {wrong}; train another encoder")


@old_attributes
@dataclass(frozen=True)
class EvaluationSet:
    """Queries and the index that is asked, found to fit, with labels by one list of classes.

    Attributes:
        queries: the queries, with ``query_labels`` (nq,) or (nq, classes).
        manifest: the manifest of the queries' shards.
        index: the index.
        classes: names of the classes of both.
        positions, codes, labels: of the photographs of the index, without removed ones: (nb,), packed codes (nb, w),
            and labels of the form that the queries' have.
    """

    queries: Shard
    query_labels: Labels
    manifest: dict[str, Any]
    index: Database
    classes: list[str]
    positions: Positions
    codes: Codes
    labels: Labels

    @cached_property
    def labels_by_position(self) -> Labels:
        """Labels of the index by the positions that a search returns."""
        labels = np.zeros((self.positions.max(initial=-1) + 1, *self.labels.shape[1:]), self.labels.dtype)
        labels[self.positions] = self.labels
        return labels

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol that both the queries' and the index's photographs are sets of, or {}."""
        asked: dict[str, Any] = self.manifest.get("protocol") or {}
        known = self.index.meta.get("protocol") or {}
        same = asked.get("split") == known.get("split") and (asked.get("set"), known.get("set")) == ("test", "database")
        return asked if same else {}


@old_attributes
@dataclass(frozen=True)
class Scores:
    """What `score` computes.

    Attributes:
        figures: the figures of `evaluate`.
        counts: counts of each query over all items.
        reranked_prefix: which of the re-ranked items are relevant, (nq, candidates).
        counts_behind: counts of each query over the items that follow the re-ranked ones.
    """

    figures: Evaluation
    counts: Counts
    reranked_prefix: Relevant
    counts_behind: Counts


@takes_quiet
@old_keywords
def open_evaluation_set(
    queries: StrPath | Source | npt.NDArray[np.number],
    index: StrPath | None = None,
    model: StrPath | None = None,
    subset: str | None = None,
    device: str = "auto",
    *,
    rerank_by: str = AUTO,
    values: StrPath | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> EvaluationSet:
    """Open queries and index for `score`; arguments and errors are those of `evaluate`, its ``split`` the subset."""
    index = find_index(index)
    database = open_database(index, device, values)
    asked_for = queries if isinstance(queries, str | os.PathLike) else "what is asked for"
    manifest, query = _load_queries(queries, find_model(model, database), subset, database, device, exclude, include)
    if manifest["encoder"] != database.meta["encoder"]:
        raise HashretError(f"{asked_for} and {shown(index)} were encoded by different encoders")
    if manifest["precision"] != database.meta["precision"]:
        warn(
            f"{asked_for} was encoded in {manifest['precision']}, and {shown(index)} in {database.meta['precision']}: "
            "bits near the threshold may differ"
        )
    if manifest.get("dither"):
        query = query.as_queries()
    if manifest["bits"] != database.bits:
        query = query.shortened(check_length(database.bits, manifest))
    positions, codes, labels = database.everything()
    if query.labels is None or labels is None:
        raise _no_labels()
    if database.rerank_choice(rerank_by) in OF_FEATURES and query.fc_features is None:
        raise HashretError(f"{asked_for} keeps no features to re-rank by", hint="encode it with --features")
    if query.skipped:
        count, first = len(query.skipped), query.skipped[0]
        warn(
            f"{count:,} of {count + len(query):,} queries cannot be read and are left out, as {first['path']}: "
            f"{first['reason']}"
        )
    if not len(query):
        raise HashretError(f"no queries in {asked_for}")
    if not len(database):
        raise HashretError(f"every photograph of {shown(index)} was removed; there is nothing to score against")
    known, asked = database.meta["classes"], manifest["classes"]
    if not set(known) & set(asked):
        raise HashretError(
            f"{asked_for} and {shown(index)} have no class in common ({_first_names(asked)}; {_first_names(known)})",
            hint="encode both from the same data set",
        )
    classes, several = united(known, asked), 2 in (query.labels.ndim, labels.ndim)
    query_labels = renumbered(query.labels, asked, classes, several)
    query = replace(query, labels=query_labels)
    labels = renumbered(labels, known, classes, several)
    _warn_of_own(query, database)
    return EvaluationSet(query, query_labels, manifest, database, classes, positions, codes, labels)


def _warn_of_own(queries: Shard, database: Database) -> None:
    """Say how many queries are photographs of the index, each of which finds itself and raises the figures.

    They are known by whole paths: names without a folder may be those of other photographs. Engines are not asked.
    """
    if not isinstance(database, Index):
        return
    paths = [path for path in map(decode_path, queries.paths) if os.path.isabs(path)]
    known = database.known(paths)
    if count := sum(path in known for path in paths):
        warn(
            f"{count:,} of {len(queries):,} queries are photographs of the index, too, and find themselves, which "
            "raises the figures; take queries that are not in it"
        )


def _no_labels() -> HashretError:
    hint = "encode class folders or a label list"
    return HashretError("metrics need labels of both queries and index", hint=hint)


def _first_names(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


@takes_quiet
@old_keywords
def score(
    evaluation_set: EvaluationSet,
    candidates: int = 1000,
    rerank_by: str = AUTO,
    k: Sequence[int] = (1, 10, 100),
    topk: int | None = None,
    index_order: bool = False,
    protocol: str | None = None,
) -> Scores:
    """Score the queries of a set; arguments as of `evaluate`."""
    query, database, known = evaluation_set.queries, evaluation_set.index, evaluation_set.protocol
    codes, labels, query_labels = evaluation_set.codes, evaluation_set.labels, evaluation_set.query_labels
    rerank_by = database.rerank_choice(rerank_by)
    topk = (known.get("topk") if topk is None else topk) or None
    started = time.perf_counter()
    progress = Progress("scoring", len(query), "queries")
    counts = count_by_distance(query.codes, codes, query_labels, labels, database.bits, progress)
    progress.close()
    answerable = np.any(counts.relevant, axis=1)
    hamming = _hamming_figures(counts, k, topk, answerable)
    if index_order:
        by_index = average_precision_by_index(query.codes, codes, query_labels, labels, topk)
        hamming = replace(hamming, map_index_order=float(by_index.mean()))
    hamming_seconds = time.perf_counter() - started
    reranked_prefix, counts_behind = _reranked(evaluation_set, counts, candidates, rerank_by)
    reranked = average_precision(counts_behind, topk=topk, reranked_prefix=reranked_prefix)
    described = f"{len(query)} queries, {len(database)} database items, relevant if they share a label"
    figures = Evaluation(
        protocol=protocol or known.get("name", described),
        split_sha256=known.get("split"),
        queries=len(query),
        queries_without_relevant=int((~answerable).sum()),
        database=len(database),
        database_without_label=int((~has_label(labels)).sum()),
        bits=database.bits,
        encoder=database.meta["encoder"],
        map_at=topk or "all",
        candidates=min(candidates, len(database)),
        queries_with_ties_cut=int((_nearest_ties(counts) > candidates).sum()),
        rerank_by=rerank_by,
        hamming=hamming,
        reranked=RerankedFigures(
            float(reranked.mean()),
            _mean(reranked[answerable]),
            {str(n): float(precision_at(counts_behind, n, reranked_prefix).mean()) for n in k},
        ),
        distinct_codes=len(np.unique(codes, axis=0)),
        hamming_seconds=round(hamming_seconds, 2),
        seconds=round(time.perf_counter() - started, 2),
    )
    return Scores(figures, counts, reranked_prefix, counts_behind)


def _load_queries(
    queries: StrPath | Source | npt.NDArray[np.number],
    model: StrPath,
    subset: str | None,
    database: Database,
    device: str,
    exclude: Sequence[str],
    include: Sequence[str],
) -> tuple[dict[str, Any], Shard]:
    """Return the manifest of the query set and its queries, encoded first where they are photographs."""
    encoded: CodeFile | ShardFolder | None = None
    if is_code_file(queries):
        encoded = CodeFile(str(queries))
    elif isinstance(queries, str | os.PathLike) and (Path(queries) / MANIFEST).exists():
        encoded = ShardFolder(queries)
    if encoded is not None:
        refuse_given(
            f"{queries} was encoded before, and is taken whole", split=subset, exclude=exclude, include=include
        )
        return encoded.manifest, encoded.load()
    from .encoding import encode

    source = as_source(queries, subset, exclude=exclude, include=include)
    if source.labels is None or not database.meta["classes"]:  # before photographs are encoded for nothing
        raise _no_labels()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "codes"
        encode(source, model, out, device=device, precision=database.meta["precision"])
        shards = ShardFolder(out)
        return shards.manifest, shards.load()


def _mean(scores: Floats) -> float | None:
    return float(scores.mean()) if len(scores) else None


def _nearest_ties(counts: Counts) -> Ints:
    """Return how many photographs are at the least distance to each query, (nq,)."""
    ties: Ints = counts.total[np.arange(len(counts.total)), (counts.total > 0).argmax(axis=1)]
    return ties


def _hamming_figures(counts: Counts, k: Sequence[int], topk: int | None, answerable: Relevant) -> HammingFigures:
    scores = average_precision(counts, topk=topk)
    precision, recall = precision_recall(counts)
    return HammingFigures(
        map=float(scores.mean()),
        map_answerable=_mean(scores[answerable]),
        map_by_chance=map_by_chance(counts, topk),
        map_worst_ties=float(average_precision(counts, "worst", topk).mean()),
        map_best_ties=float(average_precision(counts, "best", topk).mean()),
        precision_at={str(n): float(precision_at(counts, n).mean()) for n in k},
        precision_radius_2=float(precision_within(counts, RADIUS).mean()),
        recall_radius_2=float(recall_within(counts, RADIUS).mean()),
        curve={"precision": precision.round(5).tolist(), "recall": recall.round(5).tolist()},
    )


def _reranked(
    evaluation_set: EvaluationSet, counts: Counts, candidates: int, rerank_by: str
) -> tuple[Relevant, Counts]:
    """Return which of the re-ranked items are relevant, (nq, c), and the counts of the items that follow them."""
    prefixes, total, relevant = [], counts.total.copy(), counts.relevant.copy()
    query, database, labels = evaluation_set.queries, evaluation_set.index, evaluation_set.labels_by_position
    progress = Progress("re-ranking", len(query), "queries")
    for start in range(0, len(query), _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        asked, features = evaluation_set.query_labels[block], query.fc_features
        hits = database.search(
            query.codes[block], query.hash_outputs[block], candidates, candidates, rerank_by,
            query_features=None if features is None else features[block],
        )  # fmt: skip
        n = len(hits.positions)
        prefix = np.stack([is_relevant(asked[i : i + 1], labels[hits.positions[i]])[0] for i in range(n)])
        total[block] -= _count_at_distances(hits.hamming, np.ones_like(prefix), database.bits)
        relevant[block] -= _count_at_distances(hits.hamming, prefix, database.bits)
        prefixes.append(prefix)
        progress.add(n)
    progress.close()
    return np.concatenate(prefixes), Counts(total, relevant)


def _count_at_distances(hamming: Distances, counted: Relevant, bits: int) -> Ints:
    """Return how many of the counted items of each query are at each distance: (nq, c), (nq, c) -> (nq, bits + 1)."""
    queries, distances = len(hamming), bits + 1
    cells = hamming + distances * np.arange(queries)[:, None]
    counts: Ints = np.bincount(cells[counted], minlength=queries * distances).reshape(queries, distances)
    return counts
