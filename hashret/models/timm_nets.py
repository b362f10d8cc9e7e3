"""Networks of timm as backbones, ``timm:NAME``: whatever its ``forward_features`` gives, as a map. Extra ``[timm]``."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HashretError
from .backbone import Backbone
from .probing import shape_of

_MULTIPLE = 32  # pixels; some networks were trained at sizes that are no multiple of their stride


def describe(spec: str) -> Backbone:
    """Return the backbone ``timm:NAME``, as timm's own configuration of the network describes it.

    Raises:
        HashretError: timm is not installed, has no such network, or its features are no map.
    """
    name = spec.removeprefix("timm:")
    try:
        import timm
    except ImportError:
        raise HashretError(f"{spec} needs the package timm", hint="pip install 'hashret[timm]'") from None
    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):  # "hf-hub:…" and "local-dir:…" would fetch code
        raise HashretError(f"timm has no network {name}", hint="timm.list_models() lists those it has")
    try:
        config: Any = timm.create_model(name, num_classes=0).pretrained_cfg
    except Exception as error:
        raise HashretError(f"timm cannot make {name}: {str(error).splitlines()[0]}") from None
    size, one_size = int(config["input_size"][-1]), bool(config.get("fixed_input_size"))
    if not one_size:
        size = -(-size // _MULTIPLE) * _MULTIPLE
    channels, side = shape_of(spec, _build(name), size)
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Backbone(
        spec, partial(_build, name), channels, size // side, tuple(config["mean"]), tuple(config["std"]),
        pretrained=partial(_weights, name) if config.get("url") or config.get("hf_hub_id") else None, image_size=size,
        one_size=one_size, pooled=True, library_name=_without_wrapper,
        unused=(*{name.split(".")[0] for name in names}, "fc_norm", "head_dist"), initialised=True, extra="timm",
    )  # fmt: skip


class FeatureMap(nn.Module):
    """A network of timm whose features before pooling are a map, tokens beside the cells left out."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:
            cells = features[:, getattr(self.network, "num_prefix_tokens", 0) :].transpose(1, 2)
            side = int(cells.shape[2] ** 0.5)
            return cells.reshape(len(cells), -1, side, side)
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "") == "NHWC" else features


def _build(name: str) -> nn.Module:
    import timm

    with torch.device("cpu"):  # in a checkpoint, too: buffers that no state dict has would else stay without numbers
        return FeatureMap(timm.create_model(name, num_classes=0))


def _weights(name: str) -> dict[str, Tensor]:
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    address = config.url
    if not address:
        from huggingface_hub import hf_hub_url

        address = hf_hub_url(config.hf_hub_id, "model.safetensors")
    try:
        return dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())
    except (OSError, RuntimeError) as error:
        raise OSError(0, " ".join(str(error).split()), address) from None


def _without_wrapper(name: str) -> str:
    return name.removeprefix("network.")
