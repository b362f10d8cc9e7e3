"""`hashret export`: an index into an engine, a batch at a time.

The photographs are one collection, the distinct codes another beside it, see `hashret.engines.codes`. The engine also
keeps a record: what `index.json` says, whether the collection is ``complete``, and ``source``, a digest of the files it
came from. The record says complete last of all, once the engine has counted as many photographs and codes as the index
has, so that what a killed export left is never taken for a whole collection. The same export run again finds what is
there by its counts, and goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import HashretError
from ..files import StrPath
from ..index import Index, open_index
from ..progress import Progress, takes_quiet
from ..renamed import old_attributes
from ..results import Result
from .codes import Chunks, CodeSearch, address_of, record_of
from .engine import Engine, Filter, Rows, connect
from .names import EngineAddress, parse
from .text import to_text

FORMAT = 2  # 1 had no codes beside the photographs
_BATCH = 5000
_OURS = "hashret "  # begins the description of a collection
_KEPT = (
    "bits", "encoder", "precision", "image_size", "rerank_by", "classes", "protocol", "count", "generation", "next_id",
)  # fmt: skip
_SPARSE = 10_000_000  # ids that may be missing between those of an index, since an engine is read in spans of ids
_QUERIES, _NEAREST = 100, 100  # that the recall of an approximate index is measured on


@old_attributes
@dataclass(frozen=True)
class Export(Result):
    """What `export` did.

    Attributes:
        address: of the collection, without a password.
        count: photographs in it.
        written: how many were written now.
        recall: of the 100 nearest where the engine's index is approximate, else None.
    """

    address: str
    count: int
    written: int
    recall: float | None


@takes_quiet
def export(
    index: StrPath, to: str, *, collection: str | None = None, approximate: bool = False, overwrite: bool = False
) -> Export:
    """Copy an index into an engine. Run again after a kill, it goes on; on a whole copy, it does nothing.

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
    if local.meta["next_id"] - local.meta["count"] > _SPARSE:
        raise HashretError(
            f"the ids of {index} go up to {local.meta['next_id'] - 1}, too far apart for an engine",
            hint="encode its vectors without ids",
        )
    address = parse(to, collection)
    codes_address = address_of(address)
    with (
        contextlib.closing(connect(address, create=True)) as engine,
        contextlib.closing(connect(codes_address, create=True)) as codes,
    ):
        record = _record(local, approximate)
        earlier, description = engine.read_record(), engine.description()
        _check(address, earlier, description, record, overwrite)
        codes_description = codes.description()
        if codes_description is not None and not codes_description.startswith(_OURS):
            raise HashretError(f"{codes_address} exists already and is no collection of hashret's; name another")
        same = earlier is not None and _same(earlier, record)
        whole = description is not None and description == codes_description
        if earlier is not None and same and earlier["complete"] and whole:
            return Export(str(address), len(local), 0, earlier["recall"])
        if earlier is not None and not (same and whole):
            engine.save_record(earlier | {"complete": False})
        resumed, codes_resumed = same and description is not None, same and codes_description == described(record)
        if not codes_resumed or not resumed:
            codes.drop()
        if not resumed:
            engine.drop()
        chunks = Chunks(local)
        binary = earlier.get("binary_codes", False) if earlier and codes_resumed and resumed else codes.takes_bytes
        record |= {"code_rows": len(chunks), "binary_codes": binary}
        engine.save_record(record)
        engine.create(record, described(record))
        codes.create(record_of(record), described(record))
        progress = Progress("export", len(local), "photographs")
        written = _write(engine, batches(local, _BATCH), resumed, progress)
        progress.close()
        _write(codes, chunks.batches(_BATCH, binary), codes_resumed and resumed)
        for one, there in ((engine, len(local)), (codes, len(chunks))):
            one.finish()
            if (count := one.count()) != there:
                raise one.wrong(f"it counts {count:,} rows of {there:,}")
        record["recall"] = _recall(codes, local) if approximate else None
        engine.save_record(record | {"complete": True})
        return Export(str(address), len(local), written, record["recall"])


def digest(index: Index) -> str:
    """Return what tells the photographs of an opened index from those of any other: the sha256 of its files' sha256."""
    files = [segment["files"] for segment in index.meta["segments"]]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def described(record: dict[str, Any]) -> str:
    """Return the description of a collection, by which hashret knows its own."""
    return f"{_OURS}{record['source']}"


def _record(index: Index, approximate: bool) -> dict[str, Any]:
    labels = index.labels
    return {"format": FORMAT, "complete": False, "source": digest(index)} | {
        **{name: index.meta[name] for name in _KEPT},
        "root": None if index.common_root is None else to_text(index.common_root),
        "values": index.has_hash_outputs,
        "labels": None if labels is None else "one" if labels.ndim == 1 else "several",
        "approximate": approximate,
        "recall": None,
    }


def _same(earlier: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether an earlier export is of the same state of an index, with the photographs in the same place."""
    same_root = earlier.get("root", record["root"]) == record["root"]  # which an earlier hashret did not keep
    return same_root and all(earlier.get(name) == record[name] for name in ("format", "source", "approximate"))


def _check(
    address: EngineAddress,
    earlier: dict[str, Any] | None,
    description: str | None,
    record: dict[str, Any],
    overwrite: bool,
) -> None:
    """Raise HashretError where exporting would lose what the user did not give up."""
    if description is None:
        return
    if earlier is None or description != described(earlier):
        raise HashretError(f"{address} exists already and is no collection of hashret's; name another")
    if not overwrite and not _same(earlier, record):
        state = "" if earlier["complete"] else "part of "
        what = "an export by an earlier hashret" if earlier["format"] < FORMAT else "another export"
        raise HashretError(f"{address} holds {state}{what}", hint="add --overwrite to replace it, or name another")


def _write(engine: Engine, blocks: Iterable[Rows], resumed: bool, progress: Progress | None = None) -> int:
    """Write what the engine does not have, and return how many rows that were."""
    written = 0
    for rows in blocks:
        if not resumed or engine.count(Filter(span=(int(rows.ids[0]), int(rows.ids[-1])))) != len(rows):
            engine.write(rows)
            written += len(rows)
        if progress:
            progress.add(len(rows))
    return written


def batches(index: Index, size: int) -> Iterator[Rows]:
    """Yield the photographs of an opened `Index`, by id, up to ``size`` at a time."""
    for positions in index.blocks(size):
        outputs = index.hash_outputs[positions] if index.has_hash_outputs else None
        labels = [index.label_numbers(position) for position in positions.tolist()]
        paths = [index.path(position) for position in positions.tolist()]
        yield Rows(index.ids[positions], index.codes_at(positions), outputs, labels, paths)


def _recall(codes_engine: Engine, index: Index) -> float:
    """Return the fraction of the nearest codes that the engine's index finds; of those at one distance, any do."""
    codes = index.codes_at(index.sample(_QUERIES))
    D, _ = index.nearest(codes, _NEAREST)
    right = 0
    search = CodeSearch(codes_engine, index.has_hash_outputs)
    for exact, (approximate, _) in zip(D, search.nearest(codes, D.shape[1]), strict=True):
        counts = [np.bincount(distances, minlength=index.bits + 1) for distances in (exact, approximate)]
        right += int(np.minimum(*counts).sum())
    return right / D.size
