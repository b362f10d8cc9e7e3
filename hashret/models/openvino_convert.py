"""Networks of torch as OpenVINO runs them: found in hashret's cache folder, or converted now and kept there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .openvino_runtime import (
    OpenVINONetwork,
    backbone_network,
    cannot_run,
    folder_of,
    head_folder,
    head_network,
    load_network,
    save_network,
)

if TYPE_CHECKING:
    from .backbone import Backbone
    from .heads import Head


class _Normalized(nn.Module):
    """Normalisation and layers: uint8 (n, 3, s, s) -> feature maps, float16 as the feature cache keeps them."""

    def __init__(self, layers: nn.Module, architecture: Backbone) -> None:
        super().__init__()
        self.layers, self.architecture = layers, architecture

    def forward(self, images: Tensor) -> Tensor:
        feature_maps: Tensor = self.layers(self.architecture.normalize(images))
        return feature_maps.half()


class _Hashed(nn.Module):
    """A head: float32 feature maps -> hash outputs and, where there are such, what the hash layer reads."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, feature_maps: Tensor) -> tuple[Tensor, ...]:
        output = self.head(feature_maps)
        return (output.hash_outputs,) if output.fc_features is None else (output.hash_outputs, output.fc_features)


def openvino_backbone(
    layers: nn.Module, architecture: Backbone, image_size: int, number_format: str
) -> OpenVINONetwork:
    """Return a backbone as OpenVINO runs it, see `hashret.models.openvino_runtime.backbone_network`.

    Args:
        layers: of the backbone, float32.
        architecture: what the layers are.
        image_size: pixels a side.
        number_format: one of `hashret.precision.FORMATS`.

    Raises:
        HashretError: OpenVINO is not installed, or cannot run these layers.
    """
    folder, name = backbone_folder(layers, architecture, image_size), architecture.name
    example = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    network = _kept_or_converted(folder, name, _Normalized(layers, architecture), example, {})
    return backbone_network(name, network, number_format)


def backbone_folder(layers: nn.Module, architecture: Backbone, image_size: int) -> Path:
    """Return the folder in which such a backbone is kept; arguments and errors as of `openvino_backbone`."""
    key = [architecture.name, architecture.fingerprint(layers), image_size, architecture.mean, architecture.std]
    return folder_of("backbone", *key)


def openvino_head(head: Head, shape: tuple[int, int, int], fingerprint: str, backbone: Path) -> OpenVINONetwork:
    """Return a head as OpenVINO runs it, see `hashret.models.openvino_runtime.head_network`.

    Args:
        head: the head, in evaluation mode, with all of its bits.
        shape: of a feature map.
        fingerprint: of its encoder.
        backbone: the folder in which the encoder's backbone is kept.

    Raises:
        HashretError: as `openvino_backbone`.
    """
    folder, example = head_folder(fingerprint), torch.zeros(2, *shape)
    network = _kept_or_converted(
        folder, f"the head {head.kind}", _Hashed(head), example, {"backbone": backbone.name, "fc_width": head.fc_width}
    )
    return head_network(head.kind, network)


def _kept_or_converted(folder: Path, name: str, module: nn.Module, example: Tensor, metadata: dict[str, Any]) -> Any:
    """Return the network that is kept in a folder, or is converted now and kept there with its metadata."""
    import openvino

    kept = load_network(folder)
    if kept and kept[1] == metadata:
        return kept[0]
    shape = openvino.PartialShape([-1, *example.shape[1:]])
    try:
        with warnings.catch_warnings(action="ignore"):  # of the tracer, about sizes that are fixed here
            network = openvino.convert_model(module.eval(), example_input=example, input=[shape])
        return save_network(network, folder, metadata)
    except RuntimeError as error:
        raise cannot_run(name, error) from None
