"""A database that an engine holds: the engine finds the nearest codes, the re-rank happens here."""

from __future__ import annotations

import contextlib
import weakref

import numpy as np

from ..errors import HashretError
from ..index import Database, Item, open_index, rerank
from ..index.paths import is_named, path_matches, readings
from .engine import ALL, Filter, connect, joined
from .exporting import FORMAT, described, digest
from .names import parse

_MOST_IDS = 10_000  # of photographs that a request names one by one


def open_collection(name, values=None):
    """Open what `hashret.export` made: -> `Collection`.

    Args:
        name: as `hashret.engines.names.parse` takes it.
        values: folder of the index that was exported, to take values for the re-rank from; None asks the engine.

    Raises:
        HashretError: no such collection, half written, changed behind hashret's back, or ``values`` is another index.
    """
    with contextlib.ExitStack() as unless_opened:
        engine = connect(parse(name))
        unless_opened.callback(engine.close)
        record = engine.read_record()
        _check(engine, record)
        beside = open_index(values, "cpu") if values else None
        if beside and digest(beside) != record["source"]:
            raise HashretError(f"{values} is not, or no longer, the index that {engine.place} was exported from")
        engine.open(record)
        unless_opened.pop_all()
        return Collection(engine, beside)


def _check(engine, record):
    """Raise HashretError unless the record is that of a whole collection, and the collection is there."""
    if record is None:
        raise HashretError(f"no collection of hashret's at {engine.place}; make one with hashret export")
    if record["format"] > FORMAT:
        raise HashretError(f"{engine.place} was written by a later hashret (format {record['format']}); upgrade")
    if not record["complete"]:
        raise HashretError(f"{engine.place} is not complete; run the same hashret export again to go on")
    if engine.description() != described(record):
        raise HashretError(f"{engine.place} was dropped or replaced; run hashret export again")


class Collection(Database):
    """An opened collection. A row is the photograph's id.

    Attributes:
        engine: the `hashret.engines.engine.Engine` that holds it.
        beside: the `hashret.index.Index` it was exported from, where the values for the re-rank are taken from it.
    """

    def __init__(self, engine, beside=None):
        self.engine, self.meta, self.beside = engine, engine.record, beside
        weakref.finalize(self, engine.close)

    def __len__(self):
        return self.meta["count"]

    @property
    def most(self):
        return self.engine.most

    @property
    def has_hash_outputs(self):
        return self.meta["values"] if self.beside is None else self.beside.has_hash_outputs

    def nearest(self, codes, k, among=None):
        self.check(codes)
        k = min(k, len(self if among is None else among))
        if self.engine.most and k > self.engine.most:
            raise HashretError(
                f"{self.engine.place} gives at most {self.engine.most:,} answers; lower -k and --candidates"
            )
        if not k or not len(codes):
            return np.zeros((len(codes), k), np.int32), np.zeros((len(codes), k), np.int64)
        _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        found = self.engine.search(codes[first], k, _where(among))
        least = min(len(ids) for _, ids in found)
        if least < k:
            raise self.engine.wrong(f"it answered with {least} photographs where {k} are nearest")
        D, rows = (np.stack(column) for column in zip(*found, strict=True))
        return D[inverse], rows[inverse]

    def within(self, codes, radius, among=None):
        self.check(codes)
        if radius < 0:
            raise HashretError(f"the radius is a number of bits, not {radius}")
        for query, code in enumerate(codes):
            yield query, *self.engine.within(code, radius, _where(among))

    def reranked(self, queries, positions, rerank_by="values"):
        rerank.check_rerank_by(rerank_by)
        if self.beside is not None:
            return self.beside.reranked(queries, self._rows_beside(positions), rerank_by)
        if rerank_by == "features":
            raise HashretError("an engine keeps no features; name the index that was exported with --values")
        if rerank_by != "asymmetric" and not self.has_hash_outputs:
            raise HashretError("this collection keeps no values; take --rerank-by asymmetric")
        distinct, places = np.unique(positions, return_inverse=True)
        field = "codes" if rerank_by == "asymmetric" else "values"
        compared = getattr(self.engine.fetch(distinct, field), field)
        return rerank.rerank(queries, compared, places.reshape(positions.shape), rerank_by)

    def _rows_beside(self, ids):
        return np.searchsorted(self.beside.ids, ids)  # the same index: all are there

    def select(self, label=None, path=None, ids=None):
        labels = None if label is None else tuple(self._class_numbers(label))
        ids = None if ids is None else tuple(np.unique(np.asarray(ids, np.int64)).tolist())
        names, patterns = (), None
        if path is not None:
            meant = [self._meant(text) for text in ([path] if isinstance(path, str) else path)]
            names, patterns = (tuple(filter(None, column)) for column in zip(*meant, strict=True))
        if patterns is None or all(map(self.engine.matches, patterns)):
            where = Filter(labels, patterns, ids, names=names)
            return Selection(where, self.engine.count(where))
        found = []
        for rows in self.engine.scan(Filter(labels, None, ids), "paths"):
            hits = [
                any(is_named(path, name) for name in names) or any(path_matches(path, pattern) for pattern in patterns)
                for path in rows.paths
            ]
            found += rows.ids[np.array(hits, bool)].tolist()
        if len(found) > _MOST_IDS:
            raise HashretError(
                f"{len(found):,} photographs match; {self.engine.place} takes so many only by patterns of * alone"
            )
        return Selection(Filter(ids=tuple(found)), len(found))

    def _meant(self, text):
        """What a path or a pattern means, as of `Index.matching`: -> its name and None, or None and the pattern."""
        names, pattern = readings(text)
        last = None if pattern else names.pop()  # whether it is there need not be asked
        name = next((name for name in names if self.engine.count(Filter(paths=(), names=(name,)))), last)
        return (None, pattern) if name is None else (name, None)

    def find(self, id):
        found = self.engine.read(Filter(ids=(id,)), ("labels", "paths", "codes"))
        if not len(found):
            raise HashretError(f"no photograph with id {id} in the index")
        return id, self._items(found)[0]

    def items(self, rows, codes=False):
        fields = ("labels", "paths", "codes") if codes else ("labels", "paths")
        return self._items(self.engine.fetch(np.asarray(rows, np.int64), *fields))

    def _items(self, found):
        codes = [None] * len(found) if found.codes is None else found.codes
        columns = found.ids.tolist(), found.paths, map(self._names, found.labels), codes
        return [Item.of(*columns) for columns in zip(*columns, strict=True)]

    def _names(self, numbers):
        return tuple(self.meta["classes"][number] for number in numbers)

    def hash_outputs_at(self, position):
        if self.beside is not None:
            return self.beside.hash_outputs_at(int(self._rows_beside(position)))
        return self.engine.fetch(np.array([position]), "values").values[0] if self.has_hash_outputs else None

    def sample(self, n, seed=0):
        n, next_id, rng = min(n, len(self)), self.meta["next_id"], np.random.default_rng(seed)
        drawn = rng.choice(next_id, min(8 * n, _MOST_IDS, next_id), replace=False)
        there = self.engine.read(Filter(ids=tuple(drawn.tolist())), ()).ids
        if len(there) < n:  # most of the ids were removed
            there = np.concatenate([rows.ids for rows in self.engine.scan(ALL)])
        return rng.permutation(there)[:n]

    def everything(self):
        rows = joined(list(self.engine.scan(ALL, "codes", "labels")))
        if len(rows) != len(self):
            raise self.engine.wrong(f"it gave {len(rows):,} of {len(self):,} photographs")
        return rows.ids, rows.codes, self._labels(rows.labels)

    def _labels(self, numbers):
        """Class numbers of n photographs as an index has them."""
        if self.meta["labels"] == "one":
            return np.array([labels[0] if labels else -1 for labels in numbers])
        if self.meta["labels"] is None:
            return None
        flags = np.zeros((len(numbers), len(self.meta["classes"])), np.uint8)
        for row, labels in zip(flags, numbers, strict=True):
            row[list(labels)] = 1
        return flags

    def calibrate(self, k=10, recall=0.99, sample=200, seed=0):
        if self.beside is None:
            raise HashretError("candidates are calibrated on the index that was exported; name it with --values")
        return self.beside.calibrate(k, recall, sample, seed)


class Selection:
    """Photographs of a collection to search among: a `hashret.engines.engine.Filter`, and how many they are."""

    def __init__(self, where, count):
        self.where, self.count = where, count

    def __len__(self):
        return self.count


def _where(among):
    return ALL if among is None else among.where
