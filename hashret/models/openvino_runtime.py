"""Backbones and heads on a CPU by OpenVINO, which runs EfficientNet-Lite0 about three times as fast as torch does.

A converted network is kept in hashret's cache folder, by what it computes, so that no later process converts it again.
What it gives for a photograph is the same alone and in any batch, and by any number of threads, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Sequence
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
    from .heads import Head

_AT_ONCE = 8  # rows of a block
_CONVERSION = 1  # counts up when modules come to be converted otherwise, so that they are converted anew
_HINTS = {"bfloat16": "bf16", "float32": "f32"}


class _Normalized(nn.Module):
    """Normalisation and layers: uint8 (n, 3, s, s) -> feature maps, float16 as the feature cache keeps them."""

    def __init__(self, layers: nn.Module, architecture: Backbone) -> None:
        super().__init__()
        self.layers, self.architecture = layers, architecture

    def forward(self, images: Tensor) -> Tensor:
        feature_maps: Tensor = self.layers(self.architecture.normalize(images))
        return feature_maps.half()


class _Hashed(nn.Module):
    """A head: float16 feature maps -> hash outputs and, where there are such, what the hash layer reads."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, feature_maps: Tensor) -> tuple[Tensor, ...]:
        output = self.head(feature_maps.float())
        return (output.hash_outputs,) if output.fc_features is None else (output.hash_outputs, output.fc_features)


def openvino_backbone(
    layers: nn.Module, architecture: Backbone, image_size: int, number_format: str
) -> OpenVINONetwork:
    """Return a backbone as OpenVINO runs it: uint8 (n, 3, s, s) -> [float16 feature maps].

    Args:
        layers: of the backbone, float32.
        architecture: what the layers are.
        image_size: pixels a side.
        number_format: one of `hashret.precision.FORMATS`.

    Raises:
        HashretError: OpenVINO is not installed, or cannot run these layers.
    """
    example = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    key = [architecture.name, architecture.fingerprint(layers), image_size, architecture.mean, architecture.std]
    return OpenVINONetwork(architecture.name, _Normalized(layers, architecture), example, key, number_format)


def openvino_head(head: Head, shape: Sequence[int], fingerprint: str) -> OpenVINONetwork:
    """Return a head as OpenVINO runs it, in float32: float16 feature maps -> [hash outputs, what the hash layer reads].

    Args:
        head: the head, in evaluation mode.
        shape: of one feature map.
        fingerprint: of its encoder.

    Raises:
        HashretError: OpenVINO is not installed, or cannot run the head.
    """
    example = torch.zeros(2, *shape, dtype=torch.float16)
    name = f"the head {head.kind}"
    return OpenVINONetwork(name, _Hashed(head), example, ["head", fingerprint, *shape], "float32", least=2)


class OpenVINONetwork:
    """A module that OpenVINO runs: an array (n, ...) -> the module's outputs, arrays (n, ...).

    Up to 8 rows are computed by all threads together, which answers one soonest. Of more, each thread computes rows of
    its own, since threads that wait for one another at each layer get less done. The numbers are the same.

    Args:
        name: of the module, for messages.
        module: what takes one tensor and returns one or a tuple.
        example: what the module takes, (2, ...).
        key: what tells the module from any that computes something else, as JSON takes it.
        number_format: in which it computes, one of `hashret.precision.FORMATS`.
        least: rows that are computed at least, the rest of them zero: kernels for one row may round otherwise.
    """

    def __init__(
        self, name: str, module: nn.Module, example: Tensor, key: Sequence[Any], number_format: str, *, least: int = 1
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise HashretError(
                "OpenVINO is not installed, by which these photographs are encoded",
                hint="pip install 'hashret[openvino]', or encode all of them again with --runtime torch",
            ) from None
        self.name, self.module, self.example, self.least = name, module, example, least
        self.threads = torch.get_num_threads()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[number_format],
            "INFERENCE_NUM_THREADS": self.threads,
        }
        digest = hashlib.sha256(json.dumps([_CONVERSION, openvino.__version__, *key]).encode())
        self._folder = default_cache() / "openvino" / digest.hexdigest()[:20]
        self._compiled: dict[int, Any] = {}  # by the number of rows' blocks that are computed at a time
        self._lock = threading.Lock()
        self._queues = threading.local()  # as a queue answers one thread at a time

    def __call__(self, x: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return the outputs for an array of at least one row, in arrays of their own."""
        n = len(x)
        streams = self.threads if n > _AT_ONCE else 1
        rows = min(_AT_ONCE, -(-n // streams))
        blocks = [np.ascontiguousarray(x[start : start + rows]) for start in range(0, n, rows)]
        missing = self.least - len(blocks[-1])
        if missing > 0:
            blocks[-1] = np.concatenate([blocks[-1], np.zeros((missing, *x.shape[1:]), x.dtype)])
        outputs: list[list[npt.NDArray[Any]]] = [[] for _ in blocks]
        queue = self._queue(streams)
        queue.set_callback(lambda request, number: outputs[number].extend(map(_copied, request.output_tensors)))
        for number, block in enumerate(blocks):
            queue.start_async([block], number, share_inputs=True)
        queue.wait_all()
        return [np.concatenate(parts)[:n] for parts in zip(*outputs, strict=True)]

    def _queue(self, streams: int) -> Any:
        """Return this thread's requests to the network that computes so many blocks at a time."""
        from openvino import AsyncInferQueue

        queues = self._queues.__dict__
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
                network = _converted(self.module, self.example, self._folder)
                compiled = Core().compile_model(network, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise HashretError(f"OpenVINO cannot run {self.name}: {reason}", hint="take --runtime torch") from None
        return compiled


def _copied(tensor: Any) -> npt.NDArray[Any]:
    return np.array(tensor.data)


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


def _converted(module: nn.Module, example: Tensor, folder: Path) -> Any:
    """Convert a module, and keep it in a folder where that can be written."""
    import openvino

    shape = openvino.PartialShape([-1, *example.shape[1:]])
    with warnings.catch_warnings(action="ignore"):  # of the tracer, about sizes that are fixed here
        network = openvino.convert_model(module.eval(), example_input=example, input=[shape])
    with suppress(OSError, RuntimeError, HashretError):  # a cache that cannot be written: each process converts anew
        discard(folder)  # which could not be read
        with partial_folder(folder) as partial:
            openvino.save_model(network, partial / "network.xml", compress_to_fp16=False)
            os.rename(partial, folder)
    return network
