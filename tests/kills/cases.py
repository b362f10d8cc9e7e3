"""Every verb that writes: what is there before it runs, its command line, and what is compared after it was stopped.

All of it runs in processes that `warm.py` forks, in the folder ``w`` of a root that has ``cache`` and ``tmp``, too.
"""

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

SMALL = ["--backbone", "vgg11", "--image-size", "32", "--width", "8", "--bits", "16", "--device", "cpu", "--seed", "1"]
TRAIN = ["train", "--data", "photos", *SMALL, *["--epochs", "2", "--batch-size", "4", "--heldout", "0.25"]]
SCRATCH = [*TRAIN, "--weights", "none", "--finetune", "all", "--out", "encoder.safetensors"]
HEAD = [*TRAIN, "--weights", "weights.pth", "--out", "encoder.safetensors"]


@dataclass(frozen=True)
class Case:
    """A verb and what it finds.

    Attributes:
        argv: the command line.
        prepare: called in the working folder, on top of what `make_world` leaves there.
        view: called in the root: -> what a reader finds, to be compared. It raises where something is damaged.
        outputs: names that the verb may touch, with all below them and temporary names beside them.
        between: ``between(view, old, new)``, whether a documented state between the old and the new is one.
        again: command lines to try after a kill, the first that succeeds counts.
        apart: folders directly below the root lie on disks of their own.
        dated: the run makes photographs, by whose times codes know their data.
        change: called before the run, in its process.
    """

    argv: tuple
    view: object
    outputs: tuple
    prepare: object = None
    between: object = lambda view, old, new: False
    again: tuple = ()
    apart: bool = False
    dated: bool = False
    change: object = lambda: None


def make_world():
    """Photographs of three colours, a model, codes and an index, in the working folder."""
    import torch
    from conftest import make_model, make_photo, make_photos

    rng = np.random.default_rng(5)
    make_photos(Path("photos"), 4, seed=1)
    for number in range(3):
        make_photo(Path("more") / f"{number}.png", "red", rng)
    make_model(Path("model.safetensors"), bits=16, width=8)
    torch.manual_seed(3)
    from hashret.models.weights import load_backbone

    torch.save(load_backbone("none", "vgg11").state_dict(), "weights.pth")
    _hashret("encode", "photos", "--shard-size", "5")
    _hashret("build-index")


def _hashret(*arguments):
    from hashret.cli import main

    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert not end.value.code, arguments


def stable(content, dated=False):
    """JSON without what differs from run to run: seconds, and the fingerprint of data with new dates."""
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if not name.endswith("seconds")}
        return {name: stable(value, dated) for name, value in kept.items() if not (dated and name == "data")}
    return [stable(value, dated) for value in content] if isinstance(content, list) else content


def contents(path, dated=False):
    """A digest of a file; of JSON, of what is stable."""
    raw = Path(path).read_bytes()
    if str(path).endswith(".json"):
        raw = json.dumps(stable(json.loads(raw), dated), sort_keys=True).encode()
    return hashlib.sha256(raw).hexdigest()[:16]


def tree(folder, dated=False):
    """Every file and folder below a folder with its digest, None for folders."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        # What says how often something was changed or tried, or when a photograph that is copied for each run was made.
        history = path.name in ("index.json", "moved.jsonl", "sync.json")
        found[str(path.relative_to(folder))] = contents(path, dated) if path.is_file() and not history else None
    orders = {}
    for path in found:
        above, number = os.path.split(path)
        if re.fullmatch(r"\d{6}", number):
            orders[path] = f"{above}/segment {sum(os.path.dirname(other) == above for other in orders)}"
    named = {}
    for path, digest in found.items():
        above, name = os.path.split(re.sub(r"removed-\d{6}", "removed", path))
        named[orders.get(path, f"{orders.get(above, above)}/{name}")] = digest
    return named


def _digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


# Views


def is_empty(folder, marker):
    """Whether nothing is there, or only what does not count without the file that is written last."""
    if (folder / marker).exists() or not folder.exists():
        return not folder.exists()
    assert all(re.fullmatch(r"\..*|\d{6}", name) for name in os.listdir(folder)), os.listdir(folder)
    return True


def index(name="index"):
    """View of an index: what it says and holds, photograph by photograph."""

    def view():
        folder = Path("w") / name
        if is_empty(folder, "index.json"):
            return None
        from hashret.index import open_index

        opened = open_index(folder, "cpu", verify=True)
        rows = np.flatnonzero(opened.alive)
        photographs = {int(opened.ids[row]): opened.path(row) for row in rows}
        values = [_digest(segment.hash_outputs[segment.alive]) for segment in opened.segments]
        query = np.stack([opened.code(row) for row in rows[:3]])
        return photographs, values, [found.tolist() for found in opened.nearest(query, 5)], opened.meta["next_id"]

    return view


def mirror():
    """View of an index that mirrors a folder: the code and the values of each photograph, whatever their order."""
    folder = Path("w/own/index")
    if not (folder / "index.json").exists():
        return None
    from hashret.index import open_index

    opened = open_index(folder, "cpu", verify=True)
    rows = np.flatnonzero(opened.alive)
    return {opened.path(row): (_digest(opened.code(row)), _digest(opened.hash_outputs[row])) for row in rows}


def codes(name="codes", dated=False):
    """View of a folder of shards: its shards by their content, and whether it is complete."""

    def view():
        folder = Path("w") / name
        if is_empty(folder, "codes.json"):
            return None
        from hashret.shards import read_shard

        manifest = stable(json.loads((folder / "codes.json").read_text()), dated)
        shards = {}
        for file in sorted(folder.glob("*.h5")):
            shard, _ = read_shard(file, verify=True)
            shards[file.name] = (_digest(shard.codes), _digest(shard.hash_outputs), _digest(shard.paths))
        return manifest, shards, (folder / "skipped.jsonl").exists()

    return view


def unfinished(view, old, new):
    """An unfinished run of the new codes, beside which the old ones are no longer wanted."""
    return not view[2] and view[0] == new[0] and view[1].items() <= new[1].items() if view else old is None


def checkpoint():
    """View of a checkpoint and its record; a record of another checkpoint counts as none."""

    def view():
        path = Path("w/encoder.safetensors")
        if not path.exists():
            return None
        from hashret.models.checkpoint import load_encoder

        fingerprint = load_encoder(path, "cpu").fingerprint
        record = Path("w/encoder.json")
        found = stable(json.loads(record.read_text())) if record.exists() else {}
        return fingerprint, found if found.get("fingerprint") == fingerprint else None

    return view


def without_record(view, old, new):
    """The old checkpoint, the record of the new one already beside it."""
    return view == (old[0], None) if old else False


def files(*names):
    """View of plain files."""
    return lambda: {name: contents(path) if (path := Path("w") / name).exists() else None for name in names}


def photographs():
    """View of photographs that are moved: each content, and how often it is there; no folder of the index."""

    def view():
        found = {}
        for folder in ("w/photos", "w/copies", "aside"):
            for path in Path(folder).rglob("*"):
                if path.is_file() and path.suffix == ".png" and path.stat().st_size and not path.name.startswith("."):
                    found.setdefault(contents(path), []).append(str(path))
        return found

    return view


def each_in_one_place(view, old, new):
    """Every photograph is whole in its old or its new place, or in both."""
    return (
        view.keys() == old.keys()
        and all(set(view[one]) <= {*old[one], *new[one]} for one in view)
        and all(set(view[one]) >= set(old[one]) & set(new[one]) and len(view[one]) >= len(old[one]) for one in view)
    )


def caches():
    """View of codes and the feature cache: the features that it says are there, by their photographs."""

    def view():
        found = {}
        for folder in sorted(Path("cache/features").glob("*")) if Path("cache/features").exists() else ():
            photographs, state, features = (folder / name for name in ("photographs.bin", "state.u8", "features.f16"))
            if not state.exists() or 1 not in state.read_bytes():
                continue
            rows = photographs.read_bytes()
            maps = np.fromfile(features, np.float16).reshape(-1, 512)
            for row in np.flatnonzero(np.frombuffer(state.read_bytes(), np.uint8) == 1):
                found[rows[32 * row : 32 * row + 32].hex()] = _digest(maps[row])
        return codes()(), found

    return view


def filling(view, old, new):
    """Some of the features, each right, and some of the codes."""
    return view[1].items() <= new[1].items() and (view[0] in (old[0], new[0]) or unfinished(view[0], old[0], new[0]))


# Preparations


def other_codes():
    """Codes and an index of other photographs, to be replaced."""
    shutil.rmtree("codes")
    shutil.rmtree("index")
    _hashret("encode", "more", "--shard-size", "2")
    _hashret("build-index")
    _hashret("encode", "photos", "--shard-size", "5", "--out", "codes-photos")


def no_codes():
    shutil.rmtree("codes")


def half_codes():
    for name in ("codes-00001.h5", "skipped.jsonl"):
        os.unlink(f"codes/{name}")


def other_encoder():
    _hashret(*SCRATCH, "--method", "vggh")


def unfinished_training():
    """A training that was interrupted after its first epoch."""
    from hashret.training import loop

    end_epoch = loop.TrainingRun._end_epoch

    def end(self, *arguments):
        end_epoch(self, *arguments)
        raise KeyboardInterrupt

    loop.TrainingRun._end_epoch = end
    with contextlib.suppress(AssertionError):
        _hashret(*SCRATCH)
    loop.TrainingRun._end_epoch = end_epoch


def no_index():
    shutil.rmtree("index")


def changed_index():
    """An index of which photographs were added and removed."""
    _hashret("add", "index", "more")
    _hashret("remove", "index", "--id", "2")
    _hashret("add", "index", "photos/red/00.png", "--again")


def changed_photos():
    """A folder with an index of its own, in which photographs were renamed, removed, added and changed since."""
    _hashret(*SYNC)
    os.rename("photos/red/00.png", "photos/blue/moved.png")
    os.unlink("photos/red/01.png")
    shutil.copy("more/0.png", "photos/new.png")
    shutil.copy("more/1.png", "photos/green/00.png")


def copied_photos():
    """Two photographs saved once more, and an index of all."""
    for number, (name, to) in enumerate(
        (("blue/00.png", "one.png"), ("red/01.png", "two.png"), ("red/02.png", "one-2.png"))
    ):
        target = Path("copies") / str(number) / to
        target.parent.mkdir(parents=True)
        shutil.copy(Path("photos") / name, target)
        os.truncate(target, target.stat().st_size)
    _hashret("add", "index", "copies")


def moved_photos():
    copied_photos()
    _hashret(*MOVE)


def old_outputs():
    for name in ("hits.png", "hits.html", "report.html", "explain.png"):
        Path(name).write_text("old")
    _hashret("encode", "photos", "--out", "codes-test", "--shard-size", "5")
    _hashret("evaluate", "codes-test", "-k", "3", "--out", "figures.json")


def old_demo():
    _hashret("demo", "--bits", "8", "--device", "cpu", "--seed", "1")


def cifar_files():
    """torchvision's files of CIFAR-10, with a few pictures: their bytes by name."""
    found = {}
    for number, name in enumerate(("data_batch_1", "test_batch", "batches.meta")):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 3072), dtype=np.uint8)
        names = [f"picture_{number}{i}.png" for i in range(3)]
        content = {"data": pixels, "labels": [0, 1, 1], "filenames": names, "label_names": ["airplane", "cat"]}
        found[name] = pickle.dumps(content)
    return found


def cifar():
    no_codes()
    base = Path("data/cifar-10-batches-py")
    base.mkdir(parents=True)
    for name, raw in cifar_files().items():
        (base / name).write_bytes(raw)


def copy_in_place():
    """Replace no file in one step, as hashret never does."""
    os.replace = lambda path, other: (shutil.copyfile(path, other), os.unlink(path))


MOVE = ("duplicates", "index", "--radius", "16", "--move-to", "../aside", "--yes")
_BACK, _MOVED = ("restore", "../aside"), ("w/copies", "w/photos", "aside")
_DEMO = ("demo", "--bits", "8", "--device", "cpu")
_QUERY = ("query", "photos/red/00.png", "photos/blue/01.png", "-k", "2")
SYNC = ("sync", "photos", "--index", "own/index", "--model", "model.safetensors", "--workers", "0")
_ENCODE = ("encode", "photos", "--shard-size", "5")

CASES = {
    "train": Case(
        tuple(HEAD), checkpoint(), ("w/encoder.safetensors", "w/encoder.json", "cache"),
        between=without_record, again=(tuple(HEAD), (*HEAD, "--resume")),
    ),
    "train --overwrite": Case(
        (*SCRATCH, "--overwrite"), checkpoint(), ("w/encoder.safetensors", "w/encoder.json"), other_encoder,
        between=without_record,
    ),
    "train --resume": Case(
        (*SCRATCH, "--resume"), checkpoint(), ("w/encoder.safetensors", "w/encoder.json"), unfinished_training,
        between=without_record,
    ),
    "train --method itq": Case(
        (*HEAD, "--method", "itq"), checkpoint(), ("w/encoder.safetensors", "w/encoder.json", "cache"),
        between=without_record,
    ),
    "encode": Case(_ENCODE, codes(), ("w/codes",), no_codes, unfinished),
    "encode, gone on with": Case(_ENCODE, codes(), ("w/codes",), half_codes, unfinished),
    "encode --overwrite": Case((*_ENCODE, "--overwrite"), codes(), ("w/codes",), other_codes, unfinished),
    "encode --fill-cache": Case(
        (*_ENCODE, "--fill-cache", "--features"), caches(), ("w/codes", "cache"), no_codes, filling
    ),
    "encode cifar10": Case(
        ("encode", "cifar10:data", "--split", "train"), codes(dated=True), ("w/codes", "w/data/cifar10-png"),
        cifar, unfinished, dated=True,
    ),
    "build-index": Case(("build-index",), index(), ("w/index",), no_index),
    "build-index --overwrite": Case(
        ("build-index", "--codes", "codes-photos", "--overwrite"), index(), ("w/index",), other_codes
    ),
    "add": Case(("add", "index", "more"), index(), ("w/index", "tmp")),
    "remove": Case(("remove", "index", "--id", "3", "--id", "5"), index(), ("w/index",)),
    "compact": Case(("compact", "index"), index(), ("w/index",), changed_index),
    "sync": Case(SYNC, mirror, ("w/own",)),
    "sync of what has changed": Case(SYNC, mirror, ("w/own",), changed_photos),
    "duplicates --move-to": Case(MOVE, photographs(), _MOVED, copied_photos, each_in_one_place),
    "restore": Case(_BACK, photographs(), _MOVED, moved_photos, each_in_one_place),
    "duplicates --move-to another disk": Case(
        MOVE, photographs(), _MOVED, copied_photos, each_in_one_place, apart=True
    ),
    "restore from another disk": Case(_BACK, photographs(), _MOVED, moved_photos, each_in_one_place, apart=True),
    "duplicates --html": Case(
        ("duplicates", "index", "--html", "hits.html"), files("hits.html"), ("w/hits.html",), old_outputs
    ),
    "query --grid": Case((*_QUERY, "--grid", "hits.png"), files("hits.png"), ("w/hits.png",), old_outputs),
    "query --html": Case((*_QUERY, "--html", "hits.html"), files("hits.html"), ("w/hits.html",), old_outputs),
    "explain": Case(
        ("explain", "photos/red/00.png", "--overwrite"), files("explain.png"), ("w/explain.png",), old_outputs
    ),
    "report": Case(("report", "--overwrite"), files("report.html"), ("w/report.html",), old_outputs),
    "evaluate": Case(
        ("evaluate", "codes-test", "--out", "figures.json"), files("figures.json"), ("w/figures.json",), old_outputs
    ),
    "replaced by a copy": Case(
        (*_QUERY, "--html", "hits.html"), files("hits.html"), ("w/hits.html",), old_outputs, change=copy_in_place
    ),
    "demo": Case(_DEMO, lambda: None, ("w/hashret-demo",), again=(_DEMO, (*_DEMO, "--overwrite")), dated=True),
    "demo --overwrite": Case((*_DEMO, "--overwrite"), lambda: None, ("w/hashret-demo",), old_demo, dated=True),
}  # fmt: skip
