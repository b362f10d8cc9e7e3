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
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Lock

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from ..bits import code_width
from ..errors import HashretError
from .engine import ALL, CONNECT_SECONDS, FIELDS, SECONDS, Engine, EngineError, Rows, Unreachable, persist
from .text import from_text, like, literally, to_text

_RECORDS = "hashret_collections"
_COLUMNS = dict(zip(FIELDS, ("code", "values", "labels", "path"), strict=True))
_MOST = 16_384  # answers of one search or query
_ANSWERS_AT_ONCE = 2**19  # of all queries of one request
_MOST_TEXT = 65_535  # bytes
_NONE = "id < 0"
_PROBED = 16  # one in so many lists of the approximate index is looked into
_INDEX_SECONDS = 300  # to wait for an index to grow
_STARTS = 4  # of Milvus Lite, which may fail on a busy machine
_ERRORS = (MilvusException, grpc.RpcError)
_lock, _open_files = Lock(), Counter()  # whose Milvus Lite ends with the last who has them open


def open_engine(place, create=False, seconds=SECONDS):
    """Connect: -> `Milvus`. The token, "user:password" or an API key, is that of ``HASHRET_MILVUS_TOKEN``."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # what it logs, we say in one line
    if "://" in place.uri:
        return Milvus(place, lambda: _call(place, min(seconds, CONNECT_SECONDS)), seconds)
    file = Path(place.uri)
    if file.suffix != ".db" or not file.absolute().parent.is_dir():
        raise HashretError(f"a Milvus database is http://host:19530, or a file.db in a folder that exists, not {file}")
    if not create and not file.exists():
        raise HashretError(f"no Milvus database at {file}; make one with hashret export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Milvus Lite imports
        import milvus_lite  # noqa: F401
    return Milvus(place, lambda: _open_file(file, seconds), seconds)


def _call(place, seconds):
    try:
        return MilvusClient(place.uri, token=os.environ.get("HASHRET_MILVUS_TOKEN", ""), timeout=seconds)
    except _ERRORS as error:
        raise _said(place, error, seconds) from None


def _open_file(file, seconds):
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
    raise EngineError(f"Milvus Lite cannot open {file}: {reason}; does another process have it open?")


def _close_file(file):
    from milvus_lite.server_manager import server_manager_instance

    with _lock:
        _open_files[file] -= 1
        if not _open_files[file]:
            server_manager_instance.release_server(str(file))


class Milvus(Engine):
    """A collection in Milvus 2.4 or later, or in Milvus Lite 2.5; ``connect`` makes its clients."""

    most = _MOST

    def __init__(self, place, connect, seconds=SECONDS):
        super().__init__(place, seconds)
        self.name, self.connect, self.client, self.changing = place.collection, connect, connect(), Lock()

    def close(self):
        self._forget(self.client)
        if "://" not in self.place.uri:
            _close_file(Path(self.place.uri).resolve())

    def open(self, record):
        super().open(record)
        self._ask("load_collection", self.name)

    def read_record(self):
        if not self._ask("has_collection", _RECORDS):
            return None
        self._ask("load_collection", _RECORDS)
        found = self._ask(
            "query", _RECORDS, filter=f"name == {_quoted(self.name)}", output_fields=["record"],
            consistency_level="Strong",
        )  # fmt: skip
        return json.loads(found[0]["record"]) if found else None

    def save_record(self, record):
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

    def description(self):
        if not self._ask("has_collection", self.name):
            return None
        return self._ask("describe_collection", self.name).get("description", "")

    def create(self, record, description):
        if record["approximate"] and "://" not in self.place.uri:
            raise HashretError("Milvus Lite searches exactly and no other way; leave --approximate out")
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

    def drop(self):
        self._ask("drop_collection", self.name)

    def write(self, rows):
        columns = {"id": rows.ids.tolist(), "code": [code.tobytes() for code in rows.codes]}
        if rows.values is not None:
            columns["values"] = list(rows.values)
        columns["labels"] = [_label_text(numbers) for numbers in rows.labels]
        columns["path"] = [to_text(path) for path in rows.paths]
        photographs = zip(*columns.values(), strict=True)
        self._ask("upsert", self.name, [dict(zip(columns, row, strict=True)) for row in photographs])

    def finish(self):
        self._ask("flush", self.name)
        if self.record["approximate"]:
            self._wait_for_index()
            self._ask("release_collection", self.name)  # else what was not indexed yet is still searched exactly
            self._ask("load_collection", self.name)

    def _wait_for_index(self):
        indexed, waited = 0, 0
        while indexed < self.record["count"]:
            time.sleep(1)
            now = int(self._ask("describe_index", self.name, "code").get("indexed_rows", 0))
            indexed, waited = now, 0 if now > indexed else waited + 1
            if waited > _INDEX_SECONDS:
                raise EngineError(f"{self.place} has indexed nothing for {_INDEX_SECONDS} seconds; export again later")

    def count(self, where=ALL):
        found = self._ask(
            "query", self.name, filter=_expression(where, self.record), output_fields=["count(*)"],
            consistency_level="Strong",
        )  # fmt: skip
        return int(found[0]["count(*)"])

    def matches(self, pattern):
        return "?" not in pattern and "[" not in pattern  # its _ is a byte in Milvus Lite, and not a letter

    def search(self, codes, k, where=ALL):
        if self.record["approximate"]:
            lists = _lists(self.record)
            found = self._search(codes, k, where, nprobe=max(1, lists // _PROBED))
            if min(len(ids) for _, ids in found) < k:  # too few in the lists that were looked into
                found = self._search(codes, k, where, nprobe=lists)
            return found
        found = self._search(codes, min(k + 1, _MOST), where)
        return [self._settled(code, k, where, *answer) for code, answer in zip(codes, found, strict=True)]

    def _settled(self, code, k, where, D, ids):
        """The k nearest with the least ids among the farthest: Milvus leaves open which it takes of those as far.

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

    def within(self, code, radius, where=ALL):
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

    def _search(self, codes, limit, where, **params):
        """For each query up to ``limit`` D int32 and ids int64, by (distance, id)."""
        step, found = max(1, _ANSWERS_AT_ONCE // limit), []
        for start in range(0, len(codes), step):
            found += self._ask(
                "search", self.name, [code.tobytes() for code in codes[start : start + step]], anns_field="code",
                limit=limit, filter=_expression(where, self.record),
                search_params={"metric_type": "HAMMING", "params": params},
            )  # fmt: skip
        return [_sorted(np.array(hits.distances, np.int32), np.array(hits.ids, np.int64)) for hits in found]

    def read(self, where, fields):
        columns = ["id", *(_COLUMNS[field] for field in fields)]
        where = _expression(where, self.record)
        found = self._ask("query", self.name, filter=where, output_fields=columns, limit=_MOST)
        found = sorted(found, key=lambda photograph: photograph["id"])
        ids, *columns = ([photograph[column] for photograph in found] for column in columns)
        return Rows(np.array(ids, np.int64), **dict(zip(fields, map(self._column, fields, columns), strict=True)))

    def _column(self, field, column):
        """A column as `Rows` has it, of what the client gives."""
        if field == "codes":
            return np.frombuffer(b"".join(map(_bytes, column)), np.uint8).reshape(-1, code_width(self.record["bits"]))
        if field == "values":
            return np.array(column, np.float32).reshape(-1, self.record["bits"])
        return [tuple(map(int, text.split())) if field == "labels" else from_text(text) for text in column]

    def _ask(self, request, *arguments, **options):
        return persist(lambda: self._ask_once(request, arguments, options))

    def _ask_once(self, request, arguments, options):
        with self.changing:
            self.client = client = self.client or self.connect()
        try:
            return getattr(client, request)(*arguments, timeout=self.seconds, **options)
        except _ERRORS as error:
            said = _said(self.place, error, self.seconds)
            if isinstance(said, Unreachable) and "://" in self.place.uri:
                self._forget(client)  # it does not find back by itself
            raise said from None

    def _forget(self, client):
        with self.changing:
            if client is not None and client is self.client:
                client.close()
                self.client = None


def _lists(record):
    """Lists of the approximate index."""
    return max(1, min(65_536, int(4 * record["count"] ** 0.5)))


def _expression(where, record):
    """A `Filter` in Milvus's words, "" for all."""
    parts = []
    if where.labels is not None:
        texts = [_label_text((number,)) for number in where.labels]
        several = record["labels"] == "several"
        parts.append(_any([f'labels like "%{text}%"' if several else f'labels == "{text}"' for text in texts]))
    if where.paths is not None:
        named = [part for name in where.names for part in _named(name)]
        parts.append(_any([part for pattern in where.paths for part in _matches(pattern)] + named))
    if where.ids is not None:
        parts.append(f"id in {list(where.ids)}" if where.ids else _NONE)
    if where.span is not None:
        parts.append(f"(id >= {where.span[0]} and id <= {where.span[1]})")
    return " and ".join(parts)


def _any(parts):
    return f"({' or '.join(parts) or _NONE})"


def _matches(pattern):
    """Expressions of which one is true where `hashret.index.paths.path_matches` is."""
    text = like(pattern)
    if text == "%":
        yield "id >= 0"
        return
    yield f"path like {_quoted(text)}" if "*" in pattern else f"path == {_quoted(to_text(pattern))}"
    if not pattern.startswith("*"):
        yield f"path like {_quoted('%/' + text)}"


def _named(name):
    """Expressions of which one is true where `hashret.index.paths.is_named` is."""
    yield f"path == {_quoted(to_text(name))}"
    yield f"path like {_quoted('%/' + literally(name))}"


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _label_text(numbers):
    return f" {' '.join(map(str, numbers))} " if numbers else ""


def _bytes(code):
    return code[0] if isinstance(code, list) else code  # as the client's release has it


def _sorted(D, ids):
    order = np.lexsort((ids, D))
    return D[order], ids[order]


def _reason(error):
    """Status and one line of what the client raised, or of what that came from."""
    first = error if isinstance(error, grpc.RpcError) else error.__context__
    if isinstance(first, grpc.RpcError):
        code, text = first.code(), first.details()
    else:
        code, text = error.code, error.message
    return code, " ".join(str(text).split()) or type(error).__name__


def _said(place, error, seconds):
    code, line = _reason(error)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return EngineError(f"{place} did not answer within {seconds:g} seconds")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{place} cannot be reached; is it running?")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return HashretError(f"{place} wants another token than that of HASHRET_MILVUS_TOKEN: {line}")
    return EngineError(f"{place} refused: {line}")
