"""Make the committed splits of the protocols, hashret/data/splits/*.json. Run once; the files are what counts.

    python tools/make_splits.py --cifar10 DIR --corel5k DIR/corel5k_21 --nuswide DIR [--out FOLDER]

Seed 0 draws cifar10-1: of each class 100 queries, then 500 train images, among all 60,000 in order of their paths.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from hashret.data import protocols
from hashret.data.cifar10 import all_of_cifar10

SEED = 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar10", "corel5k", "nuswide"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(protocols.__file__).parent / "splits")
    options = parser.parse_args()
    for record in (cifar10_1(options.cifar10), cifar10_2(options.cifar10), corel5k(options.corel5k)):
        write(options.out, record)
    sha256 = {name: file_sha256(options.nuswide / f"{name}.txt") for name in ("train", "test")}
    write(options.out, {"protocol": "nuswide-21", "lists": sha256})


def cifar10_1(folder):
    """1,000 queries and 5,000 train images, drawn by class; all but the queries are the database."""
    source = all_of_cifar10(folder)
    rng = np.random.default_rng(SEED)
    drawn = [rng.permutation(np.flatnonzero(source.labels == c))[:600] for c in range(10)]
    test = np.sort(np.concatenate([rows[:100] for rows in drawn]))
    train = np.sort(np.concatenate([rows[100:] for rows in drawn]))
    database = np.setdiff1d(np.arange(len(source)), test)
    return describe("cifar10-1", source.paths, train, database, test) | {"seed": SEED}


def cifar10_2(folder):
    """The test set queries the train set."""
    source = all_of_cifar10(folder)
    is_train = np.array([path.startswith("train/") for path in source.paths])
    train, test = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    return describe("cifar10-2", source.paths, train, train, test)


def corel5k(folder):
    """The lists as they are."""
    source = protocols.all_of_lists(folder, protocols.SETS, "corel5k")
    row_of = {path: row for row, path in enumerate(source.paths)}
    sets = []
    for name in protocols.SETS:
        lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        sets.append(np.sort([row_of[line.split()[0]] for line in lines]))
    return describe("corel5k-21", source.paths, *sets)


def describe(name, paths, train, database, test):
    """A split as it is written: rows of ``paths``, and the sha256 of these."""
    sets = {"train": train, "database": database, "test": test}
    return {
        "protocol": name,
        "images": len(paths),
        "names_sha256": protocols.names_sha256(paths),
        **{key: protocols.format_rows(rows) for key, rows in sets.items()},
    }


def write(folder, record):
    """Write a split and say its sha256."""
    path = folder / f"{record['protocol']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{file_sha256(path)}  {path.name}  {path.stat().st_size:,} bytes")


def file_sha256(path):
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
