"""What others must know of a backbone, the layers that turn images into a feature map. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import HashretError

if TYPE_CHECKING:
    from torch import Tensor, nn

RESIZES = ("squeeze", "crop", "pad")  # ways to make a square of a photograph, see `hashret.data.images.read_image`
GATES = ("unit", "open", "half")  # how the gates of attention begin, see `hashret.models.attention.CBAM`
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of torchvision's ImageNet weights
IMAGENET_STD = (0.229, 0.224, 0.225)
_WIDEST = 512 * 7 * 7  # numbers of VGG16's feature map at 224 px, the most that the paper's head flattens


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class Backbone:
    """Layers that turn images into a feature map, and what others must know of them.

    Attributes:
        name: the name by which options and checkpoints refer to the backbone.
        build: returns the layers, with any weights: float32 (n, 3, s, s) -> (n, channels, side, side), see `side`.
        channels: channels of the feature map.
        stride: pixels a side of one cell of the feature map; image sizes are multiples of it.
        mean, std: normalisation of each colour channel, for pixels in [0, 1].
        pretrained: returns the state dict of the library's own weights, as the library names them; None where there
            are none.
        megabytes: size of their download; 0 where it is not known.
        image_size: pixels a side of the images that the weights were trained on.
        one_size: whether the layers take images of that size alone.
        resize: how photographs become squares unless the user says otherwise, see `hashret.data.images.read_image`.
        margin: pixels of an image that make no cell, which layers without padding cut off.
        pooled: whether heads take the mean over the cells in place of all cells; None: where the map is wider than
            that of VGG16 at 224 px.
        library_name: turns the name of a tensor of ``build``'s layers into that of the library's whole network.
        unused: first parts of the names of the library's tensors that are no part of the layers, as of classifiers.
        last_convolution: finds, in the library's tensors by name, weight (out, channels, 1, 1) and bias (out,) of the
            1 x 1 convolution by which the library's network goes on from the feature map, its normalisation folded in,
            or None where they are not there. A pooled head starts from it. None where the network has none.
        initialised: whether ``build`` starts all layers as they should start where there are no weights.
        openvino: whether OpenVINO runs the layers on a CPU unless the user says otherwise, since it was measured to be
            faster.
        extra: of ``pip install 'hashret[extra]'``, where the layers need another package.
        printed: whether how the layers print tells them from others, see `fingerprint`; not where the name does so.
    """

    name: str
    build: Callable[[], nn.Module]
    channels: int
    stride: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pretrained: Callable[[], dict[str, Tensor]] | None = None
    megabytes: float = 0
    image_size: int = 224
    one_size: bool = False
    resize: str = "squeeze"
    margin: int = 0
    pooled: bool | None = None
    library_name: Callable[[str], str] = _same
    unused: tuple[str, ...] = ("classifier", "fc", "head", "heads")
    last_convolution: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor] | None] | None = None
    initialised: bool = False
    openvino: bool = False
    extra: str | None = None
    printed: bool = True

    def side(self, image_size: int) -> int:
        """Return the number of cells a side of the feature map of images of ``image_size`` pixels a side.

        Raises:
            HashretError: the layers take no images of that size.
        """
        if self.one_size and image_size != self.image_size:
            raise HashretError(f"{self.name} takes images of {self.image_size} pixels alone, not {image_size}")
        if image_size - self.margin < self.stride or image_size % self.stride:
            more = f" and above {self.stride}" if self.margin else ""
            raise HashretError(f"image size must be a multiple of {self.stride} pixels{more}, not {image_size}")
        return int(image_size - self.margin) // self.stride

    def map_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return the shape of the feature map of images of ``image_size`` pixels a side; raises as `side` does."""
        side = self.side(image_size)
        return self.channels, side, side

    def is_pooled(self, image_size: int) -> bool:
        """Say whether heads take the mean over the cells of the feature maps of such images."""
        side = self.side(image_size)
        return self.channels * side * side > _WIDEST if self.pooled is None else self.pooled

    def stages(self, layers: nn.Module) -> list[nn.Module]:
        """Cut the layers into stages, each the input of the next; they share their parameters with ``layers``.

        Every step that holds a convolution or a matrix begins a stage, and takes what comes before the next with it.
        The steps are what ``layers.steps()`` returns, or the children of an ``nn.Sequential``, or else all as one.
        """
        from torch import nn

        steps: Sequence[nn.Module] = [*layers] if isinstance(layers, nn.Sequential) else [layers]
        if callable(own := getattr(layers, "steps", None)):
            steps = own()
        stages: list[list[nn.Module]] = [[]]
        for step in steps:
            if stages[-1] and any(parameter.ndim > 1 for parameter in step.parameters()):
                stages.append([])
            stages[-1].append(step)
        return [nn.Sequential(*stage) for stage in stages]

    def normalize(self, images: Tensor) -> Tensor:
        """Turn pixels into the input of the layers: uint8 (n, 3, s, s) -> float32 of the same shape."""
        pixels = images.float()
        mean, std = (pixels.new_tensor(numbers).view(1, 3, 1, 1) * 255 for numbers in (self.mean, self.std))
        return (pixels - mean) / std

    def fingerprint(self, layers: nn.Module) -> str:
        """Return a sha256 that tells layers from others which give other feature maps.

        It covers the weights by name, and the normalisation and stride where these are not the usual ones; of layers
        that are not hashret's own, their kinds and options, too, as these print. What a ``forward`` of a user's does
        beside its layers is not seen: a change of that needs `hashret cache clear`.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(layers.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        unusual = (self.stride, self.mean, self.std)
        if unusual != (32, IMAGENET_MEAN, IMAGENET_STD):
            digest.update(repr(unusual).encode())
        if self.printed:
            digest.update(repr(layers).encode())
        return digest.hexdigest()
