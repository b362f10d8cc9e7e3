"""Backbones on a CPU by OpenVINO, which runs EfficientNet-Lite0 about three times as fast as torch does.

A converted network is kept in hashret's cache folder, by what it computes, so that no later process converts it again.
The feature map of a photograph is the same alone and in any batch, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import HashretError
from ..files import default_cache, discard, is_writable, partial_folder

if TYPE_CHECKING:
    from .backbone import Backbone

_HINTS = {"bfloat16": "bf16", "float32": "f32"}


class _WholeNetwork(nn.Module):
    """Normalisation and layers: uint8 (n, 3, s, s) -> feature maps, float16 as the feature cache keeps them."""

    def __init__(self, layers: nn.Module, architecture: Backbone) -> None:
        super().__init__()
        self.layers, self.architecture = layers, architecture

    def forward(self, images: Tensor) -> Tensor:
        feature_maps: Tensor = self.layers(self.architecture.normalize(images))
        return feature_maps.half()


class OpenVINONetwork:
    """A backbone that OpenVINO runs: uint8 (n, 3, s, s) -> float16 feature maps.

    Args:
        layers: of the backbone, float32.
        architecture: what the layers are.
        image_size: pixels a side.
        number_format: one of `hashret.precision.FORMATS`.

    Raises:
        HashretError: OpenVINO is not installed, or cannot run these layers.
    """

    def __init__(self, layers: nn.Module, architecture: Backbone, image_size: int, number_format: str) -> None:
        try:
            import openvino
        except ImportError:
            raise HashretError(
                "OpenVINO is not installed, by which these photographs are encoded",
                hint="pip install 'hashret[openvino]', or encode all of them again with --runtime torch",
            ) from None
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[number_format],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        key = [openvino.__version__, architecture.name, architecture.fingerprint(layers), image_size]
        key += [architecture.mean, architecture.std]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
        folder = default_cache() / "openvino" / name
        try:
            self._compiled = _kept(folder, settings)
            if self._compiled is None:
                network = _converted(layers, architecture, image_size, folder)
                self._compiled = openvino.Core().compile_model(network, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise HashretError(
                f"OpenVINO cannot run {architecture.name}: {reason}", hint="take --runtime torch"
            ) from None
        self._requests = threading.local()  # as one request answers one thread at a time

    def __call__(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float16]]:
        """Return the feature maps of images, in an array of its own."""
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        request = self._requests.request
        request.infer([np.ascontiguousarray(images)], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)


def _kept(folder: Path, settings: dict[str, Any]) -> Any:
    """Return the network that an earlier process converted, ready to run; None where there is none that can be read.

    OpenVINO keeps beside it what it made of it for this processor, which halves the time.
    """
    import openvino

    if not (folder / "network.xml").exists():
        return None
    if is_writable(folder):
        settings = settings | {"CACHE_DIR": str(folder)}
    try:
        return openvino.Core().compile_model(folder / "network.xml", "CPU", settings)
    except RuntimeError:
        return None


def _converted(layers: nn.Module, architecture: Backbone, image_size: int, folder: Path) -> Any:
    """Convert a network, and keep it in a folder where that can be written."""
    import openvino

    shape = [-1, 3, image_size, image_size]
    example = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    with warnings.catch_warnings(action="ignore"):  # of the tracer, about sizes that are fixed here
        network = openvino.convert_model(
            _WholeNetwork(layers, architecture).eval(), example_input=example, input=[openvino.PartialShape(shape)]
        )
    with suppress(OSError, RuntimeError, HashretError):  # a cache that cannot be written: each process converts anew
        discard(folder)  # which could not be read
        with partial_folder(folder) as partial:
            openvino.save_model(network, partial / "network.xml", compress_to_fp16=False)
            os.rename(partial, folder)
    return network
