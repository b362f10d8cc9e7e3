"""Heads: what turns a feature map into hash-layer logits, and those into class scores.

"fc" is the paper's: optional CBAM, two fully connected layers, a hash layer, a classifier (figure 1). "sliced" gives
each bit its own slice of the last features (DNNH). "perceptron" reads pooled features, of the methods without labels.
"projection" and "kernel" are those of the shallow methods; their parameters are fitted, not trained by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..bits import check_bits
from ..errors import HashretError
from ..renamed import old_attributes
from .attention import CBAM
from .metadata import HEADS

POOLED = 1280  # channels of the convolution before the mean over the cells, as of EfficientNet's last layer
HeadType = TypeVar("HeadType", bound="type[Head]")


@old_attributes
class HeadOutput(NamedTuple):
    """What a head gives for a batch.

    Attributes:
        logits: the hash layer before its sigmoid, (n, bits); a bit is 1 from 0 on.
        scores: class scores (n, classes), those for several lengths of code one behind the other, see `prefix`; None
            where the head has no classifier.
        fc_features: what the hash layer reads, (n, width); None where no fully connected layers come before it.
    """

    logits: Tensor
    scores: Tensor | None
    fc_features: Tensor | None = None

    @property
    def hash_outputs(self) -> Tensor:
        """The outputs of the hash layer, (n, bits) in (0, 1)."""
        return torch.sigmoid(self.logits)

    def prefix(self, lengths: Sequence[int], number: int) -> HeadOutput:
        """Return the output for codes of the length ``lengths[number]``, of an output of the longest.

        The scores of a head with classifiers for several lengths are those of all, one after the other.
        """
        scores = None if self.scores is None else self.scores.chunk(len(lengths), dim=1)[number]
        return HeadOutput(self.logits[:, : lengths[number]], scores, self.fc_features)


class Head(nn.Module):
    """Base of all heads: feature maps (n, channels, side, side) -> `HeadOutput`, by ``attention``, then `read`.

    A subclass is made by ``Head(bits, classes, channels, side, **options)``.

    Attributes:
        kind: name of the head, which methods and checkpoints refer to.
        options: names of what the constructor takes beside the four sizes.
        openvino: whether OpenVINO can run such a head.
        attention: layers that leave the shape of the feature map as it is.
        fc_width: length of `HeadOutput.fc_features`; None where there are none.
        config: the kind and options of this head, from which `make_head` makes another like it.
    """

    kind: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    openvino: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention: nn.Module = nn.Identity()
        self.fc_width: int | None = None
        self.config: dict[str, Any] = {"kind": self.kind, **options}

    def forward(self, feature_map: Tensor) -> HeadOutput:
        return self.read(self.attention(feature_map))

    def classifiers(self) -> list[nn.Linear]:
        """Return the layers that give class scores."""
        return []

    def read(self, attended: Tensor) -> HeadOutput:
        """Compute the output from the feature map (n, channels, side, side) that has passed the attention."""
        raise NotImplementedError


def register(head: HeadType) -> HeadType:
    """Make a subclass of `Head` known to `make_head` by its ``kind``; to be used as a decorator.

    Raises:
        ValueError: another head has that kind.
    """
    HEADS.add(head.kind, head)
    return head


def make_head(config: Mapping[str, Any], bits: int, classes: int, channels: int, side: int) -> Head:
    """Make a head.

    Args:
        config: its kind and options, as in `Head.config`.
        bits: length of the codes.
        classes: outputs of the classifier; 0 for none.
        channels, side: shape of the feature map.

    Raises:
        HashretError: no such kind of head, or impossible bits.
    """
    options = dict(config)
    kind = options.pop("kind")
    if kind not in HEADS:
        raise HashretError(f"no head {kind!r}; there are {', '.join(HEADS)}")
    head: Callable[..., Head] = HEADS[kind]
    return head(check_bits(bits), classes, channels, side, **options)


def head_config(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kind of a head and, of some options, those that such a head takes."""
    return {"kind": kind} | {name: options[name] for name in HEADS[kind].options if name in options}


class Standardize(nn.Module):
    """Takes the mean of what is learned from off each channel, and makes the spread of all together one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(()))

    def set(self, x: Tensor) -> None:
        """Take mean and spread from what is learned from, (n, channels)."""
        self.mean = x.mean(dim=0)
        self.scale = 1 / (x - self.mean).std(correction=0).clamp(min=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        standard: Tensor = (x - self.mean[:, None, None]) * self.scale
        return standard


class HashHead(Head):
    """The paper's head: CBAM, two fully connected layers, hash layer, classifier.

    Flattened, a map that is wider than VGG16's would make most of the network's weights. Of such a map the first fully
    connected layer becomes one over the channels of each cell, a 1 x 1 convolution, of which the mean over the cells is
    taken.

    Args:
        bits: nodes of the hash layer.
        classes: outputs of the classifier, which reads the hash outputs; 0 for none.
        channels, side: shape of the feature map.
        width: nodes of each of the two fully connected layers.
        attention: CBAM before flattening (AM-VGGH) or none (VGGH).
        gate: how CBAM's gates begin, see `CBAM`.
        dropout: after each fully connected layer, as VGG16 has it.
        centred: whether the fully connected layers read what `Standardize` makes of a map without attention.
        pooled: channels of the convolution whose mean over the cells stands for the map; 0 flattens the map.
        lengths: lengths of code, the longest last, where each has a classifier of its own, of its first bits.
        straight_through: whether the classifier reads the bits, with the gradient that half of the logits have, and not
            the hash outputs. Source: Su et al., "Greedy hash", NeurIPS 2018.
    """

    kind = "fc"
    openvino = True
    options: ClassVar[tuple[str, ...]] = (
        "width", "attention", "gate", "dropout", "centred", "pooled", "straight_through", "lengths",
    )  # fmt: skip

    def __init__(
        self,
        bits: int,
        classes: int,
        channels: int,
        side: int,
        width: int = 4096,
        attention: bool = True,
        gate: str = "unit",
        dropout: float = 0.5,
        centred: bool = False,
        pooled: int = 0,
        straight_through: bool = False,
        lengths: Sequence[int] = (),
    ) -> None:
        super().__init__(
            width=width, attention=attention, gate=gate, dropout=dropout, centred=centred, pooled=pooled,
            straight_through=straight_through, lengths=list(lengths),
        )  # fmt: skip
        self.fc_width, self.straight_through = width, straight_through
        if attention:
            self.attention = CBAM(channels, gate=gate)
        elif centred:
            self.attention = Standardize(channels)
        first: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * side * side, width), nn.ReLU(inplace=True)]
        if pooled:
            first = [nn.Conv2d(channels, pooled, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.fc = nn.Sequential(
            *first,
            nn.Dropout(dropout),
            nn.Linear(pooled or width, width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.hash = self.hash_layer(width, bits)
        self.classifier = nn.Linear(bits, classes) if classes else None
        self.shorter = nn.ModuleList(nn.Linear(length, classes) for length in lengths[:-1] if classes)

    def start_at(self, weight: Tensor, bias: Tensor) -> None:
        """Start the convolution of a pooled head from a trained one.

        Args:
            weight: of shape (pooled, channels, 1, 1).
            bias: of shape (pooled,).
        """
        convolution = self.fc[0]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        with torch.no_grad():
            convolution.weight.copy_(weight)
            convolution.bias.copy_(bias)

    def hash_layer(self, width: int, bits: int) -> nn.Module:
        """Return the layer from the fully connected features to the logits: (n, width) -> (n, bits)."""
        return nn.Linear(width, bits)

    def read(self, attended: Tensor) -> HeadOutput:
        return self.hashed(self.fc(attended))

    def hashed(self, inner: Tensor) -> HeadOutput:
        """Compute the output from what the fully connected layers give, (n, width)."""
        with torch.autocast(inner.device.type, enabled=False):  # few numbers, whose last digits order the re-rank
            inner = inner.float()
            logits = self.hash(inner)
            read = self.classified(logits)
            scores = [classifier(read[:, : classifier.in_features]) for classifier in self.classifiers()]
            return HeadOutput(logits, torch.cat(scores, dim=1) if scores else None, inner)

    def classifiers(self) -> list[nn.Linear]:
        return [*self.shorter, self.classifier] if self.classifier else []

    def classified(self, logits: Tensor) -> Tensor:
        """Return what the classifier reads, (n, bits)."""
        if not self.straight_through:
            return torch.sigmoid(logits)
        return logits / 2 + ((logits >= 0).to(logits.dtype) - logits / 2).detach()


class SlicedHead(HashHead):
    """`HashHead` with DNNH's divide-and-encode module for a hash layer: ``slice_width`` features for each bit.

    Source: Lai et al., "Simultaneous feature learning and hash coding with deep neural networks", CVPR 2015, 3.2.
    """

    kind = "sliced"
    options = (*HashHead.options, "slice_width")

    def __init__(
        self, bits: int, classes: int, channels: int, side: int, slice_width: int = 50, **options: Any
    ) -> None:
        self.slice_width = slice_width
        super().__init__(bits, classes, channels, side, **options)
        self.config["slice_width"] = slice_width

    def hash_layer(self, width: int, bits: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, bits * self.slice_width), DivideAndEncode(bits, self.slice_width))


class DivideAndEncode(nn.Module):
    """Each bit from its own slice alone: (n, bits * slice_width) -> (n, bits)."""

    def __init__(self, bits: int, slice_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(bits, slice_width))
        self.bias = nn.Parameter(torch.zeros(bits))
        nn.init.uniform_(self.weight, -(slice_width**-0.5), slice_width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        slices = x.unflatten(1, self.weight.shape)
        return torch.sum(slices * self.weight, dim=2) + self.bias


class ShallowHead(Head):
    """Base of the heads that hash the `descriptor` of a feature map.

    Args:
        unit: whether it is of unit length.
    """

    options: ClassVar[tuple[str, ...]] = ("unit",)
    openvino = True

    def __init__(self, unit: bool = True, **options: Any) -> None:
        super().__init__(**options if unit else {"unit": False, **options})
        self.unit = unit

    def descriptor(self, feature_map: Tensor) -> Tensor:
        """Return what is hashed: (n, c, h, w) -> (n, c)."""
        return descriptor(feature_map) if self.unit else feature_map.float().mean(dim=(2, 3))


class ProjectionHead(ShallowHead):
    """Linear bits of the `descriptor`: logits = (descriptor - mean) @ weight, both set by a method's ``fit``.

    The descriptors are kept as features where these are asked for.
    """

    kind = "projection"

    def __init__(self, bits: int, classes: int, channels: int, side: int, unit: bool = True) -> None:
        super().__init__(unit)
        self.fc_width = channels
        self.mean = nn.Parameter(torch.zeros(channels))
        self.weight = nn.Parameter(torch.zeros(channels, bits))

    def read(self, attended: Tensor) -> HeadOutput:
        x = self.descriptor(attended)
        return HeadOutput((x - self.mean) @ self.weight, None, x)


class KernelHead(ShallowHead):
    """Bits of RBF kernels on anchors: logits = (exp(-|x - anchor|^2 / (2 sigma)) - mean) @ weight, x the `descriptor`.

    Source: Liu et al., "Supervised hashing with kernels", CVPR 2012, formula (2).
    """

    kind = "kernel"
    options = ("anchors", *ShallowHead.options)

    def __init__(self, bits: int, classes: int, channels: int, side: int, anchors: int = 1, unit: bool = True) -> None:
        super().__init__(unit)
        self.bits = bits
        self.set(torch.zeros(anchors, channels), torch.ones(()))

    def set(self, anchors: Tensor, sigma: Tensor) -> None:
        """Take other anchors (m, channels) and kernel width; mean and weights begin at zero."""
        self.config["anchors"] = len(anchors)
        self.anchors, self.sigma = nn.Parameter(anchors), nn.Parameter(sigma)
        self.mean = nn.Parameter(anchors.new_zeros(len(anchors)))
        self.weight = nn.Parameter(anchors.new_zeros(len(anchors), self.bits))

    def squared_distances(self, x: Tensor) -> Tensor:
        """Return the squared Euclidean distances of descriptors from the anchors: (n, channels) -> (n, anchors).

        They are products, which cancel out where all descriptors lie far from the origin, so that of any length are
        centred first.
        """
        if self.unit:
            return torch.cdist(x, self.anchors).square()
        centre = self.anchors.mean(dim=0)
        return torch.cdist(x - centre, self.anchors - centre).square()

    def kernel(self, x: Tensor) -> Tensor:
        """Return the centred kernel of descriptors with the anchors: (n, channels) -> (n, anchors)."""
        squared = self.squared_distances(x)
        return torch.exp(-squared / (2 * self.sigma)) - self.mean

    def read(self, attended: Tensor) -> HeadOutput:
        return HeadOutput(self.kernel(self.descriptor(attended)) @ self.weight, None)


class PerceptronHead(ShallowHead):
    """Bits of the `descriptor` by a hidden layer and a hash layer, or by the latter alone.

    Args:
        bits: nodes of the hash layer.
        classes: there is no classifier.
        channels, side: shape of the feature map, of which the mean over the cells is read.
        hidden: nodes of the hidden layer; 0 for none.
        centred: whether what `Standardize` makes of the feature map is read.
        unit: whether the descriptor is of unit length. It is then scaled so that its numbers are about 1 large.
    """

    kind = "perceptron"
    options = ("hidden", "centred", *ShallowHead.options)

    def __init__(
        self,
        bits: int,
        classes: int,
        channels: int,
        side: int,
        hidden: int = 1024,
        centred: bool = False,
        unit: bool = True,
    ) -> None:
        super().__init__(unit, hidden=hidden, centred=centred)
        self.fc_width = hidden or channels
        self.scale = channels**0.5 if unit else 1.0
        if centred:
            self.attention = Standardize(channels)
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True))
        self.hash = nn.Linear(self.fc_width, bits)

    def read(self, attended: Tensor) -> HeadOutput:
        with torch.autocast(attended.device.type, enabled=False):  # as in `HashHead`
            inner = self.hidden(self.scale * self.descriptor(attended))
            return HeadOutput(self.hash(inner), None, inner)


class PrefixHead(Head):
    """The first bits of another head, which was trained for codes of that length, too."""

    kind = "prefix"

    def __init__(self, head: Head, bits: int) -> None:
        super().__init__()
        self.head, self.bits = head, bits
        self.attention, self.fc_width = head.attention, head.fc_width

    def classifiers(self) -> list[nn.Linear]:
        return [classifier for classifier in self.head.classifiers() if classifier.in_features == self.bits]

    def read(self, attended: Tensor) -> HeadOutput:
        output = self.head.read(attended)
        return HeadOutput(output.logits[:, : self.bits], None, output.fc_features)


def trained_head(head: Head) -> Head:
    """Return the head that was trained, with all of its bits: a `PrefixHead` gives only the first of them."""
    return head.head if isinstance(head, PrefixHead) else head


def descriptor(feature_map: Tensor) -> Tensor:
    """Return what the shallow methods hash: the mean over all cells, of unit length. (n, c, h, w) -> (n, c).

    Source: SPoC, Babenko & Lempitsky, "Aggregating deep convolutional features for image retrieval", ICCV 2015.
    """
    return nn.functional.normalize(feature_map.float().mean(dim=(2, 3)), dim=1)
