"""The whole network: a backbone, and a head that hashes its feature map.

Source: paper, section 1 and figures 1 and 2.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import HashretError
from .backbones import get_backbone
from .heads import HeadOutput, make_head


class HashNet(nn.Module):
    """A backbone and a head: uint8 images (n, 3, s, s) -> `HeadOutput`.

    The defaults are AM-VGGH, and VGGH with ``attention=False``.

    Its state dict has the names that checkpoints have had from the start, in which the backbone is ``features``.

    Args:
        bits: length of the codes.
        classes: classes that the head's classifier tells apart; 0 for no classifier.
        image_size: pixels a side of the images.
        arch: name of the backbone.
        head: kind of head, see `hashret.models.heads.make_head`.
        options: further arguments of the head.

    Raises:
        HashretError: impossible bits, no such backbone or head, an image size that the backbone cannot take.
    """

    def __init__(
        self, bits: int, classes: int, image_size: int = 224, arch: str = "vgg16", head: str = "fc", **options: Any
    ) -> None:
        super().__init__()
        self.architecture = get_backbone(arch)
        side = self.architecture.side(image_size)
        self.backbone = self.architecture.build()
        self.head = make_head({"kind": head, **options}, bits, classes, self.architecture.channels, side)
        self.register_state_dict_post_hook(_to_stored_names)
        self.register_load_state_dict_pre_hook(_from_stored_names)

    def divided(self, trained_stages: int | None) -> tuple[nn.Module | None, nn.Module]:
        """Split the network into the layers that are frozen, None for none, and the module that is trained.

        Args:
            trained_stages: the last stages of the backbone that are trained with the head; None for all of the network.

        Raises:
            HashretError: the backbone has no more stages than those.
        """
        if trained_stages is None:
            return None, self
        if trained_stages == 0:
            return self.backbone, self.head
        stages = self.architecture.stages(self.backbone)
        if trained_stages >= len(stages):
            count = "one stage" if len(stages) == 1 else f"{len(stages)} stages"
            raise HashretError(f"{self.architecture.name} has {count}", hint="train all of it with --finetune all")
        return nn.Sequential(*stages[:-trained_stages]), nn.Sequential(*stages[-trained_stages:], self.head)

    def forward(self, images: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(self.backbone(self.architecture.normalize(images)))
        return output


def _to_stored_names(net: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    _rename(state, f"{prefix}backbone.", f"{prefix}features.")


def _from_stored_names(net: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    _rename(state, f"{prefix}features.", f"{prefix}backbone.")


def _rename(state: dict[str, Tensor], old: str, new: str) -> None:
    """Replace a prefix of the names of a state dict, in place."""
    for name in [name for name in state if name.startswith(old)]:
        state[new + name.removeprefix(old)] = state.pop(name)
