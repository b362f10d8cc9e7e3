"""The whole way from photographs to answers, for whatever a test has added to hashret from outside."""

from pathlib import Path
from typing import Any

import pytest

import hashret
from hashret.search import query


def whole_way(folder: Path, photos: Path, **options: Any) -> hashret.Encoder:
    """Train, encode, build an index, query, evaluate, explain and serve; each must tell the colours apart."""
    model, index = folder / "model.safetensors", folder / "index"
    common = {"bits": 16, "width": 32, "batch_size": 8, "epochs": 40, "lr": 3e-3, "dropout": 0.0, "workers": 0}
    report = hashret.train(photos, model, heldout=0.2, **common | options)
    assert max(epoch["heldout_map"] for epoch in report.epochs_run) > 0.8
    hashret.encode(photos, model, folder / "codes", split="train", workers=0)
    hashret.build_index(folder / "codes", index)
    asked = photos / "test" / "red" / "00.png"
    [(_, hits)] = query([asked], index, model, k=5, device="cpu")
    assert {hit.label for hit in hits} == {"red"}
    figures = hashret.evaluate(photos, index, model=model, split="test", device="cpu")
    assert figures.as_dict()["hamming"]["map"] > 0.8
    [one] = hashret.explain([asked], model, folder / "explain.png", index=index, k=2, device="cpu")
    assert one.attribution.hash_outputs.shape == (16,)
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    with TestClient(create_app(index, model, "cpu")) as client:
        answer = client.post("/api/query?k=3", files={"photo": asked.read_bytes()}).json()
        assert {hit["label"] for hit in answer["hits"]} == {"red"}
        assert client.get("/api/items/0/maps").status_code == 200
    return hashret.load_encoder(model, "cpu")
