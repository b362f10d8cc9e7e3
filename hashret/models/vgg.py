"""The convolutions of VGG, with torchvision's layer names (``features.0.weight`` ...), so that its state dicts load.

torchvision itself is not imported, since a query must answer at once.
"""

from __future__ import annotations

from torch import nn

from ..errors import HashretError
from ..renamed import forwarding

# Channels of each convolution, "M" a 2x2 maximum pooling: Simonyan & Zisserman, table 1, columns A and D.
_LAYERS = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}
ARCHITECTURES = tuple(name + suffix for name in _LAYERS for suffix in ("", "_bn"))


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


__getattr__ = forwarding(__name__)
