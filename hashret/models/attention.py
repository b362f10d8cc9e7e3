"""CBAM, the convolutional block attention module: a channel gate, then a spatial gate.

Source: paper, section 1.1, formulas (1)-(5), after Woo et al., "CBAM", ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import GATES


class ChannelGate(nn.Module):
    """Weighs channels by a shared MLP over their average and maximum. Formulas (1)-(4).

    ``scale`` multiplies the sigmoid; the paper's is 1.
    """

    def __init__(self, channels: int, reduction: int = 16, scale: float = 1.0) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(  # formula (4): W1(relu(W2(F)))
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.scale = scale

    def weights(self, feature_map: Tensor) -> Tensor:
        """Return the gate of each channel in (0, scale): (n, c, h, w) -> (n, c, 1, 1)."""
        average = feature_map.mean(dim=(2, 3))  # formula (2)
        maximum = feature_map.amax(dim=(2, 3))  # formula (3)
        return self.scale * torch.sigmoid(self.mlp(average) + self.mlp(maximum))[:, :, None, None]


class SpatialGate(nn.Module):
    """Weighs cells by a 7x7 convolution over the channel mean and maximum. Formula (5).

    ``scale`` multiplies the sigmoid; the paper's is 1.
    """

    def __init__(self, kernel_size: int = 7, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        self.scale = scale

    def weights(self, feature_map: Tensor) -> Tensor:
        """Return the gate of each cell in (0, scale): (n, c, h, w) -> (n, 1, h, w)."""
        summary = torch.cat([feature_map.mean(dim=1, keepdim=True), feature_map.amax(dim=1, keepdim=True)], dim=1)
        return self.scale * torch.sigmoid(self.conv(summary))


class CBAM(nn.Module):
    """Channel gate, then spatial gate: (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: of the feature map.
        reduction: channels for each hidden node of the channel gate.
        kernel_size: cells a side of the spatial gate's convolution.
        gate: how the gates begin, which decides what they can learn over a pretrained backbone.

            - "unit": twice a sigmoid that begins at one half: every gate begins at one, where its slope is steepest,
              and may amplify as well as damp.
            - "open": sigmoids that begin near one; the feature map passes as it is, but the gates learn slowly there.
            - "half": sigmoids of a default initialisation, near one half (Woo et al.; the paper does not say): the
              feature map starts quartered.

    Raises:
        ValueError: no such gate.
    """

    OPEN_LOGIT = 4.0  # sigmoid(4) = 0.982

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7, gate: str = "unit") -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, not {gate!r}")
        scale = 2.0 if gate == "unit" else 1.0
        self.channel = ChannelGate(channels, reduction, scale)
        self.spatial = SpatialGate(kernel_size, scale)
        if gate != "half":
            self._begin_at_one(0.0 if gate == "unit" else self.OPEN_LOGIT)

    def _begin_at_one(self, logit: float) -> None:
        # The last layer of each gate starts small. The MLP is added to itself in formula (1), hence half the logit.
        last = self.channel.mlp[2]
        assert isinstance(last, nn.Linear)
        assert self.spatial.conv.bias is not None
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.constant_(last.bias, logit / 2)
        nn.init.uniform_(self.spatial.conv.weight, -1e-3, 1e-3)
        nn.init.constant_(self.spatial.conv.bias, logit)

    def attend(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply both gates to a feature map (n, c, h, w).

        Returns:
            The gated feature map, the channel gate (n, c, 1, 1), and the spatial gate (n, 1, h, w).
        """
        channel = self.channel.weights(feature_map)
        passed = feature_map * channel  # formula (1)
        spatial = self.spatial.weights(passed)
        return passed * spatial, channel, spatial

    def forward(self, feature_map: Tensor) -> Tensor:
        return self.attend(feature_map)[0]
