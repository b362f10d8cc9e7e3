"""Does attention help? VGGH and VGGH+ with CBAM in several places and shapes, against none, by the same seeds.

    python -m benchmarks.run.attention --data corel5k-21:corel5k/corel5k_21 --work runs/attention

All are heads over the same cached feature maps of VGG16 before its last pooling, 14 x 14 cells at 224 px, which the
heads pool themselves: CBAM stands before that pooling or, as in the paper, after it, at 7 x 7. A run differs from that
without attention, which has the same seed, in its gates alone. With --finetune last:1 the last convolution is trained,
too, on features below it. Each run is added to one JSON under results/attention, and what is there is not run again.
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

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.lib import common
from hashret import build_index, encode, evaluate, methods, train
from hashret.methods.codewords import VGGHPlus
from hashret.methods.vggh import VGGH
from hashret.models import backbones, heads
from hashret.models.attention import CBAM
from hashret.models.vgg import build_vgg

BACKBONE = "vgg16-before-last-pooling"
VARIANTS: dict[str, dict[str, Any]] = {  # where the gates stand, which there are, and how they begin
    "none": {"place": "none"},
    "7x7": {"place": "after"},
    "7x7 channel gate": {"place": "after", "parts": "channel"},
    "7x7 spatial gate": {"place": "after", "parts": "spatial"},
    "7x7 gain": {"place": "after", "parts": "gain"},  # a weight a channel, the same for all photographs
    "7x7 half": {"place": "after", "gate": "half"},
    "7x7 open": {"place": "after", "gate": "open"},
    "14x14": {"place": "before"},
    "14x14 half": {"place": "before", "gate": "half"},
}
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
    parser.add_argument("--results", type=Path, default=common.RESULTS / "attention")
    options = parser.parse_args()
    register(options)
    name = f"{options.data.partition(':')[0]}_{options.image_size}px_{options.finetune.replace(':', '-')}"
    path = options.results / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"runs": []}
    known = {(run["method"], run["variant"], run["bits"], run["seed"]) for run in result["runs"]}
    asked = itertools.product(options.seeds, options.bits, options.methods, options.variants)
    for seed, bits, method, variant in asked:
        if (method, variant, bits, seed) in known:
            continue
        line = {"method": method, "variant": variant, "bits": bits, "seed": seed, "commit": common.commit()}
        result["runs"].append(line | run(options, method, variant, bits, seed))
        settings = {"image_size": options.image_size, "width": options.width, "epochs": options.epochs}
        common.save(name, settings | {"finetune": options.finetune, "runs": result["runs"]}, options.results)


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
        parts: "both" gates, "channel" or "spatial", or the "gain" of `ChannelGain` in their place.
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
            if parts == "gain":
                gates.channel = ChannelGain(channels)
            if parts != "both":
                setattr(gates, "channel" if parts == "spatial" else "spatial", NoGate())
        pooling = nn.MaxPool2d(2)
        self.attention = nn.Sequential(gates, pooling) if place == "before" else nn.Sequential(pooling, gates)

    def read(self, attended):
        return super().read(attended.contiguous())


class ChannelGain(nn.Module):
    """A learned weight for each channel, the same for all photographs.

    It scales the channels as a channel gate does, but without attention: what it gains is no merit of looking.
    """

    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def weights(self, feature_map):
        return self.gain.to(feature_map.dtype)


class NoGate(nn.Module):
    """A gate that lets everything pass."""

    def weights(self, feature_map):
        return feature_map.new_ones(1)


def run(options, method, variant, bits, seed):
    """Train, encode and score one encoder: what came out, as a dict."""
    work, started = options.work / "run", time.perf_counter()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model = work / "model.safetensors"
    report = train(
        options.data, model, method=f"{method} {variant}", bits=bits, backbone=BACKBONE, weights=options.weights,
        finetune=options.finetune, width=options.width, epochs=options.epochs, image_size=options.image_size, seed=seed,
    )  # fmt: skip
    for subset in ("database", "test"):
        encode(options.data, model, work / subset, split=subset, fill_cache=options.finetune == "head")
    build_index(work / "database", work / "index")
    whole = evaluate(work / "test", work / "index", rerank_by="directions", k=(1, 10, 100))
    seconds = round(time.perf_counter() - started, 1)
    print(f"{method} {variant} {bits} bits, seed {seed}: mAP {whole.hamming.map:.4f}, {seconds} s", flush=True)
    return {
        "map": whole.hamming.map, "reranked_map": whole.reranked.map,
        "precision_at": {str(k): value for k, value in whole.hamming.precision_at.items()},
        "heldout_map": max(epoch["heldout_map"] for epoch in report.epochs_run),
        "last_loss": report.epochs_run[-1]["loss"], "gates": gate_figures(options, model), "seconds": seconds,
    }  # fmt: skip


def gate_figures(options, model):
    """How far the gates of a trained encoder vary over some test photographs, None where there are none.

    Of each gate, ``deviation`` is the standard deviation over its channels or cells in a photograph, over their mean:
    how far it weighs. ``between`` is that of a channel or cell over photographs: how far it depends on what they show.
    """
    from hashret.data import open_data
    from hashret.models.checkpoint import load_encoder

    encoder = load_encoder(model, "cpu")
    found = [part for part in encoder.head.attention if isinstance(part, CBAM)]
    if not found or options.finetune != "head":
        return None
    source = open_data(options.data, "test")
    pixels = torch.stack([torch.from_numpy(source.pixels(row, options.image_size)) for row in range(0, 64)])
    maps = torch.as_tensor(encoder.backbone(pixels)).float()
    if isinstance(encoder.head.attention[0], nn.MaxPool2d):
        maps = F.max_pool2d(maps, 2)
    figures = {}
    with torch.inference_mode():
        _, channel, spatial = found[0].attend(maps)
    for name, gate in (("channel", channel), ("spatial", spatial)):
        if gate.ndim > 1:  # which that of `NoGate` has not
            weights = gate.flatten(1)
            deviation = weights.std(dim=1) / weights.mean(dim=1)
            between = torch.zeros(1)  # of a gate that is the same for all photographs, and has one row
            if len(weights) > 1:
                between = weights.std(dim=0) / weights.mean(dim=0)
            figures[name] = {"deviation": round(float(deviation.mean()), 4), "between": round(float(between.mean()), 4)}
    return figures


if __name__ == "__main__":
    main()
