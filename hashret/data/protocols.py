"""The field's evaluation protocols as data sources: `cifar10-1:DIR`, `cifar10-2:DIR`, `corel5k-21:DIR` and so on.

Which photograph belongs to which subset is committed: the protocol file `splits/NAME.json` names rows of the sorted
list of all paths, with the sha256 of that list. `tools/make_splits.py` made these files, once. Two photographs are
relevant to each other when they share a label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..bits import Positions
from ..errors import HashretError
from .cifar10 import all_of_cifar10
from .lists import open_list
from .source import ImageSource, SourceRequest, register

SETS = ("train", "database", "test")
NUSWIDE_SOURCE = "https://lms.comp.nus.edu.sg/research/NUS-WIDE.htm"


@dataclass(frozen=True)
class Protocol:
    """A protocol: ``topk`` ranks count for its mAP, None for all; ``open_all`` opens every photograph of it."""

    name: str
    topk: int | None
    open_all: Callable[[Path, dict[str, Any], bool], ImageSource]

    @cached_property
    def protocol_file(self) -> tuple[dict[str, Any], str]:
        """The protocol file as a dict, and its sha256."""
        raw = (files(__package__) / "splits" / f"{self.name}.json").read_bytes()
        return json.loads(raw), hashlib.sha256(raw).hexdigest()


def open_protocol(name: str, asked: SourceRequest) -> ImageSource:
    """Open one set of a protocol: a subset of all photographs of the protocol.

    Args:
        name: one of `PROTOCOLS`.
        asked: where the data lie, and the subset: "train", "database" or "test" (the queries); None for "train".

    Raises:
        HashretError: unknown set, data that are not there, or other data than the protocol file was made for.
    """
    protocol, subset, folder = PROTOCOLS[name], asked.subset or "train", Path(asked.where)
    if subset not in SETS:
        raise HashretError(f"{name} has no set {subset!r}; there are {', '.join(SETS)}")
    record, sha256 = protocol.protocol_file
    whole = protocol.open_all(folder, record, asked.download)
    rows = _rows_of_lists(folder, whole, subset) if "lists" in record else parse_rows(record[subset])
    return whole.subset(
        rows, spec=asked.spec, protocol={"name": name, "set": subset, "topk": protocol.topk, "split": sha256}
    )


def parse_rows(text: str) -> Positions:
    """Return the rows that are written as "0-4,7,9-12"."""
    runs = [list(map(int, run.split("-"))) for run in text.split(",")]
    return np.concatenate([np.arange(run[0], run[-1] + 1) for run in runs])


def format_rows(rows: Positions) -> str:
    """Write ascending rows as `parse_rows` reads them."""
    runs = np.split(np.asarray(rows), np.flatnonzero(np.diff(rows) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def names_sha256(paths: Iterable[str]) -> str:
    """Return the sha256 of a list of paths, a line each."""
    return hashlib.sha256("".join(f"{path}\n" for path in paths).encode(errors="surrogateescape")).hexdigest()


def _check_names(paths: Sequence[str], record: dict[str, Any], folder: Path) -> None:
    if len(paths) != record["images"] or names_sha256(paths) != record["names_sha256"]:
        other_names = ", with other names" if len(paths) == record["images"] else ""
        raise HashretError(
            f"{folder} does not hold the photographs of {record['protocol']}: {record['images']:,} with their original "
            f"names are wanted, {len(paths):,} are there{other_names}"
        )


def _all_of_cifar10(folder: Path, record: dict[str, Any], download: bool) -> ImageSource:
    source = all_of_cifar10(folder, download)
    _check_names(source.paths, record, folder)
    return source


def all_of_lists(folder: Path, names: Iterable[str], spec: str, check_images: bool = True) -> ImageSource:
    """Open the union of several label lists as one source, in order of its paths."""
    lists = [open_list(folder / f"{name}.txt", check_images=check_images) for name in names]
    labels: dict[str, Any] = {}
    for source in lists:
        labels |= zip(source.paths, np.asarray(source.labels), strict=True)
    paths = tuple(sorted(labels))
    return ImageSource(lists[0].root, paths, np.stack([labels[path] for path in paths]), lists[0].classes, spec)


def _all_of_corel5k(folder: Path, record: dict[str, Any], download: bool) -> ImageSource:
    folder = folder / "corel5k_21" if (folder / "corel5k_21").is_dir() else folder
    source = all_of_lists(folder, SETS, f"corel5k-21:{folder}")
    _check_names(source.paths, record, folder)
    return source


def _all_of_nuswide(folder: Path, record: dict[str, Any], download: bool) -> ImageSource:
    """Open NUS-WIDE; all that is missing is named at once, since NUS-WIDE must be put together by hand."""
    wanting: list[str] = []
    names: list[str] = []
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
    if source and missing:
        wanting.append(f"{len(missing):,} of {len(source):,} photographs under {source.root}, first {missing[0]}")
    if wanting or source is None:
        raise HashretError(
            f"nuswide-21 wants {'; '.join(wanting)}. Labels and the photographs' addresses are at {NUSWIDE_SOURCE}"
        )
    return source


def _rows_of_lists(folder: Path, whole: ImageSource, subset: str) -> list[int]:
    row = {path: number for number, path in enumerate(whole.paths)}
    paths = open_list(folder / f"{subset}.txt", check_images=False).paths
    queries = set(open_list(folder / "test.txt", check_images=False).paths) if subset == "database" else set()
    return [row[path] for path in paths if path not in queries]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("cifar10-1", None, _all_of_cifar10),
        Protocol("cifar10-2", None, _all_of_cifar10),
        Protocol("corel5k-21", None, _all_of_corel5k),
        Protocol("nuswide-21", 5000, _all_of_nuswide),
    )
}
for _name in PROTOCOLS:
    register(_name, partial(open_protocol, _name), f"{_name}:DIR")
