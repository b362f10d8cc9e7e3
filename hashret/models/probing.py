"""What a run over a blank image tells of layers that say nothing of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import HashretError
from .backbone import Backbone

_SIZE = 224


@torch.inference_mode()
def shape_of(name: str, layers: nn.Module, size: int) -> tuple[int, int]:
    """Return channels and cells a side of the feature map of an image of ``size`` pixels a side.

    Raises:
        HashretError: the layers cannot take it, or give no square map.
    """
    try:
        shape = tuple(layers.eval()(torch.zeros(1, 3, size, size)).shape)
    except Exception as error:  # it is the user's code
        raise HashretError(
            f"the layers of {name} fail on an image of {size} pixels: {str(error).splitlines()[0]}"
        ) from None
    if len(shape) != 4 or shape[2] != shape[3] or size % shape[3]:
        raise HashretError(f"the layers of {name} turn {size} pixels into {shape}, and not into (1, channels, s, s)")
    return shape[1], shape[3]


def described(name: str, make: Callable[[], nn.Module], layers: Any) -> Backbone:
    """Return the backbone of layers that ``make`` makes; what they were made with are the pretrained weights."""
    if not isinstance(layers, nn.Module):
        raise HashretError(f"{name} returns {type(layers).__name__}, and should return a Backbone or layers")
    channels, side = shape_of(name, layers, _SIZE)

    def build() -> nn.Module:
        with torch.device("cpu"):  # in a checkpoint, too: it may load weights, or have buffers that no state dict has
            return make()

    return Backbone(name, build, channels, _SIZE // side, pretrained=lambda: dict(build().state_dict()))
