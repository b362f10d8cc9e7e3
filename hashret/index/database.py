"""What a search needs of a database of encoded photographs, be it an index folder here or a collection in an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from ..bits import code_width
from ..errors import HashretError

CANDIDATES = 1000  # re-ranked where no number is asked for
MOST_CANDIDATES = 10_000  # and where ties among the nearest go on beyond these, up to so many


@dataclass(frozen=True)
class Hits:
    """Answers to nq queries, best first: ``rows`` (nq, k) int64 places in the database, ``hamming`` (nq, k) int32,
    ``euclidean`` (nq, k) float32, NaN where there was no re-rank.

    ``candidates`` (nq,) int64 of each were re-ranked, 0 without re-rank. ``cut`` (nq,) bool says that ties among the
    nearest were cut off: photographs were left out that are as near as the k-th nearest, and might be better answers.
    """

    rows: np.ndarray
    hamming: np.ndarray
    euclidean: np.ndarray
    candidates: np.ndarray
    cut: np.ndarray

    def put(self, queries, other):
        """Replace the answers of some queries, by number or by a mask, by other `Hits`."""
        for column in fields(self):
            getattr(self, column.name)[queries] = getattr(other, column.name)


def joined(parts):
    """The `Hits` of one group of queries after the other, as one."""
    return Hits(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Hits)))


def ties_are_cut(D, k, candidates):
    """Whether others than the candidates are as near as the k-th nearest: distances ascending (nq, c) -> bool (nq,)."""
    return D[:, k - 1] == D[:, candidates] if D.shape[1] > candidates else np.zeros(len(D), bool)


class Item(NamedTuple):
    """A photograph: its ``id``, ``path``, ``label`` (class names with spaces between, "" where unknown), its ``code``,
    packed uint8 (w,), where that was asked for, and its ``labels``, the same class names one by one.
    """

    id: int
    path: str
    label: str
    code: np.ndarray | None = None
    labels: tuple = ()

    @classmethod
    def of(cls, id, path, labels, code=None):
        """A photograph by the names of its classes."""
        return cls(id, path, " ".join(labels), code, tuple(labels))


class Database(ABC):
    """Encoded photographs, searched by Hamming distance and then by Euclidean distance: the paper's section 1.2.

    A row is the number by which a database finds a photograph again: its place in an index folder, its id in an engine.
    Rows ascend as ids do. Whatever takes several rows takes them in one step, so that an engine over a network is asked
    once and not once a hit.

    Attributes:
        meta: bits, count, encoder (fingerprint), precision, image_size, classes, generation, protocol.
        most: answers that `nearest` can give, None for any number.
        damage: why no answer of it can be trusted, one line, or None.
        checked: what of it was compared with its own record, in words.
    """

    meta: dict
    most: int | None = None
    damage: str | None = None
    checked: str = "nothing"

    @property
    def bits(self):
        return self.meta["bits"]

    @abstractmethod
    def __len__(self):
        """Photographs that can be found."""

    @property
    @abstractmethod
    def has_values(self):
        """Whether it can re-rank by hash-layer values."""

    @abstractmethod
    def nearest(self, codes, k, among=None):
        """The Hamming stage: codes packed uint8 (nq, w) -> D int32, rows int64, both (nq, min(k, count)), by
        (distance, row); ``among``: what `select` gave, only its photographs can be answers.
        """

    @abstractmethod
    def within(self, codes, radius, among=None):
        """All photographs within a radius in bits: yields (query, D int32, rows int64) by (distance, row), as found."""

    @abstractmethod
    def reranked(self, values, rows, features="values"):
        """The re-rank stage: -> Euclidean distances float32 of candidates ``rows`` (nq, c), ascending, and their
        columns in that order, see `hashret.index.rerank.rerank`.
        """

    @abstractmethod
    def select(self, label=None, path=None, ids=None):
        """Photographs to search among, for ``among``: -> an object with a length; what is None does not count.

        Args:
            label: class name, or several, of which a photograph must have one.
            path: path, or pattern of it, or several, see `hashret.index.folder.Index.matching`.
            ids: ids of photographs.

        Raises:
            HashretError: no such class.
        """

    @abstractmethod
    def find(self, id):
        """A photograph by its id: -> its row, and its `Item` with the code. Raises HashretError where there is none."""

    @abstractmethod
    def items(self, rows, codes=False):
        """The photographs at rows, (n,) in any order, repeated or not: -> list of `Item`, with the codes if wanted."""

    @abstractmethod
    def value(self, row):
        """Hash-layer values of the photograph at ``row``, float32 (bits,), None where none are kept."""

    @abstractmethod
    def sample(self, n, seed=0):
        """Rows of min(n, count) photographs, drawn by the seed."""

    @abstractmethod
    def everything(self):
        """All photographs: -> rows int64 (n,), packed codes uint8 (n, w), labels (n,) or (n, classes), or None."""

    @abstractmethod
    def calibrate(self, k=10, recall=0.99, sample=200, seed=0):
        """How many candidates give a wanted share of the k nearest by Euclidean distance, see `calibrate`."""

    def warm(self):
        """Load what the first searches would load: -> the database."""
        return self

    def search(self, codes, values=None, k=10, candidates=None, rerank_by="values", among=None, features=None):
        """The k best photographs for each query: -> `Hits`, min(k, count) columns.

        Args:
            codes: packed query codes, uint8 (nq, w).
            values: hash-layer values float32 (nq, bits); None leaves the Hamming order.
            k: answers a query.
            candidates: nearest by Hamming distance that are re-ranked by Euclidean distance, at least k. None takes
                1,000 and, where more are as near as the k-th nearest, all of these, up to 10,000: a photograph is then
                found by itself wherever no more share its code.
            rerank_by: one of `hashret.index.rerank.FEATURES`.
            among: what `select` gave; only its photographs can be answers.
            features: of the queries, float32 (nq, width), to re-rank by "features".

        Raises:
            HashretError: k or candidates below 1, or codes of another width, or a database without values.
        """
        self.check(codes, k, 1 if candidates is None else candidates)
        if values is None:
            D, rows = self.nearest(codes, k, among)
            none = np.zeros(len(rows), np.int64)
            return Hits(rows, D, np.full(rows.shape, np.nan, np.float32), none, none.astype(bool))
        compared = features if rerank_by == "features" else values
        least = max(k, CANDIDATES if candidates is None else candidates)
        D, rows = self._one_more(codes, least, among)
        hits = self._best(compared, D[:, :least], rows[:, :least], k, rerank_by)
        hits.cut[:] = ties_are_cut(D, k, least)
        if candidates is None and hits.cut.any():
            cut = np.flatnonzero(hits.cut)
            found, still_cut = self._all_ties(codes[cut], k, least, among)
            parts = zip(compared[cut, None], found, strict=True)
            hits.put(cut, joined([self._best(values, *candidates, k, rerank_by) for values, candidates in parts]))
            hits.cut[cut] = still_cut
        return hits

    def _one_more(self, codes, n, among):
        """The n nearest, and one more where there is one, which says whether a tie ends with the n-th."""
        return self.nearest(codes, n if n == self.most else n + 1, among)

    def _best(self, values, D, rows, k, rerank_by):
        """The `Hits` of candidates: their distances and rows (nq, c)."""
        euclidean, order = self.reranked(values, rows, rerank_by)
        best = np.arange(len(rows))[:, None], order[:, :k]
        return Hits(rows[best], D[best], euclidean[:, :k], np.full(len(rows), rows.shape[1]), np.zeros(len(rows), bool))

    def _all_ties(self, codes, k, least, among):
        """All that are as near as the k-th nearest, up to `MOST_CANDIDATES`: -> for each query D, rows (1, c), and
        whether even these cut a tie.
        """
        most = max(least, min(MOST_CANDIDATES, self.most or MOST_CANDIDATES))
        D, rows = self._one_more(codes, most, among)
        counts = (D[:, :most] <= D[:, k - 1 : k]).sum(axis=1).tolist()
        found = [(D[[query], :count], rows[[query], :count]) for query, count in enumerate(counts)]
        return found, ties_are_cut(D, k, most)

    def candidates(self, code, k, candidates=None, among=None):
        """The candidates of one query, as `search` takes them: code (1, w) -> D, rows (1, c), whether a tie was cut."""
        self.check(code, k, 1 if candidates is None else candidates)
        least = max(k, CANDIDATES if candidates is None else candidates)
        D, rows = self._one_more(code, least, among)
        found, cut = [(D[:, :least], rows[:, :least])], ties_are_cut(D, k, least)
        if candidates is None and cut[0]:
            found, cut = self._all_ties(code, k, least, among)
        return *found[0], bool(cut[0])

    def check(self, codes, k=1, candidates=1):
        """Raise HashretError unless queries can be searched so, see `search`."""
        if k < 1 or candidates < 1:
            raise HashretError(f"k and candidates must be at least 1, not {min(k, candidates)}")
        width = code_width(self.bits)
        if codes.shape[1] != width:
            raise HashretError(f"queries of {codes.shape[1]} bytes do not fit an index of {self.bits} bits")

    def _class_numbers(self, names):
        """Numbers of classes by name, one or several. Raises HashretError where there is no such class."""
        names, classes = [names] if isinstance(names, str) else names, self.meta["classes"]
        unknown = [name for name in names if name not in classes]
        if unknown:
            known = ", ".join(classes[:30]) or "none"
            raise HashretError(f"no class {unknown[0]!r} in this index; its classes: {known}")
        return [number for number, name in enumerate(classes) if name in names]
