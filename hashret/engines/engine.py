"""What an engine has to do to hold a database: requests about photographs, each of which may be repeated."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np

from ..errors import HashretError

SECONDS, CONNECT_SECONDS = 30, 5  # that an answer may take, and a connection
_PAUSES = (0.2, 1.0)  # in seconds, before another try
FIELDS = ("codes", "values", "labels", "paths")
_IDS_AT_ONCE = 1000  # looked up in one request, where they are many
_SPAN = 10_000  # of ids read in one request


class EngineError(HashretError):
    """The engine is away, too slow, full or in disorder; nothing that the user named is wrong."""


class Unreachable(EngineError):
    """Nobody answered, or the connection broke: worth another try."""


@dataclass(frozen=True)
class Filter:
    """Which photographs; what is None does not count.

    Attributes:
        labels: numbers of classes, of which a photograph must have one.
        paths: patterns of the path, of which one must match, see `Engine.matches`, or one of ``names``.
        names: paths, or ends of paths from some folder on, that are taken as they are, see
            `hashret.index.paths.is_named`.
        ids: of the photographs.
        span: first and last id.
    """

    labels: tuple | None = None
    paths: tuple | None = None
    ids: tuple | None = None
    span: tuple | None = None
    names: tuple = ()


ALL = Filter()


@dataclass(frozen=True)
class Rows:
    """Photographs: ids int64 (n,), packed codes uint8 (n, w), values float32 (n, bits), labels: a tuple of class
    numbers each, paths: n strings. What was not asked for is None.
    """

    ids: np.ndarray
    codes: np.ndarray | None = None
    values: np.ndarray | None = None
    labels: list | None = None
    paths: list | None = None

    def __len__(self):
        return len(self.ids)

    def take(self, places):
        """The photographs at places, int64 (m,)."""

        def taken(part):
            if part is None or isinstance(part, np.ndarray):
                return part if part is None else part[places]
            return [part[place] for place in places.tolist()]

        return Rows(self.ids[places], *(taken(getattr(self, field)) for field in FIELDS))


class Engine(ABC):
    """A collection in an engine.

    Every request ends within ``seconds`` or raises `EngineError`, and may be repeated: what it writes, it writes again
    with the same outcome.

    Attributes:
        place: the `hashret.engines.names.Place` of the collection.
        record: what hashret keeps about the collection, see `hashret.engines.exporting`, once it is opened or made.
        most: answers that a search can give, None for any number.
    """

    most = None

    def __init__(self, place, seconds=SECONDS):
        self.place, self.seconds, self.record = place, seconds, None

    @abstractmethod
    def close(self):
        """End the connections."""

    def open(self, record):
        """Begin to search the collection that a record is about."""
        self.record = record

    @abstractmethod
    def read_record(self):
        """What was kept by `save_record` under the collection's name, or None."""

    @abstractmethod
    def save_record(self, record):
        """Keep a dict beside the collection."""

    @abstractmethod
    def description(self):
        """The description that the collection was created with, "" where it has none; None where there is none."""

    @abstractmethod
    def create(self, record, description):
        """Create the collection of a record, or what is still missing of it, and open it."""

    @abstractmethod
    def drop(self):
        """Remove the collection, where it is."""

    @abstractmethod
    def write(self, rows):
        """Store `Rows`, in place of what is there under their ids, which ascend."""

    @abstractmethod
    def finish(self):
        """Make what was written fast to search, with an approximate index where the record says so."""

    @abstractmethod
    def count(self, where=ALL):
        """Photographs of a `Filter`, the latest counted in."""

    @abstractmethod
    def matches(self, pattern):
        """Whether the engine itself can match such a path pattern, see `hashret.index.paths.path_matches`."""

    @abstractmethod
    def search(self, codes, k, where=ALL):
        """The k nearest: packed codes (nq, w) -> for each query D int32, ids int64, by (distance, id); fewer than k
        only where there are no more.
        """

    @abstractmethod
    def within(self, code, radius, where=ALL):
        """All within a radius in bits of a packed code (w,): -> D int32, ids int64, by (distance, id)."""

    @abstractmethod
    def read(self, where, fields):
        """The `Rows` of a `Filter` with some of `FIELDS`, by id."""

    def fetch(self, ids, *fields):
        """`Rows` of ids, int64 (n,), in their order, with some of `FIELDS`. Raises EngineError where one is missing."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        parts = [
            self.read(Filter(ids=tuple(distinct[start : start + _IDS_AT_ONCE].tolist())), fields)
            for start in range(0, max(1, len(distinct)), _IDS_AT_ONCE)
        ]
        rows = joined(parts)
        if not np.array_equal(rows.ids, distinct):
            raise self.wrong(f"it gave {len(rows)} of {len(distinct)} photographs that it had named")
        return rows.take(inverse)

    def scan(self, where, *fields):
        """The `Rows` of a `Filter` by id, a span of ids at a time."""
        for start in range(0, self.record["next_id"], _SPAN):
            yield self.read(replace(where, span=(start, start + _SPAN - 1)), fields)

    def wrong(self, what):
        """The EngineError of an answer that cannot be."""
        return EngineError(f"{self.place} is in disorder: {what}; if it was changed, run hashret export --overwrite")


def joined(parts):
    """One `Rows` of several."""

    def together(field):
        columns = [getattr(part, field) for part in parts]
        if columns[0] is None or len(columns) == 1:
            return columns[0]
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return [value for column in columns for value in column]

    return Rows(*(together(field) for field in ("ids", *FIELDS)))


def persist(attempt):
    """Call ``attempt``, and a few times more, after pauses, where it raises Unreachable: -> what it returns."""
    for pause in _PAUSES:
        try:
            return attempt()
        except Unreachable:
            time.sleep(pause)
    return attempt()


def connect(place, create=False, **options):
    """The `Engine` of a place; ``create``: make a database file where there is none.

    Raises:
        HashretError: its client is not installed, EngineError: it does not answer.
    """
    try:
        return import_module(f".{place.kind}", __package__).open_engine(place, create, **options)
    except ModuleNotFoundError as error:
        extra = {"milvus": "milvus", "postgres": "pgvector"}[place.kind]
        raise HashretError(f"{place} needs {error.name}: pip install 'hashret[{extra}]'") from None
