"""The folder that cases begin with: every verb has run in it, so that every kind of file is there, whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

CLASSES = ("blue", "green", "red")
FORMATS = ("jpg", "gif", "bmp", "webp", "tif", "ppm", "jp2", "avif")
SMALL = ("--image-size", 32, "--backbone", "vgg11", "--width", 16, "--bits", 24, "--batch-size", 4, "--workers", 0)


def build(top):
    """Make `work`, and `outside` beside it, whose files no verb may touch. All under ``top``, the working folder."""
    import torch

    torch.manual_seed(0)
    _outside(top / "outside")
    work = top / "work"
    work.mkdir()
    os.chdir(work)
    _photographs(Path("photos"))
    _weights()
    train = ("train", "--data", "folder:photos", "--weights", "weights.pth", "--cache", "cache", *SMALL, "--seed", 1)
    _run(*train, "--epochs", 2)
    _unfinished(*train, "--epochs", 2, "--out", "resumed.safetensors")
    encode = ("encode", "--workers", 0, "--cache", "no-cache", "--shard-size", 8)
    _run(*encode, "photos", "--split", "train", "--features")
    _run(*encode, "photos", "--split", "test", "--features", "--out", "codes-test")
    _run(*encode, "photos/formats", "--out", "plain")
    _run("build-index")
    _run("evaluate", "codes-test", "--candidates", 10, "--out", "metrics.json")
    _run("build-index", "--codes", "plain", "--out", "living")
    _run("add", "living", "photos", "--split", "train", "--workers", 0)
    _run("remove", "living", "--id", 1, "--id", 9)
    shutil.copytree("index", "emptied")
    _run("remove", "emptied", "--path", "*")
    shutil.copytree("codes", "unfinished")
    Path("unfinished/skipped.jsonl").unlink()
    Path("unfinished/codes-00001.h5").unlink()
    _crowd(Path("crowd-codes"))
    _run("build-index", "--codes", "crowd-codes", "--out", "crowd")
    shutil.rmtree("crowd-codes")
    _duplicates()
    _lists()
    step = {"command": "hashret train", "seconds": 3.5, "commit": "abc1234"}
    Path("steps.json").write_text(json.dumps({"train": step, "encode": step}))
    record, metrics = (json.loads(Path(f"{name}.json").read_text()) for name in ("model", "metrics"))
    Path("bench.json").write_text(
        json.dumps(
            {"benchmark": "tables", "commit": "abc", "seconds": [1, 2.5], "training": record, "metrics": metrics}
        )
    )
    shutil.rmtree("no-cache", ignore_errors=True)


def _run(*arguments):
    from hashret.cli import main

    try:
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            main([str(argument) for argument in arguments], prog_name="hashret")
    except SystemExit as done:
        if done.code:
            raise RuntimeError(f"hashret {' '.join(map(str, arguments))} ended with {done.code}") from None


def _outside(folder):
    import h5py

    folder.mkdir()
    (folder / "victim.json").write_text('{"format": 2, "dear": "to somebody"}\n')
    (folder / "victim.jpg").write_bytes(b"not to be moved")
    with h5py.File(folder / "victim.h5", "w") as file:
        file["ids"] = np.arange(8)


def _photographs(root):
    from PIL import Image, features

    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for channel, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                _picture(rng, channel).save(root / split / name / f"{number}.png")
    (root / "formats").mkdir()
    for suffix in FORMATS:
        if suffix != "avif" or features.check("avif"):
            _picture(rng, 0).save(root / "formats" / f"photo.{suffix}")
    Image.fromarray(rng.integers(0, 2**16, (24, 24), dtype=np.uint16)).save(root / "formats" / "deep.png")


def _picture(rng, channel, size=40):
    from PIL import Image

    pixels = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
    pixels[:, :, 2 - channel] += 150
    return Image.fromarray(pixels)


def _weights():
    import torch
    from safetensors.torch import save_file

    from hashret.models.weights import load_backbone

    state = {f"features.{name}": tensor for name, tensor in load_backbone("none", "vgg11").state_dict().items()}
    torch.save(state, "weights.pth")
    save_file(state, "weights.safetensors")


def _unfinished(*arguments):
    """A training that was killed after its first epoch."""
    from hashret.training.loop import TrainingRun

    class Killed(Exception):
        pass

    def end_epoch(self, *args):
        whole(self, *args)
        raise Killed

    whole, TrainingRun._end_epoch = TrainingRun._end_epoch, end_epoch
    try:
        _run(*arguments)
    except Killed:
        pass
    finally:
        TrainingRun._end_epoch = whole


def _crowd(folder):
    """Shards of 5,000 photographs with few distinct codes, so that an index of them is grouped."""
    from hashret.bits import binarize, pack
    from hashret.shards import Shard, encode_paths, write_shard

    rng = np.random.default_rng(5)
    manifest = json.loads(Path("codes/codes.json").read_text())
    values = rng.random((700, 24), np.float32)[rng.integers(700, size=5000)]
    paths = encode_paths([os.path.abspath(f"photos/train/red/{row % 6}.png") for row in range(5000)])
    shard = Shard(pack(binarize(values)), values, np.arange(5000), paths, rng.integers(0, 3, 5000))
    folder.mkdir()
    keys = {name: manifest[name] for name in ("bits", "encoder", "image_size")}
    write_shard(folder / "codes-00000.h5", shard, first_id=0, **keys)
    manifest |= {"images": 5000, "shards": 1, "shard_size": 5000}
    manifest.pop("features", None)
    (folder / "codes.json").write_text(json.dumps(manifest))
    (folder / "skipped.jsonl").write_text("")


def _duplicates():
    """Two photographs that were set aside."""
    shutil.copytree("photos/train/red", "copies")
    for number in range(2):
        shutil.copy(f"copies/{number}.png", f"copies/again-{number}.png")
    _run("encode", "copies", "--out", "copies-codes", "--workers", 0, "--cache", "no-cache")
    _run("build-index", "--codes", "copies-codes", "--out", "copies-index")
    shutil.rmtree("copies-codes")
    _run("duplicates", "copies-index", "--move-to", "aside", "--yes")


def _lists():
    folder = Path("lists")
    folder.mkdir()
    flags = {name: " ".join(str(int(name == other)) for other in CLASSES) for name in CLASSES}
    lines = [f"photos/train/{name}/{number}.png {flags[name]}\n" for number in range(2) for name in CLASSES]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
