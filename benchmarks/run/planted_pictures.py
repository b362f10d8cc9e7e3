"""What `hashret duplicates PHOTOS` finds of planted copies without an encoder, beside other programs of that kind.

    python -m benchmarks.run.planted_pictures --data folder:corel5k/images --work runs/pictures --name corel5k

Copies of a sample are planted beside the photographs, of each kind of `benchmarks.lib.planting`. Each program is then
asked for the copies among all of them, as a user would ask: imagededup, czkawka's Python binding and imagehash, where
they are installed. Of each: the share of copies of each kind that are found, that is, are a pair with their source or
in its group; the pairs of two photographs of which neither is a copy of the other or of its source, and of these those
that were not planted; and the seconds, reading included. Not all of the latter pairs are false: a data set may have
copies of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import resource
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from benchmarks.lib.planting import FURTHER_KINDS, KINDS, folder_of, plant
from hashret import duplicates, open_data
from hashret.near_duplicates.code_pairs import pairs_within

OTHERS = ("imagededup", "czkawka", "ImageHash")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the JSON")
    parser.add_argument("--sources", type=int, default=200, help="photographs that are copied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a program; repeatable")
    common.add_results(parser)
    options = parser.parse_args()
    data = open_data(options.data, options.split)
    sources = np.sort(np.random.default_rng(options.seed).choice(len(data), options.sources, replace=False))
    photos, kinds = options.work / "photos", KINDS | FURTHER_KINDS
    plant(data, sources, photos, kinds)
    if not (photos / "data").exists():
        (options.work / "data").mkdir(exist_ok=True)
        for row in range(len(data)):
            shutil.copy(data.file(row), options.work / "data" / f"{row}{data.file(row).suffix}")
        os.rename(options.work / "data", photos / "data")
    programs = []
    for name, program in PROGRAMS.items():
        if options.only and name not in options.only:
            continue
        try:
            programs.append({"program": name, **measure(program, photos, options.work, kinds, sources)})
        except ImportError as error:
            programs.append({"program": name, "missing": str(error)})
        print(json.dumps(programs[-1]), flush=True)
    result = {"data": options.data.split(":")[0], "photographs": len(data), "sources": len(sources)}
    result |= {"kinds": list(kinds), "seed": options.seed, "others": others(), "programs": programs}
    common.save(f"planted_pictures_{options.name}", result, options.results)


def others():
    """Versions of the other programs that are installed."""
    found = {}
    for name in OTHERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure(program, photos, work, kinds, sources):
    """All that is measured of one program, as a dict."""
    count = sum(len(files) for _, _, files in os.walk(photos)) - 1  # without "done"
    before = cpu_seconds()
    alone = program(photos / "data", work)[1] | {"photographs": len(relative(photos / "data", photos))}
    alone["cpu_seconds"] = round(cpu_seconds() - before, 1)
    before = cpu_seconds()
    pairs, more = program(photos, work)
    more = {"cpu_seconds": round(cpu_seconds() - before, 1), **more, "without_copies": alone}
    family = {name: Path(name).stem for name in set(itertools.chain.from_iterable(pairs))}
    wrong = {pair for pair in pairs if len({family[name] for name in pair}) > 1}
    of_data = [pair for pair in wrong if all(name.startswith("data/") for name in pair)]
    found = {}
    source_of = {Path(name).stem: name for name in map(str, relative(photos / "data", photos))}
    for kind in kinds:
        copies = {Path(name).stem: name for name in map(str, relative(photos / folder_of(kind), photos))}
        hits = sum(frozenset((copies[str(row)], source_of[str(row)])) in pairs for row in sources)
        found[kind] = round(hits / len(sources), 4)
    print({kind: share for kind, share in found.items() if share < 1}, [sorted(pair) for pair in of_data][:40])
    return {
        "photographs": count, "found": found, "pairs": len(pairs), "wrong_pairs": len(wrong),
        "wrong_pairs_of_the_data": len(of_data), **more,
    }  # fmt: skip


def cpu_seconds():
    """Return the seconds that this process and those that it has waited for have had of any core."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def relative(folder, photos):
    """Return the files of a folder below the photographs."""
    return [path.relative_to(photos) for path in sorted(folder.iterdir())]


def hashret(photos, work, **options):
    """Pairs that `hashret.duplicates` puts into one group, with an empty cache."""
    shutil.rmtree(work / "cache", ignore_errors=True)
    started = time.perf_counter()
    groups = duplicates(photos, cache=work / "cache", **options)
    seconds = round(time.perf_counter() - started, 2)
    named = [[os.path.relpath(photograph.path, photos) for photograph in group] for group in groups]
    pairs = {frozenset(pair) for group in named for pair in itertools.combinations(group, 2)}
    return pairs, {"groups": len(groups), "seconds": seconds}


def imagededup(photos, _work, *, method, threshold=10):
    """Pairs of imagededup, at the threshold in bits that is its default."""
    import imagededup.methods

    started = time.perf_counter()
    hasher = getattr(imagededup.methods, method)(verbose=False)
    found = hasher.find_duplicates(image_dir=photos, max_distance_threshold=threshold, recursive=True)
    seconds = round(time.perf_counter() - started, 2)
    return {frozenset((name, other)) for name, others in found.items() for other in others}, {"seconds": seconds}


def czkawka(photos, _work, *, bits):
    """Pairs that czkawka's Python binding puts into one group, by its hash of 64 bits, of which so many may differ."""
    from czkawka import ImageSimilarity

    started = time.perf_counter()
    finder = ImageSimilarity()
    finder.set_directories([photos])
    finder.set_similarity(bits)
    groups = finder.find_similar()
    seconds = round(time.perf_counter() - started, 2)
    named = [[os.path.relpath(path, photos) for path in group] for group in groups]
    return {frozenset(pair) for group in named for pair in itertools.combinations(group, 2)}, {"seconds": seconds}


def gradient_hash(photos, _work, *, side, bits):
    """Pairs by imagehash's gradient hash of side x side bits, by a process a core, as czkawka's program has it."""
    import imagehash

    assert imagehash.__version__  # here, so that a missing package is noticed in this process
    started = time.perf_counter()
    files = (path for path in sorted(photos.rglob("*")) if path.is_file() and path.name != "done")
    names = [str(path.relative_to(photos)) for path in files]
    with ProcessPoolExecutor() as pool:
        hashes = list(pool.map(partial(_gradients, photos, side), names, chunksize=64))
    codes = np.packbits(np.array(hashes).reshape(len(names), -1), axis=1)
    unique, number = np.unique(codes, axis=0, return_inverse=True)
    members = [np.flatnonzero(number == code) for code in range(len(unique))]
    pairs = {frozenset((names[i], names[j])) for same in members for i, j in itertools.combinations(same, 2)}
    for I, J, _ in pairs_within(unique, bits):
        for one, other in zip(I.tolist(), J.tolist(), strict=True):
            pairs |= {frozenset((names[i], names[j])) for i, j in itertools.product(members[one], members[other])}
    return pairs, {"seconds": round(time.perf_counter() - started, 2)}


def _gradients(photos, side, name):
    import imagehash
    from PIL import Image

    with Image.open(photos / name) as image:
        return imagehash.dhash(image, hash_size=side).hash


PROGRAMS = {
    "hashret": hashret,
    "hashret --by codes": partial(hashret, by="codes"),
    **{f"imagededup {method}": partial(imagededup, method=method) for method in ("PHash", "DHash", "AHash")},
    "czkawka, 5 of 64 bits": partial(czkawka, bits=5),
    "czkawka, 10 of 64 bits": partial(czkawka, bits=10),
    "gradient hash, 15 of 256 bits": partial(gradient_hash, side=16, bits=15),
}


if __name__ == "__main__":
    main()
