"""The registry of backbones: layers that turn images into a feature map, and what others must know of them.

Importing this module loads neither torch nor torchvision, since the command line lists the names of the backbones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..errors import HashretError
from ..registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of torchvision's ImageNet weights
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """Layers that turn images into a feature map, and what others must know of them.

    Attributes:
        name: the name by which options and checkpoints refer to the backbone.
        build: returns the layers, with any weights: float32 (n, 3, s, s) -> (n, channels, s // stride, s // stride).
        channels: channels of the feature map.
        stride: pixels a side of one cell of the feature map; image sizes are multiples of it.
        mean, std: normalisation of each colour channel, for pixels in [0, 1].
        pretrained: returns the state dict of ImageNet weights; None where there are none.
    """

    name: str
    build: Callable[[], nn.Module]
    channels: int
    stride: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pretrained: Callable[[], dict[str, Tensor]] | None = None

    def side(self, image_size: int) -> int:
        """Return the number of cells a side of the feature map of images of ``image_size`` pixels a side.

        Raises:
            HashretError: the image size is not a positive multiple of the stride.
        """
        if image_size < self.stride or image_size % self.stride:
            raise HashretError(f"image size must be a multiple of {self.stride} pixels, not {image_size}")
        return int(image_size) // self.stride

    def map_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return the shape of the feature map of images of ``image_size`` pixels a side; raises as `side` does."""
        side = self.side(image_size)
        return self.channels, side, side

    def normalize(self, images: Tensor) -> Tensor:
        """Turn pixels into the input of the layers: uint8 (n, 3, s, s) -> float32 of the same shape."""
        pixels = images.float()
        mean, std = (pixels.new_tensor(numbers).view(1, 3, 1, 1) * 255 for numbers in (self.mean, self.std))
        return (pixels - mean) / std

    def fingerprint(self, layers: nn.Module) -> str:
        """Return a sha256 that two sets of layers share exactly if they give the same feature maps.

        It covers the weights by name, and the normalisation and stride where these are not the usual ones.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(layers.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        unusual = (self.stride, self.mean, self.std)
        if unusual != (32, IMAGENET_MEAN, IMAGENET_STD):
            digest.update(repr(unusual).encode())
        return digest.hexdigest()


BACKBONES: Registry[Backbone] = Registry()


def register(backbone: Backbone) -> Backbone:
    """Make a backbone known to ``--arch``, to `get_backbone` and to checkpoints, and return it.

    Raises:
        ValueError: another backbone has that name.
    """
    if backbone.name in BACKBONES:
        raise ValueError(f"there is a backbone {backbone.name!r} already")
    BACKBONES[backbone.name] = backbone
    return backbone


def get_backbone(name: str) -> Backbone:
    """Return the backbone of that name.

    Raises:
        HashretError: there is none; the message lists the names.
    """
    if name not in BACKBONES:
        raise HashretError(f"no architecture {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _build_vgg(name: str) -> nn.Module:
    from .vgg import build_vgg

    return build_vgg(name)


def _imagenet_vgg(name: str) -> dict[str, Tensor]:
    from .vgg import imagenet_vgg

    return imagenet_vgg(name)


for _name in ("vgg16", "vgg16_bn", "vgg11", "vgg11_bn"):
    register(Backbone(_name, partial(_build_vgg, _name), 512, pretrained=partial(_imagenet_vgg, _name)))
