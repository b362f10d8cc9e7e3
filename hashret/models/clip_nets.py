"""Networks of open_clip as backbones, ``clip:NAME`` or ``clip:NAME/WEIGHTS``: images and texts in one space.

The feature map of an image is one cell, its embedding, since that is what a text's embedding can be compared with; what
hashes the one then hashes the other. The text tower is a part of the layers, so checkpoints bring it along. Extra
``[clip]``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HashretError
from .backbone import Backbone

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP
_RESIZES = {"squash": "squeeze", "longest": "pad"}  # open_clip's names, and hashret's; else the middle is cropped


def describe(spec: str) -> Backbone:
    """Return the backbone ``clip:NAME/WEIGHTS``, as open_clip's own configuration describes it.

    Without WEIGHTS, the pretrained ones are the first in open_clip's list that were trained with the activation which
    the configuration of NAME has, or else the first of all, whose activation is then taken.

    Raises:
        HashretError: open_clip is not installed, or has no such network or weights.
    """
    name, _, tag = spec.removeprefix("clip:").partition("/")
    try:
        import open_clip
    except ImportError:
        raise HashretError(f"{spec} needs the package open_clip_torch", hint="pip install 'hashret[clip]'") from None
    if name not in open_clip.list_models():  # so that "hf-hub:…" and "local-dir:…" fetch and read nothing
        raise HashretError(f"open_clip has no network {name}", hint="open_clip.list_models() lists those it has")
    config: Any = open_clip.get_model_config(name)
    known = {one: open_clip.get_pretrained_cfg(name, one) for one in open_clip.list_pretrained_tags_by_model(name)}
    if tag and tag not in known:
        raise HashretError(f"open_clip has no weights {tag} of {name}; there are {', '.join(known) or 'none'}")
    quick = bool(config.get("quick_gelu"))
    fitting = [one for one, about in known.items() if bool(about.get("quick_gelu")) == quick]
    tag = tag or next(iter([*fitting, *known]), "")
    about, size = known.get(tag, {}), config["vision_cfg"].get("image_size", 224)
    return Backbone(
        spec, partial(_build, name, bool(about.get("quick_gelu", quick))), int(config["embed_dim"]), size,
        tuple(about.get("mean", _MEAN)), tuple(about.get("std", _STD)),
        pretrained=partial(_weights, name, tag) if tag else None, image_size=size, one_size=True,
        resize=_RESIZES.get(about.get("resize_mode"), "crop"), pooled=False, library_name=_without_wrapper, unused=(),
        initialised=True, extra="clip",
    )  # fmt: skip


class ClipTowers(nn.Module):
    """A network of open_clip: images (n, 3, s, s) -> embeddings (n, width, 1, 1); and `embed_texts`.

    The text tower is never trained, as the loss of a hashing method sees no texts.
    """

    def __init__(self, network: Any, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name
        self._tokenizer: Any = None
        for where, parameter in network.named_parameters():
            parameter.requires_grad_(where.startswith("visual."))

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.network.encode_image(images)
        return embeddings[:, :, None, None]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the embeddings of texts, float32 (n, width, 1, 1), of which what is too long is cut.

        Raises:
            HashretError: the tokenizer of this network cannot be had.
        """
        if self._tokenizer is None:
            import open_clip

            try:
                with _silent():
                    self._tokenizer = open_clip.get_tokenizer(self.name)
            except Exception as error:  # some are downloaded
                reason = " ".join(str(error).split())
                raise HashretError(f"the tokenizer of clip:{self.name} cannot be had: {reason}") from None
        device = next(self.network.parameters()).device
        embeddings: Tensor = self.network.encode_text(self._tokenizer(list(texts)).to(device))
        return embeddings.float()[:, :, None, None]


def _build(name: str, quick_gelu: bool) -> nn.Module:
    import open_clip

    with torch.device("cpu"), _silent():  # in a checkpoint, too, as of networks of timm
        try:
            network = open_clip.create_model(
                name, load_weights=False, force_quick_gelu=quick_gelu, pretrained_text=False
            )
        except Exception as error:
            raise HashretError(f"open_clip cannot make {name}: {str(error).splitlines()[0]}") from None
    return ClipTowers(network, name)


def _weights(name: str, tag: str) -> dict[str, Tensor]:
    import open_clip

    about: Any = open_clip.get_pretrained_cfg(name, tag)
    try:
        with _silent():
            network = open_clip.create_model(name, pretrained=tag, force_quick_gelu=bool(about.get("quick_gelu")))
    except (OSError, RuntimeError) as error:
        raise OSError(0, " ".join(str(error).split()), _address(about)) from None
    return dict(network.state_dict())


def _address(about: Any) -> str:
    """Return where open_clip fetches weights."""
    repository, _, file = str(about.get("hf_hub", "")).rpartition("/")
    if not repository:
        return str(about.get("url"))
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(repository, file or "open_clip_model.safetensors"))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what open_clip logs from the terminal: without a handler, Python's root logger would give itself one."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _without_wrapper(name: str) -> str:
    return name.removeprefix("network.")
