r"""Pooled features of a frozen backbone as vectors, which `run.vectors` and `run.latency` take: a .npz a data set.

    python -m benchmarks.run.features --data cifar10-1:DIR --weights FILE --out cifar10-lite0.npz
    python -m benchmarks.run.features --data list:corel5k/corel5k_374 --backbone vgg16 --weights FILE \
        --out corel-vgg16.npz

``base`` float32 (n, channels) are those of the subset "database", ``asked`` those of "test", 1,000 of them at most: the
mean over the feature map's cells, of unit length, which is what hashret's own shallow methods hash. Feature maps are
kept in the feature cache, so a run that was killed goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.lib import common
from hashret.data import open_data
from hashret.models.backbones import get_backbone
from hashret.models.encoder import pick_device, pick_precision
from hashret.models.weights import load_backbone
from hashret.training.feed import FeatureFeed

QUERIES = 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as for hashret encode, with the subsets database and test")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="pretrained", help="as for hashret train")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cache", help="folder of feature caches")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    backbone, device = get_backbone(options.backbone), pick_device()
    layers, precision = load_backbone(options.weights, options.backbone), pick_precision(None, "auto", device, backbone)
    vectors = {}
    for name, subset in (("base", "database"), ("asked", "test")):
        source = open_data(options.data, subset)
        if subset == "test" and len(source) > QUERIES:
            source = source.subset(np.sort(np.random.default_rng(0).permutation(len(source))[:QUERIES]))
        feed = FeatureFeed(source, layers, backbone, options.image_size, precision, device, options.cache)
        with torch.inference_mode():
            vectors[name] = feed.descriptors(feed.readable()).cpu().numpy()
    about = {"data": name_of(options.data, source), "backbone": options.backbone, "image_size": options.image_size}
    about |= {"compute_dtype": precision, "commit": common.commit()}
    np.savez(options.out, **vectors, **{name: np.array(value) for name, value in about.items()})
    print(f"-> {options.out}: base {vectors['base'].shape}, asked {vectors['asked'].shape}")


def name_of(data, source):
    """The name of a protocol, or the kind of a source and the last part of where it is: "list corel5k_374"."""
    kind, _, place = data.partition(":")
    return kind if source.protocol or not place else f"{kind} {Path(place).name}"


if __name__ == "__main__":
    main()
