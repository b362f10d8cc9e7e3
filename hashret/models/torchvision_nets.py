"""Networks of torchvision as backbones: what comes before the mean over the cells, with torchvision's names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from .download import fetch
from .steps import Unfolded

# The layers, by their names in torchvision's network, whose feature map is (n, channels, side, side); others are in
# ``features``.
_LAYERS = {"swin_t": ("features", "norm", "permute")}
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def build(name: str) -> nn.Module:
    """Return the layers of a network, initialised as torchvision does: images (n, 3, s, s) -> (n, c, side, side)."""
    network = torchvision.models.get_model(name, weights=None)
    if name.startswith("vit"):
        return TokenMap(network)
    kind = nn.Sequential if name.startswith("resnet") else Unfolded  # a layer of ResNet stays one stage
    names = _RESNET if name.startswith("resnet") else _LAYERS.get(name, ("features",))
    return kind(OrderedDict((layer, getattr(network, layer)) for layer in names))


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return torchvision's first ImageNet weights of a whole network, downloaded on first use."""
    return fetch(torchvision.models.get_model_weights(name).IMAGENET1K_V1.url)


class TokenMap(nn.Module):
    """A vision transformer whose tokens, but for the class token, are laid out as a map: (n, 768, s // 16, s // 16).

    Positions are those of the image size that the network was made for; for others they are interpolated.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_proj, self.class_token, self.encoder = network.conv_proj, network.class_token, network.encoder

    def steps(self) -> list[nn.Module]:
        """Return the layers that are applied one after the other: to tokens, the blocks, to a map."""
        start = _Tokens(self.conv_proj, self.class_token, self.encoder.pos_embedding)
        return [start, *self.encoder.layers, nn.Sequential(self.encoder.ln, _Map())]

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for step in self.steps():
            x = step(x)
        return x


class _Tokens(nn.Module):
    """Images (n, 3, s, s) to the tokens of a transformer (n, 1 + cells, c), the class token first."""

    def __init__(self, patches: nn.Module, class_token: nn.Parameter, positions: nn.Parameter) -> None:
        super().__init__()
        self.patches, self.class_token, self.positions = patches, class_token, positions

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        positions: Tensor = self.positions
        if positions.shape[1] != tokens.shape[1]:
            side = round((positions.shape[1] - 1) ** 0.5)
            grid = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side)).float()
            grid = nn.functional.interpolate(grid, patches.shape[2:], mode="bicubic", align_corners=True)
            positions = torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)
        placed: Tensor = tokens + positions
        return placed


class _Map(nn.Module):
    """Tokens (n, 1 + side * side, c), the class token first, to a map (n, c, side, side)."""

    def forward(self, tokens: Tensor) -> Tensor:
        side = int((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)
