"""An encoder whose networks an earlier process has converted: it encodes without torch, whose import takes long.

It gives the same hash outputs, bit for bit, as the `hashret.models.encoder.Encoder` of the same checkpoint, which does
all else: explains, takes words, computes on a GPU or in another precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..bits import HashOutputs, check_length
from ..precision import Precision
from ..vectors import Vectors
from .metadata import Described
from .openvino_runtime import (
    OpenVINONetwork,
    backbone_network,
    has_openvino,
    head_folder,
    head_network,
    head_outputs,
    load_network,
)


class ReadyEncoder(Described):
    """Images -> feature maps -> hash outputs, both by OpenVINO.

    Args:
        meta: of the checkpoint.
        backbone, head: as `hashret.models.openvino_runtime.backbone_network` and ``head_network`` give them.
        fc_width: length of what the hash layer reads; None where that is not kept.
        bits: length of the codes, the first of those of the encoder.
    """

    def __init__(
        self, meta: dict[str, Any], backbone: OpenVINONetwork, head: OpenVINONetwork, fc_width: int | None, bits: int
    ) -> None:
        self.meta, self._backbone, self._head = meta | {"bits": check_length(bits, meta)}, backbone, head
        self.fc_width = fc_width

    def backbone(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Return the feature maps of images: uint8 (n, 3, s, s) -> float16 (n, c, h, w)."""
        [feature_maps] = self._backbone(images)
        return feature_maps

    def outputs(
        self, feature_maps: npt.ArrayLike, keep_fc_features: bool = False
    ) -> tuple[HashOutputs, Vectors | None]:
        """Return what `hashret.models.encoder.Encoder.outputs` does."""
        return head_outputs(self._head, feature_maps, self.bits, keep_fc_features)


def ready_encoder(meta: dict[str, Any], compute_dtype: str, bits: int) -> ReadyEncoder | None:
    """Return an encoder for codes of ``bits`` bits that needs no torch; None where its networks are not there, whole.

    Args:
        meta: of its checkpoint, whose fingerprint tells which networks they are.
        compute_dtype: one of `hashret.precision.PRECISIONS`.
        bits: length of the codes.

    Raises:
        HashretError: the encoder was not trained for codes of that length.
    """
    asked = Precision.of(compute_dtype)
    if not asked.whole or not has_openvino():
        return None
    folder = head_folder(meta["fingerprint"])
    head = load_network(folder)
    backbone = head and load_network(folder.with_name(head[1]["backbone"]))
    if not head or not backbone:
        return None
    networks = backbone_network(meta["arch"], backbone[0], asked.number_format), head_network(meta["method"], head[0])
    return ReadyEncoder(meta, *networks, head[1]["fc_width"], bits)
