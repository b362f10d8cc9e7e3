"""What a search needs of a database of encoded photographs, be it an index folder here or a collection in an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..bits import code_width
from ..errors import HashretError


@dataclass(frozen=True)
class Hits:
    """Answers to nq queries, best first: ``rows`` (nq, k) int64 places in the database, ``hamming`` (nq, k) int32,
    ``euclidean`` (nq, k) float32, NaN where there was no re-rank.
    """

    rows: np.ndarray
    hamming: np.ndarray
    euclidean: np.ndarray


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
    """

    meta: dict

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

    def search(self, codes, values=None, k=10, candidates=1000, rerank_by="values", among=None, features=None):
        """The k best photographs for each query: -> `Hits`, min(k, count) columns.

        Args:
            codes: packed query codes, uint8 (nq, w).
            values: hash-layer values float32 (nq, bits); None leaves the Hamming order.
            k: answers a query.
            candidates: nearest by Hamming distance that are re-ranked by Euclidean distance, at least k.
            rerank_by: one of `hashret.index.rerank.FEATURES`.
            among: what `select` gave; only its photographs can be answers.
            features: of the queries, float32 (nq, width), to re-rank by "features".

        Raises:
            HashretError: k or candidates below 1, or codes of another width, or a database without values.
        """
        self.check(codes, k, candidates)
        if values is None:
            D, rows = self.nearest(codes, k, among)
            return Hits(rows, D, np.full(rows.shape, np.nan, np.float32))
        D, rows = self.nearest(codes, max(k, candidates), among)
        euclidean, order = self.reranked(features if rerank_by == "features" else values, rows, rerank_by)
        order = order[:, :k]
        return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(D, order, 1), euclidean[:, :k])

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
