"""PostgreSQL with pgvector: codes are bit(n) under `<~>`, the Hamming distance, values a vector(n).

Labels are an array of class names and paths are text, for those who ask the table in SQL. hashret's records are a table
of their own. What is written goes by COPY, a transaction a batch.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Bit
from pgvector.psycopg.bit import register_bit_info
from pgvector.psycopg.vector import register_vector_info
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types import TypeInfo
from psycopg.types.json import Jsonb

from ..addresses import EngineAddress, masked_line
from ..bits import Codes, code_width, unpack
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

T = TypeVar("T")
Connection = psycopg.Connection[Any]
_RECORDS = "hashret_collections"
_TYPES = ("int8", "bit", "vector", "text[]")  # of the id, the code, the values and the labels
_LOST = ("08", "57P", "53300")  # SQLSTATEs of connections that break, or find no address
_QUERIES_AT_ONCE = 100
_MOST_FREE = 4  # connections that are kept for the next requests
_WATCH_SECONDS = 0.2  # between two looks at what is late
_LEAST_SEARCHED, _MOST_SEARCHED = 200, 1000  # of pgvector's hnsw.ef_search


def open_engine(address: EngineAddress, create: bool = False, seconds: float = SECONDS) -> Postgres:
    """Connect. The password may come from ``PGPASSWORD`` or ~/.pgpass."""
    _check_address(address)
    engine = Postgres(address, seconds)
    engine.run(lambda connection: None)
    return engine


def _check_address(address: EngineAddress) -> None:
    """Raise HashretError where libpq would take a part of a password for the host or the port, and name it."""
    try:
        parts = conninfo_to_dict(address.uri)
    except psycopg.ProgrammingError:
        return  # connecting says what is wrong
    hosts, ports = (str(parts.get(name) or "").split(",") for name in ("host", "port"))
    right_hosts = all("@" not in host[1:] for host in hosts)  # the name of a socket may begin with @
    if not right_hosts or not all(port.isdecimal() for port in ports if port):
        raise HashretError(
            f"{address} is no address that PostgreSQL takes", hint="write / in a password as %2F and @ as %40"
        )


class Postgres(Engine):
    """A table in a PostgreSQL database that has pgvector 0.8 or later."""

    takes_bytes = True

    def __init__(self, address: EngineAddress, seconds: float = SECONDS) -> None:
        super().__init__(address, seconds)
        self.table = sql.Identifier(address.collection)
        self.free: deque[Connection] = deque()
        self.created_as: str | None = None  # the description, where this engine created the table

    def close(self) -> None:
        while self.free:
            self.free.pop().close()

    def read_record(self) -> dict[str, Any] | None:
        def read(connection: Connection) -> Any:
            if _single(connection.execute("SELECT to_regclass(%s)", [_RECORDS])) is None:
                return None
            query = f"SELECT record FROM {_RECORDS} WHERE name = %s"
            return connection.execute(query, [self.address.collection]).fetchone()

        row = self.run(read)
        return row and _with_classes(row[0], from_text)

    def save_record(self, record: dict[str, Any]) -> None:
        def save(connection: Connection) -> None:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_RECORDS} (name text PRIMARY KEY, record jsonb NOT NULL)")
            query = f"INSERT INTO {_RECORDS} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET record = excluded.record"
            connection.execute(query, [self.address.collection, Jsonb(_with_classes(record, to_text))])

        self.run(save)

    def description(self) -> str | None:
        return self.run(self._described)

    def _described(self, connection: Connection) -> str | None:
        query = "SELECT coalesce(obj_description(oid), '') FROM pg_class WHERE oid = to_regclass(%s)"
        description: str | None = _single(connection.execute(query, [self.table.as_string()]))
        return description

    def create(self, record: dict[str, Any], description: str) -> None:
        query = sql.SQL(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, code bit({bits}) NOT NULL, "
            "values vector({bits}), labels text[] NOT NULL, path {path} NOT NULL)"
        )
        comment = sql.SQL("COMMENT ON TABLE {table} IS {description}")
        aside = sql.SQL("ALTER TABLE {table} ALTER path SET STORAGE EXTERNAL")
        names = {"table": self.table, "bits": sql.Literal(record["bits"]), "description": sql.Literal(description)}
        names["path"] = sql.SQL("bytea" if record.get("binary") else "text")

        def create(connection: Connection) -> None:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported) as error:
                raise HashretError(f"{self.address} has no pgvector, nor lets it be added: {_line(error)}") from None
            with connection.transaction():
                if self._described(connection) is not None:
                    return
                connection.execute(query.format(**names))
                connection.execute(comment.format(**names))
                if record.get("packed"):  # long values, which no compression would make shorter
                    connection.execute(aside.format(**names))

        self.run(create)
        self.created_as = description
        self.open(record)

    def drop(self) -> None:
        query = sql.SQL("DROP TABLE IF EXISTS {}").format(self.table)
        self.run(lambda connection: connection.execute(query))

    def write(self, rows: Rows) -> None:
        remove = sql.SQL("DELETE FROM {} WHERE id BETWEEN %s AND %s").format(self.table)
        columns = sql.SQL(", ").join(map(sql.Identifier, ("id", *STORED.values())))
        add = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(self.table, columns)

        def write(connection: Connection) -> None:
            with connection.transaction():
                connection.execute(remove, [int(rows.ids[0]), int(rows.ids[-1])])
                if self.created_as not in (None, self._described(connection)):  # from here on nobody can drop it
                    raise self.replaced()
                with _packing_cursor(connection).copy(add) as copy:
                    copy.set_types([*_TYPES, "bytea" if self.record.get("binary") else "text"])
                    for row in self._columns_of(rows):
                        copy.write_row(row)

        self.run(write)

    def _columns_of(self, rows: Rows) -> Iterator[tuple[Any, ...]]:
        """Return `Rows` as the table has them."""
        names, length = [to_text(name) for name in self.record["classes"]], self.record["bits"].to_bytes(4, "big")
        codes, labels, paths = rows.stored()
        bits = (Bit.from_binary(length + code.tobytes()) for code in codes)  # packed as PostgreSQL has them
        values = [None] * len(rows) if rows.hash_outputs is None else rows.hash_outputs
        classes = ([names[number] for number in numbers] for numbers in labels)
        kept = paths if self.record.get("binary") else map(to_text, paths)
        return zip(rows.ids.tolist(), bits, values, classes, kept, strict=True)

    def finish(self) -> None:
        index = sql.Identifier(f"{self.address.collection[-55:]}_hamming")
        query = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (code bit_hamming_ops)")

        def finish(connection: Connection) -> None:
            with connection.transaction():
                connection.execute("SET LOCAL statement_timeout = 0")
                if self.record["approximate"]:
                    connection.execute(query.format(index, self.table))
                connection.execute(sql.SQL("ANALYZE {}").format(self.table))

        self.run(finish, hurried=False)

    def count(self, where: Filter = ALL) -> int:
        condition, values = self._condition(where)
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self.table, condition)
        return int(self.run(lambda connection: _single(connection.execute(query, values))))

    def matches(self, pattern: str) -> bool:
        return "[" not in pattern

    def search(self, codes: Codes, k: int, where: Filter = ALL) -> Sequence[Nearest]:
        return [nearest for nearest, _ in self._search(codes, k, where)]

    def search_with_paths(self, codes: Codes, k: int) -> Sequence[RowsFound]:
        found = [RowsFound(*nearest, paths) for nearest, paths in self._search(codes, k, ALL, with_paths=True)]
        return found if min(len(one.ids) for one in found) == k else self.search_and_fetch(codes, k)

    def _search(
        self, codes: Codes, k: int, where: Filter, *, with_paths: bool = False
    ) -> Sequence[tuple[Nearest, list[Any]]]:
        """Return for each query the k nearest, and their paths if these are asked for, else none."""
        answers, approximate = [], self.record["approximate"]
        for start in range(0, len(codes), _QUERIES_AT_ONCE):
            block = codes[start : start + _QUERIES_AT_ONCE]
            nearest = self._search_block(block, k, where, with_paths, approximate)
            if approximate and min(len(ids) for (_, ids), _ in nearest) < k:
                # The index gave up before it had found so many.
                nearest = self._search_block(block, k, where, with_paths, False)
            answers += nearest
        return answers

    def _search_block(
        self, codes: Codes, k: int, where: Filter, with_paths: bool, approximate: bool
    ) -> list[tuple[Nearest, list[Any]]]:
        condition, values = self._condition(where)
        more = sql.SQL(", path" if with_paths else "")
        query = sql.SQL(
            "SELECT query, id, distance::bigint{more} FROM unnest(%s::text[]::{bit}[]) WITH ORDINALITY AS queries "
            "(wanted, query), LATERAL (SELECT id, code <~> wanted AS distance{more} FROM {table} WHERE {condition} "
            "ORDER BY code <~> wanted, id LIMIT %s) AS found ORDER BY query, found.distance, id"
        ).format(bit=self._bit, table=self.table, condition=condition, more=more)
        values = [self._bit_texts(codes), *values, k]

        def search(connection: Connection) -> list[Any]:
            if not self.record["approximate"]:
                return connection.execute(query, values, binary=True).fetchall()
            with connection.transaction():
                if approximate:
                    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                    connection.execute(f"SET LOCAL hnsw.ef_search = {max(_LEAST_SEARCHED, min(_MOST_SEARCHED, 2 * k))}")
                else:
                    connection.execute("SET LOCAL enable_indexscan = off")
                return connection.execute(query, values, binary=True).fetchall()

        rows = self.run(search)
        hits = np.array([row[:3] for row in rows], np.int64).reshape(-1, 3)
        paths = self._column("paths", [row[3] for row in rows]) if with_paths else []
        ends = np.searchsorted(hits[:, 0], np.arange(len(codes) + 1), "right").tolist()
        return [
            ((hits[start:end, 2].astype(np.int32), hits[start:end, 1]), paths[start:end])
            for start, end in itertools.pairwise(ends)
        ]

    def within(self, code: NDArray[np.uint8], radius: int, where: Filter = ALL) -> Nearest:
        condition, values = self._condition(where)
        query = sql.SQL(
            "SELECT id, (code <~> wanted)::bigint AS distance FROM {table}, (SELECT %s::{bit} AS wanted) AS query "
            "WHERE code <~> wanted <= %s AND {condition} ORDER BY distance, id"
        ).format(bit=self._bit, table=self.table, condition=condition)
        values = [*self._bit_texts(code[None]), radius, *values]
        answer = self.run(lambda connection: connection.execute(query, values, binary=True).fetchall())
        pairs = np.array(answer, np.int64).reshape(-1, 2)
        return pairs[:, 1].astype(np.int32), pairs[:, 0]

    def read(self, where: Filter, fields: Sequence[str]) -> Rows:
        condition, values = self._condition(where)
        names = sql.SQL(", ").join(map(sql.Identifier, ("id", *(STORED[field] for field in fields))))
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY id").format(names, self.table, condition)
        photographs = self.run(lambda connection: connection.execute(query, values, binary=True).fetchall())
        ids, *columns = zip(*photographs, strict=True) if photographs else [()] * (1 + len(fields))
        return Rows(np.array(ids, np.int64), **dict(zip(fields, map(self._column, fields, columns), strict=True)))

    def _column(self, field: str, column: Sequence[Any]) -> Any:
        """Return a column as `Rows` has it, of PostgreSQL's binary format."""
        bits = self.record["bits"]
        if field == "codes":
            return np.frombuffer(b"".join(column), np.uint8).reshape(-1, 4 + code_width(bits))[:, 4:]
        if field == "hash_outputs":
            return np.frombuffer(b"".join(column), ">f4").reshape(-1, 1 + bits)[:, 1:].astype(np.float32)
        if field == "paths":
            return list(column) if self.record.get("binary") else [from_text(text) for text in column]
        numbers = {to_text(name): number for number, name in enumerate(self.record["classes"])}
        return [tuple(numbers[name] for name in names) for names in column]

    def _condition(self, where: Filter) -> tuple[sql.Composable, list[Any]]:
        """Return a `Filter` in SQL, and its values."""
        conditions: list[sql.Composable] = [sql.SQL("true")]
        values: list[Any] = []
        if where.labels is not None:
            conditions.append(sql.SQL("labels && %s::text[]"))
            values.append([to_text(self.record["classes"][number]) for number in where.labels])
        if where.paths is not None:
            conditions.append(sql.SQL("path LIKE ANY (%s::text[])"))
            texts = [*map(sql_pattern, where.paths), *map(literally, where.names)]
            values.append([*texts, *(f"%/{text}" for text in texts)])
        if where.ids is not None:
            conditions.append(sql.SQL("id = ANY (%s::bigint[])"))
            values.append(list(where.ids))
        if where.span is not None:
            conditions.append(sql.SQL("id BETWEEN %s AND %s"))
            values += where.span
        return sql.SQL(" AND ").join(conditions), values

    @property
    def _bit(self) -> sql.Composable:
        return sql.SQL("bit({})").format(sql.Literal(self.record["bits"]))

    def _bit_texts(self, codes: Codes) -> list[str]:
        digits = unpack(codes, self.record["bits"]) + np.uint8(ord("0"))
        return [row.tobytes().decode() for row in digits]

    def run(self, work: Callable[[Connection], T], hurried: bool = True) -> T:
        """Do ``work(connection)``, again where the connection breaks, and return its result. Raises EngineError.

        ``hurried``: within the engine's seconds.
        """
        return self.persist(lambda: self._run_once(work, self.seconds if hurried else None))

    def _run_once(self, work: Callable[[Connection], T], seconds: float | None) -> T:
        try:
            with self._connection() as connection, _deadlines.within(connection, seconds):
                return work(connection)
        except psycopg.errors.QueryCanceled:
            raise TooSlow(f"{self.address} did not answer within {self.seconds:g} seconds") from None
        except psycopg.Error as error:
            state, reason = error.sqlstate or "", _line(error)
            if state.startswith(_LOST) or (isinstance(error, psycopg.OperationalError) and not state):
                self.close()  # those that wait will be broken, too
                raise Unreachable(f"{self.address} cannot be reached: {reason}") from None
            raise EngineError(f"{self.address} refused: {reason}") from None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Yield a connection that nobody else has meanwhile; a whole one is kept for the next, where few are."""
        try:
            connection = self.free.pop()
        except IndexError:
            connection = psycopg.connect(self.address.uri, connect_timeout=CONNECT_SECONDS, autocommit=True)
            connection.execute(f"SET statement_timeout = {int(1000 * self.seconds)}")
        try:
            yield connection
        finally:
            if connection.closed or len(self.free) >= _MOST_FREE:
                connection.close()
            else:
                self.free.append(connection)


class _Deadlines:
    """Breaks connections whose requests take too long: the server's own limit needs a server that answers.

    One thread watches over all, and ends where there is nothing to watch: a timer's thread for each request takes as
    long to start as a short request.
    """

    def __init__(self) -> None:
        self.due: dict[Connection, float] = {}
        self.changing, self.thread = threading.Lock(), threading.Thread()

    @contextlib.contextmanager
    def within(self, connection: Connection, seconds: float | None) -> Iterator[None]:
        """Break the connection, and raise QueryCanceled, where the block takes longer."""
        if seconds is None:
            yield
            return
        with self.changing:
            self.due[connection] = time.monotonic() + seconds + 1
            if not self.thread.is_alive():
                self.thread = threading.Thread(target=self._watch, daemon=True)
                self.thread.start()
        try:
            yield
        except psycopg.OperationalError:
            if connection not in self.due:
                raise psycopg.errors.QueryCanceled from None
            raise
        finally:
            with self.changing:
                self.due.pop(connection, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            with self.changing:
                if not self.due:
                    self.thread = threading.Thread()  # this one ends
                    return
                for connection in [one for one, due in self.due.items() if due < time.monotonic()]:
                    del self.due[connection]
                    broken = socket.socket(fileno=connection.pgconn.socket)
                    with contextlib.suppress(OSError):
                        broken.shutdown(socket.SHUT_RDWR)
                    broken.detach()


_deadlines = _Deadlines()


def _packing_cursor(connection: Connection) -> Any:
    """Return a cursor that packs pgvector's types; others read them as bytes, a whole column of which numpy reads."""
    cursor: Any = connection.cursor()
    register_bit_info(cursor, TypeInfo.fetch(connection, "bit"))
    register_vector_info(cursor, TypeInfo.fetch(connection, "vector"))
    return cursor


def _with_classes(record: dict[str, Any], convert: Callable[[str], str]) -> dict[str, Any]:
    """Return a record with its classes' names converted: jsonb takes no lone surrogates, as bytes beyond UTF-8 are."""
    return record | {"classes": [convert(name) for name in record.get("classes", [])]}


def _single(cursor: psycopg.Cursor[Any]) -> Any:
    """Return the first value of the first row."""
    row = cursor.fetchone()
    return row and row[0]


def _line(error: Exception) -> str:
    """Return what an error says as one line, without what it quotes of an address, which may be a password."""
    line = masked_line(" ".join(str(error).split()))
    line = re.sub(r'(percent-encoded token: |unexpected spaces found in )".*"', r'\1"…"', line)
    return line or type(error).__name__
