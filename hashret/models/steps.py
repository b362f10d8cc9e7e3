"""Chains of layers that say where they can be cut into stages, see `hashret.models.backbones.Backbone.stages`."""

from __future__ import annotations

from torch import nn


class Unfolded(nn.Sequential):
    """A sequence of layers in which a nested sequence, as torchvision's ``features``, counts as its members."""

    def steps(self) -> list[nn.Module]:
        """Return the layers that are applied one after the other."""
        return [step for child in self for step in (child if type(child) is nn.Sequential else [child])]
