"""hashret beside faiss, usearch and sentence-transformers' recipe over the same vectors: bytes, recall, latency.

    python -m benchmarks.run.vectors digits cifar10-lite0.npz corel-lite0.npz

"digits" are scikit-learn's; a .npz holds ``base`` and ``asked``, as `run.features` writes them. All are scaled to unit
length, nearest is by the cosine, and the truth is that of the float32 vectors. Whatever answers gets float32 queries
(n, width) and returns the places of k items: quantising and hashing the queries counts. One thread; rounds alternate
between the contestants. Every data set gives one JSON, and one that is there is not measured again,
and is refused where it was measured by other options.

- hashret: ITQ by the public way of Python, train, encode, build-index; a query is hashed, searched and re-ranked.
- faiss: exact (flat), and with the factory strings that its name says; refine keeps the float32 vectors, and re-ranks
  ten times k. RaBitQ is rotated at random first, as its authors do.
- usearch: HNSW of its own defaults over float16, and over the signs of the centred vectors (b1).
- sentence-transformers: what its 6.2 does by `semantic_search_faiss` with precision "ubinary", signs that are compared
  exactly and several times k rescored by the float query with the bits, and its recommended rescoring by int8; without
  its loop in Python over the candidates. Its signs are not those of centred vectors, which are measured, too.
- numpy: a matrix product with all vectors, and a partition.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch

import hashret
from benchmarks.lib import common
from hashret.bits import binarize, pack
from hashret.files import read_json
from hashret.vectors import unit

common.PACKAGES += ("numba", "usearch", "scikit-learn")
RESULTS = common.RESULTS / "vectors"
BITS = (64, 128, 256)
K = (10, 100)
BATCHES = (1, 32)
QUERIES = 1000
REFINED = 10  # times k that an index with refine re-ranks
RESCORED = (4, 16)  # times k that the binary recipe rescores
SAME = 1e-6  # of the cosine, by which an item may be farther than the k-th and count as found
CALLS = 200  # of a contestant in a round, at most

Search = Callable[[np.ndarray, int], np.ndarray]  # float32 (nq, width), k -> places int64 (nq, k)


@dataclass
class Contestant:
    """One way to answer: ``family`` for the colour, ``how`` in words, and the bytes an item of what a search reads."""

    family: str
    how: str
    bytes: float
    build: float
    search: Search


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help='"digits" or a .npz')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each contestant, k and batch, in all rounds")
    parser.add_argument("--families", nargs="+", choices=MAKERS, default=list(MAKERS))
    common.add_results(parser, RESULTS)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    for data in options.data:
        name = Path(data).stem
        path = options.results / f"{name}.json"
        if path.exists() and not options.overwrite:
            recorded = read_json(path, "result")
            recorded["families"] = sorted({one["family"] for one in recorded["contestants"]})
            asked = {"rounds": options.rounds, "seconds_a_cell": options.seconds}
            common.check_settings(path, recorded, asked | {"families": sorted(set(options.families))})
            print(f"{name} is measured already")
            continue
        common.save(name, measure(data, options), options.results)


def load(data):
    """Vectors of unit length: -> base (n, width), asked (nq, width), where they are from."""
    if data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits().data
        return unit(digits[:1500]), unit(digits[1500:]), {"data": "scikit-learn's digits"}
    with np.load(data) as file:
        about = {name: file[name].item() for name in file.files if name not in ("base", "asked")}
        if "commit" in about:
            about["features_commit"] = about.pop("commit")
        return unit(file["base"]), unit(file["asked"][:QUERIES]), about


def measure(data, options):
    """All figures of one data set."""
    base, asked, about = load(data)
    load_before, started = os.getloadavg()[0], time.perf_counter()
    exact = faiss.IndexFlatIP(base.shape[1])
    exact.add(base)
    last = {k: exact.search(asked, k)[0][:, -1] for k in K}
    result = {**about, "items": len(base), "width": base.shape[1], "queries": len(asked), "seed": 0, "threads": 1}
    result |= {"rounds": options.rounds, "seconds_a_cell": options.seconds, "contestants": []}
    with tempfile.TemporaryDirectory() as work, hashret.quieted():
        (Path(work) / "first").mkdir()
        next(of_hashret(base, Path(work) / "first")).search(asked, 1)  # loads and compiles what is so once
        contestants = [one for family in options.families for one in MAKERS[family](base, Path(work))]
        for one in contestants:
            row = {"family": one.family, "how": one.how, "bytes_an_item": round(one.bytes, 1)}
            row |= {"build_seconds": round(one.build, 2), "recall": {}}
            for k in K:
                row["recall"][str(k)] = recall(one.search(asked, k), base, asked, last[k])
            result["contestants"].append(row)
        for k in K:
            for batch in BATCHES:
                for row, ms in zip(result["contestants"], latency(contestants, asked, k, batch, options), strict=True):
                    row.setdefault("ms", {})[f"{k}, {batch}"] = ms
    for row in result["contestants"]:
        print(row["how"], row["bytes_an_item"], row["build_seconds"], row["recall"], row["ms"], flush=True)
    result |= {"seconds": round(time.perf_counter() - started), "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY")}
    return result | {"load_average": [load_before, os.getloadavg()[0]]}


def recall(found, base, asked, last):
    """Share of the k nearest that were found; an item as near as the k-th is as good as that one."""
    hits = 0
    for query, places, cosine in zip(asked, found, last, strict=True):
        places = np.unique(places[(places >= 0) & (places < len(base))])  # what was not found has another number
        hits += int((base[places] @ query >= cosine - SAME).sum())
    return round(hits / found.size, 4)


def latency(contestants, asked, k, batch, options):
    """Median milliseconds of a call of each contestant, in rounds that alternate between them."""
    times = [[] for _ in contestants]
    blocks = [asked[start : start + batch] for start in range(0, len(asked) - batch + 1, batch)]
    for number in range(options.rounds):
        order = range(len(contestants))
        for which in reversed(order) if number % 2 else order:
            search = contestants[which].search
            search(blocks[-1 - number], k)  # to have what it reads in the cache
            end = time.perf_counter() + options.seconds / options.rounds
            for call in range(CALLS):
                block = blocks[(number * CALLS + call) % len(blocks)]
                started = time.perf_counter()
                search(block, k)
                stopped = time.perf_counter()
                times[which].append(stopped - started)
                if stopped > end and call >= 2:
                    break
    return [float(f"{1000 * np.median(seconds):.4g}") for seconds in times]


def timed(function, *arguments, **options):
    """Call a function: -> seconds, and what it returned."""
    started = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - started, result


def of_hashret(base, work) -> Iterator[Contestant]:
    """ITQ codes of several lengths, with every re-rank."""
    lengths = [bits for bits in BITS if bits <= base.shape[1]]
    for bits in lengths:
        model, made = work / f"{bits}.safetensors", {}
        learned = timed(hashret.train, base, model, method="itq", bits=bits)[0]
        encoder = hashret.load_encoder(model)
        for kept in ("float32", "float16"):
            seconds, index = timed(built, base, model, work, f"{bits}-{kept}", kept)
            made[kept] = learned + seconds, index
        ways = [("float32", None, None), ("float32", "asymmetric", None), ("float32", "asymmetric", 1000)]
        ways += [("float32", "cosine", candidates) for candidates in (100, 1000, None)] + [("float16", "cosine", None)]
        for kept, by, candidates in ways:
            seconds, index = made[kept]
            what = {None: "codes alone", "asymmetric": "asymmetric", "cosine": kept}[by]
            how = f"hashret, {bits} bits, {what}" + named(candidates if by else "none")
            size = stored(index, by == "cosine")
            yield Contestant("hashret", how, size, seconds, partial(ask_hashret, encoder, index, candidates, by))
        measured, calibrated = timed(candidates_for, index)
        how = f"hashret, {bits} bits, {kept}, candidates for a recall of 0.99"
        search = partial(ask_calibrated, encoder, index, calibrated, by)
        yield Contestant("hashret", how, size, seconds + measured, search)
        if bits == 128:
            searcher = hashret.Searcher(made["float32"][1], encoder)
            how = f"hashret, {bits} bits, float32: Searcher.search_vectors, hits with paths"
            size, seconds = stored(made["float32"][1], True), made["float32"][0]
            yield Contestant("hashret", how, size, seconds, partial(ask_searcher, searcher))
    if len(lengths) < 2:
        return
    model = work / "nested.safetensors"
    learned = timed(hashret.train, base, model, method="itq", bits=lengths)[0]
    for bits in lengths[:-1]:
        seconds, index = timed(built, base, model, work, f"nested-{bits}", "float32", bits)
        encoder = hashret.load_encoder(model).shortened(bits)
        for by in (None, "cosine"):
            how = f"hashret, {bits} of {lengths[-1]} bits, {'float32' if by else 'codes alone'}"
            yield Contestant(
                "hashret", how, stored(index, by is not None), learned + seconds,
                partial(ask_hashret, encoder, index, None, by),
            )  # fmt: skip


def named(candidates):
    """Candidates in words, as they stand behind what is re-ranked."""
    return {None: "", "none": ""}.get(candidates, f", {candidates} candidates")


def built(base, model, work, name, kept, bits=None):
    """Encode vectors and build their index, opened and warm."""
    hashret.encode(base, model, work / f"codes-{name}", vectors=kept)
    hashret.build_index(work / f"codes-{name}", work / f"index-{name}", values=False, bits=bits)
    return hashret.open_index(work / f"index-{name}").warm()


def stored(index, vectors):
    """Bytes an item of the files that a search reads: not paths, labels and ids; vectors where they are compared."""
    files = {}
    for segment in index.meta["segments"]:
        files |= segment["files"]
    left_out = ("paths", "path_ends", "ids", "labels") + (() if vectors else ("features",))
    return sum(file["bytes"] for name, file in files.items() if not name.startswith(left_out)) / len(index)


def ask_hashret(encoder, index, candidates, by, xq, k):
    outputs = encoder.encode(xq)
    return index.search(pack(binarize(outputs)), outputs, k, candidates, by, query_features=xq).positions


def candidates_for(index):
    """Return how many candidates find 0.99 of the nearest vectors, by the number of answers."""
    return {k: index.calibrate(k, rerank_by="cosine").candidates for k in K}


def ask_calibrated(encoder, index, candidates, by, xq, k):
    """Answer with as many candidates as the index was measured to take for so many answers."""
    return ask_hashret(encoder, index, candidates.get(k), by, xq, k)


def ask_searcher(searcher, xq, k):
    return np.array([[hit.id for hit in hits] for hits in searcher.search_vectors(xq, k)])


def of_faiss(base, work) -> Iterator[Contestant]:
    """Exact search, and faiss's approximate ones, several settings each."""
    n, width = base.shape
    yield made_by_faiss(base, "Flat", "faiss, flat, inner product")
    yield made_by_faiss(base, "Flat", "faiss, flat, Euclidean", metric=faiss.METRIC_L2)
    yield made_by_faiss(base, "SQfp16", "faiss, float16")
    lists = 2 ** round(np.log2(min(4 * n**0.5, n / 39)))  # faiss's guidelines, and the points that it trains by
    parts = next(parts for parts in (32, 16, 8) if width % parts == 0 and width // parts >= 4)
    coarse = f"IVF{lists}"
    probes = [probe for probe in (4, 16, 64) if probe < lists]
    for string, settings in (
        (f"{coarse},PQ{parts}np,RFlat", probes),
        (f"{coarse},PQ{width // 4}x4fsr,RFlat", probes),
        (f"RR{width},RaBitQ,RFlat", [None]),
        (f"RR{width},RaBitQfs,RFlat", [None]),
        (f"RR{width},RaBitQ", [None]),
        (f"RR{width},RaBitQ4", [None]),
        (f"RR{width},{coarse},RaBitQ,RFlat", probes),
        (f"RR{width},{coarse},RaBitQ4", probes),
        ("HNSW32", (16, 64, 256)),
    ):
        first = made_by_faiss(base, string, f"faiss, {string}")
        for setting in settings:
            if setting is None:
                yield first
                continue
            name = "efSearch" if string.startswith("HNSW") else "nprobe"
            how = f"{first.how}, {name} {setting}"
            search = partial(ask_faiss, first.search.args[0], name, setting)
            yield Contestant("faiss", how, first.bytes, first.build, search)


def made_by_faiss(base, string, how, metric=faiss.METRIC_INNER_PRODUCT):
    index = faiss.index_factory(base.shape[1], string, metric)
    if isinstance(index, faiss.IndexRefine):
        index.k_factor = REFINED
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = 128

    def fill():
        index.train(base)
        index.add(base)

    seconds = timed(fill)[0]
    rotation = 4 * base.shape[1] ** 2 if string.startswith("RR") else 0  # no more counted than hashret's encoder is
    size = (len(faiss.serialize_index(index)) - rotation) / len(base)
    return Contestant("faiss", how, size, seconds, partial(ask_faiss, index, None, None))


def ask_faiss(index, name, setting, xq, k):
    if name == "efSearch":
        index.hnsw.efSearch = setting
    elif name:
        faiss.ParameterSpace().set_index_parameter(index, name, setting)
    return index.search(xq, k)[1]


def of_usearch(base, work) -> Iterator[Contestant]:
    """usearch's graph over float16 and over signs, and its exact search over both."""
    from usearch.index import Index

    mean, places = base.mean(axis=0), np.arange(len(base))
    kinds = (("f16", "cos", lambda x: x), ("b1", "hamming", lambda x: np.packbits(x > mean, axis=1)))
    for dtype, metric, quantised in kinds:
        index = Index(ndim=base.shape[1], metric=metric, dtype=dtype)
        codes = quantised(base)
        seconds = timed(index.add, places, codes, threads=1)[0]
        size = index.serialized_length / len(base)
        for expansion in (index.expansion_search, 4 * index.expansion_search):
            how = f"usearch, {dtype}, expansion {expansion}"
            yield Contestant("usearch", how, size, seconds, partial(ask_usearch, index, expansion, quantised))
        how = f"usearch, {dtype}, exact"
        yield Contestant("usearch", how, size, seconds, partial(ask_usearch, index, None, quantised))


def ask_usearch(index, expansion, quantised, xq, k):
    if expansion is not None:
        index.expansion_search = expansion
    return index.search(quantised(xq), k, exact=expansion is None, threads=1).keys.reshape(len(xq), -1).astype(np.int64)


def of_sentence_transformers(base, work) -> Iterator[Contestant]:
    """Binary codes of signs, and the nearest of these rescored by the query in float32."""
    n, width = base.shape
    least, steps = base.min(axis=0), np.ptp(base, axis=0) / 255
    steps[steps == 0] = 1
    seconds_int8, whole = timed(lambda: (np.floor((base - least) / steps).clip(0, 255) - 128).astype(np.int8))
    for centre, told in ((np.zeros(width, np.float32), ""), (base.mean(axis=0), ", centred")):
        seconds, (index, codes) = timed(of_signs, base - centre)
        for times in RESCORED:
            how = f"sentence-transformers, ubinary{told}, {times} k rescored by "
            search = partial(ask_rescored, index, codes, centre, None, times)
            yield Contestant("sentence-transformers", f"{how}ubinary", codes.nbytes / n, seconds, search)
            search = partial(ask_rescored, index, whole, centre, steps, times)
            size = (codes.nbytes + whole.nbytes) / n
            yield Contestant("sentence-transformers", f"{how}int8", size, seconds + seconds_int8, search)


def of_signs(x):
    """Return an index of packed signs, and these."""
    codes = np.packbits(x > 0, axis=1)
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return index, codes


def ask_rescored(index, kept, centre, steps, times, xq, k):
    """Answer by signs, rescored by the same, or by int8 in ``steps`` of each number, which are not centred."""
    x = xq - centre
    near = index.search(np.packbits(x > 0, axis=1), min(times * k, index.ntotal))[1]
    rows = np.unpackbits(kept[near], axis=-1, count=x.shape[1]) if steps is None else kept[near]
    scores = np.einsum("qd,qcd->qc", x if steps is None else xq * steps, rows.astype(np.float32))
    return np.take_along_axis(near, np.argsort(-scores, axis=1)[:, :k], axis=1)


def of_numpy(base, work) -> Iterator[Contestant]:
    """Exact search as one writes it by hand."""

    def ask(xq, k):
        cosines = xq @ base.T
        near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        return np.take_along_axis(near, np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1), axis=1)

    yield Contestant("numpy", "numpy, matrix product", base.nbytes / len(base), 0, ask)


MAKERS = {
    "hashret": of_hashret, "faiss": of_faiss, "usearch": of_usearch,
    "sentence-transformers": of_sentence_transformers, "numpy": of_numpy,
}  # fmt: skip

if __name__ == "__main__":
    main()
