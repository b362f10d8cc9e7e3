"""Make nuswide-21's database.txt from NUS-WIDE's own ground truth.

    python tools/nuswide_database.py --lists DIR --groundtruth DIR

``--lists`` holds the literature's train.txt and test.txt (path and 21 labels a line) and gets database.txt beside them:
every photograph with at least one of the 21 labels that is not a query. ``--groundtruth`` holds NUS-WIDE's
ImageList/Imagelist.txt (or ImageList.txt) and AllLabels/Labels_<concept>.txt, 0 or 1 a line. Which concept a column
stands for is found by comparing the columns of train.txt with the concepts on the same photographs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PureWindowsPath

import numpy as np

from hashret.data.lists import open_list
from hashret.errors import HashretError
from hashret.files import atomic


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--groundtruth", type=Path, required=True)
    options = parser.parse_args()
    try:
        count, concepts = make_database(options.lists, options.groundtruth)
    except HashretError as error:
        print(f"nuswide_database: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.lists / 'database.txt'}: {count:,} photographs; columns {' '.join(concepts)}")


def make_database(lists, groundtruth):
    """Write ``lists/database.txt``: -> (lines written, concept of each column)."""
    known = open_list(lists / "train.txt", check_images=False)
    queries = open_list(lists / "test.txt", check_images=False)
    names = image_names(groundtruth)
    row = {name: i for i, name in enumerate(names)}
    folder = known.paths[0].rsplit("/", 1)[0]
    wanted = [path.rsplit("/", 1)[-1] for path in known.paths]
    if missing := [name for name in wanted if name not in row]:
        raise HashretError(f"{len(missing)} photographs of train.txt are not in the image list, first {missing[0]}")
    rows = np.array([row[name] for name in wanted])
    labels, concepts = match_columns(known.labels, rows, read_concepts(groundtruth, len(names)))
    hidden = {path.rsplit("/", 1)[-1] for path in queries.paths}
    keep = [i for i, name in enumerate(names) if labels[i].any() and name not in hidden]
    with atomic(lists / "database.txt") as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(f"{folder}/{names[i]} {' '.join(map(str, labels[i]))}\n" for i in keep)
    return len(keep), concepts


def image_names(groundtruth):
    """File names in NUS-WIDE's order; its list has ``folder\\name.jpg`` a line."""
    for name in ("ImageList/Imagelist.txt", "ImageList/ImageList.txt"):
        if (groundtruth / name).is_file():
            lines = (groundtruth / name).read_text(encoding="utf-8").split()
            return [PureWindowsPath(line).name for line in lines]
    raise HashretError(f"no ImageList/Imagelist.txt in {groundtruth}")


def read_concepts(groundtruth, n):
    """0 and 1 of each concept for every photograph: -> dict of uint8 (n,)."""
    found = {}
    for path in sorted((groundtruth / "AllLabels").glob("Labels_*.txt")):
        flags = np.array(path.read_text(encoding="utf-8").split(), np.uint8)
        if len(flags) != n:
            raise HashretError(f"{path} has {len(flags):,} lines, the image list {n:,}")
        found[path.stem.removeprefix("Labels_")] = flags
    if not found:
        raise HashretError(f"no AllLabels/Labels_<concept>.txt in {groundtruth}")
    return found


def match_columns(columns, rows, concepts):
    """Labels of every photograph in the columns' order: -> uint8 (n, columns), and the names of the concepts."""
    chosen = []
    for column in columns.T:
        fit = {name: int((flags[rows] != column).sum()) for name, flags in concepts.items()}
        best = min(fit, key=fit.get)
        if fit[best]:
            raise HashretError(
                f"no concept has the labels of column {len(chosen) + 1}; {best} comes nearest, with {fit[best]} others"
            )
        chosen.append(best)
    return np.stack([concepts[name] for name in chosen], axis=1), chosen


if __name__ == "__main__":
    main()
