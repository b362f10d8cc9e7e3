"""Images a second of `hashret encode`, by backbone and runtime, and of a plain float32 torchvision loop, in one run.

    python -m benchmarks.run.encode_throughput

All read the same real photographs (Corel-5k, 192x128 JPEG) from disk at 224 pixels and end with the codes of ITQ, the
method that needs no labels. Rounds alternate. The plain loop is what one writes with torchvision: a DataLoader over an
ImageFolder, Resize, ToTensor, Normalize, VGG16 and the projection in float32 under inference mode. VGG16 takes the
first --images photographs, EfficientNet-Lite0 --more of them. Loading the checkpoint counts, and so do writing the
shards and reading a network that OpenVINO has converted before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.lib import common
from hashret.encoding import encode
from hashret.models.checkpoint import save_checkpoint
from hashret.models.encoder import pick_compute_dtype
from hashret.models.network import HashNet
from hashret.models.weights import load_backbone

WEIGHTS = {
    "vgg16": "vgg16_imagenet_features.safetensors", "efficientnet_lite0": "efficientnet_lite0_imagenet.safetensors",
}  # fmt: skip
ENCODERS = [(backbone, runtime) for backbone in WEIGHTS for runtime in ("torch", "openvino")]
BASE = "vgg16, torch"  # which the others are compared with


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--more", type=int, default=4000)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="of the plain loop")
    common.add_results(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        unpack(work / "few" / "all", options.images)
        unpack(work / "many" / "all", options.more)
        nets = {backbone: make_model(work, backbone, options.image_size) for backbone in WEIGHTS}
        rates = {}
        for number in range(options.rounds + 1):  # the first is for warming up
            found = {"plain": plain_loop(work / "few", nets["vgg16"], options.image_size, options.batch_size)}
            for backbone, runtime in ENCODERS:
                found[f"{backbone}, {runtime}"] = hashret_encode(work, backbone, runtime)
            print(f"round {number}:", ", ".join(f"{name} {rate:.2f}" for name, rate in found.items()), flush=True)
            if number:
                for name, rate in found.items():
                    rates.setdefault(name, []).append(round(rate, 2))
    result = {"images": options.images, "more": options.more, "image_size": options.image_size}
    result |= {"threads": torch.get_num_threads(), "number_format": pick_compute_dtype("cpu"), "seed": 0}
    result |= {"images_per_second": rates, "ratios": {}, "load_average": os.getloadavg()[0]}
    for name in rates:
        pairs = [own / base for own, base in zip(rates[name], rates[BASE], strict=True)]
        result["ratios"][name] = [round(figure(pairs), 3) for figure in (statistics.median, min, max)]
    common.save(f"encode_throughput_{options.image_size}px", result, options.results)


def unpack(folder, count):
    """The first photographs of Corel-5k, as files of one class folder."""
    folder.mkdir(parents=True)
    with tarfile.open(common.shared() / "data/corel5k.tar") as archive:
        for member in archive:
            if member.name.endswith((".jpg", ".jpeg")):
                (folder / Path(member.name).name).write_bytes(archive.extractfile(member).read())
                count -= 1
            if not count:
                return


def make_model(work, backbone, image_size):
    """An encoder with ImageNet weights and a drawn projection: fitting it does not change its speed."""
    torch.manual_seed(0)
    net = HashNet(48, 0, image_size, backbone, head="projection", unit=True).eval()
    torch.nn.init.normal_(net.head.weight)
    net.backbone = load_backbone(common.shared() / "weights" / WEIGHTS[backbone], backbone).eval()
    meta = {"method": "itq", "bits": 48, "image_size": image_size, "arch": backbone, "width": 4096, "attention": False}
    meta |= {"head": "projection", "head_config": net.head.config, "classes": [], "classifier": False}
    meta |= {"weights_fingerprint": net.architecture.fingerprint(net.backbone)}
    save_checkpoint(work / f"{backbone}.safetensors", net, meta)
    return net


def plain_loop(photos, net, image_size, batch_size):
    steps = [transforms.Resize((image_size, image_size)), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    loader = DataLoader(datasets.ImageFolder(photos, transforms.Compose(steps)), batch_size, num_workers=2)
    started, codes = time.perf_counter(), []
    with torch.inference_mode():
        for images, _ in loader:
            codes.append(net.head(net.backbone(images)).hash_outputs.numpy() >= 0.5)
    return len(np.concatenate(codes)) / (time.perf_counter() - started)


def hashret_encode(work, backbone, runtime):
    photos, out = work / ("few" if backbone == "vgg16" else "many") / "all", work / "codes"
    started = time.perf_counter()
    report = encode(photos, work / f"{backbone}.safetensors", out, cache=work / "cache", runtime=runtime)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return report.encoded / seconds


if __name__ == "__main__":
    main()
