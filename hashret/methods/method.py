"""What a hashing method adds to the shared network and training loop, and the options that it declares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..bits import Labels, Positions
from ..errors import HashretError
from ..models.heads import Head, HeadOutput

Words = npt.NDArray[np.int64]  # codes (classes, bits) of +1 and -1


@dataclass(frozen=True)
class Option:
    """A number that a method takes from its user, as ``--option NAME=VALUE``.

    Attributes:
        name: the name of the option.
        default: its value where the user gives none.
        help: what it does, in a few words.
        low, high: the least and the largest value allowed.
        several_labels: another default, for photographs with several labels each.
    """

    name: str
    default: float
    help: str
    low: float = 0.0
    high: float = math.inf
    several_labels: float | None = None

    def checked(self, value: float | str) -> float:
        """Return a value as a number.

        Raises:
            HashretError: it is no number, or out of range.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (self.low <= number <= self.high and math.isfinite(number)):
            above = "" if self.high == math.inf else f" to {self.high:g}"
            raise HashretError(f"the option {self.name} must be a number from {self.low:g}{above}, not {value}")
        return number


class Method:
    """Base of all methods; a subclass says only where it differs.

    A trained method gives a `loss`, and may prepare with `begin`. A fitted one (``fitted = True``) gives `fit`
    instead, which sets a shallow head's parameters once.

    Attributes:
        name: as ``--method`` takes it.
        paper: what it reproduces.
        backbone: the default one: VGG16 for the paper's methods, as there.
        head: kind of head, see `hashret.models.heads.make_head`.
        attention: whether the head has CBAM.
        head_options: further options of the head.
        classifier: whether the loss reads class scores.
        reads_fc_features: whether the loss reads `HeadOutput.fc_features`, which are else None there: several processes
            would tell each other thousands of numbers of each photograph.
        needs_labels: whether it learns from labels.
        fitted: whether it is fitted, not trained by gradient.
        views: augmented views of each photograph that are prepared. Of these a batch has two of each photograph, the
            one in its first half and the other in the second, as feature maps of one cell.
        options: the numbers that its user may set.
        defaults: training settings whose default differs from that of `hashret.train`.
        bits: length of the codes.
        seed: decides what is random in the method.
        chosen: value of each option in this run.
        classes: of the source that is learned from, whether or not a photograph has them; 0 where that is not known.
        shorter: the same method for shorter codes, the first bits of its own, that are trained with it, ascending.
        before: the method for the next shorter codes that are trained with it, which begins before it; None for the
            shortest.
        together: the lengths of all codes that are trained together, ascending, of which ``bits`` is one.
        progress: fraction of the epochs before this one, for what changes as training goes on.
        state: tensors that a run must keep to go on after a kill.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    backbone: ClassVar[str] = "efficientnet_lite0"
    head: ClassVar[str] = "fc"
    attention: ClassVar[bool] = False
    head_options: ClassVar[dict[str, Any]] = {}
    classifier: ClassVar[bool] = False
    reads_fc_features: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    fitted: ClassVar[bool] = False
    views: ClassVar[int] = 0
    options: ClassVar[tuple[Option, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, bits: int, seed: int = 0, options: Mapping[str, float] | None = None) -> None:
        self.bits, self.seed = bits, seed
        self.chosen = {option.name: option.default for option in self.options} | dict(options or {})
        self.classes = 0
        self.shorter: list[Method] = []
        self.before: Method | None = None
        self.together: tuple[int, ...] = (bits,)
        self.progress = 0.0
        self.state: dict[str, Tensor] = {}

    @classmethod
    def defaults_for(cls, bits: int, several_labels: bool) -> dict[str, Any]:
        """Return the defaults, of options or training settings, for codes of ``bits`` bits.

        Args:
            bits: length of the codes.
            several_labels: whether photographs have several labels each.
        """
        return cls.defaults

    @classmethod
    def choose(cls, given: Mapping[str, float | str], bits: int, several_labels: bool) -> dict[str, float]:
        """Return the value of each option: the given one, else the default for such codes and labels.

        Raises:
            HashretError: an option that the method does not have, or a value that it does not take.
        """
        known = {option.name: option for option in cls.options}
        for name in given:
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "it has none"
                raise HashretError(f"the method {cls.name} has no option {name}; {there}")
        chosen = {name: option.default for name, option in known.items()}
        if several_labels:
            several = {name: option.several_labels for name, option in known.items()}
            chosen |= {name: value for name, value in several.items() if value is not None}
        chosen |= {name: value for name, value in cls.defaults_for(bits, several_labels).items() if name in known}
        return chosen | {name: known[name].checked(value) for name, value in given.items()}

    @classmethod
    def class_codewords(cls, classes: int, bits: int, seed: int) -> Words | None:
        """Return the codeword to which photographs of each class are drawn, (classes, bits) of +1 and -1.

        None where the method draws them to none. One that does keeps them in its state, as "codewords".
        """
        return None

    def train_with(self, shorter: Sequence[Method]) -> None:
        """Train the same method for ``shorter`` codes, ascending in length, with this one."""
        self.shorter = list(shorter)
        for before, method in zip([None, *self.shorter], self.family(), strict=True):
            method.before, method.together = before, tuple(self.lengths())

    def family(self) -> list[Method]:
        """Return the method for each length of code that is trained, ascending: the last is this one."""
        return [*self.shorter, self]

    def lengths(self) -> list[int]:
        """Return the lengths of code that are trained, ascending."""
        return [method.bits for method in self.family()]

    def nested_loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the mean of `loss` over the lengths of code, each of the first bits alone.

        Source: the nested hash layer of He et al., "A flexible plug-and-play module for generating variable-length",
        arXiv 2412.08922, with equal weights.
        """
        family, lengths = self.family(), self.lengths()
        losses = [
            method.loss(output.prefix(lengths, number), labels, source_rows) for number, method in enumerate(family)
        ]
        return sum(losses[1:], losses[0]) / len(losses)

    def count_classes(self, labels: Labels) -> int:
        """Return the number of classes of a source with ``labels``, which need not use them all."""
        return self.classes or (labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)

    def begin(self, labels: Labels, source_rows: Positions) -> None:
        """Prepare to train on some rows of a source with ``labels``, (n,) or (n, classes), (n, 0) for none."""

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            output: what the head gives, in float32.
            labels: (n,) int64, or (n, classes) of 0 and 1; (n, 0) where there are none.
            source_rows: rows (n,) of the batch's photographs in the source. Of a view it is the row plus the number of
                the view, from 1 on, times the length of the source.
        """
        raise NotImplementedError

    def fit(self, head: Head, x: Tensor, labels: Labels | None, seed: int) -> None:
        """Set the parameters of a shallow ``head`` from descriptors ``x`` (n, channels) float32 and their labels."""
        raise NotImplementedError
