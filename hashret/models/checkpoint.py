"""Checkpoints: one safetensors file with the network's tensors and its metadata as JSON.

No pickle is loaded from a file that a user hands in.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import HashretError
from ..files import StrPath, atomic, partial_folder
from ..names import to_json, utf8_path
from ..precision import Precision
from .encoder import Encoder, pick_device, pick_precision
from .heads import head_config
from .metadata import FORMAT, METADATA, read_meta
from .network import HashNet

_log = logging.getLogger("hashret")


# What of a head's options has no part in its fingerprint: the tensors say it, or other names of the metadata, or it
# does not change a hash output.
_TOLD = (
    "kind", "width", "attention", "gate", "dropout", "slice_width", "anchors", "centred", "pooled", "straight_through",
    "lengths",
)  # fmt: skip


def save_checkpoint(
    path: StrPath, net: HashNet, meta: Mapping[str, Any], beside: Callable[[dict[str, Any]], object] | None = None
) -> dict[str, Any]:
    """Write a network with its metadata, and return the metadata as written: with format, fingerprint and head.

    Args:
        path: file to write.
        net: the network.
        meta: what rebuilds the backbone (bits, image_size, arch, classes), what identifies the encoder (width,
            attention, gate), and what describes it (method, seed, weights, training record ...).
        beside: called with the metadata when the file is written and not yet there under its name.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    # An earlier hashret opens what has no dither, and says of what has one that it is of a later format.
    written = {"format": FORMAT if meta.get("dither") else 1, **meta, "head_config": net.head.config}
    written["fingerprint"] = _fingerprint(tensors, written)
    with atomic(path) as partial, partial_folder(path) as folder:
        try:
            # In a folder, since safetensors writes to a temporary name of its own, which a kill leaves behind.
            save_file(tensors, folder / "tensors", {METADATA: to_json(written)})
        except SafetensorError as error:  # it wraps the system's "no space left"
            raise OSError(str(error)) from error
        os.replace(folder / "tensors", partial)
        if beside:
            beside(written)
    return written


def build_network(meta: Mapping[str, Any]) -> HashNet:
    """Return the network that ``meta`` describes; its parameters have no memory yet."""
    config = dict(meta.get("head_config") or _earlier_head_config(meta))
    classes = max(1, len(meta["classes"])) if meta.get("classifier", True) else 0
    with torch.device("meta"):
        return HashNet(meta["bits"], classes, meta["image_size"], meta["arch"], head=config.pop("kind"), **config)


def _earlier_head_config(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rebuilds the head of a checkpoint that has no ``head_config``, from names on the top level.

    The first checkpoints lack some of these names, too: their heads were "fc" with open gates.
    """
    return head_config(meta.get("head", "fc"), {"gate": "open", **meta})


def load_encoder(
    path: StrPath = "model.safetensors",
    device: str | torch.device = "auto",
    precision: str | None = None,
    *,
    runtime: str = "auto",
    fingerprint: str | None = None,
) -> Encoder:
    """Load a trained encoder.

    Args:
        path: a checkpoint written by `hashret train`.
        device: "auto", "cpu" or "cuda".
        precision: number format in which the backbone computes, "bfloat16" or "float32", or one of
            `hashret.precision.PRECISIONS`; None for what is fast on the device.
        runtime: what runs the backbone, "torch" or "openvino", or "auto", see `hashret.models.encoder.pick_precision`.
        fingerprint: of the encoder that is wanted. A checkpoint may be replaced after its metadata was read and found
            to be right, so that it is the metadata loaded here that has to have it; None takes any encoder.

    Raises:
        HashretError: as `read_meta`, or another encoder than the one that is wanted, or tensors that do not fit the
            metadata, or no such device.
    """
    meta = read_meta(path)
    if fingerprint not in (None, meta["fingerprint"]):
        raise HashretError(
            f"the checkpoint {path} was replaced by another encoder than the one that made the codes of the index",
            hint="name its own with --model, or encode and build the index again",
        )
    try:
        with utf8_path(path) as name:
            tensors = load_file(name)
        net = build_network(meta)
        for name, tensor in net.state_dict().items():
            if name in tensors and tensors[name].dtype != tensor.dtype:
                raise RuntimeError(f"{name} is {tensors[name].dtype}, not {tensor.dtype}")
        net.load_state_dict(tensors, assign=True)
    except (SafetensorError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise HashretError(f"the checkpoint {path} is damaged: {str(error).splitlines()[0]}") from None
    if _fingerprint(tensors, meta) != meta["fingerprint"]:
        raise HashretError(f"the checkpoint {path} is damaged: its tensors are not those it was saved with")
    if device == "auto" and precision is not None and Precision.of(precision).runtime == "openvino":
        device = "cpu"  # where alone the same codes come out
    found = pick_device(device) if isinstance(device, str) else device
    if "metric" not in meta:  # an encoder of vectors has no backbone
        precision = pick_precision(precision, runtime, found, net.architecture, head=net.head)
    encoder = Encoder(net, meta, found, precision)
    _log.debug(
        "encoder %s: %s, %d bits, %s on %s", path, meta["method"], encoder.bits, encoder.compute_dtype, encoder.device
    )
    return encoder


def _fingerprint(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Return a sha256 over what decides an encoder's outputs and codes: the tensors and the shape of the network."""
    shape = {name: meta[name] for name in ("bits", "image_size", "arch", "width", "attention")}
    shape |= {name: meta[name] for name in ("head", "gate") if name in meta}
    shape |= {name: meta[name] for name in ("metric", "dither") if name in meta}
    if meta.get("resize", "squeeze") != "squeeze":  # which the first checkpoints do not name
        shape["resize"] = meta["resize"]
    shape |= {name: value for name, value in meta.get("head_config", {}).items() if name not in _TOLD}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous().reshape(-1)  # else no bytes of a 1 x 1 convolution in channels-last order
        digest.update(name.encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
