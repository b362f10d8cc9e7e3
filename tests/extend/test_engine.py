"""A kind of engine that is registered from outside hashret: the whole way from photographs to the service.

The conformance tests of `engines.test_engines` and the verbs of `engines.test_verbs` run on it, too.
"""

import json

from click.testing import CliRunner
from fastapi.testclient import TestClient

import hashret
from extend.memory_engine import KIND, PHOTOGRAPHS
from hashret.cli import main
from hashret.service.app import create_app

COLLECTION = f"{KIND.examples[0]}#extend"


def run(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_from_train_to_serve(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = photos / "test" / "red" / "00.png"
    small = ["--backbone", "vgg11", "--image-size", 32, "--weights", "none", "--finetune", "all", "--width", 16]
    run("train", "--data", f"folder:{photos}", "--bits", 12, "--batch-size", 8, "--epochs", 1, *small)
    run("encode", photos, "--split", "train")
    run("encode", photos, "--split", "test", "--out", "codes-test")
    run("build-index")
    assert f"{COLLECTION}: 36 photographs, 36 written now" in run("export", "index", COLLECTION)
    assert len(PHOTOGRAPHS["extend"]) == 36

    answers = [json.loads(run("query", photo, "--index", index, "-k", 3, "--json")) for index in ("index", COLLECTION)]
    assert answers[0] == answers[1]
    figures = [json.loads(run("evaluate", "codes-test", "--index", index)) for index in ("index", COLLECTION)]
    assert figures[0]["hamming"] == figures[1]["hamming"]
    assert figures[0]["reranked"] == figures[1]["reranked"]
    explained = json.loads(run("explain", photo, "--index", COLLECTION, "-k", 2, "--json"))
    assert [hit["id"] for hit in explained["hits"]] == [hit["id"] for hit in answers[0]["hits"][:2]]
    assert json.loads(run("info", COLLECTION, "--json"))["kind"] == "collection"
    with TestClient(create_app(COLLECTION, "model.safetensors")) as client:
        answer = client.post("/api/query", files={"photo": ("a.png", photo.read_bytes())}, params={"k": 3}).json()
        assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in answers[0]["hits"]]
        assert client.get("/api/about").json()["count"] == 36


def test_messages_name_it(tmp_path):
    assert KIND.examples[0] in hashret.addresses.examples()
    done = CliRunner().invoke(main, ["export", "index", "unknown:here"])
    assert done.exit_code == 2
