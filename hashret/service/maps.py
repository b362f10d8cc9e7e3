"""Maps that show where a code comes from, small enough to be sent beside an answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..models.attribution import attribute
from ..models.encoder import Encoder
from ..rendering.heatmaps import contribution_levels, gate_levels, layer
from ..rendering.pages import data_uri
from .schema import Maps

_SIZE = (224, 224)  # pixels; the page lays it over the photograph as `_FIT` says
_FIT = {"squeeze": "fill", "crop": "contain", "pad": "cover"}  # CSS's object-fit that undoes a way to make a square


def maps(encoder: Encoder, feature_map: npt.NDArray[np.float16]) -> Maps:
    """Return the `Maps` of one photograph by its feature map (c, h, w)."""
    [attribution] = attribute(encoder, feature_map[None], k=1)
    gate = attribution.spatial
    return Maps(
        gate=None if gate is None else data_uri(layer(gate_levels(gate), _SIZE)),
        gate_range=None if gate is None else [float(gate.min()), float(gate.max())],
        places=data_uri(layer(contribution_levels(attribution.cells), _SIZE)),
        grid=list(attribution.cells.shape),
        fit=_FIT[encoder.resize],
    )
