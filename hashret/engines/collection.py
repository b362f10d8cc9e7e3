"""A database that an engine holds: the engine finds the nearest codes, the re-rank happens here."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..addresses import parse
from ..bits import Codes, Distances, Labels, Positions
from ..errors import HashretError
from ..files import StrPath
from ..index import Database, Index, Item, open_index, rerank
from ..index.calibration import Calibration
from ..index.database import ids_array
from ..index.paths import below_root, is_named, path_matches, path_patterns, readings
from ..records import check_format
from ..vectors import Vectors
from .codes import CodeSearch, address_of, record_of
from .engine import ALL, Engine, EngineError, Filter, Nearest, Rows, TooSlow, Unreachable, concatenated, connect
from .exporting import FORMAT, described, digest
from .text import from_text

_MOST_IDS = 10_000  # of photographs that a request names one by one


def open_collection(name: str, values: StrPath | None = None) -> Collection:
    """Open what `hashret.export` made.

    Args:
        name: as `hashret.addresses.parse` takes it.
        values: folder of the index that was exported, to take hash outputs for the re-rank from; None asks the engine.

    Raises:
        HashretError: no such collection, half written, changed behind hashret's back, or ``values`` is another index.
    """
    with contextlib.ExitStack() as unless_opened:
        engine = connect(parse(name))
        unless_opened.callback(engine.close)
        record = _checked(engine, engine.read_record())
        beside = open_index(values, "cpu") if values else None
        if beside and digest(beside) != record["source"]:
            raise HashretError(f"{values} is not, or no longer, the index that {engine.address} was exported from")
        engine.open(record)
        search = None
        if record["format"] > 1:
            codes = connect(address_of(engine.address))
            unless_opened.callback(codes.close)
            _check_is_there(codes, record_of(record))
            codes.open(record_of(record))
            search = CodeSearch(codes, bool(record["values"]))
        unless_opened.pop_all()
        return Collection(engine, beside, search)


def _checked(engine: Engine, record: dict[str, Any] | None) -> dict[str, Any]:
    """Return a record, or raise HashretError unless it is that of a whole collection, and the collection exists."""
    if record is None:
        raise HashretError(f"no collection of hashret's at {engine.address}", hint="make one with hashret export")
    check_format(record["format"], FORMAT, engine.address)
    if not record["complete"]:
        raise HashretError(f"{engine.address} is not complete", hint="run the same hashret export again to go on")
    _check_is_there(engine, record)
    return record


def _check_is_there(engine: Engine, record: dict[str, Any]) -> None:
    if engine.description() != described(record):
        raise HashretError(f"{engine.address} was dropped or replaced", hint="run hashret export again")


class Collection(Database):
    """An opened collection. A position is the photograph's id.

    An answer counts only where, after it, the collection is still the one that was opened; else it is an `EngineError`.

    Args:
        engine: that holds it, opened.
        beside: the `hashret.index.Index` it was exported from, to take the hash outputs for the re-rank from.
        codes: its distinct codes; None of a collection that an earlier hashret wrote, whose photographs are searched.
    """

    def __init__(self, engine: Engine, beside: Index | None = None, codes: CodeSearch | None = None) -> None:
        self.engine, self.meta, self.beside, self.codes = engine, engine.record, beside, codes
        weakref.finalize(self, engine.close)
        if codes is not None:
            weakref.finalize(self, codes.engine.close)

    def __len__(self) -> int:
        return int(self.meta["count"])

    @contextlib.contextmanager
    def _unchanged(self, asked: Engine | None = None) -> Iterator[None]:
        """Raise EngineError where what the block asked, None for the photographs, is no longer what was opened.

        An export drops and creates a collection before it writes other rows, so that one which is still the same after
        the answer was whole all the while.
        """
        engine = self.engine if asked is None else asked
        try:
            yield
        except (Unreachable, TooSlow):  # which another request would only wait for again
            raise
        except EngineError:
            self._check_is_opened(engine)  # what is in disorder may just be replaced
            raise
        self._check_is_opened(engine)

    def _check_is_opened(self, engine: Engine) -> None:
        if engine.description() != described(engine.record):
            raise EngineError(
                f"{self.engine.address} is being replaced, or was, by another export since it was opened",
                hint="open it again once that export has ended",
            )

    @property
    def most(self) -> int | None:
        return self.engine.most

    @property
    def has_hash_outputs(self) -> bool:
        return bool(self.meta["values"]) if self.beside is None else self.beside.has_hash_outputs

    @property
    def has_fc_features(self) -> bool:
        return self.beside is not None and self.beside.has_fc_features

    def nearest(self, codes: Codes, k: int, among: Any = None) -> tuple[Distances, Positions]:
        self.check(codes)
        k = min(k, len(self if among is None else among))
        if self.engine.most and k > self.engine.most:
            raise HashretError(
                f"this engine gives at most {self.engine.most:,} answers", hint="lower -k and --candidates"
            )  # without the address, since visitors of a service are told this
        if not k or not len(codes):
            return np.zeros((len(codes), k), np.int32), np.zeros((len(codes), k), np.int64)
        _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        by_codes = self.codes if among is None else None
        with self._unchanged(None if by_codes is None else by_codes.engine):
            if by_codes is not None:
                answers: Sequence[Nearest] = by_codes.nearest(codes[first], k)
            else:
                answers = self.engine.search(codes[first], k, _where(among))
            least = min(len(ids) for _, ids in answers)
            if least < k:
                raise self.engine.wrong(f"it answered with {least} photographs where {k} are nearest")
        return np.stack([D for D, _ in answers])[inverse], np.stack([ids for _, ids in answers])[inverse]

    def within(self, codes: Codes, radius: int, among: Any = None) -> Iterator[tuple[int, Distances, Positions]]:
        self.check(codes)
        if radius < 0:
            raise HashretError(f"the radius is a number of bits, not {radius}")
        radius = min(radius, self.bits)
        for query, code in enumerate(codes):
            with self._unchanged():
                nearest = self.engine.within(code, radius, _where(among))
            yield query, *nearest

    def reranked(
        self, queries: Vectors, positions: Positions, rerank_by: str = "values"
    ) -> tuple[NDArray[np.float32], Positions]:
        rerank.check_rerank_by(rerank_by)
        if self.beside is not None:
            return self.beside.reranked(queries, np.searchsorted(self.beside.ids, positions), rerank_by)
        if rerank_by in rerank.OF_FEATURES:
            raise HashretError("an engine keeps no features", hint="name the index that was exported with --values")
        if rerank_by != "asymmetric" and not self.has_hash_outputs:
            raise HashretError("this collection keeps no values", hint="take --rerank-by asymmetric")
        field = "codes" if rerank_by == "asymmetric" else "hash_outputs"
        brought = None if self.codes is None else self.codes.brought(positions, field)
        if brought is not None:
            return rerank.rerank(queries, *brought, rerank_by)
        distinct, numbers = np.unique(positions, return_inverse=True)
        with self._unchanged():
            compared = getattr(self.engine.fetch(distinct, field), field)
        return rerank.rerank(queries, compared, numbers.reshape(positions.shape), rerank_by)

    def select(
        self,
        label: str | Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        ids: Iterable[int] | None = None,
    ) -> Selection:
        labels = None if label is None else tuple(self._class_numbers(label))
        named = None if ids is None else tuple(ids_array(ids).tolist())
        if path is None:
            return self._selection(Filter(labels, None, named))
        meant = [self._meant(text) for text in path_patterns(path)]
        names = tuple(name for name, _ in meant if name)
        root = self.meta.get("root") and from_text(self.meta["root"])  # which an earlier hashret did not keep
        patterns = tuple(one for _, pattern in meant if pattern for one in below_root(pattern, root))
        if all(map(self.engine.matches, patterns)):
            return self._selection(Filter(labels, patterns, named, names=names))
        matching: list[int] = []
        with self._unchanged():
            for rows in self.engine.scan(Filter(labels, None, named), "paths"):
                for id, one in zip(rows.ids.tolist(), rows.paths or (), strict=True):
                    if any(is_named(one, name) for name in names) or any(path_matches(one, glob) for glob in patterns):
                        matching.append(id)
        if len(matching) > _MOST_IDS:
            raise HashretError(
                f"{len(matching):,} photographs match; {self.engine.address} takes so many only by patterns of * alone"
            )
        return Selection(Filter(ids=tuple(matching)), len(matching))

    def _selection(self, where: Filter) -> Selection:
        with self._unchanged():
            return Selection(where, self.engine.count(where))

    def _meant(self, text: str) -> tuple[str | None, str | None]:
        """Return what a path or a pattern means, as of `Index.matching`: its name and None, or None and the pattern."""
        names, pattern = readings(text)
        last = None if pattern else names.pop()  # whether it is there need not be asked
        name = next((name for name in names if self.engine.count(Filter(paths=(), names=(name,)))), last)
        return (None, pattern) if name is None else (name, None)

    def find(self, id: int) -> tuple[int, Item]:
        with self._unchanged():
            rows = self.engine.read(Filter(ids=tuple(ids_array([id]).tolist())), ("labels", "paths", "codes"))
        if not len(rows):
            raise HashretError(f"no photograph with id {id} in the index")
        return id, self._items(rows)[0]

    def items(self, positions: Sequence[int], codes: bool = False) -> list[Item]:
        fields = ("labels", "paths", "codes") if codes else ("labels", "paths")
        with self._unchanged():
            return self._items(self.engine.fetch(np.asarray(positions, np.int64), *fields))

    def _items(self, rows: Rows) -> list[Item]:
        codes = [None] * len(rows) if rows.codes is None else rows.codes
        columns = zip(rows.ids.tolist(), rows.paths or (), rows.labels or (), codes, strict=True)
        names = self.meta["classes"]
        return [Item.of(id, path, tuple(names[n] for n in numbers), code) for id, path, numbers, code in columns]

    def hash_outputs_at(self, position: int) -> NDArray[np.float32] | None:
        if self.beside is not None:
            return self.beside.hash_outputs_at(int(np.searchsorted(self.beside.ids, position)))
        if not self.has_hash_outputs:
            return None
        with self._unchanged():
            outputs = self.engine.fetch(np.array([position]), "hash_outputs").hash_outputs
        return None if outputs is None else outputs[0]

    def fc_features_at(self, position: int) -> Vectors | None:
        if self.beside is None:
            return None
        return self.beside.fc_features_at(int(np.searchsorted(self.beside.ids, position)))

    def sample(self, n: int, seed: int = 0) -> Positions:
        n, next_id, rng = min(n, len(self)), self.meta["next_id"], np.random.default_rng(seed)
        drawn = rng.choice(next_id, min(8 * n, _MOST_IDS, next_id), replace=False)
        with self._unchanged():
            ids = self.engine.read(Filter(ids=tuple(drawn.tolist())), ()).ids
            if len(ids) < n:  # most of the ids were removed
                ids = np.concatenate([rows.ids for rows in self.engine.scan(ALL)])
        return rng.permutation(ids)[:n]

    def everything(self) -> tuple[Positions, Codes, Labels | None]:
        with self._unchanged():
            rows = concatenated(list(self.engine.scan(ALL, "codes", "labels")))
            if len(rows) != len(self):
                raise self.engine.wrong(f"it gave {len(rows):,} of {len(self):,} photographs")
        assert rows.codes is not None
        return rows.ids, rows.codes, self._labels(rows.labels or [])

    def _labels(self, numbers: Sequence[tuple[int, ...]]) -> Labels | None:
        """Return the class numbers of n photographs as an index has them."""
        if self.meta["labels"] == "one":
            return np.array([labels[0] if labels else -1 for labels in numbers])
        if self.meta["labels"] is None:
            return None
        flags = np.zeros((len(numbers), len(self.meta["classes"])), np.uint8)
        for row, labels in zip(flags, numbers, strict=True):
            row[list(labels)] = 1
        return flags

    def calibrate(
        self, k: int = 10, recall: float = 0.99, sample: int = 200, seed: int = 0, rerank_by: str = "values"
    ) -> Calibration:
        if self.beside is None:
            raise HashretError("candidates are calibrated on the index that was exported", hint="name it with --values")
        return self.beside.calibrate(k, recall, sample, seed, self.rerank_choice(rerank_by))


@dataclass(frozen=True)
class Selection:
    """Photographs of a collection to search among: a `hashret.engines.engine.Filter`, and how many they are."""

    where: Filter
    count: int

    def __len__(self) -> int:
        return self.count


def _where(among: Selection | None) -> Filter:
    return ALL if among is None else among.where
