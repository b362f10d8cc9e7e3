"""CBAM, the convolutional block attention module: a channel gate, then a spatial gate.

Source: paper, section 1.1, formulas (1)-(5), after Woo et al., "CBAM", ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import nn


class ChannelGate(nn.Module):
    """Weigh channels by a shared MLP over their average and maximum: (n, c, h, w) -> same. Formulas (1)-(4)."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(  # formula (4): W1(relu(W2(F)))
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def weights(self, features):
        """Gate of each channel in (0, 1): (n, c, h, w) -> (n, c, 1, 1)."""
        average = features.mean(dim=(2, 3))  # formula (2)
        maximum = features.amax(dim=(2, 3))  # formula (3)
        return torch.sigmoid(self.mlp(average) + self.mlp(maximum))[:, :, None, None]

    def forward(self, features):
        return features * self.weights(features)  # formula (1)


class SpatialGate(nn.Module):
    """Weigh places by a 7x7 convolution over the channel mean and maximum: (n, c, h, w) -> same. Formula (5)."""

    def __init__(self, kernel_size=7):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def weights(self, features):
        """Gate of each place in (0, 1): (n, c, h, w) -> (n, 1, h, w)."""
        summary = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))

    def forward(self, features):
        return features * self.weights(features)


class CBAM(nn.Module):
    """Channel gate, then spatial gate: (n, c, h, w) -> (n, c, h, w).

    ``gate``: how the gates begin. "open": both near one, so that pretrained features reach the next layer as
    they are and training learns what to close. "half": both near one half, as sigmoids of a default
    initialisation begin (the paper does not say); the features start quartered.
    """

    OPEN_LOGIT = 4.0  # sigmoid(4) = 0.982

    def __init__(self, channels, reduction=16, kernel_size=7, gate="open"):
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate(kernel_size)
        if gate not in ("open", "half"):
            raise ValueError(f"gate must be 'open' or 'half', not {gate!r}")
        if gate == "open":
            self._open()

    def _open(self):
        # The last layer of each gate starts small with a positive bias. The MLP is added to itself in
        # formula (1), hence half the logit there.
        last = self.channel.mlp[2]
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.constant_(last.bias, self.OPEN_LOGIT / 2)
        nn.init.uniform_(self.spatial.conv.weight, -1e-3, 1e-3)
        nn.init.constant_(self.spatial.conv.bias, self.OPEN_LOGIT)

    def forward(self, features):
        return self.spatial(self.channel(features))
