"""The convolutions of VGG, with torchvision's layer names (``0.weight`` ...), so that its state dicts load.

They are defined here, since a query must answer at once, and torchvision takes its time to import.
"""

from __future__ import annotations

from torch import nn

from ..renamed import forwarding

# Channels of each convolution, "M" a 2x2 maximum pooling: Simonyan & Zisserman, table 1, columns A and D.
_LAYERS = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}


def build_vgg(name: str) -> nn.Sequential:
    """Return VGG's convolutions: images (n, 3, s, s) -> (n, 512, s // 32, s // 32).

    Args:
        name: "vgg11" or "vgg16", with "_bn" behind it for batch normalisation.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width in _LAYERS[name.removesuffix("_bn")]:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        if name.endswith("_bn"):
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)


__getattr__ = forwarding(__name__)
