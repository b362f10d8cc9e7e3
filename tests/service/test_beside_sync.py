"""`hashret serve` beside `hashret sync --watch`, each in a process of its own, over one folder of photographs."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_photo, make_photos

import hashret
from service.test_service import upload, wait_until

pytest.importorskip("fastapi", reason="needs hashret[serve]")
pytest.importorskip("watchfiles", reason="needs hashret[watch]")
from fastapi.testclient import TestClient

from hashret.service.app import create_app


def test_what_changes_in_the_folder_is_found_without_a_restart(tmp_path, model, monkeypatch):  # 5 s: starts hashret
    monkeypatch.setattr("hashret.service.live._WATCH_SECONDS", 0.1)
    photos = make_photos(tmp_path / "photos", 4, seed=3)
    assert hashret.sync(photos, model=model, workers=0).new == 12
    command = [sys.executable, "-m", "hashret", "sync", str(photos), "--model", str(model), "--workers", "0", "--watch"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with (
        TestClient(create_app(photos / ".hashret" / "index", model, "cpu"), base_url="http://localhost") as client,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as watching,
    ):
        try:
            assert "12 unchanged" in watching.stdout.readline()
            assert "watching" in watching.stdout.readline()
            new = make_photo(photos / "red" / "later.png", "red", np.random.default_rng(1))
            data = new.read_bytes()

            def found():
                answer = upload(client, data, k=13)
                assert answer.status_code == 200
                return [hit["path"] for hit in answer.json()["hits"]]

            wait_until(lambda: found()[0] == "red/later.png", 60)
            (photos / "red").rename(photos / "crimson")
            wait_until(lambda: found()[0] == "crimson/later.png", 60)
            (photos / "crimson" / "later.png").unlink()
            wait_until(lambda: len(found()) == 12, 60)
            assert client.get("/healthz").status_code == 200
        finally:
            watching.send_signal(signal.SIGINT)
            rest = watching.communicate(timeout=60)[0]
    assert watching.returncode == 130
    assert rest.endswith("interrupted; what was written stays\n")
