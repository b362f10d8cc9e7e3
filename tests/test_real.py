"""A real run: a few hundred CIFAR-10 images, VGG16's ImageNet weights, the whole way."""

import json
import tarfile

import pytest
from click.testing import CliRunner

from hashret.cli import main

TRAIN, TEST = 40, 15  # images a class


@pytest.fixture(scope="module")
def cifar(shared, tmp_path_factory):
    """The first images of each class and set, as class folders."""
    root = tmp_path_factory.mktemp("cifar")
    wanted = {"train": TRAIN, "test": TEST}
    seen = {}
    with tarfile.open(shared / "data" / "cifar10-png.tar") as archive:
        for member in archive:
            if not member.isfile():
                continue
            split, name, _ = member.name.removeprefix("./").split("/")
            if seen.get((split, name), 0) < wanted[split]:
                seen[split, name] = seen.get((split, name), 0) + 1
                archive.extract(member, root, filter="data")
    assert len(seen) == 20
    return root


def test_the_main_line_on_real_photographs(cifar, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = shared / "weights" / "vgg16_imagenet_features.safetensors"

    def hashret(line):
        done = CliRunner().invoke(main, line.split())
        assert done.exit_code == 0, (line, done.output, done.exception)
        return done.stdout

    size = "--image-size 64 --width 512 --batch-size 32 --lr 1e-3"
    hashret(f"train --data cifar10:{cifar} --method am-vggh --weights {weights} --bits 48 --epochs 12 {size}")
    assert "400 encoded, 0 skipped" in hashret(f"encode cifar10:{cifar}")
    assert "150 encoded, 0 skipped" in hashret(f"encode cifar10:{cifar} --split test --out codes-test")
    assert "400 photographs, 48 bits" in hashret("build-index")
    figures = json.loads(hashret("evaluate codes-test --candidates 100"))
    # Ten classes: chance is 0.1. A run of this size on this data gives about 0.5.
    assert figures["hamming"]["map"] > 0.35
    assert figures["reranked"]["precision_at"]["10"] > 0.35
    photo = next((cifar / "train" / "ship").iterdir())
    first = json.loads(hashret(f"query {photo} --json --grid hits.png --html hits.html"))["hits"][0]
    assert first["path"] == str(photo)
    assert (first["hamming"], first["euclidean"]) == (0, 0.0)
