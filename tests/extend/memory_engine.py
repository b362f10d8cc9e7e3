"""An engine in this process's memory: what it takes to add a kind of engine from outside hashret."""

from fnmatch import fnmatchcase

import numpy as np

from hashret.bits import hamming
from hashret.engines import EngineKind, register
from hashret.engines.engine import ALL, Engine, Rows
from hashret.index.paths import is_named

KIND = register(EngineKind("memory", ("memory:",), __name__, None, ("memory:here",), prefixed=True))
RECORDS, DESCRIPTIONS, PHOTOGRAPHS = {}, {}, {}  # by the name of the collection


def open_engine(address, create=False):
    """What hashret calls to connect."""
    return Memory(address)


class Memory(Engine):
    """A collection in a dict: id -> (code, hash outputs, labels, path)."""

    @property
    def name(self):
        return self.address.collection

    def close(self):
        pass

    def read_record(self):
        return RECORDS.get(self.name)

    def save_record(self, record):
        RECORDS[self.name] = dict(record)

    def description(self):
        return DESCRIPTIONS.get(self.name)

    def create(self, record, description):
        DESCRIPTIONS.setdefault(self.name, description)
        PHOTOGRAPHS.setdefault(self.name, {})
        self.open(record)

    def drop(self):
        DESCRIPTIONS.pop(self.name, None)
        PHOTOGRAPHS.pop(self.name, None)

    def write(self, rows):
        codes, labels, paths = rows.stored()
        outputs = [None] * len(rows) if rows.hash_outputs is None else rows.hash_outputs
        for id, *photograph in zip(rows.ids.tolist(), codes, outputs, labels, paths, strict=True):
            PHOTOGRAPHS[self.name][id] = photograph

    def finish(self):
        pass

    def matches(self, pattern):
        return "[" not in pattern and "?" not in pattern

    def _ids(self, where):
        def fits(id, code, outputs, labels, path):
            globs = [glob for pattern in where.paths or () for glob in (pattern, f"*/{pattern}")]
            return (
                (where.labels is None or set(where.labels) & set(labels))
                and (where.ids is None or id in where.ids)
                and (where.span is None or where.span[0] <= id <= where.span[1])
                and (
                    where.paths is None
                    or any(fnmatchcase(path, glob) for glob in globs)
                    or any(is_named(path, name) for name in where.names)
                )
            )

        photographs = sorted(PHOTOGRAPHS[self.name].items())
        return np.array([id for id, photograph in photographs if fits(id, *photograph)], np.int64)

    def count(self, where=ALL):
        return len(self._ids(where))

    def search(self, codes, k, where=ALL):
        return [tuple(column[:k] for column in self.within(code, 10**9, where)) for code in codes]

    def within(self, code, radius, where=ALL):
        ids = self._ids(where)
        D = hamming(code[None], self.read(where, ["codes"]).codes)[0] if len(ids) else np.empty(0, np.int32)
        order = np.lexsort((ids, D))
        order = order[D[order] <= radius]
        return D[order], ids[order]

    def read(self, where, fields):
        ids = self._ids(where)
        columns = dict(
            zip(("codes", "hash_outputs", "labels", "paths"), zip(*self._photographs(ids), strict=True), strict=True)
            if len(ids)
            else {}
        )
        arrays = {"codes": np.array, "hash_outputs": np.array}
        return Rows(ids, **{field: arrays.get(field, list)(columns.get(field, ())) for field in fields})

    def _photographs(self, ids):
        return [PHOTOGRAPHS[self.name][id] for id in ids.tolist()]
