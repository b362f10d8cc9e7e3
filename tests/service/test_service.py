"""The service answers as `Searcher` does, and a request that asks too much gets one line and harms nobody."""

import base64
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model, make_photo, make_photos
from data.test_images import bomb_png
from PIL import Image

from hashret import Searcher
from hashret.data import read_image
from hashret.data.images import UnreadableImage
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.files import read_json, write_json
from hashret.index import append, build_index, remove
from hashret.models.attribution import attribute
from hashret.models.checkpoint import load_encoder

pytest.importorskip("fastapi", reason="needs hashret[serve]")
from fastapi.testclient import TestClient

from hashret.service import batching, routes
from hashret.service.app import create_app
from hashret.service.batching import Batcher, Busy
from hashret.service.live import LiveIndex
from hashret.service.thumbnails import KeptPictures
from hashret.service.uploads import clean_name


@pytest.fixture(scope="module")
def client(index_folder, model):
    with TestClient(create_app(index_folder, model, max_upload=200_000, max_pixels=100_000, show_paths=True)) as found:
        seen = set()
        found.event_hooks["response"].append(lambda answer: seen.add(answer))
        yield found
        described = found.get("/openapi.json").json()["paths"]
        assert not [refused for refused in map(partial(undescribed, described), seen) if refused]


def undescribed(described, answer):
    """What the OpenAPI description does not say of an answer: its route, method and status; None where it does."""
    for path, methods in described.items():
        operation = methods.get(answer.request.method.lower())
        if operation and re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), answer.request.url.path):
            known = operation["responses"].get(str(answer.status_code))
            refusal = known and "Problem" in str(known.get("content"))
            return None if known and (answer.is_success or refusal) else (path, operation, answer.status_code)
    return None


@pytest.fixture
def own(index_folder, model, tmp_path):
    """An index and a model that a test may change."""
    shutil.copytree(index_folder, tmp_path / "index")
    shutil.copy(model, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture(scope="module")
def photo(photos):
    return photos / "test" / "red" / "01.png"


def upload(client, data, name="photo.png", **parameters):
    return client.post("/api/query", files={"photo": (name, data)}, params=parameters)


def hits_of(answer, order="hits"):
    return [(hit["id"], hit["path"], hit["label"], hit["hamming"], hit["euclidean"]) for hit in answer[order]]


def test_an_upload_finds_what_the_searcher_finds(client, index_folder, model, photo):
    searcher = Searcher(index_folder, model, "cpu")
    wanted = searcher.search(photo, k=7, candidates=20)
    answer = upload(client, photo.read_bytes(), k=7, candidates=20).json()
    assert hits_of(answer) == [(hit.id, hit.path, hit.label, hit.hamming, hit.euclidean) for hit in wanted]
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 8))
    plain = searcher.search(photo, k=7, rerank_by=None)
    assert [hit["id"] for hit in answer["hamming_hits"]] == [hit.id for hit in plain]
    values = searcher.encode([photo])[0]
    assert np.array_equal(np.float32(answer["query"]["values"]), values)
    assert set(answer["query"]["milliseconds"]) == {"decode", "encode", "hamming", "rerank"}
    raw = client.post("/api/query?k=7&candidates=20", content=photo.read_bytes(), headers={"content-type": "image/png"})
    again = client.post("/api/query/values?k=7&candidates=20", json={"values": answer["query"]["values"]})
    assert hits_of(raw.json()) == hits_of(again.json()) == hits_of(answer)


@pytest.mark.parametrize("by", ["mean", "union"])
@pytest.mark.parametrize("parameters", [{}, {"least": 20}, {"least": "same"}, {"rerank_by": "none", "k": 3}])
def test_several_photographs_are_one_query_as_of_the_searcher(client, index_folder, model, photos, by, parameters):
    searcher = Searcher(index_folder, model, "cpu")
    files = [photos / "test" / colour / "02.png" for colour in ("red", "green", "blue")]
    values = [upload(client, file.read_bytes()).json()["query"]["values"] for file in files]
    parameters = {"k": 7, "candidates": 20} | parameters
    found = client.post("/api/query/values", json={"values": values}, params=parameters | {"together": by})
    answer = found.json()
    rerank = {"rerank_by": None} if parameters.pop("rerank_by", "") == "none" else {}
    wanted = searcher.search_together(files, by=by, **parameters | rerank)
    assert hits_of(answer) == [(hit.id, hit.path, hit.label, hit.hamming, hit.euclidean) for hit in wanted]
    assert [hit["similarity"] for hit in answer["hits"]] == [hit.similarity for hit in wanted]
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(wanted) + 1))
    assert (answer["nearest"] or {}).get("id") == (wanted.nearest and wanted.nearest.id)
    plain = searcher.search_together(files, by=by, **parameters | {"rerank_by": None})
    assert [(hit["id"], hit["hamming"]) for hit in answer["hamming_hits"]] == [(hit.id, hit.hamming) for hit in plain]
    assert (answer["candidates"], answer["ties_cut"]) == (wanted.candidates, wanted.ties_cut)
    if by == "union":
        assert (answer["query"]["code"], len(answer["query"]["codes"])) == (None, 3)
        for hit in answer["hits"]:
            differs = int(hit["code"], 16) ^ int(answer["query"]["codes"][hit["nearest_to"]], 16)
            assert differs.bit_count() == hit["hamming"]


def test_each_hit_has_its_place_in_both_orders(client, photo):
    answer = upload(client, photo.read_bytes(), k=36, candidates=36).json()
    orders = {name: {hit["id"]: hit for hit in answer[name]} for name in ("hits", "hamming_hits")}
    assert len(orders["hits"]) == len(orders["hamming_hits"]) == 36
    for hit in orders["hits"].values():
        other = orders["hamming_hits"][hit["id"]]
        assert hit["rank"] == hit["reranked_rank"] == other["reranked_rank"]
        assert other["rank"] == hit["hamming_rank"] == other["hamming_rank"]
        differs = int(hit["code"], 16) ^ int(answer["query"]["code"], 16)
        assert differs.bit_count() == hit["hamming"]


def test_an_indexed_photograph_is_its_own_first_hit(client, index_folder, model):
    for item in client.get("/api/items?n=5&seed=3").json():
        answer = client.get(f"/api/items/{item['id']}/query?k=3").json()
        assert answer["query"]["code"] == item["code"] == client.get(f"/api/items/{item['id']}").json()["code"]
        assert answer["hits"][0]["euclidean"] == 0
        assert item["id"] in [hit["id"] for hit in answer["hits"] if hit["euclidean"] == 0]
        wanted = Searcher(index_folder, model, "cpu").search(item["path"], k=3)
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted]


def test_parameters(client, photo):
    data = photo.read_bytes()
    red = upload(client, data, label="red", k=50).json()
    assert {hit["label"] for hit in red["hits"]} == {"red"}
    assert (len(red["hits"]), red["count"]) == (12, 12)
    either = upload(client, data, label=["red", "blue"], k=50).json()
    assert ({hit["label"] for hit in either["hits"]}, either["count"]) == ({"red", "blue"}, 24)
    asked = client.get("/api/items/1/query", params={"label": ["blue", "red"], "k": 50}).json()
    assert ({hit["label"] for hit in asked["hits"]}, asked["count"]) == ({"red", "blue"}, 24)
    plain = upload(client, data, rerank_by="none").json()
    assert hits_of(plain) == hits_of(plain, "hamming_hits")
    assert all(hit["euclidean"] is None for hit in plain["hits"])
    for by in ("directions", "asymmetric"):
        distances = [hit["euclidean"] for hit in upload(client, data, rerank_by=by).json()["hits"]]
        assert distances == sorted(distances)
    for parameters, line in [
        ({"k": 0}, "k: input should be greater than or equal to 1"),
        ({"k": "many"}, "k: input should be a valid integer"),
        ({"candidates": 10**9}, "candidates: input should be less than or equal to"),
        ({"label": "purple"}, "no class 'purple' in this index; its classes: blue, green, red"),
        ({"rerank_by": "beauty"}, "rerank_by: input should be 'auto', 'values'"),
    ]:
        refused = upload(client, data, **parameters)
        assert refused.status_code == 422
        assert refused.json()["error"].startswith(line)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("items?count=3", "there is no parameter 'count' here; there are n, seed"),
        ("items/1/query?K=3", "there is no parameter 'K' here; there are digest, k, candidates, "),
        ("items/1/query?K=", "there is no parameter 'K' here; there are digest, k, candidates, "),
        ("items/1/query?k=2&k=1", "the parameter k has one value, and is named twice"),
        ("items?seed=1&n=2&seed=", "the parameter seed has one value, and is named twice"),
        ("about?maps=true", "there is no parameter 'maps' here, nor any other"),
        ("query/words?words=red&labels=red", "there is no parameter 'labels' here; there are "),
        ("items/1/thumbnail?width=64", "there is no parameter 'width' here; there are size"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(client, path, line):
    refused = client.get(f"/api/{path}")
    assert (refused.status_code, refused.json()["error"][: len(line)]) == (422, line)
    assert client.get("/healthz").status_code == client.get("/?utm=mail").status_code == 200


def test_a_least_similarity(client, index_folder, model):
    [hit] = Searcher(index_folder, model, "cpu").search_words("blue", 1)
    assert hit.similarity == 33  # of all, which share a code
    everything = client.get("/api/query/words?words=blue&k=36").json()
    assert {found["similarity"] for order in ("hits", "hamming_hits") for found in everything[order]} == {33}
    assert everything["nearest"] is None
    same = client.get("/api/query/words?words=blue&k=36&least=somewhat").json()
    assert hits_of(same) == hits_of(everything)
    nothing = client.get("/api/query/words?words=blue&least=34").json()
    assert (nothing["hits"], nothing["hamming_hits"], nothing["count"]) == ([], [], 36)
    assert nothing["nearest"] == everything["hamming_hits"][0] | {"reranked_rank": nothing["nearest"]["reranked_rank"]}
    refused = client.get("/api/query/words?words=blue&least=alike")
    assert (refused.status_code, refused.json()["error"][:46]) == (
        422,
        "the least similarity is one of somewhat (25 %)",
    )


def test_values_are_told_where_nothing_is_re_ranked(codes, model, photo, tmp_path):
    """So that the page can ask for more photographs without sending the photograph again."""
    build_index(codes, tmp_path / "small", values=False)
    with TestClient(create_app(tmp_path / "small", model)) as client:
        first = upload(client, photo.read_bytes(), rerank_by="none").json()
        again = client.post(
            "/api/query/values", json={"values": first["query"]["values"]}, params={"rerank_by": "none"}
        )
        assert hits_of(again.json()) == hits_of(first)
        assert first["candidates"] == 0


def test_bad_uploads_get_a_line_and_the_service_goes_on(client, photo):
    good = photo.read_bytes()
    large = io.BytesIO()
    Image.effect_noise((400, 400), 90).save(large, "PNG")
    cases = [
        (b"no picture at all", 415, "cannot read the photograph: not an image"),
        (good[: len(good) // 2], 415, "cannot read the photograph: image file is truncated"),
        (bomb_png(60_000, 60_000), 413, "cannot read the photograph: too large"),
        (large.getvalue(), 413, "cannot read the photograph: too large: 400x400 pixels, limit 100000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "cannot read the photograph: not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "cannot read the photograph: not an image"),
        (b"", 422, "the request holds no photograph"),
        (os.urandom(300_000), 413, "the photograph is too large: more than 200,000 bytes"),
    ]
    for data, status, line in cases:
        refused = upload(client, data)
        assert (refused.status_code, refused.json()["error"][: len(line)]) == (status, line)
        raw = client.post("/api/query", content=data, headers={"content-type": "image/jpeg"})
        assert (raw.status_code, raw.json()["error"][: len(line)]) == (status, line)
    endless = client.post("/api/query", content=(b"x" * 50_000 for _ in range(10)))  # says no length
    assert endless.status_code == 413
    assert client.post("/api/query", files={"other": good}).json() == {"error": "the form has no file named photo"}
    assert client.post("/api/query", files={"photo": (None, "words")}).status_code == 422
    broken = client.post("/api/query", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert broken.status_code == 400
    assert upload(client, good).status_code == 200


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\cat.png", "cat.png"),
        ("a\x00b\r\nc.png", "abc.png"),
        ("x" * 500 + ".png", "x" * 120),
        ("..", ".."),
        (None, ""),
    ],
)
def test_a_file_name_is_only_shown(name, kept):
    assert clean_name(name) == kept


def test_hostile_names_reach_no_file(client, photo):
    answer = upload(client, photo.read_bytes(), "<img src=x onerror=alert(1)>.png").json()
    assert answer["query"]["name"] == "<img src=x onerror=alert(1)>.png"  # JSON, and textContent on the page
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/etc/passwd",
    ):
        assert client.get(path).status_code == 404
    for path in ("/api/items/../../etc/passwd", "/api/items/1%2f..%2f2/thumbnail"):
        assert client.get(path).status_code in (404, 422)


def test_maps_of_an_upload_and_of_an_indexed_photograph(client, index_folder, model, photo):
    answer = upload(client, photo.read_bytes(), maps=True).json()
    found = answer["query"]["maps"]
    encoder = Searcher(index_folder, model, "cpu").encoder
    [wanted] = attribute(encoder, encoder.backbone(read_image(photo, 32)[None]))
    assert found["grid"] == [1, 1]
    assert found["gate_range"] == [float(wanted.spatial.min()), float(wanted.spatial.max())]
    for kind in ("gate", "places"):
        picture = Image.open(io.BytesIO(base64.b64decode(found[kind].removeprefix("data:image/webp;base64,"))))
        assert (picture.mode, picture.size) == ("RGBA", (224, 224))
    assert upload(client, photo.read_bytes()).json()["query"]["maps"] is None
    item = client.get("/api/items/7").json()
    with open(item["path"], "rb") as file:
        as_upload = upload(client, file.read(), maps=True).json()["query"]["maps"]
    assert client.get("/api/items/7/maps").json() == as_upload
    assert client.get("/api/items/999/maps").status_code == 404


def test_wrong_methods_and_ids(client):
    for method, path in [("GET", "/api/query"), ("DELETE", "/api/items/1"), ("PUT", "/"), ("POST", "/healthz")]:
        refused = client.request(method, path)
        assert refused.status_code == 405
        assert refused.headers["allow"]
        assert refused.json() == {"error": "method not allowed"}
    for path in ("/api/items/999", "/api/items/999/query", "/api/items/999/thumbnail"):
        refused = client.get(path)
        assert refused.status_code == 404
        assert refused.json()["error"].startswith("no photograph with id")
    for id in ("-1", "one", "99999999999999999999999"):
        assert client.get(f"/api/items/{id}").status_code == 422
    several = [[], [[0.5] * 24, [0.5] * 23], [[0.5] * 24, 0.5], [[2.0] * 24] * 2, [[0.5] * 24] * 101]
    for values in ([], [0.5], ["a"] * 24, [2.0] * 24, [float("nan")] * 24, *several):
        body = str({"values": values}).replace("'", '"').replace("nan", "NaN")
        refused = client.post("/api/query/values", content=body, headers={"content-type": "application/json"})
        assert refused.status_code == 422
        assert refused.json()["error"].startswith("values")
        assert "[" not in refused.json()["error"]
    assert client.post("/api/query/values?together=both", json={"values": [0.5] * 24}).status_code == 422
    assert client.post("/api/query/values", content="{").status_code == 422


def test_only_this_machine_is_answered_where_it_was_not_said_otherwise(index_folder):
    with TestClient(create_app(index_folder, None, hosts=("localhost",)), base_url="http://localhost") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"host": "elsewhere.example"}).status_code == 400


def test_thumbnails(client, index_folder):
    item = client.get("/api/items/0").json()
    found = client.get("/api/items/0/thumbnail?size=96")
    assert found.headers["content-type"] == "image/webp"
    shown, true = (
        np.asarray(Image.open(file).convert("RGB"), int) for file in (io.BytesIO(found.content), item["path"])
    )
    assert shown.shape == true.shape
    assert np.abs(shown.mean(axis=(0, 1)) - true.mean(axis=(0, 1))).max() < 6
    assert found.headers["cache-control"] == "private, no-cache"  # the address may be another photograph's by then
    again = client.get(f"/api/items/0/thumbnail?size=96&digest={item['digest']}")
    assert (again.content, again.headers["cache-control"]) == (found.content, "private, max-age=300")
    assert client.get("/api/items/0/thumbnail?size=97").json() == {"error": "size is one of 96, 160, 256, 512, 1024"}


def test_another_photograph_that_has_the_id_by_now_is_refused(own, photos, tmp_path):
    """As in an index that is built again, which counts ids from 0 again; one that is added to gives no id twice."""
    encode(f"folder:{photos}", own / "model.safetensors", tmp_path / "codes", split="test", workers=0)
    app = create_app(own / "index", own / "model.safetensors", "cpu")
    with TestClient(app) as client:
        [hit] = client.get("/api/items/3/query?k=1").json()["hits"]
        item, own_digest = client.get(f"/api/items/{hit['id']}").json(), f"digest={hit['digest']}"
        assert item["digest"] == hit["digest"]
        about_it = [f"/api/items/{hit['id']}{what}" for what in ("", "/query", "/thumbnail", "/file", "/maps")]

        def statuses(digest=""):
            app.state.service.live.refresh()
            return {client.get(f"{path}{digest}").status_code for path in about_it}

        append(own / "index", tmp_path / "codes")
        remove(own / "index", ids=[0 if hit["id"] else 1])
        assert statuses(f"?{own_digest}") == statuses() == {200}
        build_index(tmp_path / "codes", own / "index", overwrite=True)
        assert (statuses(f"?{own_digest}"), statuses()) == ({409}, {200})
        line = f"the index was built again, and photograph {hit['id']} is another one now: search again"
        assert client.get(f"{about_it[0]}?{own_digest}").json() == {"error": line}


def test_few_indexed_photographs_are_decoded_at_a_time(own, monkeypatch):
    """Each may have as many pixels as an index takes, far more than an upload."""
    lock, running, most = threading.Lock(), 0, 0

    def decode(*_, **__):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        raise UnreadableImage("no image")

    monkeypatch.setattr("hashret.service.thumbnails._kept", KeptPictures(0))
    monkeypatch.setattr("hashret.service.thumbnails.open_rgb", decode)
    monkeypatch.setattr("hashret.service.routes.read_image", decode)
    with (
        TestClient(create_app(own / "index", own / "model.safetensors", "cpu")) as client,
        ThreadPoolExecutor(24) as pool,
    ):
        paths = [f"/api/items/{id}/{what}" for id in range(8) for what in ("thumbnail", "file", "maps")]
        assert {answer.status_code for answer in pool.map(client.get, paths)} == {404}
    assert most <= routes._READING


def test_pictures_are_kept_by_their_bytes():
    kept = KeptPictures(3 * 6000)
    keys = [("photo.jpg", size, 1, 2) for size in (1, 2, 3, 4)]
    for key in keys[:3]:
        kept.add(key, b"x" * 5000)
    assert kept.get(keys[0]) == b"x" * 5000
    kept.add(keys[3], b"y")  # the second, which nobody asked for since, makes room
    assert [kept.get(key) is not None for key in keys] == [True, False, True, True]
    assert kept.bytes == 2 * 6000 + 1001
    kept.add(keys[1], b"z" * 20_000)  # more than all the room
    assert [kept.get(key) for key in keys] == [None] * 4
    assert kept.bytes == 0


def test_visitors_see_where_a_photograph_lies_below_the_folder_and_no_more(index_folder, client, tmp_path):
    whole = client.get("/api/items/0").json()["path"]
    with TestClient(create_app(index_folder, None)) as guarded:
        assert guarded.get("/api/items/0").json()["path"] == "/".join(Path(whole).parts[-2:])
        drawn = guarded.get("/api/items").json() + guarded.get("/api/items/0/query").json()["hits"]
        assert not any(str(index_folder.parent) in item["path"] for item in drawn)
    rooted = tmp_path / "rooted"
    shutil.copytree(index_folder, rooted)
    meta = read_json(rooted / "index.json", "index")
    write_json(rooted / "index.json", meta | {"root": str(Path(whole).parents[2])})
    with TestClient(create_app(rooted, None)) as guarded:
        path = guarded.get("/api/items/0").json()["path"]
        assert not path.startswith("/")
        assert path in whole


def test_the_file_of_a_photograph_can_be_kept(client):
    item = client.get("/api/items/0").json()
    found = client.get("/api/items/0/file")
    assert found.content == Path(item["path"]).read_bytes()
    assert found.headers["content-disposition"] == f"attachment; filename*=UTF-8''{Path(item['path']).name}"
    assert client.get("/api/items/99999/file").status_code == 404


def test_a_file_that_is_gone(own, tmp_path):
    make_photo(tmp_path / "more" / "red" / "x.png", "red", np.random.default_rng(0))
    encode(f"folder:{tmp_path / 'more'}", own / "model.safetensors", tmp_path / "codes", workers=0)
    append(own / "index", tmp_path / "codes")
    with TestClient(create_app(own / "index", own / "model.safetensors")) as client:
        assert client.get("/api/items/36").json()["there"]
        shutil.rmtree(tmp_path / "more")
        assert not client.get("/api/items/36").json()["there"]
        assert client.get("/api/items/36/thumbnail").status_code == 404
        assert client.get("/api/items/36/query").status_code == 200


def test_what_it_says_of_itself(client):
    about = client.get("/api/about").json()
    assert (about["count"], about["bits"], about["classes"]) == (36, 24, ["blue", "green", "red"])
    assert about["encoder"]["attention"] is True
    checked = "types, shapes and sizes, sha256 of 7 files"
    health = {"status": "ok", "problem": None, "generation": 1, "count": 36, "checked": checked}
    assert client.get("/healthz").json() == health
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) >= {"/api/query", "/api/items/{id}/query", "/api/items/{id}", "/healthz"}
    post = described["paths"]["/api/query"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert set(post["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "500", "503"}
    figures = client.get("/metrics").text
    assert 'hashret_requests_total{method="GET",route="/api/about",status="200"}' in figures
    assert "hashret_batch_size_count" in figures
    assert "hashret_index_items 36.0" in figures
    assert "/api/items/999" not in figures  # a route, not each address


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text.count("<title>hashret</title>") == page.text.count('src="/static/page.js"') == 1
    for address in ("/", "/static/page.css", "/static/page.js", "/static/icon.svg"):
        text = client.get(address).text
        assert text
        assert not [word for word in ("//cdn", "https://", "@import") if word in text]


def test_without_a_model_or_values(index_folder, codes, tmp_path, photo):
    with TestClient(create_app(index_folder, None)) as client:
        assert client.get("/api/about").json()["encoder"] is None
        assert "started without a model" in upload(client, photo.read_bytes()).json()["error"]
        assert client.get("/api/items/3/query").json()["hits"][0]["euclidean"] == 0
    build_index(codes, tmp_path / "small", values=False)
    with TestClient(create_app(tmp_path / "small", None)) as client:
        assert client.get("/api/about").json()["values"] is False
        answer = client.get("/api/items/3/query").json()
        assert answer["query"]["values"] is None
        assert [hit["hamming"] for hit in answer["hits"]] == sorted(hit["hamming"] for hit in answer["hits"])


def wait_until(ready, seconds=20):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_newer_index_is_taken_up_without_losing_a_request(own, photos, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("hashret.service.live._WATCH_SECONDS", 0.05)
    encode(f"folder:{photos}", own / "model.safetensors", tmp_path / "more", split="test", workers=0)
    encode(f"folder:{photos}", own / "model.safetensors", tmp_path / "all", split="train", workers=0)
    data = photo.read_bytes()
    with TestClient(create_app(own / "index", own / "model.safetensors")) as client:
        stop, answers = threading.Event(), []

        def ask():
            while not stop.is_set():
                answers.append(upload(client, data, k=1000))

        def count():
            return client.get("/healthz").json()["count"]

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            try:
                append(own / "index", tmp_path / "more")
                wait_until(lambda: count() == 48)
                remove(own / "index", ids=[0])
                wait_until(lambda: count() == 47)
                build_index([tmp_path / "all"], own / "index", overwrite=True)
                wait_until(lambda: count() == 36)
            finally:
                stop.set()
            for done in asking:
                done.result()
        assert {answer.status_code for answer in answers} == {200}
        assert {len(answer.json()["hits"]) for answer in answers} <= {36, 47, 48}
        assert client.get("/api/items/0").status_code == 200


def test_a_checkpoint_that_is_replaced_while_it_is_opened_is_refused(own, monkeypatch):
    def load_after_a_change(path, *arguments, **options):
        make_model(path, seed=5)
        return load_encoder(path, *arguments, **options)

    monkeypatch.setattr("hashret.service.live.load_encoder", load_after_a_change)
    with pytest.raises(HashretError, match="replaced by another encoder"):
        LiveIndex(own / "index", own / "model.safetensors", "cpu")


def test_an_index_of_another_encoder_is_not_taken_up_without_it(own, photos, tmp_path):
    live = LiveIndex(own / "index", own / "model.safetensors", "cpu")
    before = live.current
    other = make_model(tmp_path / "other.safetensors", seed=5)
    encode(f"folder:{photos}", other, tmp_path / "others", split="test", workers=0)
    build_index(tmp_path / "others", own / "index", overwrite=True)
    live.refresh()
    assert "built by another encoder" in live.problem
    assert live.current is before
    shutil.copy(other, own / "model.safetensors")
    os.utime(own / "index" / "index.json")
    live.refresh()
    assert (live.problem, len(live.current.index), live.reloads) == (None, 12, 1)
    assert live.current.encoder.fingerprint == live.current.index.meta["encoder"]
    shutil.rmtree(own / "index")
    live.refresh()
    assert "no index at" in live.problem
    assert len(live.current.index) == 12


class SlowEncoder:
    """Counts its batches; the first one waits until it is let go."""

    def __init__(self):
        self.sizes, self.go = [], threading.Event()

    def backbone(self, images):
        self.sizes.append(len(images))
        assert self.go.wait(20)
        import torch

        return torch.as_tensor(images, dtype=torch.float32)

    def outputs(self, features):
        return features.mean(dim=(2, 3)).numpy(), None


def run_async(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def test_photographs_that_wait_are_encoded_together():
    import asyncio

    async def ask():
        first = asyncio.create_task(batcher.encode(encoder, images[0]))
        await asyncio.to_thread(wait_until, lambda: encoder.sizes == [1])
        others = [asyncio.create_task(batcher.encode(encoder, image)) for image in images[1:]]
        await asyncio.to_thread(wait_until, lambda: len(batcher.jobs) == 9)
        others[3].cancel()  # who hangs up is left out
        await asyncio.wait([others[3]])
        with pytest.raises(Busy):
            await batcher.encode(encoder, images[0])
        encoder.go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    encoder, sizes = SlowEncoder(), []
    batcher = Batcher(most=4, waiting=9, on_batch=sizes.append)
    images = np.arange(10)[:, None, None, None] * np.ones((1, 3, 2, 2), np.float32)
    found = run_async(ask())
    batcher.close()
    assert encoder.sizes == sizes == [1, 3, 4, 1]
    for number, one in enumerate(found):
        if number == 4:
            assert isinstance(one, asyncio.CancelledError)
        else:
            assert np.array_equal(one.hash_outputs, np.full(3, number, np.float32))


def test_the_encoder_that_fails_fails_its_requests_alone():
    class Failing(SlowEncoder):
        def outputs(self, features):
            raise ValueError("no")

    good, bad = SlowEncoder(), Failing()
    good.go.set()
    bad.go.set()
    batcher, image = Batcher(), np.ones((3, 2, 2), np.float32)
    with pytest.raises(ValueError, match="no"):
        run_async(batcher.encode(bad, image))
    assert run_async(batcher.encode(good, image)).hash_outputs.tolist() == [1, 1, 1]
    batcher.close()
    with pytest.raises(Busy):
        run_async(batcher.encode(good, image))


def test_requests_at_once_get_the_answers_of_requests_one_by_one(client, photos):
    files = sorted((photos / "test").rglob("*.png"))
    alone = [upload(client, file.read_bytes()).json()["query"]["values"] for file in files]
    with ThreadPoolExecutor(len(files)) as pool:
        together = list(pool.map(lambda file: upload(client, file.read_bytes()).json()["query"]["values"], files))
    assert together == alone


def test_too_many_waiting_photographs_are_refused(client, photo, monkeypatch):
    async def full(*_):
        raise Busy

    monkeypatch.setattr(batching.Batcher, "encode", full)
    refused = upload(client, photo.read_bytes())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def serve_process(folder, *options):
    command = [sys.executable, "-u", "-m", "hashret", "serve", "index", "--port", "0", *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_it_cleanly(own):
    process = serve_process(own, "--device", "cpu")
    line = process.stdout.readline()
    assert line.startswith("36 photographs at http://127.0.0.1:")
    address = line.split()[3].rstrip(";")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/healthz", timeout=20) as found:
        assert found.status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_mistakes_get_one_line(own, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from hashret.cli import main

    monkeypatch.chdir(own)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = CliRunner().invoke(main, ["serve", "index", "--port", port])
    assert (found.exit_code, found.output.count("\n")) == (2, 1)
    assert f"cannot listen at 127.0.0.1:{port}" in found.output
    for arguments, line in [
        (["serve", "nothing"], "no index at nothing"),
        (["serve", "index", "--model", "none.safetensors"], "no checkpoint at none.safetensors"),
        (["serve", "index", "--host", "nowhere.invalid"], "cannot listen at nowhere.invalid"),
        (
            ["serve", "index", "--allow-host", "https://photos.example"],
            "'https://photos.example' is no name of a machine",
        ),
        (["serve", "index", "--allow-host", "photos.example:80"], "'photos.example:80' is no name of a machine"),
        (["serve", "index", "--host", "a..b"], "cannot listen at a..b:8000: that is no name of a machine"),
    ]:
        found = CliRunner().invoke(main, arguments)
        assert (found.exit_code, found.output.count("\n")) == (2, 1)
        assert line in found.output
    make_photos(tmp_path / "p", 1, 0)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    from hashret import serve

    with pytest.raises(HashretError, match=r"pip install 'hashret\[serve\]'"):
        serve("index")
