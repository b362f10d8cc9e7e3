"""What `hashret duplicates` finds of copies planted among photographs, and what it takes for copies that are none.

    python -m benchmarks.run.planted_duplicates --data cifar10:DIR --split train --work runs/planted \\
        --name cifar10_64px --model am-vggh=runs/am/model.safetensors --model itq=runs/itq/model.safetensors

Copies of a sample are planted: exact, resized, recompressed, cropped and mirrored ones. Each model encodes them and the
data set, features too where it has them. Then for each radius and distance: the share of copies of each kind that are a
pair with their source, and the pairs of two photographs of the data set, none of them planted. The latter are not all
false: a data set may have copies of its own. Last, what `hashret.duplicates` would set aside of data and copies
together, and how much of that for another photograph than their source or a copy of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.planting import KINDS, plant
from hashret import build_index, duplicates, encode, load_encoder, open_data, open_index
from hashret.bits import hamming
from hashret.index.distinct import group
from hashret.near_duplicates.code_pairs import pairs_within
from hashret.near_duplicates.components import components
from hashret.near_duplicates.distances import BY, vectors
from hashret.near_duplicates.near_pairs import euclidean, near_pairs

RADII = (0, 2, 4, 8, 12)
REACH = {
    "pixels": (4, 6, 8, 12, 16),
    "features": (0.05, 0.1, 0.15),
    "directions": (0.1, 0.15, 0.2, 0.3),
    "values": (0.1, 0.2, 0.3, 0.5),
    "codes": (None,),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--model", action="append", required=True, help="NAME=CHECKPOINT; repeatable")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the JSON")
    parser.add_argument("--sources", type=int, default=500, help="photographs that are copied")
    parser.add_argument("--seed", type=int, default=0)
    common.add_results(parser)
    options = parser.parse_args()
    data = open_data(options.data, options.split)
    sources = np.sort(np.random.default_rng(options.seed).choice(len(data), options.sources, replace=False))
    plant(data, sources, options.work / "planted", KINDS)
    models = [measure(*model.split("=", 1), options) for model in options.model]
    result = {"data": options.data.split(":")[0], "photographs": len(data), "sources": len(sources)}
    result |= {"kinds": list(KINDS), "seed": options.seed, "models": models}
    common.save(f"planted_duplicates_{options.name}", result, options.results)


def measure(name, model, options):
    """All that is measured of one encoder, as a dict."""
    work = options.work / name
    encoder = load_encoder(model, "cpu")
    full = bool(encoder.fc_width)
    made_from = json.dumps({
        "encoder": encoder.fingerprint, "data": options.data, "split": options.split,
        "planted": (options.work / "planted" / "done").read_text(),
    })  # fmt: skip
    stored = work / "made_from.json"
    if not (work / "index").exists() or not stored.exists() or stored.read_text() != made_from:
        shutil.rmtree(work / "index", ignore_errors=True)
        encode(options.data, model, work / "codes", split=options.split, features=full, overwrite=True)
        encode(str(options.work / "planted"), model, work / "planted", features=full, fill_cache=True, overwrite=True)
        build_index([work / "codes", work / "planted"], work / "index")
        stored.write_text(made_from)
    index = open_index(work / "index", "cpu")
    about, rows, codes = Copies(index, options), np.arange(len(index)), index.codes()
    data = slice(about.data)
    bits = np.array([hamming(codes[[i]], codes[[j]])[0, 0] for i, j in zip(about.source, about.copy, strict=True)])
    result = {"model": name, "method": encoder.meta["method"], "bits": encoder.bits, "image_size": encoder.image_size}
    result |= {"distinct_codes": len(group(codes[data], grouped=True).codes), "pairs": [], "groups": []}
    for by in BY:
        if by == "features" and not full:
            continue
        x = vectors(index, rows, by)
        far = np.zeros(len(about.copy)) if x is None else euclidean(x, about.source, about.copy)
        for distance, radius in itertools.product(REACH[by], (*RADII, encoder.bits)):
            line = {"by": by, "distance": distance, "radius": radius}
            line |= {"found": about.shares((bits <= radius) & (True if x is None else far <= distance))}
            if radius < encoder.bits:
                line |= pairs_of(codes[data], radius, None if x is None else x[data], distance)
            result["pairs"].append(line)
            print(name, json.dumps(line), flush=True)
        for distance in REACH[by] if by == "pixels" else (None,):
            result["groups"].append(groups_of(work / "index", about, by, distance))
            print(name, json.dumps(result["groups"][-1]), flush=True)
    return result


class Copies:
    """Which photographs of an index are copies: rows of the ``source`` and the ``copy`` of each pair, and its kind."""

    def __init__(self, index, options):
        paths = [Path(index.path(row)) for row in range(len(index))]
        planted = options.work.resolve() / "planted"
        self.data = next(row for row, path in enumerate(paths) if path.is_relative_to(planted))  # they come first
        self.copy = np.arange(self.data, len(paths))
        self.kind = np.array([path.parent.name.replace("-", "/") for path in paths[self.data :]])
        self.source = np.array([int(path.stem) for path in paths[self.data :]])
        self.family = np.concatenate([np.arange(self.data), self.source])

    def shares(self, found):
        """Share of True by kind."""
        return {kind: round(float(found[self.kind == kind].mean()), 4) for kind in KINDS}


def pairs_of(codes, radius, x, distance):
    """Pairs of photographs that were not planted: how many, in how many photographs, the largest component."""
    started, pairs, touched = time.perf_counter(), 0, np.zeros(len(codes), bool)
    if x is None:
        table = group(codes, grouped=True)
        sizes = np.diff(table.starts)
        pairs = int((sizes * (sizes - 1)).sum()) // 2
        pairs += sum(int((sizes[I] * sizes[J]).sum()) for I, J, _ in pairs_within(table.codes, radius))
        return {"pairs_of_the_data": pairs, "seconds": round(time.perf_counter() - started, 2)}

    def counted():
        nonlocal pairs
        for I, J, _ in near_pairs(codes, radius, x, distance):
            pairs += len(I)
            touched[I] = touched[J] = True
            yield I, J

    largest = int(np.bincount(components(len(codes), counted())).max())
    seconds = round(time.perf_counter() - started, 2)
    return {"pairs_of_the_data": pairs, "photographs_in_them": int(touched.sum()), "largest_component": largest,
            "seconds": seconds}  # fmt: skip


def groups_of(index, about, by, distance):
    """What `hashret.duplicates` would set aside, at its default radius."""
    started = time.perf_counter()
    groups = duplicates(index, by=by, distance=distance)
    seconds = time.perf_counter() - started
    own = [about.family[copy.id] == about.family[kept.id] for kept, *copies in groups for copy in copies]
    line = {"by": by, "distance": distance, "groups": len(groups), "largest_group": max(map(len, groups), default=0)}
    return line | {"set_aside": len(own), "for_another_photograph": own.count(False), "seconds": round(seconds, 2)}


if __name__ == "__main__":
    main()
