"""The verbs and the service on a collection give what they give on the index that it is a copy of."""

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_model
from extend import memory_engine

from hashret import Searcher, evaluate, export
from hashret.addresses import KINDS
from hashret.cli import main
from hashret.encoding import encode
from hashret.engines import EngineError
from hashret.errors import HashretError
from hashret.index import open_index, remove
from hashret.opening import open_database


@pytest.fixture(scope="module", params=tuple(KINDS))
def collection(request, index_folder):
    """Name of a copy of the index in an engine."""
    name = f"{request.getfixturevalue(request.param)}#verbs"
    export(index_folder, name, overwrite=True)
    return name


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--no-rerank"],
        ["--label", "red", "--path", "*0?.png", "-k", "50"],
        ["--rerank-by", "asymmetric", "--id", "3", "--id", "30"],
        ["--radius", "4"],
        ["--exclude-self", "-k", "3"],
        ["--together", "union"],
    ],
)
def test_query(collection, index_folder, model, photos, options):
    ask = ["query", photos / "train" / "red" / "01.png", photos / "test" / "blue" / "00.png", "--json"]
    ask += ["--model", model, *options]
    wanted, found = (run(*ask, "--index", index) for index in (index_folder, collection))
    assert wanted[0] == found[0] == 0
    assert [json.loads(line) for line in found[1].splitlines()] == [json.loads(line) for line in wanted[1].splitlines()]
    if options in ([], ["--radius", "4"]):
        assert run(*ask, "--index", collection, "--values", index_folder) == wanted


def test_recall_needs_the_index_beside(collection, index_folder, model, photos):
    ask = ["query", photos / "test" / "red" / "00.png", "--model", model, "--index", collection, "--recall", "0.9"]
    code, output = run(*ask)
    assert (code, "name it with --values" in output) == (2, True)
    assert run(*ask, "--values", index_folder)[0] == 0


def test_evaluate(collection, index_folder, photos, model, tmp_path):
    encode(f"folder:{photos}", model, tmp_path / "codes", split="test", workers=0)
    wanted, found = (
        evaluate(tmp_path / "codes", index, candidates=7).as_dict() for index in (index_folder, collection)
    )
    for result in (wanted, found):
        del result["seconds"], result["hamming_seconds"]
    assert found == wanted
    beside = evaluate(tmp_path / "codes", collection, candidates=7, values=index_folder).as_dict()
    assert beside["reranked"] == wanted["reranked"]


def test_info(collection):
    code, output = run("info", collection, "--json")
    assert code == 0
    assert json.loads(output) | {"kind": "collection", "count": 36, "complete": True} == json.loads(output)


def test_export(postgres, index_folder):
    code, output = run("export", index_folder, postgres, "--collection", "by_verb")
    assert code == 0
    assert output.endswith("#by_verb: 36 photographs, 36 written now\n")
    assert run("export", index_folder, f"{postgres}#by_verb")[1].endswith("36 photographs, 0 written now\n")
    code, output = run("export", index_folder, f"{postgres}#by_verb", "--approximate", "--overwrite")
    assert "36 written now, finds 100.00% of the nearest 100" in output
    code, output = run("export", index_folder, "elsewhere")
    assert (code, "names no engine" in output) == (2, True)


def test_another_encoder_is_refused_without_a_word_of_the_password(postgres, index_folder, tmp_path):
    export(index_folder, f"{postgres}#encoder")
    other = make_model(tmp_path / "other.safetensors", seed=5)
    with pytest.raises(HashretError, match=r"postgres@/.*#encoder was built by another encoder") as error:
        Searcher(f"{postgres.replace('postgres:@', 'postgres:secret@')}#encoder", other)
    assert "secret" not in str(error.value)


def test_a_copy_is_not_changed_itself(collection, photos, model):
    for verb in (
        ["add", collection, photos, "--model", model],
        ["remove", collection, "--id", 3],
        ["compact", collection],
    ):
        code, output = run(*verb)
        assert (code, "is a copy in an engine; change the index" in output) == (2, True)


@pytest.mark.parametrize("address", ["postgresql://u:secret@h/db", "postgresql://u:sec/ret@h/db#photos"])
def test_an_engine_is_no_folder_and_no_message_shows_its_password(
    address, index_folder, photos, codes, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    read = r"postgresql://u@h/db#\w+ is a copy in an engine; "
    written = r"postgresql://u@h/db#\w+ is in an engine, and here a folder or a file is written; hashret export copies"
    for verb, line in {
        ("duplicates", address): read + "name the index that it was exported from",
        ("duplicates", address, "--exclude", "a"): read,
        ("duplicates", photos, "--move-to", address, "--yes"): written,
        ("relocate", address, "--root", photos): read + "change the index",
        ("export", address, "postgresql://v:secret@h/other"): read + "name the index",
        ("build-index", codes, "--out", address): written,
        ("encode", photos, "--split", "test", "--model", model, "--out", address): written,
        ("duplicates", photos, "--html", f"{address}.html"): "",
        ("report", photos, "--index", address): "",
        ("encode", address): r"no such folder: postgresql://u@h/db",
        ("sync", address): r"no such folder: postgresql://u@h/db",
        ("restore", address): "no moved.jsonl in ",
        ("info", f"{address}x y"): "a collection's name is|refused: unexpected spaces",
        ("add", address, photos): read,
        ("export", index_folder, address.replace("gresql", "gre")): "postgre://u@h/db.* names no engine",
        ("relocate", address, address, "--root", photos): "",
    }.items():
        code, output = run(*verb)
        assert code == 2, verb
        assert re.search(line, output), (verb, output)
        assert "sec" not in output, verb
    assert not list(tmp_path.iterdir())


@pytest.fixture
def client(collection, model):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    with TestClient(create_app(collection, model, show_paths=True)) as found:
        yield found


def test_the_service(client, index_folder, model, photos):
    photo = photos / "test" / "red" / "01.png"
    wanted = Searcher(index_folder, model, "cpu").search(photo, k=7, candidates=20)
    answer = client.post(
        "/api/query", files={"photo": ("a.png", photo.read_bytes())}, params={"k": 7, "candidates": 20}
    )
    hits = [(hit["id"], hit["path"], hit["label"], hit["hamming"], hit["euclidean"]) for hit in answer.json()["hits"]]
    assert hits == [(hit.id, hit.path, hit.label, hit.hamming, hit.euclidean) for hit in wanted]
    index = open_index(index_folder, "cpu")
    assert client.get("/api/items/5").json()["path"] == index.path(5)
    assert client.get("/api/items/5").json()["code"] == index.code(5).tobytes().hex()
    assert client.get("/api/items/5/query?k=3&label=blue").json()["count"] == 12
    assert client.get("/api/items/5/query").json()["query"]["values"] == pytest.approx(
        index.hash_outputs_at(5).tolist()
    )
    assert len(client.get("/api/items?n=5").json()) == 5
    assert client.get("/api/items/5/thumbnail").headers["content-type"] == "image/webp"
    missing = client.get("/api/items/99")
    assert (missing.status_code, missing.json()) == (404, {"error": "no photograph with id 99 in the index"})
    about = client.get("/api/about").json()
    assert (about["count"], about["values"]) == (36, True)
    live = client.app.state.service.live.current.index
    assert about["max_candidates"] == min(100_000, live.most or 100_000)


def test_the_service_offers_as_many_candidates_as_the_engine_gives(memory, index_folder, monkeypatch):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    export(index_folder, f"{memory}#limited", overwrite=True)
    monkeypatch.setattr(memory_engine.Memory, "most", 30)
    with TestClient(create_app(f"{memory}#limited", None)) as client:
        most = client.get("/api/about").json()["max_candidates"]
        assert most == 30
        assert client.get("/api/items/5/query", params={"candidates": most}).status_code == 200
        refused = client.get("/api/items/5/query", params={"candidates": most + 1})
        assert (refused.status_code, refused.json()) == (422, {"error": "this engine gives at most 30 answers"})


def test_visitors_are_not_told_where_the_engine_is(memory, index_folder, monkeypatch, caplog):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    name = f"{memory}#hidden"
    export(index_folder, name, overwrite=True)
    with TestClient(create_app(name, None)) as client:
        live = client.app.state.service.live
        engine = live.current.index.engine

        def away(*_):
            raise EngineError(f"{engine.address} cannot be reached: no server at 10.0.0.7")

        for method in ("read", "read_record"):
            monkeypatch.setattr(engine, method, away)
        live.refresh()
        answer, health = client.get("/api/items/5"), client.get("/healthz").json()
        assert (answer.status_code, health["status"]) == (503, "stale")
        for told in (answer.json()["error"], health["problem"]):
            assert told.startswith("the engine that holds the index does not answer as it should; the log")
        assert "10.0.0.7" in live.problem
        assert caplog.text.count("memory:here#hidden cannot be reached: no server at 10.0.0.7") == 2


def test_the_service_while_its_engine_is_away(client, monkeypatch):
    live = client.app.state.service.live
    engine = live.current.index.engine

    def away(*_):
        raise EngineError("it is away")

    with monkeypatch.context() as patch:
        for name in ("read", "search", "read_record"):
            patch.setattr(engine, name, away)
        answer = client.get("/api/items/5/query")
        assert (answer.status_code, answer.json()) == (503, {"error": "it is away"})
        assert client.get("/api/items/5").status_code == 503
        live.refresh()
        health = client.get("/healthz").json()
        assert (health["status"], health["problem"]) == ("stale", "it is away")
    live.refresh()
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/api/items/5/query").status_code == 200


def test_the_service_takes_up_a_newer_copy(postgres, index_folder, tmp_path):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from hashret.service.live import LiveIndex

    shutil.copytree(index_folder, tmp_path / "index")
    name = f"{postgres}#newer"
    export(tmp_path / "index", name)
    live = LiveIndex(name, None)
    live.refresh()
    assert live.reloads == 0
    remove(tmp_path / "index", [3])
    engine = live.current.index.engine
    engine.save_record(engine.read_record() | {"complete": False})
    live.refresh()
    assert "is not complete" in live.problem
    assert len(live.current.index) == 36
    export(tmp_path / "index", name, overwrite=True)
    live.refresh()
    assert (live.problem, len(live.current.index)) == (None, 35)


def test_the_service_answers_nothing_from_half_a_copy_and_takes_up_the_whole(
    memory, index_folder, tmp_path, monkeypatch
):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    name = f"{memory}#exchanged"
    shutil.copytree(index_folder, tmp_path / "index")
    export(tmp_path / "index", name, overwrite=True)
    remove(tmp_path / "index", [3])
    with TestClient(create_app(name, None, show_paths=True)) as client:
        live = client.app.state.service.live
        write = memory_engine.Memory.write

        def write_and_ask(engine, rows):
            write(engine, rows.take(np.arange(len(rows) // 2)))
            for question in ("/api/items/5/query", "/api/items/5", "/api/items?n=3"):
                answer = client.get(question)
                assert answer.status_code == 503
                assert "exchanged is being replaced, or was, by another export" in answer.json()["error"]
            live.refresh()
            assert "is not complete" in client.get("/healthz").json()["problem"]
            write(engine, rows)

        with monkeypatch.context() as patch:
            patch.setattr(memory_engine.Memory, "write", write_and_ask)
            export(tmp_path / "index", name, overwrite=True)
        assert client.get("/api/items/5/query").status_code == 503  # it was opened before
        live._try_again = 0.0
        live.refresh()
        assert client.get("/healthz").json()["status"] == "ok"
        answer = client.get("/api/items/5/query", params={"k": 36}).json()
        assert len(answer["hits"]) == 35


def test_several_threads_share_a_database(collection):
    from concurrent.futures import ThreadPoolExecutor

    database = open_database(collection)
    codes = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    wanted = [database.nearest(code[None], 5)[1].tolist() for code in codes]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda code: database.nearest(code[None], 5)[1].tolist(), codes))
    assert found == wanted
