"""The whole network: VGG convolutions and a head that hashes their features.

Source: paper, section 1 and figures 1 and 2. The convolutions have torchvision's layer names
(``features.0.weight`` ...), so that its state dicts load as they are; torchvision itself is not imported
here, since a query must answer at once.
"""

from __future__ import annotations

import torch
from torch import nn

from ..errors import HashretError
from .heads import make_head

# Channels of each convolution, "M" a 2x2 maximum pooling: Simonyan & Zisserman, table 1, columns A and D.
_LAYERS = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}
ARCHITECTURES = tuple(name + suffix for name in _LAYERS for suffix in ("", "_bn"))
STRIDE = 32  # five poolings by two

_MEAN = (0.485, 0.456, 0.406)  # torchvision's normalisation for ImageNet weights
_STD = (0.229, 0.224, 0.225)


def vgg_features(arch="vgg16"):
    """VGG convolutions as torchvision names them: images (n, 3, s, s) -> (n, 512, s/32, s/32)."""
    if arch not in ARCHITECTURES:
        raise HashretError(f"no architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
    layers, channels = [], 3
    for width in _LAYERS[arch.removesuffix("_bn")]:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if arch.endswith("_bn"):
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)


def normalize(images):
    """Pixels to the network's input: uint8 (n, 3, s, s) -> float32, torchvision's ImageNet normalisation."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std


class HashNet(nn.Module):
    """Convolutions and a head: uint8 images (n, 3, s, s) -> `HeadOutput`.

    AM-VGGH with the head's defaults, VGGH with ``attention=False``; ``head`` names the kind (see `make_head`) and
    further arguments are the head's own.
    """

    def __init__(self, bits, classes, image_size=224, arch="vgg16", head="fc", **options):
        super().__init__()
        check_image_size(image_size)
        self.features = vgg_features(arch)
        self.head = make_head(head, bits, classes, image_size // STRIDE, **options)

    def forward(self, images):
        return self.head(self.features(normalize(images)))


def check_image_size(image_size):
    """Return ``image_size`` as int, or raise HashretError unless it is a positive multiple of 32."""
    if image_size < STRIDE or image_size % STRIDE:
        raise HashretError(f"image size must be a multiple of {STRIDE} pixels, not {image_size}")
    return int(image_size)


def init_from_scratch(module):
    """Initialise every layer for training from scratch: He et al. 2015 for ReLU layers, as torchvision does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
