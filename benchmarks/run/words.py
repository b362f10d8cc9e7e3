"""Queries in words, by what encoders know of their classes: mAP of each word, and of pairs of words.

    python -m benchmarks.run.words --data DIR --work runs/words

Each method is trained on corel5k-21 and encodes its database, which is what it was trained on, and its test
photographs, which it was not. Every class is a query, to which the photographs with that label are relevant, and every
pair of classes that enough photographs have, to which those with both are. Beside what `hashret query --words` does
stand other ways to make a query of a class, and the test photographs as queries. Writes results/words_corel5k-21.json.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from benchmarks.lib import common
from hashret import build_index, encode, evaluate, load_encoder, open_index, train
from hashret.bits import binarize, pack
from hashret.evaluation import EvaluationSet, score
from hashret.shards import Shard
from hashret.vectors import unit
from hashret.words import class_logits, outputs_for

METHODS = ("am-vggh+", "csq", "am-vggh", "greedyhash", "hashnet", "itq")
LEAST = {"database": 10, "test": 3}  # photographs that have both labels of a pair


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Corel-5k's photographs")
    parser.add_argument("--work", type=Path, required=True, help="folder of what the runs leave, and go on with")
    parser.add_argument("--weights", help="default: the shared ones of EfficientNet-Lite0")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    common.add_results(parser)
    options = parser.parse_args()
    options.weights = options.weights or str(common.shared() / "weights" / "efficientnet_lite0_imagenet.safetensors")
    runs = []
    for method in options.methods:
        runs.append(run(options, method))
        settings = {"protocol": "corel5k-21", "backbone": "efficientnet_lite0", "bits": options.bits}
        settings |= {"seed": options.seed, "least": LEAST, "runs": runs}
        common.save("words_corel5k-21", settings, options.results)


def run(options, method):
    """Train a method where that was not done before, and score its queries: -> a dict of figures."""
    work = options.work / f"{method}_{options.bits}b_seed{options.seed}"
    model, data = work / "model.safetensors", f"corel5k-21:{options.data}"
    if not (work / "test-index").exists():
        work.mkdir(parents=True, exist_ok=True)
        settings = {"bits": options.bits, "seed": options.seed, "width": 2048, "workers": 0}
        train(
            data, model, method=method, backbone="efficientnet_lite0", weights=options.weights, overwrite=True,
            **settings,
        )  # fmt: skip
        for part in LEAST:
            encode(data, model, work / part, split=part, workers=0, overwrite=True)
            build_index(work / part, work / f"{part}-index", overwrite=True)
    encoder = load_encoder(model)
    index = open_index(work / "database-index")
    photographs = evaluate(work / "test", work / "database-index", candidates=len(index), rerank_by="directions")
    found = {"method": method, "photographs": figures(photographs)}
    for part in LEAST:
        index = open_index(work / f"{part}-index")
        found[part] = {name: scored(index, logits, LEAST[part]) for name, logits in ways(encoder, index).items()}
    print(method, {part: found[part] for part in LEAST}, flush=True)
    return found


def ways(encoder, index):
    """Ways to make a query of each class: {name: logits (classes, bits)}."""
    _, _, labels = index.everything()
    outputs = np.asarray(index.hash_outputs)
    means = np.stack([outputs[of > 0].mean(axis=0) for of in labels.T])
    found = {} if class_logits(encoder) is None else {"words": class_logits(encoder)}
    if encoder.head.classifiers():
        weights = encoder.head.classifiers()[-1].weight.numpy()
        found["weights less their mean"] = unit(weights - weights.mean(axis=0))
    return found | {"photographs of the class": unit(means - outputs.mean(axis=0))}


def scored(index, logits, least):
    """mAP of each class, and of each pair that ``least`` photographs have: {"one": ..., "pairs": ..., "number"}."""
    _, _, labels = index.everything()
    one = [(number,) for number in range(labels.shape[1]) if labels[:, number].any()]
    pairs = itertools.combinations(range(labels.shape[1]), 2)
    pairs = [pair for pair in pairs if labels[:, pair].all(axis=1).sum() >= least]
    return {
        "one": mean_precision(index, logits, one), "pairs": mean_precision(index, logits, pairs), "number": len(pairs)
    }  # fmt: skip


def mean_precision(index, logits, asked):
    """mAP of queries for photographs that have all labels of each of ``asked``, by both stages of the search."""
    positions, codes, labels = index.everything()
    outputs = np.stack([outputs_for(logits, classes) for classes in asked])
    relevant = np.stack([labels[:, list(classes)].all(axis=1) for classes in asked], axis=1).astype(np.uint8)
    queries = Shard(
        codes=pack(binarize(outputs)), hash_outputs=outputs, ids=np.arange(len(asked)), paths=[b""] * len(asked),
        labels=np.eye(len(asked), dtype=np.uint8),
    )  # fmt: skip
    names = [str(classes) for classes in asked]
    whole = EvaluationSet(queries, queries.labels, {}, index, names, positions, codes, relevant)
    found = {by: figures(score(whole, len(index), by).figures) for by in ("directions", "values", "asymmetric")}
    return {"hamming": found["directions"]["hamming"]} | {by: maps["reranked"] for by, maps in found.items()}


def figures(evaluation):
    return {"hamming": evaluation.hamming.map, "reranked": evaluation.reranked.map}


if __name__ == "__main__":
    main()
