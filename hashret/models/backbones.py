"""The registry of backbones: layers that turn images into a feature map, and what others must know of them.

Beside the registered names, ``timm:NAME`` and ``clip:NAME`` are the networks of timm and open_clip,
``package.module:function`` one of the user's own, and ``vectors:WIDTH`` none: vectors that the user has stand for
feature maps then. Importing this module loads neither torch nor torchvision, as the command line lists the backbones.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import HashretError
from ..registry import VARIABLE, Registry
from .backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BACKBONES", "IMAGENET_MEAN", "IMAGENET_STD", "Backbone", "get_backbone", "refusal", "register"]

_VECTORS = re.compile(r"vectors:([1-9]\d{0,5})")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

BACKBONES: Registry[Backbone] = Registry("backbone")
_named: dict[str, Backbone] = {}  # those that are no part of the registry, once the user has named them


def register(backbone: Backbone) -> Backbone:
    """Make a backbone known to ``--backbone``, to `get_backbone` and to checkpoints, and return it.

    Raises:
        ValueError: another backbone has that name.
    """
    BACKBONES.add(backbone.name, backbone)
    return backbone


def get_backbone(name: str) -> Backbone:
    """Return the backbone of that name: a registered one, ``timm:NAME``, ``clip:NAME`` or ``package.module:function``.

    Such a function is imported and called without arguments. It returns a `Backbone`, or layers, of which one run over
    a blank image tells channels and stride; their weights are then the pretrained ones.

    Raises:
        HashretError: there is none, or it cannot be made; the message says why, or lists the names.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name not in _named:
        if name.startswith("timm:"):
            from .timm_nets import describe

            _named[name] = describe(name)
        elif name.startswith("clip:"):
            from .clip_nets import describe as describe_clip

            _named[name] = describe_clip(name)
        elif match := _VECTORS.fullmatch(name):
            _named[name] = Backbone(
                name, _nothing, int(match[1]), stride=1, image_size=1, one_size=True, pooled=False, printed=False
            )
        elif _FUNCTION.fullmatch(name):
            _named[name] = _called(name)
        else:
            hint = "timm:NAME, clip:NAME and package.module:function are others"
            raise HashretError(f"no backbone {name!r}; there are {', '.join(BACKBONES)}", hint=hint)
    return _named[name]


def refusal(name: object) -> str | None:
    """Say why a checkpoint that names this backbone is not loaded; None where it is.

    A checkpoint may come from anyone, so that it decides no code to run: a function must have been named by the user in
    this process, or as a plugin.
    """
    if isinstance(name, str):
        if name in BACKBONES or name in _named or name.startswith(("timm:", "clip:")) or _VECTORS.fullmatch(name):
            return None
        if _FUNCTION.fullmatch(name):
            if name in map(str.strip, os.environ.get(VARIABLE, "").split(",")):
                return None
            return f"is {name!r}, code that a checkpoint alone does not get to run: {VARIABLE}={name} says that it may"
    return f"is {name!r}, and the backbones that are registered here are {', '.join(BACKBONES)}"


def _called(name: str) -> Backbone:
    """Return the backbone that ``package.module:function`` makes."""
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise HashretError(f"no backbone {name}: {error}") from None
    made = make()
    if isinstance(made, Backbone):
        return replace(made, name=name)
    from .probing import described

    return described(name, make, made)


def _nothing() -> nn.Module:
    from torch import nn

    return nn.Identity()


def _call(function: str, *arguments: Any) -> Any:
    """Call a ``module:function`` of this folder, which is imported now, and torch with it."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)(*arguments)


def _in_features(name: str) -> str:
    return f"features.{name}"


_HALF = (0.5, 0.5, 0.5)
_TORCHVISION_WEIGHTS = "torchvision_nets:imagenet_weights"
_BUILT_IN = [
    Backbone(
        name, partial(_call, "vgg:build_vgg", name), 512, pretrained=partial(_call, _TORCHVISION_WEIGHTS, name),
        megabytes=megabytes, pooled=False, library_name=_in_features, openvino=name == "vgg16", printed=False,
    )
    for name, megabytes in (("vgg16", 527.8), ("vgg16_bn", 527.9), ("vgg11", 506.8), ("vgg11_bn", 506.9))
]  # fmt: skip
_BUILT_IN += [
    Backbone(
        "efficientnet_lite0", partial(_call, "efficientnet_lite:build_lite0"), 320, mean=_HALF, std=_HALF,
        pretrained=partial(_call, "efficientnet_lite:lite0_weights"), megabytes=18.7, pooled=True,
        unused=("conv_head", "bn2", "classifier"), openvino=True,
        last_convolution=partial(_call, "efficientnet_lite:last_convolution"), printed=False,
    ),
]  # fmt: skip
_BUILT_IN += [
    Backbone(
        name, partial(_call, "torchvision_nets:build", name), channels, stride,
        pretrained=partial(_call, _TORCHVISION_WEIGHTS, name), megabytes=megabytes, pooled=name != "alexnet",
        margin=31 if name == "alexnet" else 0, initialised=True, printed=False,
    )
    for name, channels, stride, megabytes in (
        ("alexnet", 256, 32, 233.1), ("resnet18", 512, 32, 44.7), ("resnet50", 2048, 32, 97.8),
        ("mobilenet_v3_large", 960, 32, 21.1), ("efficientnet_b0", 1280, 32, 20.5), ("convnext_tiny", 768, 32, 109.1),
        ("vit_b_16", 768, 16, 330.3), ("swin_t", 768, 32, 108.2),
    )
]  # fmt: skip
for _backbone in _BUILT_IN:  # not by `register`, which would load the plugins now
    BACKBONES[_backbone.name] = _backbone
