"""Every verb with names that are not plain text: of photographs, classes, models, shards, indexes and pages."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_model, make_photo
from PIL import Image

from hashret.cli import main
from hashret.names import shown

if sys.platform == "darwin":
    pytest.skip("this file system takes UTF-8 alone", allow_module_level=True)

ODD = "\udcff\u2028\x1b]0;owned\x07\n"
NAMES = (
    "caf\udce9", "next\x85line", "sep\u2028arator", "new\nline", "\x1b]0;owned\x07", "gpj\u202e", "-dash", " space ",
    "x" * 251, "👩\u200d🔬", "\u00e9", "e\u0301", "tab\t", "\"'<b>&$x$", "percent%41 #?", "back\\slash", "*glob[1]?",
)  # fmt: skip
CLASSES = NAMES[:7]


def hashret(*arguments, exit_code=0, **options):
    """Run a verb where the terminal takes Latin-1 alone: -> its output, in which nothing but lines may be hidden."""
    done = CliRunner(charset="latin-1").invoke(main, [str(a) for a in arguments], **options)
    assert done.exit_code == exit_code, done.output
    assert not re.search(rb"[^\n\x20-\x7e\xa0-\xff]", done.output_bytes)
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which photographs of odd names were encoded and indexed."""
    place, rng = tmp_path_factory.mktemp("names") / f"place{ODD}", np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        for folder in (CLASSES[number % 7], CLASSES[(number + 3) % 7]):
            make_photo(place / "photos" / folder / f"{name}.png", ("red", "green", "blue")[number % 3], rng)
    (place / "photos" / CLASSES[0] / f"broken{ODD}.png").write_bytes(b"no photograph")
    make_model(place / f"model{ODD}.safetensors")
    model, codes, index = (place / f"{what}{ODD}" for what in ("model", "codes", "index"))
    model = model.with_suffix(".safetensors")
    said = hashret("encode", place / "photos", "--model", model, "--out", codes, "--shard-size", 20, "--workers", 0)
    assert "34 encoded, 1 skipped" in said
    assert "34 photographs" in hashret("build-index", "--codes", codes, "--out", index)
    return place


@pytest.fixture
def at(place, monkeypatch):
    """The names of a command's arguments."""
    monkeypatch.chdir(place)
    names = {what.upper(): f"{what}{ODD}" for what in ("codes", "index", "aside")}
    names |= {"PAGE": f"page{ODD}.html", "GRID": f"grid{ODD}.png", "MODEL": f"model{ODD}.safetensors"}
    return names | {
        "PHOTO": f"photos/{CLASSES[0]}/{CLASSES[0]}.png",
        "CLASS": CLASSES[0],
        "FIGURES": f"figures{ODD}.json",
    }


def there(found):
    """Whether every path of an answer is that of a file."""
    return all(os.path.isfile(one["path"]) for one in found)


def test_what_could_not_be_read_is_named(place, at):
    [line] = (place / at["CODES"] / "skipped.jsonl").read_bytes().splitlines()
    assert json.loads(line)["path"] == str(place / "photos" / CLASSES[0] / f"broken{ODD}.png")
    described = json.loads(hashret("info", at["CODES"], "--json"))
    assert (described["skipped"], described["complete"]) == (1, True)
    assert json.loads(hashret("info", f"{at['CODES']}/codes-00000.h5", "--json"))["skipped"] == 1


ALIKE = "--by pixels --distance 200 --radius 24"
COMMANDS = [
    "info CODES", "info INDEX", "info MODEL", "info INDEX --json", "info MODEL --json",
    "query PHOTO --index INDEX --model MODEL -k 40",
    "query PHOTO --index INDEX --model MODEL --html PAGE --grid GRID --label CLASS",
    "explain PHOTO --index INDEX --model MODEL --out GRID --overwrite",
    f"duplicates INDEX {ALIKE}", f"duplicates INDEX {ALIKE} --html PAGE", f"duplicates INDEX {ALIKE} --move-to ASIDE",
    "evaluate CODES --index INDEX --out FIGURES", "report INDEX --queries CODES --out PAGE --overwrite",
    "report INDEX --queries CODES --out PAGE --overwrite --json", "add INDEX photos --model MODEL --workers 0",
    "compact INDEX",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_verb(place, at, command):
    said = hashret(*(at.get(word, word) for word in command.split()))
    if "--json" in command or command.startswith("evaluate"):
        json.loads(said)
    if command in ("query PHOTO --index INDEX --model MODEL -k 40", f"duplicates INDEX {ALIKE}"):
        assert r"photos/sep\u2028arator/" in said
    if "--html" in command or "report" in command:
        page = (place / at["PAGE"]).read_text(encoding="utf-8")
        assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", page)
        assert r"caf\xe9" in page
    if "--grid" in command or command.startswith("explain"):
        Image.open(at["GRID"]).load()


def test_json_gives_the_names_back(place, at):
    every = sorted(str(path) for path in (place / "photos").rglob("*.png") if "broken" not in path.name)
    names = b"".join(os.fsencode(name) + b"\0" for name in every)
    options = ("--index", at["INDEX"], "--model", at["MODEL"], "--json", "-k", 40)
    answers = [json.loads(line) for line in hashret("query", "-", "-0", *options, input=names).split("\n") if line]
    assert [answer["query"] for answer in answers] == every
    assert sorted(hit["path"] for hit in answers[0]["hits"]) == every
    assert {hit["label"] for hit in answers[0]["hits"]} == set(CLASSES)
    for hit in answers[0]["hits"]:
        assert hit["label"] == os.path.basename(os.path.dirname(hit["path"]))
    groups = [json.loads(line) for line in hashret("duplicates", at["INDEX"], *ALIKE.split(), "--json").splitlines()]
    assert all(there(group["photographs"]) for group in groups)
    [line] = hashret("explain", at["PHOTO"], *options[:-2]).splitlines()
    assert json.loads(line)["path"] == at["PHOTO"]
    assert there(json.loads(line)["hits"])


def test_a_changed_index(place, at, tmp_path):
    shutil.copytree(at["INDEX"], tmp_path / f"own{ODD}")
    own, every = tmp_path / f"own{ODD}", list((place / "photos").rglob("*.png"))
    some = [next(path for path in every if path.stem == name) for name in sorted(NAMES)]
    assert "17 photographs removed" in hashret("remove", own, *(word for path in some for word in ("--path", path)))
    assert "17 photographs added" in hashret("add", own, *some, "--model", at["MODEL"], "--workers", 0)
    assert "34 photographs" in hashret("compact", own)


@pytest.mark.parametrize("engine", ["milvus", "postgres"])
def test_a_copy_in_an_engine(place, at, request, engine):
    collection = f"{request.getfixturevalue(engine)}#names"
    assert "34 photographs" in hashret("export", at["INDEX"], collection, "--overwrite")
    assert json.loads(hashret("info", collection, "--json"))["classes"] == sorted(CLASSES)
    options = ("--model", at["MODEL"], "--json", "-k", 40)
    answers = [hashret("query", at["PHOTO"], "--index", index, *options) for index in (at["INDEX"], collection)]
    ids = [sorted((hit["id"], hit["path"], hit["label"]) for hit in json.loads(line)["hits"]) for line in answers]
    assert ids[0] == ids[1]
    for name in CLASSES:
        hits = json.loads(hashret("query", at["PHOTO"], "--index", collection, *options, "--label", name))["hits"]
        assert {hit["label"] for hit in hits} == {name}


def test_moved_aside_and_back(place, at, tmp_path):
    photos, index, codes = (tmp_path / f"{what}{ODD}" for what in ("photos", "index", "codes"))
    longest = "é" * 125 + "\udcff"  # 251 bytes, and .png: a number has no room
    for folder in ("one", "two"):
        for name in (*NAMES, longest):
            make_photo(photos / folder / f"{name}.png", "red", np.random.default_rng(7))
    hashret("encode", photos, "--model", at["MODEL"], "--out", codes, "--workers", 0)
    hashret("build-index", "--codes", codes, "--out", index)
    before, aside = sorted(photos.rglob("*")), tmp_path / f"aside{ODD}"
    hashret("duplicates", index, "--move-to", aside, "--yes")
    assert len(list(photos.rglob("*.png"))) == 1
    assert "35 photographs removed" in hashret("remove", index, "--gone", "--yes")
    assert "35 photographs moved back" in hashret("restore", aside)
    assert sorted(photos.rglob("*")) == before


def test_classes_of_odd_names_are_trained(place, at, weights, tmp_path):
    out, small = (
        tmp_path / f"trained{ODD}.safetensors",
        "--method ksh --image-size 32 --backbone vgg11 --bits 12 --workers 0",
    )
    said = hashret("train", "--data", f"folder:{place / 'photos'}", "--out", out, *small.split(), "--weights", weights)
    assert "12 bits" in said
    described = json.loads(hashret("info", out, "--json"))
    assert described["classes"] == sorted(CLASSES)
    assert json.loads(out.with_suffix(".json").read_bytes())["classes"] == sorted(CLASSES)


@pytest.mark.parametrize(
    "command",
    [
        "query NAME", "info NAME", "explain NAME", "encode NAME --model MODEL", "build-index --codes NAME",
        "evaluate NAME --index INDEX", "restore NAME", "compact NAME", "query PHOTO --device NAME", "NAME",
        "query --NAME", "query PHOTO --index INDEX --label NAME", "serve NAME", "report NAME --out PAGE",
        "query PHOTO --model NAME", "export INDEX milvus:NAME#NAME", "remove INDEX --path NAME",
        "train --data list:NAME", "query PHOTO -k NAME",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [f"absent{ODD}", "y" * 300], ids=["odd", "long"])
def test_a_mistake_is_one_line(at, command, name):
    said = CliRunner(charset="latin-1").invoke(
        main, [at.get(word, word).replace("NAME", name) for word in command.split()]
    )
    assert (said.exit_code, said.output.count("\n")) == (2, 1), said.output
    assert not re.search(rb"[^\n\x20-\x7e\xa0-\xff]", said.output_bytes)


def test_every_answer_of_the_service(place, at):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    every = sorted(str(path) for path in (place / "photos").rglob("*.png") if "broken" not in path.name)
    with TestClient(create_app(place / at["INDEX"], place / at["MODEL"], "cpu", show_paths=True)) as client:
        assert client.get("/api/about").json()["classes"] == sorted(CLASSES)
        items = client.get("/api/items?n=100").json()
        assert sorted(item["path"] for item in items) == every
        for item in items:
            found = client.get(f"/api/items/{item['id']}/query?k=40").json()
            assert found["query"]["name"] == os.path.basename(item["path"])
            assert sorted(hit["path"] for hit in found["hits"]) == every
            assert client.get(f"/api/items/{item['id']}").json() == item
            assert client.get(f"/api/items/{item['id']}/thumbnail?size=96").status_code == 200
        for name in CLASSES:
            among = client.get(f"/api/items/1/query?k=40&label={quote(os.fsencode(name))}").json()["hits"]
            assert {hit["label"] for hit in among} == {name}
        refused = client.get("/api/items/1/query?label=a%ff%0a")
        assert (refused.status_code, refused.content.isascii()) == (422, True)
        assert refused.json()["error"].startswith(r"no class 'a\udcff\n' in this index; its classes: ")
        with open(every[0], "rb") as file:
            named = client.post("/api/query", files={"photo": (NAMES[4], file.read())}).json()
        assert named["query"]["name"].isprintable()
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.get("/metrics").status_code == 200


def of_the_page(section, expression, **variables):
    """What an expression of JavaScript is by the functions of a section of the page's script."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    script = (resources.files("hashret") / "service/static/page.js").read_text()
    [functions] = re.findall(rf"// --- {section} -+\n(.*?)// --- ", script, re.S)
    given = "".join(f"const {name} = {json.dumps(value)}; " for name, value in variables.items())
    script = f"{functions}; {given}console.log(JSON.stringify({expression}))"
    return json.loads(subprocess.run([node, "-"], input=script, capture_output=True, text=True, check=True).stdout)


def test_the_page_shows_names_as_the_terminal_does():
    odd = [*NAMES, ODD, "a\u200cb\u2066\ufeff", "\U000e0041", "caf\xe9\udce9 \U0001f469&+%"]
    drawn = of_the_page("names", "names.map((name) => [shown(name), addressed(name)])", names=odd)
    for name, (text, address) in zip(odd, drawn, strict=True):
        assert text == shown(name)
        assert os.fsdecode(unquote_to_bytes(address)) == name


def test_the_page_asks_for_a_photograph_by_its_digest():
    photo = {"item": 5, "digest": "00ff"}
    asked = 'addressOf(photo, "file"), addressOf(photo, "query", new URLSearchParams({ k: 9 })), pictureOf(photo, 96)'
    assert of_the_page("addresses", f"[{asked}]", photo=photo) == [
        "/api/items/5/file?digest=00ff",
        "/api/items/5/query?k=9&digest=00ff",
        "/api/items/5/thumbnail?size=96&digest=00ff",
    ]
    assert of_the_page("addresses", f"[{asked}]", photo={"item": 5}) == [  # as the page's own address names it
        "/api/items/5/file",
        "/api/items/5/query?k=9",
        "/api/items/5/thumbnail?size=96",
    ]
