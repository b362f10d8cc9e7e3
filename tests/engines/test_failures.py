"""An engine that is away, slow, full or in disorder gets one line, after a bounded number of tries.

Between hashret and each engine stands a proxy that fails in all these ways.
"""

import contextlib
import socket
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from engines.test_engines import Plain, make_index
from hashret.addresses import parse
from hashret.engines import EngineError, export
from hashret.engines.engine import Filter, connect
from hashret.errors import HashretError
from hashret.opening import open_database

SECONDS = 2


class MilvusProxy:
    """Hands every request to the Milvus behind it, unless ``fault`` (method, context, ask) answers in its stead."""

    def __init__(self, address):
        import grpc

        self.fault, self.asked = None, []
        self.channel = grpc.insecure_channel(address)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, call):
        import grpc

        method = call.method.rsplit("/", 1)[1]

        def answer(request, context):
            self.asked.append(method)

            def ask():
                return self.channel.unary_unary(call.method)(request)

            return self.fault(method, context, ask) if self.fault else ask()

        return grpc.unary_unary_rpc_method_handler(answer)

    def uri(self):
        return f"milvus:http://127.0.0.1:{self.port}"

    def close(self):
        self.server.stop(None).wait()
        self.channel.close()


class PostgresProxy:
    """Carries bytes to the PostgreSQL behind it, unless it is ``mute``; ``cut`` ends so many connections at once."""

    def __init__(self, path):
        self.path, self.mute, self.cut, self.connections = path, False, 0, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.path)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source, target):
        while data := self._received(source):
            if self.cut and source.family == socket.AF_INET and data[:1] == b"P":  # a query, not the handshake
                self.cut -= 1
                break
            if not self.mute:
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _received(source):
        try:
            return source.recv(65536)
        except OSError:
            return b""

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)  # which wakes who accepts
        self.listening.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("hashret.engines.engine._PAUSES", (0.02, 0.1))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("index"), 24)


@pytest.fixture
def behind(milvus, index):
    """A proxy before Milvus Lite, and the name of a collection through it."""
    if "://" in milvus:
        pytest.skip("the proxy stands before Milvus Lite")
    from milvus_lite.server_manager import server_manager_instance

    export(index, f"{milvus}#failing", overwrite=True)
    proxy = MilvusProxy(server_manager_instance.start_and_get_uri(parse(milvus).uri))
    yield proxy, f"{proxy.uri()}#failing"
    proxy.close()


@pytest.fixture
def through(postgres, index):
    """A proxy before PostgreSQL, and the name of a table through it."""
    export(index, f"{postgres}#failing", overwrite=True)
    proxy = PostgresProxy(f"{postgres.split('host=')[1]}/.s.PGSQL.5432")
    yield proxy, f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?sslmode=disable&gssencmode=disable#failing"
    with contextlib.suppress(OSError):
        proxy.close()


def opened(name, seconds=SECONDS):
    engine = connect(parse(name), seconds=seconds)
    engine.open(engine.read_record())
    return engine


CODES = np.zeros((2, 3), np.uint8)


def test_milvus_through_the_proxy(behind):
    proxy, name = behind
    assert len(open_database(name)) == 202
    assert "Query" in proxy.asked


def test_milvus_is_away_for_a_moment(behind):
    import grpc

    proxy, name = behind
    engine, left = opened(name), [3]

    def fault(method, context, ask):
        left[0] -= 1
        return ask() if left[0] < 0 else context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    proxy.fault = fault
    assert len(engine.search(CODES, 5)) == 2
    assert left[0] < 0
    engine.close()


def test_milvus_is_away(behind):
    import grpc

    proxy, name = behind
    engine = opened(name)
    proxy.fault = lambda method, context, ask: context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    proxy.asked.clear()
    with pytest.raises(EngineError, match=r"^milvus:http://127.0.0.1:\d+#failing cannot be reached; is it running\?$"):
        engine.search(CODES, 5)
    assert len(proxy.asked) < 20
    proxy.fault = None
    assert len(engine.search(CODES, 5)) == 2  # once it is back
    engine.close()
    proxy.close()
    with pytest.raises(EngineError, match="cannot be reached"):
        open_database(name)


def test_milvus_is_slow(behind):
    proxy, name = behind
    engine = opened(name, 0.5)
    proxy.asked.clear()
    proxy.fault = lambda method, context, ask: time.sleep(1.5) or ask()
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 seconds"):
        engine.search(CODES, 5)
    assert len(proxy.asked) == 1
    engine.close()


def test_milvus_is_full(behind, index):
    from pymilvus.grpc_gen import common_pb2, milvus_pb2

    proxy, name = behind

    def fault(method, context, ask):
        if method != "Upsert":
            return ask()
        status = common_pb2.Status(code=9, reason="disk quota exhausted", error_code=common_pb2.UnexpectedError)
        return milvus_pb2.MutationResult(status=status).SerializeToString()

    proxy.fault = fault
    with pytest.raises(EngineError, match="#other refused: disk quota exhausted"):
        export(index, name.replace("#failing", "#other"))


def test_milvus_wants_another_token(behind):
    import grpc

    proxy, name = behind
    proxy.fault = lambda method, context, ask: context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
    with pytest.raises(HashretError, match="another token than that of HASHRET_MILVUS_TOKEN: auth check failure"):
        open_database(name)


def test_milvus_gets_the_token(behind, monkeypatch):
    import base64

    proxy, name = behind
    seen = set()

    def fault(method, context, ask):
        seen.update(value for key, value in context.invocation_metadata() if key == "authorization")
        return ask()

    monkeypatch.setenv("HASHRET_MILVUS_TOKEN", "me:secret")
    proxy.fault = fault
    open_database(name)
    assert seen == {base64.b64encode(b"me:secret").decode()}


def test_milvus_answers_with_fewer(behind):
    from pymilvus.grpc_gen import milvus_pb2

    proxy, name = behind
    database = open_database(name)

    def fault(method, context, ask):
        if method != "Search":
            return ask()
        found = milvus_pb2.SearchResults.FromString(ask())
        found.results.topks[0] -= 3
        del found.results.scores[:3]
        del found.results.ids.int_id.data[:3]
        return found.SerializeToString()

    proxy.fault = fault
    with pytest.raises(EngineError, match=r"in disorder: it answered with 3 codes where 5 are nearest"):
        database.nearest(CODES, 5)


def test_postgres_through_the_proxy(through, index):
    proxy, name = through
    database = open_database(name)
    wanted, ids = Plain(index).order(CODES[0])
    D, rows = database.nearest(CODES, 30)
    assert rows.tolist() == [ids[:30].tolist()] * 2
    assert D[0].tolist() == wanted[:30].tolist()
    assert proxy.connections == 2  # to the photographs and to the codes


def test_postgres_breaks_the_connection_for_a_moment(through):
    proxy, name = through
    engine = opened(name)
    proxy.cut = 2
    assert len(engine.search(CODES, 5)) == 2
    assert proxy.cut == 0
    assert proxy.connections == 3
    engine.close()


def test_postgres_is_away(through):
    proxy, name = through
    engine = opened(name)
    proxy.cut = 99
    with pytest.raises(EngineError, match=r"127.0.0.1:\d+/postgres.*#failing cannot be reached: "):
        engine.search(CODES, 5)
    assert proxy.connections == 3  # three tries, the first of them on the connection that was there
    proxy.close()
    with pytest.raises(EngineError, match="cannot be reached: connection failed"):
        connect(parse(name), seconds=SECONDS)


def test_postgres_is_slow(postgres, through):
    proxy, name = through
    engine = opened(name, 0.5)
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 seconds"):
        engine.run(lambda connection: connection.execute("SELECT pg_sleep(5)"))
    assert len(engine.search(CODES, 5)) == 2
    proxy.mute = True  # a server that is there and does not even say that it is late
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 seconds"):
        engine.search(CODES, 5)
    proxy.mute = False
    assert len(engine.search(CODES, 5)) == 2
    engine.close()


def test_postgres_is_full(postgres, index):
    name = f"{postgres}#full"
    engine = connect(parse(postgres))
    engine.run(
        lambda connection: connection.execute(
            """CREATE FUNCTION full_disk() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'could not extend file: no space left' USING ERRCODE = 'disk_full'; END $$"""
        )
    )
    engine.run(lambda connection: connection.execute(
        "CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION full_disk()"
    ))  # fmt: skip
    try:
        with pytest.raises(EngineError, match="#full refused: could not extend file: no space left"):
            export(index, name)
    finally:
        engine.run(lambda connection: connection.execute("DROP EVENT TRIGGER full_disk"))
    assert export(index, name).written == 202
    engine.close()


def test_postgres_keeps_a_few_connections_and_closes_the_others(postgres):
    engine = connect(parse(postgres))
    with contextlib.ExitStack() as all_at_once:
        connections = [all_at_once.enter_context(engine._connection()) for _ in range(9)]
    assert sum(not connection.closed for connection in connections) == len(engine.free) == 4
    engine.close()
    assert all(connection.closed for connection in connections)


@pytest.mark.parametrize(
    "address",
    ["u:xq/xq@host/db", "u:xq@xq@host/db", "u:xq%zzxq@host/db", "u:xq xq@host/db", "h/d?sslpassword=xq&nonsense=1"],
)
def test_postgres_says_nothing_of_a_password_in_a_wrong_address(address):
    pytest.importorskip("psycopg", reason="needs hashret[pgvector]")
    with pytest.raises(
        HashretError, match=r"is no address that PostgreSQL takes; write /|refused: (invalid|unexpected)"
    ) as error:
        open_database(f"postgresql://{address}")
    assert "xq" not in str(error.value)


def test_postgres_has_no_such_database_or_password(postgres):
    with pytest.raises(EngineError, match=r'cannot be reached: .*database "nowhere" does not exist'):
        open_database(postgres.replace("/postgres?", "/nowhere?"))
    with pytest.raises(EngineError, match="refused: invalid"):
        open_database("postgresql://host/db?nonsense=1")


GONE = [3, 4, 5]
DELETE = {
    "milvus": lambda engine, ids: engine.client.delete(engine.address.collection, ids=ids),
    "postgres": lambda engine, ids: engine.run(
        lambda connection: connection.execute(f"DELETE FROM {engine.address.collection} WHERE id = ANY (%s)", [ids])
    ),
}


@pytest.mark.parametrize("kind", DELETE)
def test_photographs_removed_behind_our_back(kind, request, index):
    name = f"{request.getfixturevalue(kind)}#tampered"
    export(index, name, overwrite=True)
    database = open_database(name)
    engine = database.engine
    everything = database.select(path="*")
    DELETE[kind](engine, GONE)
    DELETE[kind](database.codes.engine, [0])
    for question in (
        lambda: database.nearest(CODES, 202),
        lambda: database.nearest(CODES, 202, everything),
        lambda: database.items([2, 3]),
        lambda: database.reranked(np.zeros((1, 24), np.float32), np.array([[1, 4]])),
        lambda: database.everything(),
    ):
        with pytest.raises(EngineError, match=r"is in disorder: it .* run hashret export --overwrite"):
            question()
    assert engine.count() == 199
    assert engine.count(Filter(ids=(3, 6))) == 1


def test_a_client_that_is_not_installed(monkeypatch):
    import sys

    for module, name, extra in (("pymilvus", "milvus:a.db", "milvus"), ("psycopg", "postgresql://host/db", "pgvector")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, parse(name).kind.module, raising=False)
        with pytest.raises(HashretError, match=rf"needs \w+: pip install 'hashret\[{extra}\]'"):
            open_database(name)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("nowhere.db", "no Milvus database at nowhere.db; make one with hashret export"),
        ("nowhere/a.db", "a file.db in a folder that exists, not nowhere/a.db"),
        ("photos", "a Milvus database is http://host:19530, or a file.db"),
    ],
)
def test_milvus_files(uri, line):
    pytest.importorskip("pymilvus", reason="needs hashret[milvus]")
    with pytest.raises(HashretError, match=line):
        open_database(f"milvus:{uri}")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what Milvus Lite leaves half made
def test_a_milvus_file_that_cannot_be_one(index, tmp_path):
    pytest.importorskip("milvus_lite", reason="needs hashret[milvus]")
    with pytest.raises(HashretError, match=r"Milvus Lite cannot open .*name"):
        export(index, f"milvus:{tmp_path / 'my photographs.db'}")


@pytest.mark.parametrize("fails", [False, True])
def test_a_collection_that_is_collected_while_another_opens_does_not_wait_for_itself(tmp_path, monkeypatch, fails):
    """Python may collect garbage, and so close a collection, wherever memory is taken, as in a client's beginning."""
    pytest.importorskip("pymilvus", reason="needs hashret[milvus]")
    from milvus_lite.server_manager import server_manager_instance

    from hashret.engines import milvus

    one, other, ended = tmp_path / "one.db", tmp_path / "other.db", []

    def client(path, timeout):
        if path == str(other):
            milvus._close_file(one)
            assert ended == []  # Milvus Lite is beginning; what has the lock ends the first
            if fails:
                raise RuntimeError("no such name")

    monkeypatch.setattr(milvus, "MilvusClient", client)
    monkeypatch.setattr(server_manager_instance, "release_server", ended.append)

    def opens():
        milvus._open_file(one, 1)
        with contextlib.suppress(HashretError):
            milvus._open_file(other, 1)

    thread = threading.Thread(target=opens, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert ended == [str(one)]
    if not fails:
        milvus._close_file(other)
        assert ended == [str(one), str(other)]
