"""The field's evaluation protocols as data sources: `cifar10-1:DIR`, `cifar10-2:DIR`, `corel5k-21:DIR` and so on.

Which photograph belongs to which set is committed: `splits/NAME.json` names rows of the sorted list of all paths, with
the sha256 of that list. `tools/make_splits.py` made them, once. Two photographs are alike when they share a label.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..errors import HashretError
from .cifar10 import all_of_cifar10
from .lists import open_list
from .source import ImageSource

SETS = ("train", "database", "test")
NUSWIDE_SOURCE = "https://lms.comp.nus.edu.sg/research/NUS-WIDE.htm"


@dataclass(frozen=True)
class Protocol:
    """A protocol: ``topk`` ranks count for its mAP, None for all; ``open_all`` opens every photograph of it."""

    name: str
    topk: int | None
    open_all: object

    @property
    def split(self):
        """The committed split as a dict, and the sha256 of its file."""
        return _split(self.name)


def open_protocol(name, folder, split=None, download=False):
    """Open one set of a protocol: -> ImageSource, a subset of all photographs of the protocol.

    Args:
        name: one of `PROTOCOLS`.
        folder: where the data lie.
        split: "train", "database" or "test" (the queries); None for "train".

    Raises:
        HashretError: unknown set, data that are not there, or other data than the split was made for.
    """
    protocol, split = PROTOCOLS[name], split or "train"
    if split not in SETS:
        raise HashretError(f"{name} has no set {split!r}; there are {', '.join(SETS)}")
    record, sha256 = protocol.split
    whole = protocol.open_all(Path(folder), record, download)
    rows = _rows_of_lists(Path(folder), whole, split) if "lists" in record else parse_rows(record[split])
    return whole.subset(
        rows, spec=f"{name}:{folder}", protocol={"name": name, "set": split, "topk": protocol.topk, "split": sha256}
    )


@cache
def _split(name):
    raw = (files(__package__) / "splits" / f"{name}.json").read_bytes()
    return json.loads(raw), hashlib.sha256(raw).hexdigest()


def parse_rows(text):
    """Rows written as "0-4,7,9-12": -> int64 (n,)."""
    parts = [list(map(int, part.split("-"))) for part in text.split(",")]
    return np.concatenate([np.arange(part[0], part[-1] + 1) for part in parts])


def format_rows(rows):
    """Inverse of `parse_rows` for ascending rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    runs = np.split(np.asarray(rows), breaks)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def names_sha256(paths):
    """sha256 of a list of paths, a line each."""
    return hashlib.sha256("".join(f"{path}\n" for path in paths).encode(errors="surrogateescape")).hexdigest()


def _check_names(paths, record, folder):
    if len(paths) != record["images"] or names_sha256(paths) != record["names_sha256"]:
        found = f"{len(paths):,} are there" + (", with other names" if len(paths) == record["images"] else "")
        raise HashretError(
            f"{folder} does not hold the photographs of {record['protocol']}: {record['images']:,} with their original "
            f"names are wanted, {found}"
        )


def _all_of_cifar10(folder, record, download=False):
    source = all_of_cifar10(folder, download)
    _check_names(source.paths, record, folder)
    return source


def all_of_lists(folder, names, spec, check_images=True):
    """The union of several label lists as one source, in order of its paths."""
    lists = [open_list(folder / f"{name}.txt", check_images=check_images) for name in names]
    found = {}
    for part in lists:
        found |= zip(part.paths, part.labels, strict=True)
    paths = tuple(sorted(found))
    return ImageSource(lists[0].root, paths, np.stack([found[path] for path in paths]), lists[0].classes, spec)


def _all_of_corel5k(folder, record, download=False):
    folder = folder / "corel5k_21" if (folder / "corel5k_21").is_dir() else folder
    source = all_of_lists(folder, SETS, f"corel5k-21:{folder}")
    _check_names(source.paths, record, folder)
    return source


def _all_of_nuswide(folder, record, download=False):
    """Everything that is wanting is named at once, since NUS-WIDE must be put together by hand."""
    wanting, names = [], []
    for name, sha256 in record["lists"].items():
        path = folder / f"{name}.txt"
        if not path.is_file():
            wanting.append(f"{path}, the literature's list")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            wanting.append(f"the literature's list as {path} (that file is another one)")
        else:
            names.append(name)
    if (folder / "database.txt").is_file():
        names.append("database")
    else:
        wanting.append(f"{folder / 'database.txt'} (made by tools/nuswide_database.py)")
    source = all_of_lists(folder, names, f"nuswide-21:{folder}", check_images=False) if names else None
    missing = [path for path in source.paths if not (source.root / path).exists()] if source else []
    if missing:
        wanting.append(f"{len(missing):,} of {len(source):,} photographs under {source.root}, first {missing[0]}")
    if wanting:
        raise HashretError(
            f"nuswide-21 wants {'; '.join(wanting)}. Labels and the photographs' addresses are at {NUSWIDE_SOURCE}"
        )
    return source


def _rows_of_lists(folder, whole, split):
    place = {path: row for row, path in enumerate(whole.paths)}
    wanted = open_list(folder / f"{split}.txt", check_images=False).paths
    if split == "database":
        queries = set(open_list(folder / "test.txt", check_images=False).paths)
        wanted = [path for path in wanted if path not in queries]
    return [place[path] for path in wanted]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("cifar10-1", None, _all_of_cifar10),
        Protocol("cifar10-2", None, _all_of_cifar10),
        Protocol("corel5k-21", None, _all_of_corel5k),
        Protocol("nuswide-21", 5000, _all_of_nuswide),
    )
}
