"""`hashret export`: an index into an engine, a batch at a time.

The photographs are one collection, the distinct codes another beside it, see `hashret.engines.codes`. The engine also
keeps a record: what `index.json` says, whether the collection is ``complete``, and ``source``, a digest of the files it
came from. The record says complete last of all, once the engine has counted as many photographs and codes as the index
has, so that what a killed export left is never taken for a whole collection. The same export run again finds what is
there by its counts, and goes on.

Either collection is created with a random token in its description, which the record has, too, as ``made`` and
``codes_made``. What is in a collection changes only once it was dropped and created anew, under another token. So who
searches asks for the description after each answer: where that is still the one it opened, the answer is of the whole
collection it opened. And an export asks before each batch and before it says complete, so that of two exports at once
the one whose collections were dropped stops, and no collection that counts as whole holds photographs of both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..addresses import EngineAddress, parse
from ..errors import HashretError
from ..files import StrPath
from ..index import Index, open_index
from ..progress import Progress, takes_quiet
from ..renamed import old_attributes
from ..results import Result
from .codes import Chunks, CodeSearch, address_of, record_of
from .engine import Engine, Filter, Rows, connect
from .text import to_text

FORMAT = 3  # 1 had no codes beside the photographs, and 2 no tokens in the descriptions
_OLDEST_GONE_ON_WITH = 2
_BATCH = 5000
_OURS = "hashret "  # begins the description of a collection,
_CODES = f"{_OURS}codes of "  # and that of one of codes
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
        earlier, description, codes_description = engine.read_record(), engine.description(), codes.description()
        _check(address, earlier, description, record, overwrite)
        _check_codes(codes_address, codes.read_record(), codes_description)
        same = earlier is not None and _same(earlier, record)
        resumed = earlier is not None and same and description == described(earlier)
        codes_resumed = earlier is not None and resumed and codes_description == described(record_of(earlier))
        if earlier is not None and codes_resumed and earlier["complete"]:
            return Export(str(address), len(local), 0, earlier["recall"])
        if not codes_resumed:
            if earlier is not None:
                engine.save_record(earlier | {"complete": False})
            codes.drop()
        if not resumed:
            engine.drop()
        binary = earlier.get("binary_codes", False) if earlier and codes_resumed else codes.takes_bytes
        chunks = Chunks(local)
        record |= {"code_rows": len(chunks), "binary_codes": binary}
        record |= {"made": secrets.token_hex(8), "codes_made": secrets.token_hex(8)}
        if earlier is not None:  # what stays keeps its description
            record["made"] = earlier.get("made") if resumed else record["made"]
            record["codes_made"] = earlier.get("codes_made") if codes_resumed else record["codes_made"]
        engine.save_record(record)
        for one, own in ((engine, record), (codes, record_of(record))):
            one.create(own, described(own))
        progress = Progress("export", len(local), "photographs")
        written = _write(engine, batches(local, _BATCH), resumed, progress)
        progress.close()
        _write(codes, chunks.batches(_BATCH, binary), codes_resumed)
        for one, there in ((engine, len(local)), (codes, len(chunks))):
            one.finish()
            if (count := one.count()) != there:
                raise one.wrong(f"it counts {count:,} rows of {there:,}")
        record["recall"] = _recall(codes, local) if approximate and len(local) else None
        for one in (engine, codes):
            _check_is_own(one)
        engine.save_record(record | {"complete": True})
        return Export(str(address), len(local), written, record["recall"])


def digest(index: Index) -> str:
    """Return what tells the photographs of an opened index from those of any other: the sha256 of its files' sha256."""
    files = [segment["files"] for segment in index.meta["segments"]]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def described(record: dict[str, Any]) -> str:
    """Return the description of the collection of a record, or of its codes, by which hashret knows its own."""
    if record.get("made") is None:  # as an earlier hashret described both
        return f"{_OURS}{record['source']}"
    return f"{_CODES if record.get('packed') else _OURS}{record['source']} {record['made']}"


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
    same = same_root and all(earlier.get(name) == record[name] for name in ("source", "approximate"))
    return same and _OLDEST_GONE_ON_WITH <= earlier["format"] <= FORMAT


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
    if earlier is None or not description.startswith(_OURS) or description.startswith(_CODES):
        raise HashretError(f"{address} exists already and is no collection of hashret's; name another")
    own = description == described(earlier)  # else two exports came between one another
    if not overwrite and not (own and _same(earlier, record)):
        state = "" if own and earlier["complete"] else "part of "
        what = "an export by an earlier hashret" if earlier["format"] < _OLDEST_GONE_ON_WITH else "another export"
        raise HashretError(f"{address} holds {state}{what}", hint="add --overwrite to replace it, or name another")


def _check_codes(address: EngineAddress, record: dict[str, Any] | None, description: str | None) -> None:
    """Raise HashretError where the name that codes are to have is that of something else.

    Args:
        address: that the codes are to have.
        record: that is kept under their name, as of a collection that was exported to it.
        description: of what has their name.
    """
    if description is None:
        return
    if not description.startswith(_OURS):
        raise HashretError(f"{address} exists already and is no collection of hashret's; name another")
    if record is not None and description == described(record):
        raise HashretError(f"{address} is an export itself, and its name is that of the codes; name another")


def _check_is_own(engine: Engine) -> None:
    """Raise EngineError where another export has replaced the collection that this one created."""
    if engine.description() != described(engine.record):
        raise engine.replaced()


def _write(engine: Engine, blocks: Iterable[Rows], resumed: bool, progress: Progress | None = None) -> int:
    """Write what the engine does not have, and return how many rows that were."""
    written = 0
    for rows in blocks:
        _check_is_own(engine)
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
