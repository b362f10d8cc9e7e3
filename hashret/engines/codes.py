"""The distinct codes of a collection, in a collection of their own beside it: what an unfiltered search looks into.

Trained codes repeat: among 50,000 photographs there may be a few thousand codes, and an engine that holds one row a
photograph compares and sorts copies, of which its approximate index is full, too. Here a row is a code with up to some
hundred photographs of it, chunks of the code by ascending id. It is stored as any photograph is: its id is the least id
of its photographs, and its path holds their ids and hash outputs, so that one request gives the re-rank what it
compares: as bytes where the engine takes them, else as base64.
"""

from __future__ import annotations

import math
import statistics
import threading
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..addresses import EngineAddress
from ..bits import Codes, Distances, Positions, code_width, pad, padded_width
from ..errors import HashretError
from ..index import Index
from ..index.distinct import Grouping
from .engine import Engine, Nearest, Rows, RowsFound

SUFFIX = "__codes"  # of the collection's name
_MOST_NAME = 63 - len(SUFFIX)
_BYTES = 48_000  # of a row, at most, which are 64,000 letters; Milvus keeps 65,535
_MOST_PHOTOGRAPHS = 128  # of a row: a search reads up to one row more than it needs
_LEAST_ROWS = 6  # asked for
_GROUPED_AT_ONCE = 2**20  # photographs whose codes are read together
_REMEMBERED = 33  # queries, whose number of rows is that of the next


def address_of(address: EngineAddress) -> EngineAddress:
    """Return the address of the codes of a collection. Raises HashretError where its name is too long for that."""
    if len(address.collection) > _MOST_NAME:
        raise HashretError(
            f"{address.collection} is longer than the {_MOST_NAME} letters that an export's name may have"
        )
    return replace(address, collection=address.collection + SUFFIX)


def record_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the codes of a collection, which follows from that of the collection."""
    return record | {
        "values": False, "labels": None, "classes": [], "count": record["code_rows"], "packed": True,
        "binary": record.get("binary_codes", False), "made": record.get("codes_made"),
    }  # fmt: skip


def photographs_a_row(bits: int, has_hash_outputs: bool) -> int:
    """Return how many photographs of a code stand in one row."""
    return max(1, min(_MOST_PHOTOGRAPHS, _BYTES // _bytes_of(bits, has_hash_outputs)))


def _bytes_of(bits: int, has_hash_outputs: bool) -> int:
    """Return how many bytes of a row a photograph takes."""
    return 8 + 4 * bits * has_hash_outputs


class Chunks:
    """The photographs of an opened index by code, in chunks that are a row each, the rows by their least id.

    Attributes:
        order: int64 (n,), positions of the photographs, chunk by chunk.
        starts: int64 (rows + 1,), where in ``order`` each chunk begins, and the end.
    """

    def __init__(self, index: Index) -> None:
        self.index, most = index, photographs_a_row(index.bits, index.has_hash_outputs)
        grouping, blocks = Grouping(True), [np.empty(0, np.int64)]
        for block in index.blocks(_GROUPED_AT_ONCE):
            grouping.add(pad(index.codes_at(block), padded_width(index.bits)))
            blocks.append(block)
        runs, order = np.zeros(1, np.int64), np.empty(0, np.int32)
        if grouping.count:
            runs, order = grouping.table().lists()  # ids ascend within a code
        positions, n = np.concatenate(blocks), len(order)
        place = np.arange(n) - np.repeat(runs[:-1], np.diff(runs))
        starts = np.flatnonzero(place % most == 0)
        counts = np.diff(np.append(starts, n))
        by_id = np.argsort(order[starts])
        first, counts = starts[by_id], counts[by_id]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.order = positions[order[np.repeat(first - self.starts[:-1], counts) + np.arange(n)]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batches(self, size: int, binary: bool) -> Iterator[Rows]:
        """Yield the rows by id, of about ``size`` photographs at a time, whose paths are bytes or base64."""
        index, last = self.index, 0
        while last < len(self):
            first = last
            last = max(first + 1, int(np.searchsorted(self.starts, self.starts[first] + size, "right")) - 1)
            starts = self.starts[first : last + 1]
            positions = self.order[starts[0] : starts[-1]]
            starts = starts - starts[0]
            codes, ids = index.codes_at(positions[starts[:-1]]), index.ids[positions].astype("<i8")
            outputs = np.asarray(index.hash_outputs[positions], "<f4") if index.has_hash_outputs else None
            contents: list[Any] = []
            for code, start, end in zip(codes, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                parts = [code.tobytes() + ids[start:end].tobytes()]
                if outputs is not None:
                    parts.append(outputs[start:end].tobytes())
                contents.append(b"".join(parts) if binary else " ".join(b64encode(part).decode() for part in parts))
            yield Rows(ids[starts[:-1]].astype(np.int64), codes, None, [()] * len(codes), contents)


class Row(NamedTuple):
    """A row as it is found: a packed ``code`` (w,), the ``ids`` of n photographs, and their hash outputs, as bytes or
    base64.
    """

    code: NDArray[np.uint8]
    ids: Positions
    outputs: bytes | str


class CodeSearch:
    """The codes of a collection, searched for photographs.

    Args:
        engine: of the codes, opened or created.
        has_hash_outputs: whether the rows have those of their photographs.
    """

    def __init__(self, engine: Engine, has_hash_outputs: bool) -> None:
        self.engine, self.bits, self.has_hash_outputs = engine, int(engine.record["bits"]), has_hash_outputs
        self._rows_a_photograph = deque([1 / photographs_a_row(self.bits, has_hash_outputs)], _REMEMBERED)
        self._latest = threading.local()

    def nearest(self, codes: Codes, k: int) -> list[Nearest]:
        """Return for each query, packed (nq, w), the k nearest photographs by (distance, id); k are there.

        Rows are asked for until k photographs are nearer than all that may be in other rows, at the most k rows.
        """
        answers: dict[int, Nearest] = {}
        seen: dict[int, Row] = {}
        used: set[int] = set()
        left, total = np.arange(len(codes)), int(self.engine.record["count"])
        rows = max(_LEAST_ROWS, math.ceil(k * statistics.median(self._rows_a_photograph)))
        while len(left):
            every = rows >= min(k, total)
            search = self.engine.search_and_fetch if every else self.engine.search_with_paths
            found = search(codes[left], min(k, total, rows))
            for query, one in zip(left.tolist(), found, strict=True):
                own = one.ids.tolist()
                for id, content in zip(own, one.paths, strict=True):
                    if id not in seen:
                        seen[id] = self._unpacked(id, content)
                D, ids, numbers = _photographs(one, [seen[id].ids for id in own], every)
                if len(D) >= k:
                    answers[query] = D[:k], ids[:k]
                    used.update(own[number] for number in np.unique(numbers[:k]).tolist())
                    tied = len(own) < rows  # what is as far as the farthest was left out, so all that tie are needed
                    needed = int((one.distances <= D[k - 1]).sum() if tied else numbers[:k].max() + 1)
                    self._rows_a_photograph.append((needed + 1) / k)
                elif every:
                    raise self.engine.wrong(f"it answered with {len(D)} photographs where {k} are nearest")
            left = np.array([query for query in left.tolist() if query not in answers], np.int64)
            rows *= 4
        self._latest.rows = [seen[id] for id in used]
        return [answers[query] for query in range(len(codes))]

    def brought(self, ids: Positions, field: str) -> tuple[Any, Positions] | None:
        """Return the "codes" or "hash_outputs" of the photographs in the rows of this thread's latest answers.

        Returns:
            These, (n, ...), and where in them each of the ``ids`` is, in their shape; None where one is not there.
        """
        rows: list[Row] = getattr(self._latest, "rows", [])
        if not rows:
            return None
        known = np.concatenate([row.ids for row in rows])
        order = np.argsort(known)
        numbers = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
        if not np.array_equal(known[numbers], ids):
            return None
        if field == "codes":
            return np.repeat([row.code for row in rows], [len(row.ids) for row in rows], axis=0), numbers
        outputs = b"".join(b64decode(one) if isinstance(one, str) else one for one in (row.outputs for row in rows))
        return np.frombuffer(outputs, "<f4").reshape(-1, self.bits), numbers

    def _unpacked(self, id: int, content: str | bytes) -> Row:
        width, outputs = code_width(self.bits), content[:0]
        try:
            if isinstance(content, bytes):
                count = (len(content) - width) // _bytes_of(self.bits, self.has_hash_outputs)
                packed, outputs = content[: width + 8 * count], content[width + 8 * count :]
                length = self.has_hash_outputs * 4 * self.bits * count
            else:
                first, _, outputs = content.partition(" ")
                packed = b64decode(first)
                length = self.has_hash_outputs * 4 * math.ceil(4 * self.bits * (len(packed) - width) / 8 / 3)
            ids = np.frombuffer(packed, "<i8", offset=width).astype(np.int64, copy=False)
        except ValueError:
            ids, length = np.empty(0, np.int64), 0
        if not len(ids) or ids[0] != id or len(outputs) != length:
            raise self.engine.wrong(f"the photographs of its code {id} cannot be read")
        return Row(np.frombuffer(packed, np.uint8, width), ids, outputs)


def _photographs(rows: RowsFound, ids: list[Positions], every: bool) -> tuple[Distances, Positions, NDArray[np.int64]]:
    """Return distances and ids of the photographs of the nearest rows, by (distance, id), and each one's row's number.

    Args:
        rows: by (distance, id).
        ids: of the photographs of each row.
        every: whether there are no other rows that matter; else those photographs are left out that one of a row that
            was not found might come before.
    """
    if not len(rows.ids):
        return np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)
    counts = [len(one) for one in ids]
    numbers, together = np.repeat(np.arange(len(ids)), counts), np.concatenate(ids)
    D = rows.distances[numbers]
    order = np.lexsort((together, D))
    if not every:
        farthest = rows.distances[-1]
        order = order[: np.count_nonzero((farthest > D) | ((farthest == D) & (together <= rows.ids[-1])))]
    return D[order], together[order], numbers[order]
