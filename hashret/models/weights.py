"""Weights to start from: those of a backbone's library, a file, or none."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import HashretError
from ..files import StrPath
from ..names import utf8_path
from .backbones import Backbone, get_backbone


def load_backbone(weights: StrPath = "pretrained", arch: str = "vgg16") -> nn.Module:
    """Return the layers of a backbone with their weights.

    Args:
        weights: "pretrained" (the library's own, downloaded on first use; "imagenet" is its old name), a safetensors
            or weights-only ``.pth`` state dict with the library's names, of the whole network or of the backbone
            alone, or "none" for a random start.
        arch: name of the backbone.

    Raises:
        HashretError: no such backbone or file, not the weights of this backbone, or the download failed.
    """
    architecture = get_backbone(arch)
    layers = architecture.build()
    if weights == "none":
        if not architecture.initialised:
            init_from_scratch(layers)
        return layers
    state = _library_weights(weights, architecture)
    wanted = layers.state_dict()
    whole = {architecture.library_name(name): name for name in wanted}
    given = {
        whole.get(name, name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name in whole or name.partition(".")[0] not in architecture.unused
    }
    counts = [name for name in wanted if name.endswith("num_batches_tracked") and name not in given]
    given |= {name: wanted[name] for name in counts}  # which tell nothing, and which some files leave out
    wrong = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    missing = f"{architecture.library_name(wrong[0])} is missing or of another shape" if wrong else ""
    unknown = sorted(given.keys() - wanted.keys())
    if wrong or unknown:
        reason = missing or f"{unknown[0]} is none of its tensors"
        raise HashretError(
            f"{weights} does not hold the weights of {arch}: {reason}",
            hint="name the backbone that they are of with --backbone",
        )
    layers.load_state_dict(given)
    return layers


def last_convolution(weights: StrPath, arch: str) -> tuple[Tensor, Tensor] | None:
    """Return weight (out, channels, 1, 1) and bias (out,) of the convolution after a backbone's feature map.

    None is returned where the backbone has no such convolution, or ``weights`` are "none" or hold the backbone alone.

    Args:
        weights, arch: as for `load_backbone`.

    Raises:
        HashretError: no such file, a convolution of another shape, or the download failed.
    """
    architecture = get_backbone(arch)
    if architecture.last_convolution is None or weights == "none":
        return None
    found = architecture.last_convolution(_library_weights(weights, architecture))
    if found and found[0].shape != (len(found[1]), architecture.channels, 1, 1):
        reason = "the convolution after the feature map is of another shape"
        raise HashretError(f"{weights} does not hold the weights of {arch}: {reason}")
    return found


def init_from_scratch(module: nn.Module) -> None:
    """Initialise every layer for training from scratch: He et al. 2015 for ReLU layers, as torchvision does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _library_weights(weights: StrPath, architecture: Backbone) -> dict[str, Tensor]:
    return _pretrained(architecture) if weights in ("pretrained", "imagenet") else _read(Path(weights))


def _pretrained(architecture: Backbone) -> dict[str, Tensor]:
    name = architecture.name
    if architecture.pretrained is None:
        raise HashretError(f"no pretrained weights of {name} are known", hint="name a file with --weights FILE")
    try:
        return architecture.pretrained()
    except (OSError, RuntimeError) as error:
        address, file = getattr(error, "filename", None), getattr(error, "filename2", None)
        size = f" ({architecture.megabytes:,.0f} MB)" if architecture.megabytes else ""
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise HashretError(
            f"the weights of {name}{size} could not be downloaded" + (f" from {address}" if address else "")
            + f": {reason}",
            hint="fetch them elsewhere, and " + (f"put them at {file}, or " if file else "") + "name --weights FILE",
        ) from None  # fmt: skip


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        hint = "--weights takes pretrained, none, or a .safetensors or .pth file"
        raise HashretError(f"no weights at {path}", hint=hint)
    try:
        if path.suffix == ".safetensors":
            with utf8_path(path) as name:
                return load_file(name)
        with warnings.catch_warnings(action="ignore"):  # of torch, about what kind of file it is
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError):  # whose own words advise to run what is in the file, or are a number
        raise HashretError(f"cannot read the weights {path}: they are damaged, or hold anything but tensors") from None
    except Exception as error:  # torch's unpickler fails on damaged files in many ways
        raise HashretError(f"cannot read the weights {path}: {(str(error) or repr(error)).splitlines()[0]}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not isinstance(state, dict) or not all(map(_is_named_tensor, state, state.values())):
        raise HashretError(f"{path} is not a state dict of tensors")
    return state


def _is_named_tensor(name: object, tensor: object) -> bool:
    """Say whether this is a name and a dense tensor of real numbers in memory; torch saves other tensors, too."""
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )
