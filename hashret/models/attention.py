"""CBAM, the convolutional block attention module: a channel gate, then a spatial gate.

Source: paper, section 1.1, formulas (1)-(5), after Woo et al., "CBAM", ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import nn

GATES = ("unit", "open", "half")


class ChannelGate(nn.Module):
    """Weighs channels by a shared MLP over their average and maximum. Formulas (1)-(4).

    ``scale`` multiplies the sigmoid; the paper's is 1.
    """

    def __init__(self, channels, reduction=16, scale=1.0):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(  # formula (4): W1(relu(W2(F)))
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.scale = scale

    def weights(self, features):
        """Gate of each channel in (0, scale): (n, c, h, w) -> (n, c, 1, 1)."""
        average = features.mean(dim=(2, 3))  # formula (2)
        maximum = features.amax(dim=(2, 3))  # formula (3)
        return self.scale * torch.sigmoid(self.mlp(average) + self.mlp(maximum))[:, :, None, None]


class SpatialGate(nn.Module):
    """Weighs places by a 7x7 convolution over the channel mean and maximum. Formula (5).

    ``scale`` multiplies the sigmoid; the paper's is 1.
    """

    def __init__(self, kernel_size=7, scale=1.0):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        self.scale = scale

    def weights(self, features):
        """Gate of each place in (0, scale): (n, c, h, w) -> (n, 1, h, w)."""
        summary = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return self.scale * torch.sigmoid(self.conv(summary))


class CBAM(nn.Module):
    """Channel gate, then spatial gate: (n, c, h, w) -> (n, c, h, w).

    ``gate``: how the gates begin, which decides what they can learn over pretrained features.

    - "unit": twice a sigmoid that begins at one half: every gate begins at one, where its slope is steepest, and may
      amplify as well as damp.
    - "open": sigmoids that begin near one; features pass as they are, but the gates stand on the flat end.
    - "half": sigmoids of a default initialisation, near one half (Woo et al.; the paper does not say): the features
      start quartered.
    """

    OPEN_LOGIT = 4.0  # sigmoid(4) = 0.982

    def __init__(self, channels, reduction=16, kernel_size=7, gate="unit"):
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, not {gate!r}")
        scale = 2.0 if gate == "unit" else 1.0
        self.channel = ChannelGate(channels, reduction, scale)
        self.spatial = SpatialGate(kernel_size, scale)
        if gate != "half":
            self._begin_at_one(0.0 if gate == "unit" else self.OPEN_LOGIT)

    def _begin_at_one(self, logit):
        # The last layer of each gate starts small. The MLP is added to itself in formula (1), hence half the logit.
        last = self.channel.mlp[2]
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.constant_(last.bias, logit / 2)
        nn.init.uniform_(self.spatial.conv.weight, -1e-3, 1e-3)
        nn.init.constant_(self.spatial.conv.bias, logit)

    def attend(self, features):
        """What passes, and both gates: (n, c, h, w) -> same, channel gate (n, c, 1, 1), spatial gate (n, 1, h, w)."""
        channel = self.channel.weights(features)
        passed = features * channel  # formula (1)
        spatial = self.spatial.weights(passed)
        return passed * spatial, channel, spatial

    def forward(self, features):
        return self.attend(features)[0]
