"""The whole network: the convolutions of a backbone, and a head that hashes their features.

Source: paper, section 1 and figures 1 and 2.
"""

from __future__ import annotations

from torch import nn

from .backbones import STRIDE, check_image_size, normalize
from .heads import make_head
from .vgg import vgg_features


class HashNet(nn.Module):
    """Convolutions and a head: uint8 images (n, 3, s, s) -> `HeadOutput`.

    AM-VGGH with the head's defaults, VGGH with ``attention=False``; ``head`` names the kind (see `make_head`) and
    further arguments are the head's own.
    """

    def __init__(self, bits, classes, image_size=224, arch="vgg16", head="fc", **options):
        super().__init__()
        check_image_size(image_size)
        self.features = vgg_features(arch)
        self.head = make_head(head, bits, classes, image_size // STRIDE, **options)

    def forward(self, images):
        return self.head(self.features(normalize(images)))
