"""The service where others wish it ill, or the index changes badly: it refuses in one line, and goes on."""

import json
import os
import shutil
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from click.testing import CliRunner

from hashret.cli import main
from hashret.encoding import encode
from hashret.index import append, opening, remove
from service.test_service import own, photo, upload, wait_until  # noqa: F401

pytest.importorskip("fastapi", reason="needs hashret[serve]")
import uvicorn
from fastapi.testclient import TestClient

from hashret.service import connections
from hashret.service import live as live_module
from hashret.service.app import create_app
from hashret.service.connections import BoundedConnection, settings
from hashret.service.limits import SAFE_HEADERS
from hashret.service.live import LiveIndex


@pytest.fixture(scope="module")
def app(index_folder, model):
    return create_app(index_folder, model, "cpu", hosts=(), max_upload=200_000, body_seconds=0.2)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False) as found:
        yield found


DAMAGED = [
    '{"format": 2}',
    '{"format": "x"}',
    "[]",
    "null",
    "{",
    "\udcff",
    '{"format": 1}',
    '{"segments": 7, "bits": []}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_index_is_not_taken_up_and_a_whole_one_after_it_is(own, caplog, text):  # noqa: F811
    live, index_json = LiveIndex(own / "index", None, "cpu"), own / "index" / "index.json"
    before, whole = live.current, index_json.read_bytes()
    index_json.write_bytes(os.fsencode(text))
    for _ in range(3):
        live.refresh()
    assert live.problem
    assert (live.current, live.failures) == (before, 1)
    index_json.write_bytes(whole)
    live.refresh()
    assert (live.problem, live.reloads) == (None, 1)
    assert live.current is not before
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "is still served as it was: " in caplog.text


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyError("bits"), RecursionError(), OSError(5, "broken disk")], ids=repr
)
def test_whatever_goes_wrong_the_index_is_watched_further(own, monkeypatch, error):  # noqa: F811
    def fail(*_):
        raise error

    live = LiveIndex(own / "index", None, "cpu")
    for name in ("_open", "_signature"):
        with monkeypatch.context() as patch:
            remove(own / "index", ids=[len(live.current.index) - 1])
            patch.setattr(live, name, fail)
            live.refresh()
            assert type(error).__name__ in live.problem
        monkeypatch.setattr(live, "_try_again", 0)
        live.refresh()
        assert live.problem is None
    assert (len(live.current.index), live.reloads) == (34, 2)


def test_what_was_not_there_yet_is_tried_again(own, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live_module, "_RETRY_SECONDS", 0)
    live = LiveIndex(own / "index", None, "cpu")
    remove(own / "index", ids=[0])
    [segment] = [path for path in (own / "index").iterdir() if path.is_dir()]
    segment.rename(own / "elsewhere")
    live.refresh()
    live.refresh()
    assert (live.failures, len(live.current.index)) == (2, 36)
    (own / "elsewhere").rename(segment)
    live.refresh()
    assert (live.problem, len(live.current.index)) == (None, 35)


def test_the_service_says_that_it_could_not_follow_and_follows_again(own, photos, photo, monkeypatch):  # noqa: F811
    monkeypatch.setattr(live_module, "_WATCH_SECONDS", 0.02)
    encode(f"folder:{photos}", own / "model.safetensors", own / "more", split="test", workers=0)
    index_json = own / "index" / "index.json"
    whole = index_json.read_bytes()
    with TestClient(create_app(own / "index", own / "model.safetensors", "cpu")) as client:
        index_json.write_text('{"format": 2}')
        wait_until(lambda: client.get("/healthz").json()["status"] == "stale")
        health = client.get("/healthz")
        assert (health.status_code, health.json()["count"]) == (200, 36)
        assert health.json()["problem"]
        assert "hashret_index_stale 1.0" in client.get("/metrics").text
        assert upload(client, photo.read_bytes()).status_code == 200
        index_json.write_bytes(whole)
        append(own / "index", own / "more")
        wait_until(lambda: client.get("/healthz").json()["count"] == 48)
        assert client.get("/healthz").json()["status"] == "ok"
        assert "hashret_index_stale 0.0" in client.get("/metrics").text


def test_an_index_that_is_found_damaged_answers_no_more_until_it_is_built_again(own, photo, caplog, monkeypatch):  # noqa: F811
    monkeypatch.setattr(opening, "_VERIFY_BYTES", 0)  # as if it were large: compared in the background
    monkeypatch.setattr(live_module, "_WATCH_SECONDS", 0.02)
    values = own / "index" / "000001" / "values.npy"
    whole = values.read_bytes()
    values.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with TestClient(create_app(own / "index", own / "model.safetensors", "cpu")) as client:
        wait_until(lambda: client.get("/healthz").json()["status"] == "damaged")
        answer = upload(client, photo.read_bytes())
        assert (answer.status_code, "values.npy has changed" in answer.json()["error"]) == (503, True)
        wait_until(lambda: "is not searched any more: the index" in caplog.text)
        values.write_bytes(whole)
        remove(own / "index", ids=[0])
        wait_until(lambda: client.get("/healthz").json()["status"] == "ok")
        assert upload(client, photo.read_bytes()).status_code == 200


NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/api/query", {}, 200),
        ("POST", "/api/query", {"origin": "http://localhost:8000"}, 200),
        ("POST", "/api/query", {"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, 200),  # a proxy's
        ("POST", "/api/query", {"origin": "http://localhost:9000"}, 403),
        ("POST", "/api/query", {"origin": "http://localhost"}, 403),
        ("POST", "/api/query", {"origin": "http://evil.example"}, 403),
        ("POST", "/api/query", {"origin": "null"}, 403),
        ("POST", "/api/query", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", "/api/query", {"sec-fetch-site": "same-site"}, 403),
        ("POST", "/api/query", {"sec-fetch-site": "cross-site", **NAVIGATION}, 403),
        ("GET", "/api/items", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/api/items/1/thumbnail", {"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, 403),
        ("GET", "/api/items", {"origin": "http://evil.example"}, 403),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ("GET", "/", {"sec-fetch-site": "cross-site", **NAVIGATION}, 200),
        ("GET", "/", {"sec-fetch-site": "none", **NAVIGATION}, 200),
        ("GET", "/api/items", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", "/healthz", {"host": "evil.example"}, 400),
        ("GET", "/healthz", {"host": "LOCALHOST.:8000"}, 200),
        ("GET", "/healthz", {"host": "192.0.2.7:8000"}, 200),
        ("GET", "/healthz", {"host": "192.0.2.7.evil.example"}, 400),
        ("GET", "/healthz", {"host": "localhost.evil.example:8000"}, 400),
        ("GET", "/healthz", {"host": "[2001:db8::7]:8000"}, 200),
        ("GET", "/healthz", {"host": "[::1"}, 400),
        ("GET", "/healthz", {"host": ""}, 400),
    ],
)
def test_pages_of_others_get_nothing(client, photo, method, path, headers, status):  # noqa: F811
    content = photo.read_bytes() if method == "POST" else None
    answer = client.request(method, path, content=content, headers={"content-type": "image/png"} | headers)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS
    assert status == 200 or list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("host", "options", "asked", "status"),
    [
        ("127.0.0.1", [], "evil.example", 400),
        ("127.0.0.1", [], "my-machine", 400),
        ("127.0.0.1", ["--allow-host", "Photos.example"], "photos.example", 200),
        ("0.0.0.0", [], "evil.example", 400),
        ("0.0.0.0", [], "my-machine", 200),
        ("0.0.0.0", [], "my-machine.local", 200),
        ("0.0.0.0", [], "my-machine.lan", 200),
        ("0.0.0.0", [], "192.0.2.7", 200),
        ("0.0.0.0", ["--allow-host", "a.example", "--allow-host", "bücher.example"], "xn--bcher-kva.example", 200),
        ("0.0.0.0", ["--allow-host", "a.example"], "b.a.example", 400),
        ("0.0.0.0", ["--allow-host", "*"], "evil.example", 200),
    ],
)
def test_names_that_nobody_allowed_are_not_answered(index_folder, monkeypatch, host, options, asked, status):
    """DNS rebinding: to a browser, a page of evil.example may read from this machine once its name points here."""
    monkeypatch.setattr(socket, "gethostname", lambda: "my-machine")
    monkeypatch.setattr(socket, "getfqdn", lambda name: f"{name}.lan")
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: ran.append(server.config.app))
    ran = []
    arguments = ["serve", str(index_folder), "--host", host, "--port", "0", "--device", "cpu", *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    with TestClient(ran[0]) as client:
        answer = client.get("/healthz", headers={"host": f"{asked}:8000"})
    assert answer.status_code == status
    if status == 400:
        line = f"this service does not answer to the name {asked}; start it with --allow-host {asked}"
        assert answer.json() == {"error": line}


def test_a_failure_inside_is_one_line_too(client, monkeypatch):
    def fail(*_):
        raise ValueError("a secret")

    monkeypatch.setattr("hashret.service.routes._found", fail)
    answer = client.get("/api/items/1")
    assert (answer.status_code, answer.json()) == (500, {"error": "the service failed; its log says more"})
    assert {name: answer.headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS


def test_odd_requests(client, photo):  # noqa: F811
    for path in ("/", "/healthz", "/api/items/1", "/api/items/1/thumbnail", "/static/page.js"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    counted = client.get("/metrics").text
    for route in ("/healthz", "/api/items/{id}", "/api/items/{id}/thumbnail"):  # each as GET is
        assert f'hashret_requests_total{{method="HEAD",route="{route}",status="200"}} 1.0' in counted
    assert client.head("/api/query").status_code == 405
    assert client.request("BREW", "/").status_code == 405
    assert 'method="other"' in client.get("/metrics").text
    assert "BREW" not in client.get("/metrics").text
    huge = "9" * 5000
    for path in (f"/api/items?seed={huge}", f"/api/items?n={huge}", f"/api/items/{huge}", "/api/items/1/query?k=1e9"):
        assert client.get(path).status_code == 422
    for path in (
        "/api/items/1/query?k=1000000000",
        "/api/items/1/query?candidates=nan",
        "/api/items/1/query?rerank_by=",
    ):
        assert client.get(path).status_code == 422
    values = {"content-type": "application/json"}
    for content, status in [(b'{"values": [' + b" " * 300_000, 413), (b"\xff", 400), (b"[" * 100_000, 400)]:
        answer = client.post("/api/query/values", content=content, headers=values)
        assert answer.status_code in (status, 422)
        assert list(answer.json()) == ["error"]
    assert client.post("/api/query/values", content=b" " * 300_000, headers=values).status_code == 413
    form = {"content-type": "Multipart/Form-Data; boundary=x"}
    assert client.post("/api/query", content=b"--x\r\nbroken", headers=form).status_code in (400, 422)
    assert client.post("/api/query", content=photo.read_bytes(), headers=values).status_code == 200


def test_what_is_no_file_any_more_is_gone(own, photos, tmp_path):  # noqa: F811
    shutil.copytree(photos / "test" / "red", tmp_path / "more" / "red")
    encode(f"folder:{tmp_path / 'more'}", own / "model.safetensors", tmp_path / "codes", workers=0)
    append(own / "index", tmp_path / "codes")
    pipe, folder, text, link = sorted((tmp_path / "more" / "red").iterdir())
    for path in (pipe, folder, text, link):
        path.unlink()
    os.mkfifo(pipe)
    folder.mkdir()
    text.write_text("no image")
    link.symlink_to(link)
    with TestClient(create_app(own / "index", own / "model.safetensors", "cpu")) as client:
        for id in range(36, 40):
            assert client.get(f"/api/items/{id}/thumbnail").status_code == 404
            assert client.get(f"/api/items/{id}/maps").status_code == 404
            assert client.get(f"/api/items/{id}").json()["there"] == (id == 38)
            assert client.get(f"/api/items/{id}/query").status_code == 200


def test_an_index_without_photographs(own, photo):  # noqa: F811
    remove(own / "index", ids=range(36))
    with TestClient(create_app(own / "index", own / "model.safetensors", "cpu")) as client:
        assert client.get("/api/about").json()["count"] == 0
        assert client.get("/api/items").json() == []
        assert upload(client, photo.read_bytes()).json()["hits"] == []
        assert client.get("/api/items/0/query").status_code == 404
        shutil.rmtree(own / "index")
        assert upload(client, photo.read_bytes()).json()["hits"] == []


@contextmanager
def served(app, **seconds):
    """The service in a thread of this process, its deadlines as named: -> (server, a function that connects to it)."""
    connection = type("Connection", (BoundedConnection,), seconds)
    server = uvicorn.Server(settings(app, connection))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        connected = []

        def connect(*lines):
            connected.append(socket.create_connection(listening.getsockname(), timeout=20))
            connected[-1].sendall(b"".join(line.encode() + b"\r\n" for line in lines))
            return connected[-1]

        try:
            yield server, connect
        finally:
            server.should_exit = True
            thread.join(20)
            for one in connected:
                one.close()
        assert not thread.is_alive()


def dribble(connection):
    """Send a byte now and then until the connection is closed: -> what was received."""
    received = b""
    connection.settimeout(0.01)
    for _ in range(2000):
        try:
            connection.send(b"a")
            data = connection.recv(4096)
        except TimeoutError:
            continue
        except OSError:
            return received
        if not data:
            return received
        received += data
    raise AssertionError("it was not closed")


POST = ("POST /api/query HTTP/1.1", "Host: localhost", "Content-Type: image/png", "Content-Length: 100000", "")


def test_who_sends_slowly_is_cut_off(app):
    get = ("GET /healthz HTTP/1.1", "Host: localhost")
    with served(app, header_seconds=0.1) as (_, connect):
        assert connect().recv(100) == b""
        assert dribble(connect("GET / HTTP/1.1", "Host: local")) == b""
        connection = connect(*get, "")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1" not in dribble(connection)  # headers of a second request
    with served(app, body_seconds=0.1) as (_, connect):
        assert dribble(connect(*get, "Content-Length: 100000", "")).startswith(b"HTTP/1.1 200")  # no one reads the body
        assert dribble(connect(*POST)) == b""
    with served(app) as (_, connect):
        answer = dribble(connect(*POST))
        assert answer.startswith(b"HTTP/1.1 408")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
            "error": "the request did not arrive within 0.2 seconds"
        }


def test_who_does_not_take_an_answer_is_cut_off(app):
    request = ("GET /static/page.js HTTP/1.1", "Host: localhost", "")
    with served(app, answer_seconds=0.1) as (server, connect):
        connection = connect()
        connection.settimeout(0.05)
        with suppress(OSError):
            while connection.send(b"".join(line.encode() + b"\r\n" for line in request) * 100):
                pass
        wait_until(lambda: not server.server_state.connections)


def test_the_end_does_not_wait_for_who_sends_slowly(index_folder, model):
    app = create_app(index_folder, model, "cpu")
    with served(app, shutdown_seconds=0.1) as (server, connect):
        connection = connect(*POST)
        wait_until(lambda: server.server_state.tasks)
        server.should_exit = True
        assert dribble(connection) == b""


def test_what_the_end_does_not_wait_for_is_told(index_folder, model, caplog, monkeypatch):
    app = create_app(index_folder, model, "cpu")
    monkeypatch.setattr(connections, "_SHUTDOWN_SECONDS", 0.1)
    with served(app) as (server, connect):
        connection = connect(*POST)
        wait_until(lambda: server.server_state.tasks)
        server.should_exit = True
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 503")
    assert not [record for record in caplog.records if record.exc_info]


def test_who_hangs_up_is_counted_and_forgotten(app, caplog):
    with served(app) as (server, connect):
        connection = connect(*POST)
        wait_until(lambda: server.server_state.tasks)
        connection.close()
        wait_until(lambda: not server.server_state.tasks)
        counted = app.state.service.metrics.registry.get_sample_value(
            "hashret_requests_total", {"route": "/api/query", "method": "POST", "status": "400"}
        )
    assert counted
    assert not [record for record in caplog.records if record.exc_info]
