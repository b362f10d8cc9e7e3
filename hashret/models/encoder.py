"""A network ready to encode: photographs to hash outputs, the same numbers whatever the batch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..bits import HashOutputs, check_length
from ..data.images import UnreadableImage, read_image
from ..data.in_memory import Photo, photographs
from ..errors import HashretError, warn_once
from ..precision import RUNTIMES, Precision
from ..renamed import old_attributes
from ..vectors import Vectors, are_unit, as_float32, scaled, unusable
from .backbones import Backbone
from .heads import HashHead, Head, HeadOutput, PrefixHead, trained_head
from .large_heads import outputs_of_groups
from .metadata import Described
from .network import HashNet
from .openvino_runtime import has_openvino, head_outputs
from .single_threads import in_threads, single_threads

_PIXELS_A_THREAD = 2**17  # on a CPU, small batches keep the activations in the caches: 5 images of 224 px on two cores
_IMAGES_AT_ONCE = 256  # on a GPU
_PHOTOS_AT_ONCE = 64  # decoded before they are encoded
# The head runs on so many rows always, padded, since a product's rounding depends on its shape.
_ROWS_AT_ONCE = {"torch": 32, "openvino": 8}
_MOST_ROWS = 128  # for which the weights of a large head are read once
_LARGEST_WHOLE = 2**23  # parameters of a head that OpenVINO runs, which reads all of them for each row

if TYPE_CHECKING:
    from .openvino_runtime import OpenVINONetwork

Pixels = npt.NDArray[np.uint8] | Tensor


def pick_device(name: str = "auto") -> torch.device:
    """Resolve "auto", "cpu" or "cuda".

    Raises:
        HashretError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise HashretError(f"no device {name!r}; there are auto, cpu and cuda")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise HashretError(f"no device {name!r}; one of several is named as cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise HashretError("no CUDA device here", hint="use --device cpu")
    return device


def pick_compute_dtype(device: torch.device | str) -> str:
    """Return "bfloat16" where the device computes in it, else "float32"."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bfloat16" if fast else "float32"


def pick_precision(
    given: str | None,
    runtime: str,
    device: torch.device,
    architecture: Backbone,
    trained: bool = False,
    *,
    head: Head | None = None,
) -> str:
    """Return what a network computes in, one of `hashret.precision.PRECISIONS`.

    Args:
        given: a number format, or a whole precision; None for the format that is fast on the device.
        runtime: one of `hashret.precision.RUNTIMES`; "auto" for what a given precision says, else for OpenVINO where
            the backbone gains by it, OpenVINO is installed, and the device is a CPU.
        trained: whether stages of the backbone train, which torch alone can do.
        head: which OpenVINO runs as well, unless a whole precision says otherwise, where it can and is not too large.

    Raises:
        HashretError: no such precision or runtime, or OpenVINO where it cannot be used.
    """
    number_format, own, whole = Precision.of(given or pick_compute_dtype(device))
    possible = device.type == "cpu" and not trained
    if runtime == "auto":
        fast = given is None and architecture.openvino and possible and has_openvino()
        runtime = "openvino" if fast else own
    if runtime not in RUNTIMES:
        raise HashretError(f"no runtime {runtime!r}; there are auto, {', '.join(RUNTIMES)}")
    if runtime == "openvino" and not possible:
        if trained:
            raise HashretError("OpenVINO trains no backbones", hint="take --runtime torch")
        raise HashretError(f"OpenVINO computes on the CPU, not on {device.type}", hint="take --device cpu")
    if own == "torch" and head is not None:
        whole = head.openvino and sum(parameter.numel() for parameter in head.parameters()) <= _LARGEST_WHOLE
    return str(Precision(number_format, runtime, whole))


class FrozenBackbone:
    """A backbone that no longer learns: uint8 (n, 3, s, s) -> float16 feature maps (n, c, h, w).

    The feature map of a photograph does not depend on its batch. float16 is the form that the feature cache keeps, so
    that cached and fresh feature maps are the same numbers.

    Args:
        layers: of the backbone, which are converted: a network that goes on training gives a copy.
        architecture: what the layers are.
        compute_dtype: one of `hashret.precision.PRECISIONS`; None for the number format that is fast on the device.

    Attributes:
        compute_dtype: the same, of the backbone alone.

    Raises:
        HashretError: no such precision.
    """

    def __init__(
        self,
        layers: nn.Module,
        architecture: Backbone,
        device: torch.device | str = "cpu",
        compute_dtype: str | None = None,
    ) -> None:
        self.architecture, self.device = architecture, torch.device(device)
        precision = Precision.of(compute_dtype or pick_compute_dtype(self.device))
        self.compute_dtype, self.number_format, self.runtime = precision.of_backbone, *precision[:2]
        self._networks: dict[int, OpenVINONetwork] = {}  # by the size of the images
        self.layers = layers.eval().requires_grad_(False)
        self._dtype = torch.float32  # of which OpenVINO's network is made; torch then only explains the encoder
        if self.runtime == "torch":
            self._dtype = getattr(torch, self.number_format)
            self.layers.to(self.device, self._dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Tensor:
        images = torch.as_tensor(images)
        if self.runtime == "openvino":
            return self._by_openvino(images)
        step = _IMAGES_AT_ONCE
        if self.device.type == "cpu":
            step = max(2, torch.get_num_threads() * _PIXELS_A_THREAD // images.shape[-1] ** 2)
        return torch.cat([self._feature_maps(images[i : i + step]) for i in range(0, len(images), step)])

    def _by_openvino(self, images: Tensor) -> Tensor:
        size = int(images.shape[-1])
        if size not in self._networks:
            from .openvino_convert import openvino_backbone

            self._networks[size] = openvino_backbone(self.layers, self.architecture, size, self.number_format)
        [feature_maps] = self._networks[size](images.numpy())
        return torch.from_numpy(feature_maps)

    def _feature_maps(self, images: Tensor) -> Tensor:
        n = len(images)
        if n == 1:  # some kernels take another path for one image, with another rounding
            images = torch.cat([images, images])
        pixels = self.architecture.normalize(images.to(self.device, non_blocking=True))
        feature_maps: Tensor = self.layers(pixels.to(self._dtype, memory_format=torch.channels_last))
        return feature_maps[:n].half().contiguous()


@old_attributes
class Encoder(Described):
    """A trained network as a function: images or their feature maps -> hash outputs.

    Attributes:
        device: where the network computes.
        backbone: images -> feature maps, a `FrozenBackbone`.
        head: feature maps -> logits.
        compute_dtype: one of `hashret.precision.PRECISIONS`, on which a database and its queries must agree.
    """

    def __init__(
        self,
        net: HashNet,
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
        compute_dtype: str | None = None,
    ) -> None:
        self.meta = meta
        self.device = pick_device(device) if isinstance(device, str) else device
        if "metric" in meta:
            compute_dtype = "float32"  # on any machine, since there is no backbone that would be slow in it
        self.backbone = FrozenBackbone(net.backbone, net.architecture, self.device, compute_dtype)
        self.compute_dtype = compute_dtype or self.backbone.compute_dtype
        self._head_networks: list[OpenVINONetwork] | None = None  # one or, before it is needed, none
        if Precision.of(self.compute_dtype).whole:
            self._head_networks = []
        elif self.backbone.runtime == "openvino":
            single_threads(torch.get_num_threads())  # which begin now, before threads that encode ask torch
        self._said: set[str] = set()
        self.head: Head = net.head.eval().requires_grad_(False).to(self.device)

    def shortened(self, bits: int) -> Encoder:
        """Return the encoder with codes of ``bits`` bits, the first of its own.

        Raises:
            HashretError: it was not trained for codes of that length.
        """
        if bits == self.bits:
            return self
        shorter = copy.copy(self)
        shorter.meta = self.meta | {"bits": check_length(bits, self.meta)}
        shorter.head = PrefixHead(trained_head(self.head), bits)
        return shorter

    @property
    def fc_width(self) -> int | None:
        """Length of the features that the hash layer reads; None where no fully connected layers come before it."""
        return self.head.fc_width

    def check_vectors(self, vectors: Vectors) -> None:
        """Raise HashretError unless such vectors (n, width) are what the encoder was made for; warn where it may be.

        Their width must be the same. Where lengths count, which are all one or are not, they must be so, too.
        """
        width = self.vector_width
        if width is None:
            raise HashretError("this encoder takes photographs, not vectors", hint="train one on vectors")
        if vectors.shape[1] != width:
            raise HashretError(f"vectors of {vectors.shape[1]} numbers do not fit an encoder of {width}")
        there = len(vectors) and bool(vectors.any())
        if there and self.meta["unit_length"] and not are_unit(vectors):
            wrong = "these vectors are not of unit length, as those were that the encoder was trained on"
            if self.meta["metric"] == "euclidean":
                raise HashretError(wrong, hint="scale them as those were scaled")
            warn_once(self._said, f"{wrong}; by cosine, lengths do not count")

    def encode(self, queries: npt.ArrayLike | Photo | Iterable[Photo]) -> HashOutputs:
        """Return the hash outputs of what the encoder takes: float32 (n, bits) in [0, 1]. A bit is 1 from 0.5 on.

        Args:
            queries: photographs, one or several, see `hashret.data.in_memory.photographs`; of an encoder of vectors,
                these, (n, width) or one (width,).

        Raises:
            HashretError: a photograph that cannot be read, vectors of another width, or one that holds NaN or infinity.
        """
        if self.vector_width is None:
            return self._encode_photographs(queries)
        x = as_float32(queries)  # type: ignore[arg-type]  # which says so where these are no numbers
        self.check_vectors(x)
        for row, reason in unusable(x):
            raise HashretError(f"vector {row} {reason}")
        return self.outputs(torch.from_numpy(scaled(x, self.meta["metric"]))[:, :, None, None])[0]

    def _encode_photographs(self, photos: Any) -> HashOutputs:
        if isinstance(photos, np.ndarray) and photos.dtype.kind == "f":
            raise HashretError("this encoder takes photographs, not vectors", hint="train one on vectors")
        named, outputs = photographs(photos), []
        for start in range(0, len(named), _PHOTOS_AT_ONCE):
            images = []
            for photo in named[start : start + _PHOTOS_AT_ONCE]:
                try:
                    images.append(read_image(photo, self.image_size, resize=self.resize))
                except UnreadableImage as error:
                    raise HashretError(f"cannot read {photo}: {error}") from None
            outputs.append(self.hash_outputs(np.stack(images)))
        return np.concatenate(outputs) if outputs else np.zeros((0, self.bits), np.float32)

    def hash_outputs(self, images: Pixels) -> HashOutputs:
        """Return the hash outputs of images: uint8 (n, 3, s, s) -> float32 (n, bits) in [0, 1]."""
        return self.outputs(self.backbone(images))[0]

    @torch.inference_mode()
    def outputs(
        self, feature_maps: npt.NDArray[np.floating] | Tensor, keep_fc_features: bool = False
    ) -> tuple[HashOutputs, npt.NDArray[np.float32] | None]:
        """Return the hash outputs of feature maps and, if wanted, what the hash layer reads.

        Args:
            feature_maps: float16 (n, c, h, w).
            keep_fc_features: whether what the hash layer reads is wanted; `fc_width` must not be None then.

        Returns:
            float32 (n, bits) in [0, 1]; and float32 (n, fc_width), or None.
        """
        if self._head_networks is not None and len(feature_maps):
            maps = feature_maps.numpy() if isinstance(feature_maps, Tensor) else feature_maps
            return head_outputs(self._head_network(self._head_networks), maps, self.bits, keep_fc_features)
        hash_outputs = torch.empty(len(feature_maps), self.bits)
        fc_features = torch.empty(len(feature_maps), self.fc_width or 0) if keep_fc_features else None
        for first in range(0, len(feature_maps), _MOST_ROWS):
            for start, n, output in self._head_outputs(feature_maps[first : first + _MOST_ROWS]):
                rows = slice(first + start, first + start + n)
                hash_outputs[rows] = output.hash_outputs[:n, : self.bits].float().cpu()
                if fc_features is not None and output.fc_features is not None:
                    fc_features[rows] = output.fc_features[:n].cpu()
        return hash_outputs.numpy(), None if fc_features is None else fc_features.numpy()

    def _head_outputs(self, feature_maps: npt.NDArray[np.floating] | Tensor) -> list[tuple[int, int, HeadOutput]]:
        """Return first row, number of rows and outputs of each group of rows of `padded`.

        The outputs may have more bits than the encoder.
        """
        head = trained_head(self.head)
        if self.backbone.runtime != "openvino":
            return [(start, n, head(rows)) for start, n, rows in self.padded(feature_maps)]
        threads = single_threads(torch.get_num_threads())
        padded = threads.submit(list, self.padded(feature_maps)).result()
        groups = [rows for _, _, rows in padded]
        if isinstance(head, HashHead):
            outputs = outputs_of_groups(head, groups, threads)
        else:
            outputs = in_threads(threads, head, groups)
        return [(start, n, output) for (start, n, _), output in zip(padded, outputs, strict=True)]

    def _head_network(self, made: list[OpenVINONetwork]) -> OpenVINONetwork:
        """Return the head as OpenVINO runs it, which encoders for several lengths of code share."""
        if not made:
            from .openvino_convert import backbone_folder, openvino_head

            architecture, size = self.backbone.architecture, self.image_size
            folder = backbone_folder(self.backbone.layers, architecture, size)
            head = trained_head(self.head)
            made.append(openvino_head(head, architecture.map_shape(size), self.fingerprint, folder))
        return made[0]

    def padded(self, feature_maps: npt.NDArray[np.floating] | Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Yield what the head reads at once: first row, number of rows, and float32 (m, c, h, w), zero behind them.

        m is always the same.
        """
        feature_maps, at_once = torch.as_tensor(feature_maps), _ROWS_AT_ONCE[self.backbone.runtime]
        for start in range(0, len(feature_maps), at_once):
            rows = feature_maps[start : start + at_once].to(self.device, torch.float32)
            padded = rows.new_zeros(at_once, *rows.shape[1:])
            padded[: len(rows)] = rows
            yield start, len(rows), padded
