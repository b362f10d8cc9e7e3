"""Networks on a CPU by OpenVINO, which runs EfficientNet-Lite0 about four times as fast as torch does, VGG16 twice.

A converted network is kept in hashret's cache folder, by what it computes, so that no later process converts it again.
A process that finds one does without torch, which nothing here imports. What a network gives for a photograph is the
same alone and in any batch, and by any number of threads, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bits import HashOutputs
from ..errors import HashretError
from ..files import (
    StrPath,
    default_cache,
    discard,
    partial_folder,
    read_json,
    remove_leftovers,
    remove_own,
    write_json,
)
from ..names import to_json
from ..records import fields, or_none, text, whole
from ..vectors import Vectors

_CONVERSION = 3  # counts up when networks come to be converted otherwise, so that they are converted anew
_BLOCKS = (1, 2, 4)  # images, of which few at a time have activations that stay in the processor's caches
_HINTS = {"bfloat16": "bf16", "float32": "f32"}
KEPT = "openvino"  # the folder of converted networks in that of the caches
_NETWORK, _WEIGHTS, _RECORD = "network.xml", "network.bin", "network.json"
_OF_HEAD = {"backbone": text("[0-9a-f]{20}", "no name of a folder"), "fc_width": or_none(whole(1))}
_CHECK = fields({"sha256": text(), "said": fields({}, _OF_HEAD)})  # "said" is the metadata


@cache
def has_openvino() -> bool:
    """Whether OpenVINO is installed; asked once."""
    return find_spec("openvino") is not None


@cache
def _core() -> Any:
    """Return the one core of this process, which goes on to its end.

    A core that runs networks on a CPU with AMX gives the thread another stack for signals, and at its own end the stack
    that it found: with several cores that may be one which is no longer there, and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


class OpenVINONetwork:
    """A network that OpenVINO runs: an array (n, ...) -> a list of its outputs, arrays (n, ...).

    Each thread computes blocks of rows of its own, since threads that wait for one another at each layer get less done.
    Of few rows the blocks are smaller, so that all threads have some. A network is made for each size of block, which
    is faster than one for any number of rows.

    Args:
        name: of the network, for messages.
        network: as `load_network` and `save_network` return it.
        number_format: in which it computes, one of `hashret.precision.FORMATS`.
        blocks: sizes of block, from 1 on. With blocks of 1 alone, each row is computed by the same steps, whatever the
            network; with others, it has to be seen that they give the same numbers.
        together: whether all threads compute a row that comes alone, which answers it soonest.

    Raises:
        HashretError: OpenVINO cannot run it, when it is first called.
    """

    def __init__(self, name: str, network: Any, number_format: str, blocks: Sequence[int], *, together: bool) -> None:
        self.name, self.network, self.blocks, self.together = name, network, blocks, together
        self.threads = _threads()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[number_format],
            "INFERENCE_NUM_THREADS": self.threads,
        }
        self._compiled: dict[tuple[int, int], Any] = {}  # by rows of a block and blocks at a time
        self._lock = threading.Lock()
        self._queues = threading.local()  # as a queue answers one thread at a time

    def __call__(self, x: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return the outputs for the rows of an array, of which there is one at least, in arrays of their own."""
        n = len(x)
        rows = next((rows for rows in self.blocks if n <= rows * self.threads), self.blocks[-1])
        sizes = [rows] * (n // rows)
        for smaller in reversed(self.blocks):  # of which one is 1
            sizes += [smaller] * ((n - sum(sizes)) // smaller)
        ends = np.cumsum(sizes).tolist()
        blocks = [np.ascontiguousarray(x[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        outputs: list[list[npt.NDArray[Any]]] = [[] for _ in blocks]

        def take(request: Any, number: int) -> None:
            outputs[number] += [np.array(tensor.data) for tensor in request.output_tensors]

        streams = 1 if n == 1 and self.together else self.threads
        queues = {size: self._queue(size, streams) for size in set(sizes)}
        for queue in queues.values():
            queue.set_callback(take)
        for number, block in enumerate(blocks):
            queues[len(block)].start_async([block], number, share_inputs=True)
        for queue in queues.values():
            queue.wait_all()
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]

    def _queue(self, rows: int, streams: int) -> Any:
        """Return this thread's requests to the network for so many rows, which computes so many blocks at a time."""
        from openvino import AsyncInferQueue

        kind, queues = (rows, streams), self._queues.__dict__.setdefault("by_kind", {})
        if kind not in queues:
            with self._lock:
                if kind not in self._compiled:
                    self._compiled[kind] = self._compile(rows, streams)
            queues[kind] = AsyncInferQueue(self._compiled[kind], streams)
        return queues[kind]

    def _compile(self, rows: int, streams: int) -> Any:
        network = self.network.clone()
        try:
            network.reshape({0: [rows, *network.inputs[0].partial_shape.get_max_shape()[1:]]})
            return _core().compile_model(network, "CPU", self._settings | {"NUM_STREAMS": streams})
        except RuntimeError as error:
            raise cannot_run(self.name, error) from None


def cannot_run(name: str, error: Exception) -> HashretError:
    """Return the error to raise for what OpenVINO said of a network."""
    reason = str(error).strip().splitlines()[-1]
    return HashretError(f"OpenVINO cannot run {name}: {reason}", hint="take --runtime torch")


def backbone_network(name: str, network: Any, number_format: str) -> OpenVINONetwork:
    """Return a backbone: uint8 (n, 3, s, s) -> float16 feature maps."""
    return OpenVINONetwork(name, network, number_format, _BLOCKS, together=True)


def head_network(name: str, network: Any) -> OpenVINONetwork:
    """Return a head: float32 feature maps -> hash outputs and, where there are such, what the hash layer reads."""
    return OpenVINONetwork(f"the head {name}", network, "float32", [1], together=False)


def head_outputs(
    head: OpenVINONetwork, feature_maps: npt.ArrayLike, bits: int, keep_fc_features: bool
) -> tuple[HashOutputs, Vectors | None]:
    """Return what `hashret.models.encoder.Encoder.outputs` does, by a head that OpenVINO runs."""
    hash_outputs, *fc_features = head(np.asarray(feature_maps, np.float32))
    return np.ascontiguousarray(hash_outputs[:, :bits]), fc_features[0] if keep_fc_features else None


def folder_of(*key: Any) -> Path:
    """Return the folder in which the network is kept that a key, of what JSON takes, tells from any other.

    Raises:
        HashretError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise HashretError(
            "OpenVINO is not installed, by which these photographs are encoded",
            hint="pip install 'hashret[openvino]', or encode all of them again with --runtime torch",
        ) from None
    digest = hashlib.sha256(json.dumps([_CONVERSION, openvino.__version__, *key]).encode())
    return default_cache() / KEPT / digest.hexdigest()[:20]


def head_folder(fingerprint: str) -> Path:
    """Return the folder in which the head of the encoder of a fingerprint is kept; raises as `folder_of`."""
    return folder_of("head", fingerprint)


def kept_networks(caches: StrPath | None = None) -> list[Path]:
    """Return the folders of the networks that are kept in a folder of caches, None for `default_cache`.

    Raises:
        HashretError: the folder cannot be read.
    """
    parent = Path(caches or default_cache()) / KEPT
    try:
        return [path for path in parent.iterdir() if path.is_dir() and re.fullmatch("[0-9a-f]{20}", path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HashretError(f"cannot read the networks in {parent}: {error.strerror}") from None


def clear_networks(caches: StrPath | None = None) -> None:
    """Remove the networks that are kept in a folder of caches; each is converted again when it is needed.

    Files that are not hashret's stay, and their folder with them.

    Raises:
        HashretError: one cannot be removed.
    """
    for folder in kept_networks(caches):
        remove_own(folder, "|".join(map(re.escape, (_NETWORK, _WEIGHTS, _RECORD))))
        if (folder / _RECORD).exists():
            raise HashretError(f"cannot remove {folder}", hint="may you write there?")
    parent = Path(caches or default_cache()) / KEPT
    remove_leftovers(parent, "[0-9a-f]{20}")
    with suppress(OSError):  # where something else is left in it
        parent.rmdir()


def load_network(folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """Return the network that `save_network` left in a folder, and its metadata.

    Returns:
        None where there is none, or not as it was written.
    """
    try:
        record = read_json(folder / _RECORD, "network", _CHECK)
        files = _files(folder)
    except (OSError, HashretError):
        return None
    metadata = record["said"]
    return (_read(files), metadata) if record["sha256"] == _sha256(files, metadata) else None


def save_network(network: Any, folder: Path, metadata: dict[str, Any]) -> Any:
    """Keep a converted network in a folder, with its metadata, and return it as it is read again.

    That one is to be run in this process, too, since the network that was converted may round otherwise. It is returned
    also where the cache cannot be written, so that each process converts anew.
    """
    try:
        discard(folder)  # which could not be read
        with partial_folder(folder) as partial:
            files = _saved(network, partial)
            write_json(partial / _RECORD, {"sha256": _sha256(files, metadata), "said": metadata})
            os.rename(partial, folder)
    except (OSError, RuntimeError, HashretError):
        with TemporaryDirectory() as temporary:
            files = _saved(network, Path(temporary))
    return _read(files)


def _saved(network: Any, folder: Path) -> list[bytes]:
    import openvino

    openvino.save_model(network, folder / _NETWORK, compress_to_fp16=False)
    return _files(folder)


def _files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (_NETWORK, _WEIGHTS)]


def _read(files: list[bytes]) -> Any:
    network, weights = files
    return _core().read_model(network, weights)


def _sha256(files: list[bytes], metadata: dict[str, Any]) -> str:
    digest = hashlib.sha256(to_json(metadata).encode())
    for file in files:
        digest.update(file)
    return digest.hexdigest()


def _threads() -> int:
    """Return the number of threads to compute with, that of torch where that is loaded."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
