"""Checkpoints: one safetensors file with the network's tensors and its metadata as JSON.

No pickle is loaded from a file that a user hands in.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..bits import MAX_BITS, MIN_BITS
from ..errors import HashretError
from ..files import atomic, partial_folder
from ..names import from_json, to_json, utf8_path
from ..records import checked, fields, list_of, number, one_of, or_none, text, whole
from ..shards import PROTOCOL
from .attention import GATES
from .backbones import STRIDE
from .encoder import Encoder
from .network import HashNet
from .vgg import ARCHITECTURES

FORMAT = 1
_KEY = "hashret"
_SIZE = whole(1, 2**20)
_META = fields(
    {
        "bits": whole(MIN_BITS, MAX_BITS), "image_size": whole(STRIDE, 2**15), "arch": one_of(*ARCHITECTURES),
        "classes": list_of(text()), "width": _SIZE, "attention": one_of(True, False), "fingerprint": text(),
        "weights_fingerprint": text(), "method": text(),
    },
    {
        "head": one_of("fc", "sliced", "projection", "kernel"), "gate": one_of(*GATES), "dropout": number(0, 1),
        "anchors": _SIZE, "classifier": one_of(True, False), "seed": whole(), "protocol": or_none(PROTOCOL),
        "data": text(), "heldout_map": or_none(number()), "best_epoch": whole(),
    },
)  # fmt: skip


def save_checkpoint(path, net, meta, beside=None):
    """Write a `HashNet` with its metadata; adds the fingerprint and returns the metadata as written.

    ``beside`` is called with that metadata when the file is written and not yet there under its name.

    ``meta`` holds what rebuilds the network (bits, image_size, arch, classes, head, and the head's width, attention,
    gate or anchors) and what describes it (method, seed, weights, training record ...).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    meta = {"format": FORMAT, **meta, "fingerprint": _fingerprint(tensors, meta)}
    with atomic(path) as partial, partial_folder(path) as folder:
        try:
            # In a folder, since safetensors writes to a temporary name of its own, which a kill leaves behind.
            save_file(tensors, folder / "tensors", {_KEY: to_json(meta)})
        except SafetensorError as error:  # it wraps the system's "no space left"
            raise OSError(str(error)) from error
        os.replace(folder / "tensors", partial)
        if beside:
            beside(meta)
    return meta


def read_meta(path):
    """Metadata of a checkpoint, without its tensors.

    Raises:
        HashretError: no such file, damaged, not a hashret checkpoint, of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise HashretError(f"no checkpoint at {path}; train one with hashret train, or name one with --model")
    try:
        with utf8_path(path) as name, safe_open(name, "pt") as file:
            stored = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise HashretError(f"the checkpoint {path} is damaged: {error}") from None
    if stored is None:
        raise HashretError(f"{path} is a safetensors file, but not a hashret checkpoint")
    try:
        meta = from_json(stored)
    except ValueError as error:
        raise HashretError(f"the checkpoint {path} is damaged: {error}") from None
    checked(meta, fields({}, {"format": whole()}), f"the checkpoint {path}")
    if meta.get("format", 0) > FORMAT:
        raise HashretError(f"{path} was written by a later hashret (format {meta['format']}); upgrade")
    return checked(meta, _META, f"the checkpoint {path}")


def build_network(meta):
    """The network that ``meta`` describes, its parameters yet without memory."""
    with torch.device("meta"):
        return HashNet(
            meta["bits"],
            max(1, len(meta["classes"])) if meta.get("classifier", True) else 0,
            meta["image_size"],
            meta["arch"],
            **head_options(meta),
        )


def head_options(meta):
    """``meta``'s kind of head and what such a head is made of."""
    meta = {"head": "fc", "gate": "open"} | meta  # what checkpoints without these names were
    wanted = {"projection": (), "kernel": ("anchors",)}.get(meta["head"], ("width", "attention", "gate", "dropout"))
    return {name: meta[name] for name in ("head", *wanted) if name in meta}


def load_encoder(path="model.safetensors", device="auto", precision=None):
    """Load a trained encoder.

    Args:
        path: a checkpoint written by `hashret train`.
        device: "auto", "cpu" or "cuda".
        precision: "bfloat16" or "float32" for the convolutions; None for what is fast on the device.

    Raises:
        HashretError: as `read_meta`, or tensors that do not fit the metadata, or no such device.
    """
    meta = read_meta(path)
    try:
        with utf8_path(path) as name:
            tensors = load_file(name)
        net = build_network(meta)
        for name, tensor in net.state_dict().items():
            if name in tensors and tensors[name].dtype != tensor.dtype:
                raise RuntimeError(f"{name} is {tensors[name].dtype}, not {tensor.dtype}")
        net.load_state_dict(tensors, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise HashretError(f"the checkpoint {path} is damaged: {str(error).splitlines()[0]}") from None
    if _fingerprint(tensors, meta) != meta["fingerprint"]:
        raise HashretError(f"the checkpoint {path} is damaged: its tensors are not those it was saved with")
    return Encoder(net, meta, device, precision)


def _fingerprint(tensors, meta):
    """sha256 over what decides an encoder's values: the tensors and the shape of the network."""
    shape = {name: meta[name] for name in ("bits", "image_size", "arch", "width", "attention")}
    shape |= {name: meta[name] for name in ("head", "gate") if name in meta}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(
            tensors[name].contiguous().view(torch.uint8).numpy() if tensors[name].ndim else tensors[name].numpy()
        )
    return digest.hexdigest()[:32]
