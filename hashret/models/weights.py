"""Weights to start from: torchvision's ImageNet weights, a file, or none."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..errors import HashretError
from ..names import utf8_path
from .backbones import init_from_scratch
from .vgg import vgg_features


def load_features(weights="imagenet", arch="vgg16"):
    """VGG convolutions with their weights: -> nn.Sequential.

    Args:
        weights: "imagenet" for torchvision's (downloaded on first use), a path to a safetensors or weights-only
            ``.pth`` state dict, full or convolutions only, or "none" for a random start.
        arch: one of `ARCHITECTURES`.

    Raises:
        HashretError: no such file, not weights of this architecture, or the download failed.
    """
    features = vgg_features(arch)
    if weights == "none":
        init_from_scratch(features)
        return features
    state = _imagenet(arch) if weights == "imagenet" else _read(Path(weights))
    wanted = features.state_dict()
    found = {
        name.removeprefix("features."): tensor.float() for name, tensor in state.items() if "classifier" not in name
    }
    wrong = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
    if wrong or len(found) != len(wanted):
        what = wrong[0] if wrong else sorted(set(found) - set(wanted))[0]
        raise HashretError(
            f"{weights} does not hold the weights of {arch}: features.{what} is missing or of another shape"
        )
    features.load_state_dict(found)
    return features


def _imagenet(arch):
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(arch).IMAGENET1K_V1
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise HashretError(
            f"torchvision's {arch} weights could not be downloaded ({error}); "
            "fetch them elsewhere and name the file with --weights PATH"
        ) from None


def _read(path):
    if not path.is_file():
        raise HashretError(f"no weights at {path}; --weights takes a .safetensors or .pth file, imagenet or none")
    try:
        if path.suffix == ".safetensors":
            with utf8_path(path) as name:
                return load_file(name)
        with warnings.catch_warnings(action="ignore"):  # of torch, about what kind of file it is
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own words advise to run what is in the file
        raise HashretError(f"cannot read the weights {path}: they are damaged, or hold anything but tensors") from None
    except Exception as error:  # torch's unpickler fails on damaged files in many ways
        raise HashretError(f"cannot read the weights {path}: {(str(error) or repr(error)).splitlines()[0]}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not isinstance(state, dict) or not all(map(_is_named_tensor, state, state.values())):
        raise HashretError(f"{path} is not a state dict of tensors")
    return state


def _is_named_tensor(name, tensor):
    """Whether this is a name and a tensor of real numbers: torch also saves sparse and quantized ones, and some of no
    memory.
    """
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )
