"""What an engine has to do to hold a database: requests about photographs, each of which may be repeated."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..addresses import EngineAddress
from ..bits import Codes, Distances, HashOutputs, Positions
from ..errors import HashretError
from ..renamed import old_attributes

T = TypeVar("T")
Nearest = tuple[Distances, Positions]  # of one query, by (distance, id)

SECONDS, CONNECT_SECONDS = 30, 5  # that an answer may take, and a connection
_PAUSES = (0.2, 1.0)  # in seconds, before another try
STORED = {"codes": "code", "hash_outputs": "values", "labels": "labels", "paths": "path"}  # columns: names in engines
_IDS_AT_ONCE = 1000  # looked up in one request, where they are many
_SPAN = 10_000  # of ids read in one request


class EngineError(HashretError):
    """The engine is away, too slow, full or in disorder; nothing that the user named is wrong."""


class Unreachable(EngineError):
    """Nobody answered, or the connection broke: worth another try."""


class TooSlow(EngineError):
    """The engine did not answer in time."""


@dataclass(frozen=True)
class Filter:
    """Which photographs: those that all of these fit that are not None.

    Attributes:
        labels: numbers of classes, of which a photograph must have one.
        paths: patterns of the path or of its end from some folder on, as of `hashret.index.paths.path_matches`: one of
            them must match, or one of ``names``. None are asked for that `Engine.matches` refuses.
        names: paths, or ends of paths from some folder on, that are taken as they are, see
            `hashret.index.paths.is_named`. There are some only where ``paths`` is not None, which may then be empty.
        ids: of the photographs.
        span: first and last id.
    """

    labels: tuple[int, ...] | None = None
    paths: tuple[str, ...] | None = None
    ids: tuple[int, ...] | None = None
    span: tuple[int, int] | None = None
    names: tuple[str, ...] = ()


ALL = Filter()


@dataclass(frozen=True)
class Rows:
    """Photographs, by column; a column that was not asked for is None.

    Attributes:
        ids: int64 (n,).
        codes: packed, uint8 (n, w).
        hash_outputs: float32 (n, bits).
        labels: a tuple of class numbers each.
        paths: n strings, or bytes, see `Engine.takes_bytes`.
    """

    ids: Positions
    codes: Codes | None = None
    hash_outputs: HashOutputs | None = None
    labels: list[tuple[int, ...]] | None = None
    paths: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self) -> tuple[Codes, list[tuple[int, ...]], list[Any]]:
        """Return codes, labels and paths, which photographs that are to be stored have."""
        assert self.codes is not None
        assert self.labels is not None
        assert self.paths is not None
        return self.codes, self.labels, self.paths

    def take(self, numbers: NDArray[np.int64]) -> Rows:
        """Return the photographs of some numbers, int64 (m,), counted from 0."""

        def taken(column: Any) -> Any:
            if column is None or isinstance(column, np.ndarray):
                return None if column is None else column[numbers]
            return [column[number] for number in numbers.tolist()]

        return Rows(self.ids[numbers], *(taken(getattr(self, field)) for field in STORED))


class RowsFound(NamedTuple):
    """What a query has found: ``distances`` int32 and ``ids`` int64 (n,) by (distance, id), and n ``paths``."""

    distances: Distances
    ids: Positions
    paths: list[Any]


@old_attributes
class Engine(ABC):
    """A collection in an engine.

    Every request ends within ``seconds`` or raises `EngineError`, and may be repeated: what it writes, it writes again
    with the same outcome. Requests come from several threads, at once, and `close` from any. Paths may hold bytes that
    no text of an engine holds, see `hashret.engines.text`.

    Attributes:
        address: the `hashret.addresses.EngineAddress` of the collection.
        record: what hashret keeps about the collection, see `hashret.engines.exporting`, once it is opened or made.
        most: answers that a search can give, None for any number.
        takes_bytes: whether the paths of a collection whose record says ``binary`` are bytes, and no strings.
    """

    most: int | None = None
    takes_bytes = False

    def __init__(self, address: EngineAddress, seconds: float = SECONDS) -> None:
        self.address, self.seconds = address, seconds
        self.record: dict[str, Any] = {}

    @abstractmethod
    def close(self) -> None:
        """End the connections."""

    def open(self, record: dict[str, Any]) -> None:
        """Begin to search the collection that a record is about."""
        self.record = record

    @abstractmethod
    def read_record(self) -> dict[str, Any] | None:
        """Return what was kept by `save_record` under the collection's name, or None."""

    @abstractmethod
    def save_record(self, record: dict[str, Any]) -> None:
        """Keep a dict beside the collection."""

    @abstractmethod
    def description(self) -> str | None:
        """Return the description that the collection was created with, "" without one; None without a collection."""

    @abstractmethod
    def create(self, record: dict[str, Any], description: str) -> None:
        """Create the collection of a record, or what is still missing of it, and open it.

        One that is there keeps the description that it has.
        """

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection, where it is."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Store `Rows`, in place of what is there under their ids, which ascend."""

    @abstractmethod
    def finish(self) -> None:
        """Make what was written fast to search, with an approximate index where the record says so."""

    @abstractmethod
    def count(self, where: Filter = ALL) -> int:
        """Count the photographs of a `Filter`, the latest counted in."""

    @abstractmethod
    def matches(self, pattern: str) -> bool:
        """Whether the engine itself can match such a path pattern, see `hashret.index.paths.path_matches`."""

    @abstractmethod
    def search(self, codes: Codes, k: int, where: Filter = ALL) -> Sequence[Nearest]:
        """Return for each query, packed (nq, w), the k nearest; fewer only where there are no more."""

    def search_with_paths(self, codes: Codes, k: int) -> Sequence[RowsFound]:
        """Return `search_and_fetch`, in one request where the engine can do that.

        Then it may leave out the farthest of the k where others are as far, down to none.
        """
        return self.search_and_fetch(codes, k)

    def search_and_fetch(self, codes: Codes, k: int) -> Sequence[RowsFound]:
        """Return for each query the k nearest with their paths; k are there. Raises EngineError if fewer are found."""
        nearest = self.search(codes, k)
        if (least := min(len(ids) for _, ids in nearest)) < k:
            raise self.wrong(f"it answered with {least} codes where {k} are nearest")
        distinct = np.unique([ids for _, ids in nearest])
        paths = dict(zip(distinct.tolist(), self.fetch(distinct, "paths").paths or (), strict=True))
        return [RowsFound(D, ids, [paths[id] for id in ids.tolist()]) for D, ids in nearest]

    @abstractmethod
    def within(self, code: NDArray[np.uint8], radius: int, where: Filter = ALL) -> Nearest:
        """Return all within a radius in bits of a packed code (w,)."""

    @abstractmethod
    def read(self, where: Filter, fields: Sequence[str]) -> Rows:
        """Return the `Rows` of a `Filter` with some columns of `STORED`, by id."""

    def fetch(self, ids: Positions, *fields: str) -> Rows:
        """Return the `Rows` of ids (n,) in their order, with some `STORED`. Raises EngineError if one is missing."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        blocks = [
            self.read(Filter(ids=tuple(distinct[start : start + _IDS_AT_ONCE].tolist())), fields)
            for start in range(0, max(1, len(distinct)), _IDS_AT_ONCE)
        ]
        rows = concatenated(blocks)
        if not np.array_equal(rows.ids, distinct):
            raise self.wrong(f"it gave {len(rows)} of {len(distinct)} photographs that it had named")
        return rows.take(inverse)

    def scan(self, where: Filter, *fields: str) -> Iterator[Rows]:
        """Yield the `Rows` of a `Filter` by id, a span of ids at a time."""
        for start in range(0, self.record["next_id"], _SPAN):
            yield self.read(replace(where, span=(start, start + _SPAN - 1)), fields)

    def persist(self, attempt: Callable[[], T]) -> T:
        """Call ``attempt``, and a few times more, after pauses, where it raises Unreachable; return what it returns."""
        for pause in _PAUSES:
            try:
                return attempt()
            except Unreachable:
                time.sleep(pause)
        return attempt()

    def wrong(self, what: str) -> EngineError:
        """Return the error of an answer that cannot be."""
        return EngineError(
            f"{self.address} is in disorder: {what}", hint="if it was changed, run hashret export --overwrite"
        )

    def replaced(self) -> EngineError:
        """Return the error of an export whose collection another export has dropped."""
        return EngineError(
            f"{self.address} was replaced by another export meanwhile", hint="let one end before the next begins"
        )


def concatenated(blocks: Sequence[Rows]) -> Rows:
    """Return several `Rows` as one."""

    def together(field: str) -> Any:
        columns = [getattr(block, field) for block in blocks]
        if columns[0] is None or len(columns) == 1:
            return columns[0]
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return [value for column in columns for value in column]

    return Rows(*(together(field) for field in ("ids", *STORED)))


def connect(address: EngineAddress, create: bool = False, **options: Any) -> Engine:
    """Return the `Engine` of an address; ``create``: make a database file where there is none.

    Raises:
        HashretError: its client is not installed, EngineError: it does not answer.
    """
    try:
        engine: Engine = import_module(address.kind.module).open_engine(address, create, **options)
        return engine
    except ModuleNotFoundError as error:
        extra = address.kind.extra
        advice = f": pip install 'hashret[{extra}]'" if extra else ""
        raise HashretError(f"{address} needs {error.name}{advice}") from None
