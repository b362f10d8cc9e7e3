"""Backbones on a CPU by OpenVINO, which runs EfficientNet-Lite0 about four times as fast as torch does, VGG16 twice.

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

_ALONE = 8  # images that are computed by all threads together
_BLOCK = 4  # of more images, by each thread: few, whose activations stay in the processor's caches
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

    Up to 8 images are computed by all threads together, which answers one soonest. Of more, each thread computes four
    at a time of its own, since threads that wait for one another at each layer get less done, and a network that is
    made for one shape is a tenth faster. The numbers are the same.

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
        self._compiled: dict[int | None, Any] = {}  # by images of a block, None for any number
        self._lock = threading.Lock()
        self._queues = threading.local()  # as a queue answers one thread at a time

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Return the feature maps of at least one image, in an array of its own."""
        n = len(images)
        rows = n if n <= _ALONE else _BLOCK
        blocks = [np.ascontiguousarray(images[start : start + rows]) for start in range(0, n, rows)]
        if len(blocks[-1]) < rows:
            blocks[-1] = np.concatenate([blocks[-1], np.zeros((-n % rows, *images.shape[1:]), np.uint8)])
        feature_maps = np.empty((n, *self.architecture.map_shape(self.image_size)), np.float16)

        def keep(request: Any, start: int) -> None:
            feature_maps[start : start + rows] = request.get_output_tensor(0).data[: n - start]

        queue = self._queue(None if n <= _ALONE else _BLOCK)
        queue.set_callback(keep)
        for number, block in enumerate(blocks):
            queue.start_async([block], number * rows, share_inputs=True)
        queue.wait_all()
        return feature_maps

    def _queue(self, block: int | None) -> Any:
        """Return this thread's requests to the network for such a block, of a thread; None: for any number, of all."""
        from openvino import AsyncInferQueue

        queues: dict[int | None, Any] = self._queues.__dict__.setdefault("by_block", {})
        if block not in queues:
            with self._lock:
                if block not in self._compiled:
                    self._compiled[block] = self._compile(block)
            queues[block] = AsyncInferQueue(self._compiled[block], self.threads if block else 1)
        return queues[block]

    def _compile(self, block: int | None) -> Any:
        settings = self._settings | {"NUM_STREAMS": self.threads if block else 1}
        try:
            compiled = _kept(self._folder, block, settings)
            if compiled is None:
                network = _converted(self.layers, self.architecture, self.image_size, self._folder)
                compiled = _compiled(network, block, settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            name = self.architecture.name
            raise HashretError(f"OpenVINO cannot run {name}: {reason}", hint="take --runtime torch") from None
        return compiled


def _kept(folder: Path, block: int | None, settings: dict[str, Any]) -> Any:
    """Return the network that an earlier process converted, ready to run; None where there is none that can be read.

    OpenVINO keeps beside it what it made of it for this processor, which halves the time.
    """
    if not (folder / "network.xml").exists():
        return None
    if is_writable(folder):
        settings = settings | {"CACHE_DIR": str(folder)}
    try:
        return _compiled(folder / "network.xml", block, settings)
    except RuntimeError:
        return None


def _compiled(network: Any, block: int | None, settings: dict[str, Any]) -> Any:
    """Compile a network, or what is at a path, for any number of images or for so many."""
    import openvino

    core = openvino.Core()
    if block:
        network = core.read_model(network) if isinstance(network, Path) else network.clone()
        network.reshape({0: [block, *network.inputs[0].partial_shape.get_max_shape()[1:]]})
    return core.compile_model(network, "CPU", settings)


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
