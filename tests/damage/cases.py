"""Which files there are, and which verbs read each kind."""

from __future__ import annotations

from dataclasses import dataclass

from . import mutations

QUERY = "photos/test/red/0.png"
_ENCODE = ("encode", "--workers", "0", "--cache", "cache")
_SMALL = (
    "--image-size", "32", "--backbone", "vgg11", "--width", "16", "--bits", "24", "--batch-size", "4", "--workers", "0",
    "--epochs", "2", "--seed", "1", "--cache", "cache",
)  # fmt: skip
_TRAIN = ("train", "--data", "folder:photos", *_SMALL)


@dataclass(frozen=True)
class Kind:
    """Files of one kind: patterns of their names, the verbs that read them, and whether a checksum covers them."""

    files: tuple
    verbs: tuple
    checked: bool = False


def _index(name, *more):
    """What reads the index of a name."""
    return (
        ("info", name),
        ("query", QUERY, "--index", name, "-k", "3"),
        ("query", QUERY, "--index", name, "-k", "12", "--json", "--candidates", "40"),
        ("query", QUERY, "--index", name, "--radius", "9"),
        ("query", QUERY, "--index", name, "--label", "red", "--no-rerank"),
        ("query", QUERY, "--index", name, "--path", "*red*", "--rerank-by", "asymmetric"),
        ("query", QUERY, "--index", name, "--id", "2", "--id", "3", "--rerank-by", "directions"),
        ("query", QUERY, "--index", name, "--recall", "0.9", "-k", "2"),
        ("explain", QUERY, "--index", name, "-k", "2", "--out", "new.png"),
        ("evaluate", "codes-test", "--index", name, "--candidates", "10"),
        ("add", name, "photos/formats", "--again", "--workers", "0"),
        ("remove", name, "--id", "3"),
        ("remove", name, "--path", "*red/1.png"),
        ("remove", name, "--gone"),
        ("compact", name),
        ("duplicates", name, "--by", "values"),
        ("duplicates", name, "--by", "codes", "--json", "--radius", "1"),
        ("report", ".", "--index", name, "--out", "new.html"),
        *more,
    )


_FEATURES = (("query", QUERY, "-k", "3", "--rerank-by", "features"), ("duplicates", "index", "--by", "features"))
_SHARDS = (
    ("info", "codes/codes-00000.h5"),
    ("info", "codes"),
    ("build-index", "--codes", "codes", "--out", "new-index"),
    ("build-index", "--codes", "codes", "--codes", "codes-test", "--out", "index", "--overwrite"),
    ("evaluate", "codes", "--candidates", "10"),
)
_QUERIES = (
    ("evaluate", "codes-test", "--candidates", "10"),
    ("report", ".", "--out", "new.html"),
    ("info", "codes-test"),
)
_RECORDS = (("report", ".", "--out", "new.html"), ("report", "model.safetensors", "--out", "new.html", "--json"))

KINDS = {
    "index.json": Kind(("index/index.json", "crowd/index.json", "living/index.json"), _index("{index}")),
    "index segment": Kind(
        (
            "index/0*/*",
            "crowd/0*/*",
            "living/0*/*",
            "living/0*/removed*",
            "crowd/0*/hamming.faiss",
            "crowd/0*/items.npy",
        ),
        _index("{index}", *_FEATURES),
        checked=True,
    ),
    "checkpoint": Kind(
        ("model.safetensors",),
        (
            ("info", "model.safetensors"),
            ("query", QUERY),
            ("explain", QUERY, "--out", "new.png"),
            (*_ENCODE, "photos/formats", "--out", "new-codes"),
            ("add", "living", "photos/formats", "--workers", "0"),
            ("evaluate", "photos", "--split", "test"),
            ("report", "model.safetensors", "--out", "new.html"),
        ),
        checked=True,
    ),
    "training record": Kind(("model.json",), _RECORDS),
    "weights": Kind(
        ("weights.pth", "weights.safetensors"), ((*_TRAIN, "--weights", "{file}", "--out", "new.safetensors"),)
    ),
    "training state": Kind(
        (".resumed.safetensors.training/*.pt",),
        (
            (*_TRAIN, "--weights", "weights.pth", "--out", "resumed.safetensors", "--resume"),
            (*_TRAIN, "--weights", "weights.pth", "--out", "resumed.safetensors"),
        ),
    ),
    "shard": Kind(("codes/codes-00000.h5", "codes/codes-00001.h5"), _SHARDS, checked=True),
    "shard of queries": Kind(("codes-test/codes-00000.h5",), _QUERIES, checked=True),
    "codes.json": Kind(("codes/codes.json",), _SHARDS),
    "codes.json of queries": Kind(("codes-test/codes.json",), _QUERIES),
    "unfinished shards": Kind(
        ("unfinished/*",),
        (
            (*_ENCODE, "folder:photos", "--split", "train", "--features", "--out", "unfinished", "--shard-size", "8"),
            ("info", "unfinished"),
        ),
    ),
    "skipped.jsonl": Kind(("codes/skipped.jsonl",), _SHARDS),
    "figures": Kind(("metrics.json", "steps.json"), _RECORDS[:1]),
    "result": Kind(("bench.json", "metrics.json"), (("report", "{file}", "--out", "new.html"),)),
    "feature cache": Kind(
        ("cache/**/*",),
        (
            (*_TRAIN, "--weights", "weights.pth", "--out", "new.safetensors"),
            (*_ENCODE, "folder:photos", "--split", "train", "--out", "new-codes"),
            (*_ENCODE, "folder:photos", "--split", "test", "--out", "new-codes", "--fill-cache"),
        ),
    ),
    "moved.jsonl": Kind(
        ("aside/moved.jsonl",),
        (
            ("restore", "aside"),
            ("duplicates", "index", "--move-to", "aside", "--yes"),
            ("duplicates", "copies-index", "--by", "codes", "--radius", "24", "--move-to", "aside", "--yes"),
        ),
    ),
    "list": Kind(
        ("lists/*.txt",),
        (
            (*_ENCODE, "list:lists/train.txt,root=.", "--out", "new-codes"),
            (*_ENCODE, "list:lists", "--split", "train", "--out", "new-codes"),
            ("evaluate", "list:lists/train.txt,root=.", "--candidates", "5"),
        ),
    ),
    "photograph": Kind(
        ("photos/formats/*", "photos/formats/deep.png", "photos/train/red/0.png", "photos/train/red/1.png"),
        (
            (*_ENCODE, "photos/formats", "--out", "new-codes"),
            ("query", "{file}", "-k", "2"),
            ("query", "{file}", QUERY, "-k", "2", "--html", "new.html", "--grid", "new.png"),
            ("explain", "{file}", "--out", "new.png"),
            ("duplicates", "living", "--radius", "24", "--html", "new.html"),
            ("add", "index", "photos/formats", "--again", "--workers", "0"),
            ("query", QUERY, "--index", "living", "--html", "new.html", "--grid", "new.png"),
        ),
    ),
}

# No file is damaged, but names are given that no verb can write to or read from.
_OUT = {
    "train": (*_TRAIN, "--weights", "weights.pth"),
    "encode": (*_ENCODE, "photos/formats"),
    "build-index": ("build-index",),
    "explain": ("explain", QUERY),
    "evaluate": ("evaluate", "codes-test", "--candidates", "10"),
    "report": ("report", "."),
    "demo": ("demo",),
    "query --html": ("query", QUERY),
    "query --grid": ("query", QUERY),
    "duplicates --html": ("duplicates", "index", "--by", "codes"),
    "duplicates --move-to": ("duplicates", "index", "--by", "codes", "--yes"),
}
_NAMES = (
    ".", "", "/", "..", "photos", "photos/", "index", "model.safetensors", QUERY, f"{QUERY}/x.png", f"{QUERY}/x.html",
    "x" * 300, "x" * 300 + ".png", "dangling.html", "dangling.png", "pipe.html", "pipe.png", "new/\n.html", "-", "~",
    "/proc/x/y.png", "/proc/x/y.html", "no.such/a/b.html", "folder.html", "folder.png", ".png", ".html",
)  # fmt: skip
_READ = (
    ("info", "{}"), ("query", "{}"), ("query", QUERY, "--index", "{}"), ("query", QUERY, "--model", "{}"),
    ("encode", "{}", "--workers", "0", "--out", "new-codes"),
    ("encode", "list:{}", "--workers", "0", "--out", "new-codes"),
    ("evaluate", "{}"), ("build-index", "--codes", "{}", "--out", "new-index"), ("report", "{}", "--out", "new.html"),
    ("add", "{}", "photos/formats"), ("add", "index", "{}", "--workers", "0"), ("remove", "{}", "--id", "0"),
    ("compact", "{}"), ("duplicates", "{}"), ("restore", "{}"), ("explain", "{}"),
    (*_TRAIN, "--weights", "{}", "--out", "new.safetensors"),
    ("train", "--data", "{}", *_SMALL, "--weights", "weights.pth"),
)  # fmt: skip
_WALKERS = ("query", "encode", "evaluate", "add", "explain", "train")
_EMPTIED = _index("emptied", ("export", "emptied", "milvus:new.db"))


def draw(rng, work):
    """Draw a case and damage a file of the folder ``work``: -> kind, what was done, arguments of the verb."""
    names = [*KINDS, "index segment", "checkpoint", "shard", "photograph", "--out", "--out", "names", "emptied index"]
    kind = names[rng.integers(len(names))]
    if kind == "--out":
        return kind, *_out(rng, work)
    if kind == "names":
        verb, name = _READ[rng.integers(len(_READ))], _NAMES[rng.integers(len(_NAMES))]
        if name == "/" and verb[0] in _WALKERS:  # all photographs of the machine, which takes as long as it takes
            name = ".."
        _odd_files(work)
        return kind, f"named {name[:20]!r}", [argument.format(name) for argument in verb]
    if kind == "emptied index":
        return kind, "every photograph removed", list(_EMPTIED[rng.integers(len(_EMPTIED))])
    entry = KINDS[kind]
    files = sorted(path for path in work.glob(entry.files[rng.integers(len(entry.files))]) if path.is_file())
    path = files[rng.integers(len(files))]
    others = sorted(other for other in work.rglob("*") if other.is_file() and other.stat().st_size < 2**20)
    raw = path.read_bytes()
    path.unlink()  # a large file is a link to the pristine one
    path.write_bytes(raw)
    done = mutations.damage(rng, path, others)
    inside = path.relative_to(work)
    verb = entry.verbs[rng.integers(len(entry.verbs))]
    fields = {"file": str(inside), "index": inside.parts[0]}
    return kind, f"{inside}: {done}", [argument.format(**fields) for argument in verb]


def _out(rng, work):
    verb, name = list(_OUT)[rng.integers(len(_OUT))], _NAMES[rng.integers(len(_NAMES))]
    if verb == "demo":  # which runs for a minute where it is not refused
        name = _NAMES[rng.integers(9)]
    if verb == "duplicates --move-to" and name in ("/", ".."):  # folders like others, which it would move files to
        name = "."
    _odd_files(work)
    option = verb.split()[1] if " " in verb else "--out"
    arguments = [*_OUT[verb], option, name]
    if rng.random() < 0.4 and verb in ("train", "encode", "build-index", "explain", "report", "demo"):
        arguments.append("--overwrite")
    return f"{option} {name[:20]!r}", arguments


def _odd_files(work):
    import os

    (work / "dangling.html").symlink_to("/nowhere/at/all")
    (work / "dangling.png").symlink_to("/nowhere/at/all")
    for name in ("pipe.html", "pipe.png"):
        os.mkfifo(work / name)
    for name in ("folder.html", "folder.png"):
        (work / name).mkdir()
        (work / name / "dear.txt").write_text("to somebody")
