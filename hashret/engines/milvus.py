"""Milvus: codes are a BINARY_VECTOR under Hamming distance, values a FLOAT_VECTOR.

A code is zero-padded to whole bytes, as it is packed. Class numbers stand in a text, " 3 17 ", which filters can look
into. hashret's records are a collection of their own, since Milvus Lite keeps no properties.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException

from ..addresses import EngineAddress, masked_line
from ..bits import Codes, Distances, Positions, code_width
from ..errors import HashretError
from .engine import (
    ALL,
    CONNECT_SECONDS,
    SECONDS,
    STORED,
    Engine,
    EngineError,
    Filter,
    Nearest,
    Rows,
    RowsFound,
    TooSlow,
    Unreachable,
)
from .text import from_text, literally, sql_pattern, to_text

_RECORDS = "hashret_collections"
_MOST = 16_384  # answers of one search or query
_ANSWERS_AT_ONCE = 2**19  # of all queries of one request
_MOST_TEXT = 65_535  # bytes
_NONE = "id < 0"
_PROBED = 16  # one in so many lists of the approximate index is looked into
_INDEX_SECONDS = 300  # to wait for an index to grow
_STARTS = 4  # of Milvus Lite, which may fail on a busy machine
_ERRORS = (MilvusException, grpc.RpcError)
_lock = Lock()  # of what opens and ends a Milvus Lite
_open_files: Counter[Path] = Counter()  # whose Milvus Lite ends with the last who has them open
_closed_files: deque[Path] = deque()  # which somebody had open, and `_open_files` counts still


def open_engine(address: EngineAddress, create: bool = False, seconds: float = SECONDS) -> Milvus:
    """Connect. The token, "user:password" or an API key, is that of ``HASHRET_MILVUS_TOKEN``."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # what it logs, we say in one line
    if "://" in address.uri:
        return Milvus(address, lambda: _call(address, min(seconds, CONNECT_SECONDS)), seconds)
    file = Path(address.uri)
    if file.suffix != ".db" or not file.absolute().parent.is_dir():
        raise HashretError(f"a Milvus database is http://host:19530, or a file.db in a folder that exists, not {file}")
    if not create and not file.exists():
        raise HashretError(f"no Milvus database at {file}; make one with hashret export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Milvus Lite imports
        import milvus_lite  # noqa: F401
    return Milvus(address, lambda: _open_file(file, seconds), seconds)


def _call(address: EngineAddress, seconds: float) -> Any:
    try:
        return MilvusClient(address.uri, token=os.environ.get("HASHRET_MILVUS_TOKEN", ""), timeout=seconds)
    except _ERRORS as error:
        raise _said(address, error, seconds) from None


def _open_file(file: Path, seconds: float) -> Any:
    for attempt in range(_STARTS):
        try:
            with _lock:
                client = MilvusClient(str(file), timeout=seconds)
                _open_files[file.resolve()] += 1
                return client
        except RuntimeError as error:  # a name that it does not take
            raise HashretError(f"Milvus Lite cannot open {file}: {error}") from None
        except _ERRORS as error:
            reason = _reason(error)[1]
            time.sleep(2**attempt / 4)
        finally:
            _end_unused()
    raise EngineError(f"Milvus Lite cannot open {file}: {reason}; does another process have it open?")


def _close_file(file: Path) -> None:
    """Close a file for one of those who have it open.

    Python may collect a collection, and so close its file, in the midst of `_open_file` in the same thread, which would
    wait for itself: what has the lock then ends Milvus Lite when it is done.
    """
    _closed_files.append(file)
    _end_unused()


def _end_unused() -> None:
    """End Milvus Lite for files that nobody has open any more, unless what has the lock will."""
    from milvus_lite.server_manager import server_manager_instance

    while _closed_files and _lock.acquire(blocking=False):
        try:
            while _closed_files:
                file = _closed_files.popleft()
                _open_files[file] -= 1
                if not _open_files[file]:
                    server_manager_instance.release_server(str(file))
        finally:
            _lock.release()


class Milvus(Engine):
    """A collection in Milvus 2.4 or later, or in Milvus Lite 2.5; ``connect`` makes its clients."""

    most = _MOST

    def __init__(self, address: EngineAddress, connect: Callable[[], Any], seconds: float = SECONDS) -> None:
        super().__init__(address, seconds)
        self.name, self.connect, self.client, self.changing = address.collection, connect, connect(), Lock()

    def close(self) -> None:
        self._forget(self.client)
        if "://" not in self.address.uri:
            _close_file(Path(self.address.uri).resolve())

    def open(self, record: dict[str, Any]) -> None:
        super().open(record)
        self._ask("load_collection", self.name)

    def read_record(self) -> dict[str, Any] | None:
        if not self._ask("has_collection", _RECORDS):
            return None
        self._ask("load_collection", _RECORDS)
        records = self._ask(
            "query", _RECORDS, filter=f"name == {_quoted(self.name)}", output_fields=["record"],
            consistency_level="Strong",
        )  # fmt: skip
        return json.loads(records[0]["record"]) if records else None

    def save_record(self, record: dict[str, Any]) -> None:
        text = json.dumps(record)
        if len(text) > _MOST_TEXT:
            raise HashretError(f"the names of {len(record['classes']):,} classes are more than Milvus keeps in a text")
        if not self._ask("has_collection", _RECORDS):
            schema = MilvusClient.create_schema(description="what hashret keeps about its collections")
            schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=100)
            schema.add_field("record", DataType.VARCHAR, max_length=_MOST_TEXT)
            schema.add_field("none", DataType.BINARY_VECTOR, dim=8)  # Milvus wants a vector
            index = MilvusClient.prepare_index_params("none", index_type="BIN_FLAT", metric_type="HAMMING")
            self._ask("create_collection", _RECORDS, schema=schema, index_params=index)
        self._ask("upsert", _RECORDS, [{"name": self.name, "record": text, "none": b"\0"}])

    def description(self) -> str | None:
        if not self._ask("has_collection", self.name):
            return None
        return str(self._ask("describe_collection", self.name).get("description", ""))

    def create(self, record: dict[str, Any], description: str) -> None:
        if record["approximate"] and "://" not in self.address.uri:
            raise HashretError("Milvus Lite searches exactly and no other way", hint="leave --approximate out")
        if not self._ask("has_collection", self.name):
            schema = MilvusClient.create_schema(description=description)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("code", DataType.BINARY_VECTOR, dim=8 * code_width(record["bits"]))
            if record["values"]:
                schema.add_field("values", DataType.FLOAT_VECTOR, dim=record["bits"])
            schema.add_field("labels", DataType.VARCHAR, max_length=_MOST_TEXT)
            schema.add_field("path", DataType.VARCHAR, max_length=_MOST_TEXT)
            self._ask("create_collection", self.name, schema=schema)
        index = MilvusClient.prepare_index_params()
        if record["approximate"]:
            index.add_index("code", "BIN_IVF_FLAT", metric_type="HAMMING", params={"nlist": _lists(record)})
        else:
            index.add_index("code", "BIN_FLAT", metric_type="HAMMING")
        if record["values"]:  # never searched, but Milvus loads no vectors without an index
            index.add_index("values", "FLAT", metric_type="L2")
        self._ask("create_index", self.name, index)
        self.open(record)

    def drop(self) -> None:
        self._ask("drop_collection", self.name)

    def write(self, rows: Rows) -> None:
        codes, labels, paths = rows.stored()
        columns: dict[str, list[Any]] = {"id": rows.ids.tolist(), "code": [code.tobytes() for code in codes]}
        if rows.hash_outputs is not None:
            columns["values"] = list(rows.hash_outputs)
        columns["labels"] = [_label_text(numbers) for numbers in labels]
        columns["path"] = [to_text(path) for path in paths]
        photographs = zip(*columns.values(), strict=True)
        self._ask("upsert", self.name, [dict(zip(columns, row, strict=True)) for row in photographs])

    def finish(self) -> None:
        self._ask("flush", self.name)
        if self.record["approximate"]:
            self._wait_for_index()
            self._ask("release_collection", self.name)  # else what was not indexed yet is still searched exactly
            self._ask("load_collection", self.name)

    def _wait_for_index(self) -> None:
        indexed, waited = 0, 0
        while indexed < self.record["count"]:
            time.sleep(1)
            now = int(self._ask("describe_index", self.name, "code").get("indexed_rows", 0))
            indexed, waited = now, 0 if now > indexed else waited + 1
            if waited > _INDEX_SECONDS:
                raise EngineError(
                    f"{self.address} has indexed nothing for {_INDEX_SECONDS} seconds; export again later"
                )

    def count(self, where: Filter = ALL) -> int:
        counted = self._ask(
            "query", self.name, filter=_expression(where, self.record), output_fields=["count(*)"],
            consistency_level="Strong",
        )  # fmt: skip
        return int(counted[0]["count(*)"])

    def matches(self, pattern: str) -> bool:
        return "?" not in pattern and "[" not in pattern  # its _ is a byte in Milvus Lite, and not a letter

    def search(self, codes: Codes, k: int, where: Filter = ALL) -> Sequence[Nearest]:
        if self.record["approximate"]:
            lists = _lists(self.record)
            answers = self._search(codes, k, where, nprobe=_probed(self.record))
            if min(len(ids) for _, ids in answers) < k:  # too few in the lists that were looked into
                answers = self._search(codes, k, where, nprobe=lists)
            return answers
        answers = self._search(codes, min(k + 1, _MOST), where)
        return [self._settled(code, k, where, *answer) for code, answer in zip(codes, answers, strict=True)]

    def search_with_paths(self, codes: Codes, k: int) -> Sequence[RowsFound]:
        probes = {"nprobe": _probed(self.record)} if self.record["approximate"] else {}
        found = []
        for hits in self._hits(codes, k, ALL, ["path"], **probes):
            D, ids = np.array(hits.distances, np.int32), np.array(hits.ids, np.int64)
            if len(ids) < k:  # in the lists that were looked into
                return self.search_and_fetch(codes, k)
            order = np.lexsort((ids, D))
            order = order[: len(D) if self.record["approximate"] else int((D.max() > D).sum())]  # see _settled
            paths = [from_text(hits[number]["entity"]["path"]) for number in order.tolist()]
            found.append(RowsFound(D[order], ids[order], paths))
        return found

    def _settled(self, code: NDArray[np.uint8], k: int, where: Filter, D: Distances, ids: Positions) -> Nearest:
        """Return the k nearest with the least ids among the farthest: Milvus leaves open which of these it takes.

        Where it found more at the farthest distance than belong to the k, the last of these bounds the ids that may
        still be missing; another search below that bound finds them, or lowers it.
        """
        if len(D) < k or (len(D) > k and D[k - 1] < D[k]):
            return D[:k], ids[:k]
        farthest, limit = D[k - 1], min(k + 1, _MOST)
        while True:
            bound = int(ids[k - 1])
            more = self._search(code[None], limit, replace(where, span=(0, bound - 1)))[0]
            ids, first = np.unique(np.concatenate([ids, more[1]]), return_index=True)
            D, ids = _sorted(np.concatenate([D, more[0]])[first], ids)
            if len(more[0]) < limit or more[0][-1] > farthest:
                return D[:k], ids[:k]

    def within(self, code: NDArray[np.uint8], radius: int, where: Filter = ALL) -> Nearest:
        probes = {"nprobe": _lists(self.record)} if self.record["approximate"] else {}
        D, ids = self._search(code[None], _MOST, where, radius=radius + 1, **probes)[0]  # Milvus: less than
        first, last = where.span or (0, self.record["next_id"] - 1)
        if len(ids) < _MOST or first == last:
            return D, ids
        middle = (first + last) // 2  # there may be more: ask for each half of the ids
        halves = [
            self.within(code, radius, replace(where, span=span)) for span in ((first, middle), (middle + 1, last))
        ]
        return _sorted(*(np.concatenate(column) for column in zip(*halves, strict=True)))

    def _search(self, codes: Codes, limit: int, where: Filter, **params: Any) -> list[Nearest]:
        """Return for each query up to ``limit`` D int32 and ids int64, by (distance, id)."""
        answers = self._hits(codes, limit, where, [], **params)
        return [_sorted(np.array(hits.distances, np.int32), np.array(hits.ids, np.int64)) for hits in answers]

    def _hits(self, codes: Codes, limit: int, where: Filter, fields: list[str], **params: Any) -> list[Any]:
        """Return for each query up to ``limit`` of the client's hits, with some fields."""
        step, answers = max(1, _ANSWERS_AT_ONCE // limit), []
        for start in range(0, len(codes), step):
            answers += self._ask(
                "search", self.name, [code.tobytes() for code in codes[start : start + step]], anns_field="code",
                limit=limit, filter=_expression(where, self.record), output_fields=fields,
                search_params={"metric_type": "HAMMING", "params": params},
            )  # fmt: skip
        return answers

    def read(self, where: Filter, fields: Sequence[str]) -> Rows:
        names, expression = ["id", *(STORED[field] for field in fields)], _expression(where, self.record)
        photographs = self._ask("query", self.name, filter=expression, output_fields=names, limit=_MOST)
        photographs = sorted(photographs, key=lambda photograph: photograph["id"])
        ids, *columns = ([photograph[name] for photograph in photographs] for name in names)
        return Rows(np.array(ids, np.int64), **dict(zip(fields, map(self._column, fields, columns), strict=True)))

    def _column(self, field: str, column: list[Any]) -> Any:
        """Return a column as `Rows` has it, of what the client gives."""
        if field == "codes":
            return np.frombuffer(b"".join(map(_bytes, column)), np.uint8).reshape(-1, code_width(self.record["bits"]))
        if field == "hash_outputs":
            return np.array(column, np.float32).reshape(-1, self.record["bits"])
        return [tuple(map(int, text.split())) if field == "labels" else from_text(text) for text in column]

    def _ask(self, request: str, *arguments: Any, **options: Any) -> Any:
        return self.persist(lambda: self._ask_once(request, arguments, options))

    def _ask_once(self, request: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        with self.changing:
            self.client = client = self.client or self.connect()
        try:
            return getattr(client, request)(*arguments, timeout=self.seconds, **options)
        except _ERRORS as error:
            said = _said(self.address, error, self.seconds)
            if isinstance(said, Unreachable) and "://" in self.address.uri:
                self._forget(client)  # it does not find back by itself
            raise said from None

    def _forget(self, client: Any) -> None:
        with self.changing:
            if client is not None and client is self.client:
                client.close()
                self.client = None


def _lists(record: dict[str, Any]) -> int:
    """Return the number of lists of the approximate index."""
    return max(1, min(65_536, int(4 * record["count"] ** 0.5)))


def _probed(record: dict[str, Any]) -> int:
    """Return how many of them a search looks into."""
    return max(1, _lists(record) // _PROBED)


def _expression(where: Filter, record: dict[str, Any]) -> str:
    """Return a `Filter` in Milvus's words, "" for all."""
    conditions = []
    if where.labels is not None:
        texts = [_label_text((number,)) for number in where.labels]
        several = record["labels"] == "several"
        conditions.append(_any([f'labels like "%{text}%"' if several else f'labels == "{text}"' for text in texts]))
    if where.paths is not None:
        matching = [one for pattern in where.paths for one in _matches(pattern)]
        conditions.append(_any(matching + [one for name in where.names for one in _named(name)]))
    if where.ids is not None:
        conditions.append(f"id in {list(where.ids)}" if where.ids else _NONE)
    if where.span is not None:
        conditions.append(f"(id >= {where.span[0]} and id <= {where.span[1]})")
    return " and ".join(conditions)


def _any(alternatives: Iterable[str]) -> str:
    return f"({' or '.join(alternatives) or _NONE})"


def _matches(pattern: str) -> Iterator[str]:
    """Yield expressions of which one is true where `hashret.index.paths.path_matches` is."""
    text = sql_pattern(pattern)
    if text == "%":
        yield "id >= 0"
        return
    yield f"path like {_quoted(text)}" if "*" in pattern else f"path == {_quoted(to_text(pattern))}"
    if not pattern.startswith("*"):
        yield f"path like {_quoted('%/' + text)}"


def _named(name: str) -> Iterator[str]:
    """Yield expressions of which one is true where `hashret.index.paths.is_named` is."""
    yield f"path == {_quoted(to_text(name))}"
    yield f"path like {_quoted('%/' + literally(name))}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _label_text(numbers: Sequence[int]) -> str:
    return f" {' '.join(map(str, numbers))} " if numbers else ""


def _bytes(code: Any) -> Any:
    return code[0] if isinstance(code, list) else code  # as the client's release has it


def _sorted(D: Distances, ids: Positions) -> Nearest:
    order = np.lexsort((ids, D))
    return D[order], ids[order]


def _reason(error: Any) -> tuple[Any, str]:
    """Return the status and one line of what the client raised, or of what that came from."""
    first = error if isinstance(error, grpc.RpcError) else error.__context__
    if isinstance(first, grpc.RpcError):
        code, text = first.code(), first.details()
    else:
        code, text = error.code, error.message
    return code, " ".join(str(text).split()) or type(error).__name__


def _said(address: EngineAddress, error: Any, seconds: float) -> HashretError:
    code, line = _reason(error)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooSlow(f"{address} did not answer within {seconds:g} seconds")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{address} cannot be reached; is it running?")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return HashretError(f"{address} wants another token than that of HASHRET_MILVUS_TOKEN: {line}")
    return EngineError(f"{address} refused: {masked_line(line)}")
