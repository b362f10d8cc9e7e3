"""A network ready to encode: photographs to hash-layer values, the same values whatever the batch."""

from __future__ import annotations

import copy

import torch

from ..errors import HashretError
from .backbones import normalize

PRECISIONS = ("bfloat16", "float32")
_PIXELS_A_THREAD = 2**17  # on a CPU, small batches keep the activations in the caches: 5 images of 224 px on two cores
_ROWS_AT_ONCE = 32  # the head runs on this many rows always, padded, since a product's rounding depends on its shape


def pick_device(name="auto"):
    """Resolve "auto", "cpu" or "cuda" to a torch.device; HashretError where there is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise HashretError("no CUDA device here; use --device cpu")
    return torch.device(name)


def pick_precision(device):
    """bfloat16 where the processor computes in it, else float32."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bfloat16" if fast else "float32"


class Convolutions:
    """Frozen convolutions: uint8 (n, 3, s, s) -> float16 (n, c, s/32, s/32), one photograph's not changed by its batch.

    float16 is the form that the feature cache keeps, so that cached and fresh features are the same numbers.
    """

    def __init__(self, features, device="cpu", precision=None):
        self.device = torch.device(device)
        self.precision = precision or pick_precision(self.device)
        if self.precision not in PRECISIONS:
            raise HashretError(f"no precision {self.precision!r}; there are {', '.join(PRECISIONS)}")
        self.dtype = getattr(torch, self.precision)
        features = copy.deepcopy(features).eval().requires_grad_(False)
        self.features = features.to(self.device, self.dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images):
        images = torch.as_tensor(images)
        n, size = len(images), images.shape[-1]
        step = 256
        if self.device.type == "cpu":
            step = max(2, torch.get_num_threads() * _PIXELS_A_THREAD // size**2)
        done = [self._convolve(images[i : i + step]) for i in range(0, n, step)]
        return torch.cat(done)

    def _convolve(self, images):
        n = len(images)
        if n == 1:  # some kernels take another path for one image, with another rounding
            images = torch.cat([images, images])
        images = normalize(images.to(self.device, non_blocking=True))
        return self.features(images.to(self.dtype, memory_format=torch.channels_last))[:n].half().contiguous()


class Encoder:
    """A trained network as a function: images or their convolution features -> hash-layer values.

    Attributes:
        meta: the checkpoint's metadata (bits, image_size, classes, fingerprint ...).
        precision: what the convolutions compute in; a database and its queries must agree on it.
    """

    def __init__(self, net, meta, device="cpu", precision=None):
        self.meta = meta
        self.device = pick_device(device) if isinstance(device, str) else device
        self.convolutions = Convolutions(net.features, self.device, precision)
        self.precision = self.convolutions.precision
        self.head = net.head.eval().requires_grad_(False).to(self.device)

    @property
    def bits(self):
        return self.meta["bits"]

    @property
    def image_size(self):
        return self.meta["image_size"]

    @property
    def fingerprint(self):
        return self.meta["fingerprint"]

    @property
    def feature_width(self):
        """Length of the features that the hash layer reads, None where it has no fully connected layers before it."""
        return self.meta["width"] if hasattr(self.head, "fc") else None

    def values(self, images):
        """uint8 (n, 3, s, s), array or tensor -> float32 numpy (n, bits) in [0, 1]."""
        return self.outputs(self.convolutions(images))[0]

    @torch.inference_mode()
    def outputs(self, features, full=False):
        """float16 (n, 512, s/32, s/32), array or tensor -> values float32 numpy (n, bits) in [0, 1], and with ``full``
        the features that the hash layer reads, float32 (n, width), else None."""
        out = torch.empty(len(features), self.bits)
        inner = torch.empty(len(features), self.feature_width) if full else None
        for start, n, padded in self.padded(features):
            output = self.head(padded)
            out[start : start + n] = output.values[:n].float().cpu()
            if full:
                inner[start : start + n] = output.features[:n].cpu()
        return out.numpy(), None if inner is None else inner.numpy()

    def padded(self, features):
        """What the head reads at once: yields (first row, rows, float32 (32, 512, s/32, s/32), zero after the rows)."""
        features = torch.as_tensor(features)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = features[start : start + _ROWS_AT_ONCE].to(self.device, torch.float32)
            padded = rows.new_zeros(_ROWS_AT_ONCE, *rows.shape[1:])
            padded[: len(rows)] = rows
            yield start, len(rows), padded
