"""`hashret export`: an index into an engine, a batch at a time.

Beside the collection the engine keeps a record: what `index.json` says, whether the collection is ``complete``, and
``source``, a digest of the files it came from. The record says complete last of all, once the engine has counted as
many photographs as the index has, so that what a killed export left is never taken for a whole collection. The same
export run again finds what is there by its counts, and goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from ..errors import HashretError
from ..index import open_index
from ..progress import Progress, takes_quiet
from .engine import Filter, Rows, connect
from .names import parse

FORMAT = 1
_BATCH = 5000
_KEPT = ("bits", "encoder", "precision", "image_size", "classes", "protocol", "count", "generation", "next_id")
_QUERIES, _NEAREST = 100, 100  # that the recall of an approximate index is measured on


@dataclass(frozen=True)
class Export:
    """What `export` did: the ``place``, ``count`` of photographs there, how many were ``written`` now, and the
    ``recall`` of the 100 nearest where the engine's index is approximate, else None.
    """

    place: str
    count: int
    written: int
    recall: float | None


@takes_quiet
def export(index, to, *, collection=None, approximate=False, overwrite=False):
    """Copy an index into an engine: -> `Export`. Run again after a kill, it goes on; on a whole copy, it does nothing.

    Args:
        index: folder of the index.
        to: ``milvus:URI`` or ``postgresql://…``, the collection's name behind a ``#``.
        collection: the name, where ``to`` has none.
        approximate: build the engine's approximate index, BIN_IVF_FLAT or HNSW, and measure its recall.
        overwrite: replace a collection that was exported from another index, or another state of this one.

    Raises:
        HashretError: no index, a name that is no engine's, or a collection that would be lost.
        EngineError: the engine is away, full or refuses; what it took stays, and the same export goes on.
    """
    local = open_index(index, "cpu")
    place = parse(to, collection)
    with contextlib.closing(connect(place, create=True)) as engine:
        wanted = _record(local, approximate)
        found, there = engine.read_record(), engine.description()
        _check(place, found, there, wanted, overwrite)
        same = found is not None and _same(found, wanted)
        if same and found["complete"] and there is not None:
            return Export(str(place), len(local), 0, found["recall"])
        if there is not None and not same:
            engine.save_record(found | {"complete": False})
            engine.drop()
        engine.save_record(wanted)
        engine.create(wanted, described(wanted))
        written = _write(engine, local, there is not None and same)
        engine.finish()
        if (count := engine.count()) != len(local):
            raise engine.wrong(f"it counts {count:,} photographs of {len(local):,}")
        wanted["recall"] = _recall(engine, local) if approximate else None
        engine.save_record(wanted | {"complete": True})
        return Export(str(place), count, written, wanted["recall"])


def digest(index):
    """What tells the photographs of one opened `Index` from those of any other: the sha256 of its files' sha256."""
    files = [part["files"] for part in index.meta["segments"]]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def described(record):
    """The description of a collection, by which hashret knows its own."""
    return f"hashret {record['source']}"


def _record(index, approximate):
    labels = index.labels
    return {"format": FORMAT, "complete": False, "source": digest(index)} | {
        **{name: index.meta[name] for name in _KEPT},
        "values": index.has_hash_outputs,
        "labels": None if labels is None else "one" if labels.ndim == 1 else "several",
        "approximate": approximate,
        "recall": None,
    }


def _same(found, wanted):
    return all(found.get(name) == wanted[name] for name in ("format", "source", "approximate"))


def _check(place, found, there, wanted, overwrite):
    """Raise HashretError where exporting would lose what the user did not give up."""
    if there is None:
        return
    if found is None or there != described(found):
        raise HashretError(f"{place} exists already and is no collection of hashret's; name another")
    if not overwrite and not _same(found, wanted):
        state = "" if found["complete"] else "part of "
        raise HashretError(f"{place} holds {state}another export; add --overwrite to replace it, or name another")


def _write(engine, index, resumed):
    """Write what the engine does not have: -> how many photographs."""
    written, progress = 0, Progress("export", len(index), "photographs")
    for rows in batches(index, _BATCH):
        if not resumed or engine.count(Filter(span=(int(rows.ids[0]), int(rows.ids[-1])))) != len(rows):
            engine.write(rows)
            written += len(rows)
        progress.add(len(rows))
    progress.close()
    return written


def batches(index, size):
    """The photographs of an opened `Index`, by id: yields `Rows` of up to ``size``."""
    for positions in index.blocks(size):
        outputs = index.hash_outputs[positions] if index.has_hash_outputs else None
        labels = [index.label_numbers(position) for position in positions.tolist()]
        paths = [index.path(position) for position in positions.tolist()]
        yield Rows(index.ids[positions], index.codes_at(positions), outputs, labels, paths)


def _recall(engine, index):
    """Share of the nearest codes that the engine's index finds, over photographs of the index; ties are alike."""
    codes = np.stack([index.code(row) for row in index.sample(_QUERIES)])
    D, _ = index.nearest(codes, _NEAREST)
    right = 0
    for wanted, (found, _) in zip(D, engine.search(codes, D.shape[1]), strict=True):
        counts = [np.bincount(distances, minlength=index.bits + 1) for distances in (wanted, found)]
        right += int(np.minimum(*counts).sum())
    return right / D.size
