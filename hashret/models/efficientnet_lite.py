"""EfficientNet-Lite0, up to the feature map of 320 channels before its last convolution.

Tan & Le, "EfficientNet", ICML 2019, table 1, in the Lite variant that the authors published for phones: ReLU6 for
swish, no squeeze-and-excitation, first and last layers of fixed width. Tensors have the names of timm's
``tf_efficientnet_lite0``. It is defined here so that a query imports neither timm nor torchvision.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .download import fetch
from .steps import Unfolded

URL = (
    "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth"
)
# Table 1: expansion, channels, repeats, stride, kernel.
_BLOCKS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip

_EPSILON = 1e-3  # of the batch normalisation, as TensorFlow has it


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: n pixels become ceil(n / stride), the odd pixel behind and below."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            kernel, stride = self.kernel_size[0], self.stride[0]
            sides = (int(n) for n in x.shape[2:])  # numbers also where a tracer looks on, as of OpenVINO
            rows, columns = (max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in sides)
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


class Block(nn.Module):
    """Inverted residual: widen, convolve each channel on its own, narrow; without expansion, only the last two."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        width, narrow = channels * expansion, "conv_pwl" if expansion > 1 else "conv_pw"
        parts: list[tuple[str, nn.Module]] = [("conv_pw", SameConv2d(channels, width, 1))] if expansion > 1 else []
        parts += [("conv_dw", SameConv2d(width, width, kernel, stride, width)), (narrow, SameConv2d(width, out, 1))]
        self.names = [(name, f"bn{number}") for number, (name, _) in enumerate(parts, 1)]
        for (name, norm), (_, convolution) in zip(self.names, parts, strict=True):
            self.add_module(name, convolution)
            self.add_module(norm, _norm(convolution.out_channels))  # type: ignore[arg-type]
        self.residual = stride == 1 and channels == out and expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, norm in self.names:
            y = getattr(self, norm)(getattr(self, name)(y))
            if name != self.names[-1][0]:
                y = F.relu6(y)
        return x + y if self.residual else y


def build_lite0() -> nn.Sequential:
    """Return the layers: images (n, 3, s, s) -> (n, 320, s // 32, s // 32)."""
    stages, channels = [], 32
    for expansion, out, repeats, stride, kernel in _BLOCKS:
        blocks = []
        for number in range(repeats):
            blocks.append(Block(channels, out, expansion, stride if number == 0 else 1, kernel))
            channels = out
        stages.append(nn.Sequential(*blocks))
    stem = SameConv2d(3, 32, 3, 2)
    return Unfolded(OrderedDict(conv_stem=stem, bn1=_norm(32), act1=nn.ReLU6(), blocks=nn.Sequential(*stages)))


def lite0_weights() -> dict[str, Tensor]:
    """Return the ImageNet weights of the whole network, downloaded on first use."""
    return fetch(URL)


def last_convolution(state: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Return weight (1280, 320, 1, 1) and bias (1280,) of the convolution after the feature map.

    Its batch normalisation is folded in: both are scaled by weight / sqrt(variance + epsilon).

    Args:
        state: tensors of the whole network by name; without those of the convolution, None is returned.
    """
    names = ("conv_head.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var")
    if not all(name in state for name in names):
        return None
    weight, gain, bias, mean, variance = (state[name].float() for name in names)
    scale = gain / torch.sqrt(variance + _EPSILON)
    return weight * scale[:, None, None, None], bias - mean * scale


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON, momentum=0.01)
