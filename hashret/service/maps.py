"""Maps of where a code comes from, small enough to be sent beside an answer."""

from __future__ import annotations

from ..models.attribution import attribute
from ..rendering.heatmaps import contribution_levels, gate_levels, layer
from ..rendering.pages import data_uri
from .schema import Maps

_SIZE = (224, 224)  # pixels; the page stretches it over the photograph, as the encoder squeezed that into a square


def maps(encoder, features):
    """`Maps` of one photograph by its convolution features (c, h, w)."""
    [found] = attribute(encoder, features[None], k=1)
    gate = found.spatial
    return Maps(
        gate=None if gate is None else data_uri(layer(gate_levels(gate), _SIZE)),
        gate_range=None if gate is None else [float(gate.min()), float(gate.max())],
        places=data_uri(layer(contribution_levels(found.places), _SIZE)),
        grid=list(found.places.shape),
    )
