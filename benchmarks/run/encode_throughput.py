"""Images a second of `hashret encode` against a plain float32 torchvision loop, side by side in one run.

    python -m benchmarks.run.encode_throughput --images 192

Both read the same real photographs (Corel-5k, 192x128 JPEG) from disk, compute the same AM-VGGH with two layers of
4096 at 224 pixels and end with codes; rounds alternate. The plain loop is what one writes with torchvision: a
DataLoader over an ImageFolder, Resize, ToTensor, Normalize, the network in float32 under inference mode.
"""

from __future__ import annotations

import argparse
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
from hashret.models.network import HashNet
from hashret.models.weights import load_backbone


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="of the plain loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        unpack(work / "photos" / "all", options.images)
        net = make_model(work / "model.safetensors", options.image_size)
        rates = {"plain": [], "hashret": []}
        for number in range(options.rounds + 1):  # the first is for warming up
            plain = plain_loop(work / "photos", net, options.image_size, options.batch_size)
            ours = hashret_encode(work, number)
            print(f"round {number}: plain {plain:.2f}, hashret {ours:.2f} images/s, x{ours / plain:.2f}", flush=True)
            if number:
                rates["plain"].append(round(plain, 2))
                rates["hashret"].append(round(ours, 2))
        ratios = [ours / plain for ours, plain in zip(rates["hashret"], rates["plain"], strict=True)]
    result = {"images": options.images, "image_size": options.image_size, "threads": torch.get_num_threads()}
    result |= {"seed": 0, "images_per_second": rates, "ratio_median": round(statistics.median(ratios), 2)}
    result |= {"ratio_min": round(min(ratios), 2), "ratio_max": round(max(ratios), 2)}
    common.save(f"encode_throughput_{options.image_size}px", result)


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


def make_model(path, image_size):
    """An AM-VGGH with ImageNet convolutions and an untrained head: training does not change its speed."""
    torch.manual_seed(0)
    net = HashNet(48, 10, image_size).eval()
    net.backbone = load_backbone(common.shared() / "weights/vgg16_imagenet_features.safetensors").eval()
    meta = {
        "method": "am-vggh",
        "bits": 48,
        "image_size": image_size,
        "arch": "vgg16",
        "width": 4096,
        "attention": True,
    }
    meta |= {"classes": list("0123456789"), "weights_fingerprint": net.architecture.fingerprint(net.backbone)}
    save_checkpoint(path, net, meta)
    return net


def plain_loop(photos, net, image_size, batch_size):
    steps = [transforms.Resize((image_size, image_size)), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    loader = DataLoader(datasets.ImageFolder(photos, transforms.Compose(steps)), batch_size, num_workers=2)
    started, codes = time.perf_counter(), []
    with torch.inference_mode():
        for images, _ in loader:
            codes.append(net.head(net.backbone(images)).logits.numpy() >= 0.5)
    return len(np.concatenate(codes)) / (time.perf_counter() - started)


def hashret_encode(work, number):
    started = time.perf_counter()
    model, cache = work / "model.safetensors", work / "cache"
    report = encode(work / "photos" / "all", model, work / f"codes-{number}", cache=cache)
    return report.encoded / (time.perf_counter() - started)  # loading the checkpoint counts


if __name__ == "__main__":
    main()
