"""Backbones on a CPU by OpenVINO, which runs EfficientNet-Lite0 about three times as fast as torch does.

A converted network is kept in hashret's cache folder, by what it computes, so that no later process converts it again.
The feature map of a photograph is the same alone and in any batch, and by any number of threads, bit for bit.
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
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import HashretError
from ..files import default_cache, discard, is_writable, partial_folder

if TYPE_CHECKING:
    from .backbone import Backbone

_AT_ONCE = 8  # images of a block
_CONVERSION = 1  # counts up when networks come to be converted otherwise, so that they are converted anew
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

    Up to 8 images are computed by all threads together, which answers one soonest. Of more, each thread computes images
    of its own, since threads that wait for one another at each layer get less done. The numbers are the same.

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
        self.layers, self.architecture, self.image_size = layers, architecture, image_size
        self.threads = torch.get_num_threads()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[number_format],
            "INFERENCE_NUM_THREADS": self.threads,
        }
        key = [openvino.__version__, architecture.name, architecture.fingerprint(layers), image_size]
        key += [architecture.mean, architecture.std, _CONVERSION]
        self._folder = default_cache() / "openvino" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
        self._compiled: dict[int, Any] = {}  # by the number of blocks that are computed at a time
        self._lock = threading.Lock()
        self._queues = threading.local()  # as a queue answers one thread at a time

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Return the feature maps of at least one image, in an array of its own."""
        n = len(images)
        streams = self.threads if n > _AT_ONCE else 1
        rows = min(_AT_ONCE, -(-n // streams))
        blocks = [np.ascontiguousarray(images[start : start + rows]) for start in range(0, n, rows)]
        feature_maps = np.empty((n, *self.architecture.map_shape(self.image_size)), np.float16)

        def keep(request: Any, start: int) -> None:
            block = request.get_output_tensor(0).data
            feature_maps[start : start + len(block)] = block

        queue = self._queue(streams)
        queue.set_callback(keep)
        for number, block in enumerate(blocks):
            queue.start_async([block], number * rows, share_inputs=True)
        queue.wait_all()
        return feature_maps

    def _queue(self, streams: int) -> Any:
        """Return this thread's requests to the network that computes so many blocks at a time."""
        from openvino import AsyncInferQueue

        queues: dict[int, Any] = self._queues.__dict__.setdefault("by_streams", {})
        if streams not in queues:
            with self._lock:
                if streams not in self._compiled:
                    self._compiled[streams] = self._compile(self._settings | {"NUM_STREAMS": streams})
            queues[streams] = AsyncInferQueue(self._compiled[streams], streams)
        return queues[streams]

    def _compile(self, settings: dict[str, Any]) -> Any:
        from openvino import Core

        try:
            compiled = _kept(self._folder, settings)
            if compiled is None:
                network = _converted(self.layers, self.architecture, self.image_size, self._folder)
                compiled = Core().compile_model(network, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            name = self.architecture.name
            raise HashretError(f"OpenVINO cannot run {name}: {reason}", hint="take --runtime torch") from None
        return compiled


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
