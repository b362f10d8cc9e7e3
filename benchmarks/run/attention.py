"""Does attention help? VGGH and VGGH+ with CBAM in several places and shapes, against none, by the same seeds.

    python -m benchmarks.run.attention --data corel5k-21:corel5k/corel5k_21 --work runs/attention

All are heads over the same cached feature maps of VGG16 before its last pooling, 14 x 14 cells at 224 px, which the
heads pool themselves: CBAM stands before that pooling or, as in the paper, after it, at 7 x 7. A run differs from that
without attention, which has the same seed, in its gates alone: the other layers begin equal and see the same batches.
Over frozen convolutions the trained gates are then replaced, by their mean over the train photographs and by those of
other photographs, and the same encoder is scored again, see `replaced`. With --finetune last:1 the last convolution is
trained, too, on features below it. Each run is added to one JSON under results/attention, and what is there is not run
again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.lib import common
from hashret import build_index, encode, evaluate, methods, train
from hashret.bits import binarize, pack
from hashret.data import open_data
from hashret.data.batches import split_rows
from hashret.data.feature_cache import FeatureCache
from hashret.methods.codewords import VGGHPlus
from hashret.methods.vggh import VGGH
from hashret.metrics import average_precision, count_by_distance
from hashret.models import backbones, heads
from hashret.models.attention import CBAM
from hashret.models.checkpoint import load_encoder
from hashret.models.vgg import build_vgg

BACKBONE = "vgg16-before-last-pooling"
VARIANTS: dict[str, dict[str, Any]] = {  # where the gates stand, which there are, and how they begin
    "none": {"place": "none"},
    "7x7": {"place": "after"},
    "7x7 channel gate": {"place": "after", "parts": "channel"},
    "7x7 spatial gate": {"place": "after", "parts": "spatial"},
    "7x7 blind": {"place": "after", "parts": "blind"},  # the same for all photographs
    "7x7 half": {"place": "after", "gate": "half"},
    "7x7 open": {"place": "after", "gate": "open"},
    "14x14": {"place": "before"},
    "14x14 half": {"place": "before", "gate": "half"},
    "none, twice as long": {"place": "none"},
    "7x7, twice as long": {"place": "after"},
}
TWICE = "twice as long"  # ends the name of a variant that is trained for twice the epochs
BASES = {"vggh": VGGH, "vggh+": VGGHPlus}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="PROTOCOL:DIR")
    parser.add_argument("--weights", default=str(common.shared() / "weights" / "vgg16_imagenet_features.safetensors"))
    parser.add_argument("--work", type=Path, required=True, help="folder for what the runs leave behind")
    parser.add_argument("--methods", nargs="+", default=[*BASES], choices=[*BASES])
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS], choices=[*VARIANTS])
    parser.add_argument("--bits", nargs="+", type=int, default=[48])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--finetune", default="head")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=224)
    common.add_results(parser, common.RESULTS / "attention")
    options = parser.parse_args()
    register(options)
    name = f"{options.data.partition(':')[0]}_{options.image_size}px_{options.finetune.replace(':', '-')}"
    path = options.results / f"{name}.json"
    settings = {"image_size": options.image_size, "width": options.width, "epochs": options.epochs}
    settings |= {"finetune": options.finetune}
    if path.exists():  # names have neither width nor epochs
        common.check_settings(path, json.loads(path.read_text()), settings)
    runs = common.kept(path, "runs")
    known = {(run["method"], run["variant"], run["bits"], run["seed"]) for run in runs}
    asked = itertools.product(options.seeds, options.bits, options.methods, options.variants)
    for seed, bits, method, variant in asked:
        if (method, variant, bits, seed) in known:
            continue
        line = {"method": method, "variant": variant, "bits": bits, "seed": seed}
        line |= {key: value for key, value in common.surroundings().items() if key in common.PROVENANCE}
        runs.append(line | run(options, method, variant, bits, seed))
        common.save(name, settings | {"runs": runs}, options.results)


def register(options):
    """Make the backbone, the head and the methods of this benchmark known to hashret."""
    vgg16 = backbones.get_backbone("vgg16")
    shape = {"build": lambda: build_vgg("vgg16")[:-1], "stride": 16, "pooled": False}
    backbones.register(replace(vgg16, name=BACKBONE, **shape))
    heads.register(GatedHead)
    for name, variant in itertools.product(options.methods, options.variants):
        attributes = {"name": f"{name} {variant}", "head": GatedHead.kind, "head_options": VARIANTS[variant]}
        methods.register(type("Variant", (BASES[name],), attributes | {"backbone": BACKBONE}))


class GatedHead(heads.HashHead):
    """`HashHead` that pools its feature map itself, with CBAM, or one of its gates, before or after.

    Args:
        place: "before" or "after" the pooling, or "none".
        parts: "both" gates, "channel" or "spatial", or both "blind", see `BlindGate`.
        gate: how they begin.
    """

    kind = "gated"
    options = ("width", "dropout", "gate", "place", "parts")

    def __init__(self, bits, classes, channels, side, place="none", parts="both", gate="unit", **options):
        super().__init__(bits, classes, channels, side // 2, attention=False, **options)
        self.config = {"kind": self.kind, "place": place, "parts": parts, "gate": gate, **options}
        gates = nn.Identity()
        if place != "none":
            with torch.random.fork_rng([]):  # the fully connected layers begin as they do without gates
                gates = CBAM(channels, gate=gate)
            if parts == "blind":
                gates.channel, gates.spatial = BlindGate(gates.channel), BlindGate(gates.spatial)
            elif parts != "both":
                setattr(gates, "channel" if parts == "spatial" else "spatial", NoGate())
        pooling = nn.MaxPool2d(2)
        self.attention = nn.Sequential(gates, pooling) if place == "before" else nn.Sequential(pooling, gates)

    def read(self, attended):
        return super().read(attended.contiguous())


class BlindGate(nn.Module):
    """A gate that sees ones in place of the feature map, so that it is the same for all photographs.

    It has the parameters, the start and the range of the gate that it wraps, and learns as fast: what it gains, by
    weighing channels or cells once for all, is no merit of looking.
    """

    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def weights(self, feature_map):
        return self.gate.weights(torch.ones_like(feature_map[:1]))


class NoGate(nn.Module):
    """A gate that lets everything pass."""

    def weights(self, feature_map):
        return feature_map.new_ones(1)


class FixedGate(nn.Module):
    """A gate that no longer looks: these weights, (1, c, 1, 1) or (1, 1, h, w), for every photograph."""

    def __init__(self, fixed):
        super().__init__()
        self.fixed = fixed

    def weights(self, feature_map):
        return self.fixed


class NextGate(nn.Module):
    """Gives each photograph of a batch the gate of the one before it; those of a batch are drawn by lot."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def weights(self, feature_map):
        return self.gate.weights(feature_map).roll(1, 0)


def run(options, method, variant, bits, seed):
    """Train, encode and score one encoder: what came out, as a dict."""
    work, started = options.work / "run", time.perf_counter()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model = work / "model.safetensors"
    epochs = 2 * options.epochs if variant.endswith(TWICE) else options.epochs
    report = train(
        options.data, model, method=f"{method} {variant}", bits=bits, backbone=BACKBONE, weights=options.weights,
        finetune=options.finetune, width=options.width, epochs=epochs, image_size=options.image_size, seed=seed,
    )  # fmt: skip
    for subset in ("database", "test"):
        encode(options.data, model, work / subset, split=subset, fill_cache=options.finetune == "head")
    build_index(work / "database", work / "index")
    whole = evaluate(work / "test", work / "index", rerank_by="directions", k=(1, 10, 100))
    result = {
        "map": whole.hamming.map, "reranked_map": whole.reranked.map,
        "precision_at": {str(k): value for k, value in whole.hamming.precision_at.items()},
        "heldout_map": max(epoch["heldout_map"] for epoch in report.epochs_run),
        "last_loss": report.epochs_run[-1]["loss"],
    }  # fmt: skip
    if options.finetune == "head":
        result |= looked_into(options.data, model, seed)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(f"{method} {variant} {bits} bits, seed {seed}: mAP {result['map']:.4f}, {result['seconds']} s", flush=True)
    return result


@torch.inference_mode()
def looked_into(data, model, seed):
    """What a trained encoder does with each query and, where it has gates, how these vary and what they are good for.

    Returns:
        "average_precisions" of the queries, in order, as words of one line; "gates", see `figures`; and "replaced", the
        mAP of the same encoder where each gate is its "mean" over the train photographs, for all photographs, or that
        of "another" photograph, drawn by lot. What the mean loses is what looking at the photograph gains.
    """
    encoder = load_encoder(model, "cpu")
    database, queries = (Cached(data, subset, encoder, seed) for subset in ("database", "test"))
    scores = average_precisions(encoder, database, queries)
    result = {"average_precisions": " ".join(f"{score:.4f}" for score in scores)}
    cbam = next((part for part in encoder.head.attention if isinstance(part, CBAM)), None)
    if cbam is None:
        return result
    pooling = encoder.head.attention[0] if encoder.head.attention[1] is cbam else nn.Identity()
    names = [name for name in ("channel", "spatial") if not isinstance(getattr(cbam, name), NoGate)]

    def gates(photographs):
        both = [cbam.attend(pooling(maps))[1:] for maps in photographs.batches()]
        weights = {"channel": torch.cat([one for one, _ in both]), "spatial": torch.cat([one for _, one in both])}
        return {name: weights[name] for name in names}

    result["gates"] = {name: figures(weights.flatten(1)) for name, weights in gates(queries).items()}
    trained = {name: getattr(cbam, name) for name in names}
    means = {name: FixedGate(weights.mean(dim=0, keepdim=True)) for name, weights in gates(database).items()}
    others = {name: NextGate(gate) for name, gate in trained.items()}
    result["replaced"] = {}
    for kind, replacements in {"mean": means, "another": others}.items():
        for name, gate in replacements.items():
            setattr(cbam, name, gate)
        result["replaced"][kind] = float(average_precisions(encoder, database, queries).mean())
    return result


class Cached:
    """The cached feature maps of the photographs of a subset, in an order drawn by lot, and their labels."""

    def __init__(self, data, subset, encoder, seed):
        source = open_data(data, subset)
        self.order = np.random.default_rng(seed).permutation(len(source))
        self.labels = source.labels
        fingerprint, size = encoder.meta["weights_fingerprint"], encoder.image_size
        cache = FeatureCache(None, source, fingerprint, size, encoder.backbone.compute_dtype, encoder.resize)
        self.maps = cache.open(encoder.backbone.architecture.map_shape(size))

    def batches(self):
        """Yield the maps of 256 photographs at a time, float32 (n, c, h, w)."""
        for rows in split_rows(self.order, 256):
            yield torch.from_numpy(self.maps[rows]).float()


def average_precisions(encoder, database, queries):
    """Return the average precision of each query, in the order of the source, expected over ties: (nq,)."""
    codes = []
    for photographs in (queries, database):
        outputs = torch.cat([encoder.head(maps).hash_outputs for maps in photographs.batches()])
        codes.append(pack(binarize(outputs.numpy()[np.argsort(photographs.order)])))
    return average_precision(count_by_distance(*codes, queries.labels, database.labels, encoder.bits))


def figures(weights):
    """How a gate varies over photographs, of which each has a row (n, channels or cells), or all have one.

    Returns:
        Its "mean" and range; "deviation", the standard deviation over channels or cells in a photograph, over their
        mean: how far it weighs; and "between", that of a channel or cell over photographs: how far it depends on what
        they show.
    """
    between = torch.zeros(1)  # of a gate that is the same for all photographs, and has one row
    if len(weights) > 1:
        between = weights.std(dim=0) / weights.mean(dim=0)
    found = {
        "mean": weights.mean(), "least": weights.min(), "largest": weights.max(),
        "deviation": (weights.std(dim=1) / weights.mean(dim=1)).mean(), "between": between.mean(),
    }  # fmt: skip
    return {name: round(float(value), 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
