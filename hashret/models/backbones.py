"""What all backbones have in common: the stride of their feature map, their input, and a start without weights."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import HashretError

STRIDE = 32  # five poolings by two

_MEAN = (0.485, 0.456, 0.406)  # torchvision's normalisation for ImageNet weights
_STD = (0.229, 0.224, 0.225)


def normalize(images):
    """Pixels to the network's input: uint8 (n, 3, s, s) -> float32, torchvision's ImageNet normalisation."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std


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
