"""What may be chosen of a training, and what cannot go together: `hashret.training.start.train` asks here first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..bits import check_bits
from ..distributed import world
from ..errors import HashretError, warn
from ..files import StrPath
from ..methods.method import Method
from ..models.backbone import GATES
from ..models.heads import HashHead
from ..models.metadata import HEADS
from .feed import AUGMENTS


def lengths_of_code(bits: int | Sequence[int]) -> tuple[int, ...]:
    """Return the lengths of code that are asked for, the longest last."""
    bits = np.atleast_1d(bits).tolist() if isinstance(bits, np.ndarray) else bits
    several = list(bits) if isinstance(bits, Iterable) and not isinstance(bits, str) else [bits]
    lengths = tuple(sorted({check_bits(length) for length in several}))
    if not lengths:
        raise HashretError("no length of code is named")
    return lengths


class _Range(NamedTuple):
    """The values that a setting takes: ``low`` or more, or ``above`` it, and below ``high``; whole numbers or any."""

    words: str
    low: int
    high: float = math.inf
    whole: bool = False
    above: bool = False

    def check(self, value: object) -> None:
        """Raise HashretError for a value that is no such number; NaN and infinity are none."""
        numbers = (int, np.integer) if self.whole else (int, float, np.integer, np.floating)
        if not isinstance(value, numbers) or not self.low <= value < self.high or (self.above and value == self.low):
            wanted = f"{'a whole number, ' if self.whole else ''}{'above' if self.above else 'at least'} {self.low}"
            wanted += f" and below {self.high}" if self.high < math.inf else ""
            raise HashretError(f"the {self.words} must be {wanted}, not {value}")


_RANGES = {
    "image_size": _Range("image size", 1, whole=True),
    "width": _Range("width", 1, whole=True),
    "dropout": _Range("dropout", 0, 1),
    "epochs": _Range("number of epochs", 1, whole=True),
    "batch_size": _Range("batch size", 2, whole=True),
    "lr": _Range("learning rate", 0, above=True),
    "backbone_lr": _Range("backbone's learning rate", 0, above=True),
    "weight_decay": _Range("weight decay", 0),
    "views": _Range("number of views", 0, whole=True),
    "heldout": _Range("held-out share", 0, 1),
    "seed": _Range("seed", 0, 2**53, whole=True),  # which JSON and all generators of numbers take
    "workers": _Range("number of decoding processes", 0, whole=True),
}


def check_values(*, augment: str | None, gate: str, **numbers: float | None) -> None:
    """Raise HashretError for a setting whose value cannot be, whatever the others are.

    Args:
        augment, gate: the words that were chosen.
        numbers: the numbers that were chosen, by the name of the setting, see `_RANGES`; None where none was.
    """
    check_choice("augment", augment or "none", AUGMENTS)
    check_choice("gate", gate, GATES)
    for name, value in numbers.items():
        if value is not None:
            _RANGES[name].check(value)
    batch_size = numbers["batch_size"]
    if batch_size is not None and batch_size < world():
        raise HashretError(
            f"a batch of {batch_size} cannot be shared by {world()} processes", hint="raise --batch-size"
        )


def check_combination(
    method: type[Method],
    on_vectors: bool,
    trained_stages: int | None,
    *,
    weights: StrPath,
    views: int,
    augment: str | None,
    backbone_lr: float | None,
    dither: bool,
    heldout: float,
) -> None:
    """Raise HashretError for settings that can do nothing beside the others, and name the option to leave out."""
    pooled_alone = method.fitted or method.views  # what reads nothing but pooled features
    if pooled_alone and trained_stages != 0:
        raise HashretError(f"{method.name} learns from the features of frozen layers", hint="leave --finetune out")
    if views and (on_vectors or pooled_alone):
        reason = "vectors have no" if on_vectors else f"{method.name} takes no cached"
        raise HashretError(f"{reason} views to choose", hint="leave --views out")
    if backbone_lr is not None and trained_stages == 0:
        hint = "leave --backbone-lr out" + ("" if pooled_alone else ", or add --finetune last:N or all")
        raise HashretError("a backbone that is frozen has no learning rate", hint=hint)
    if augment not in (None, "none") and trained_stages is not None and not views:
        hint = "leave --augment out" + ("" if pooled_alone else ", or add --views N")
        raise HashretError("frozen layers read photographs without that augmentation", hint=hint)
    if views and augment == "none":
        raise HashretError("views that are not augmented are all the same", hint="take another --augment")
    if views and trained_stages is None:
        raise HashretError("where all layers train, every photograph is augmented anew", hint="leave --views out")
    if dither and not issubclass(HEADS[method.head], HashHead):
        raise HashretError(f"{method.name} has no thresholds to spread", hint="leave --dither out")
    if dither and not heldout:
        raise HashretError(
            "held-out images say how far thresholds are spread",
            hint="name a share with --heldout, or leave --dither out",
        )
    if on_vectors and method.views:
        raise HashretError(
            f"{method.name} learns from views of photographs, and vectors have none", hint="take bihalf or itq"
        )
    if weights == "none" and trained_stages is not None and not on_vectors:
        hint = "name --weights" if pooled_alone else "add --finetune all"
        raise HashretError("a backbone without weights has nothing to freeze", hint=hint)


def stages_trained(finetune: str) -> int | None:
    """Return how many of the backbone's last stages train, None for all of it."""
    match = re.fullmatch(r"head|all|last:([1-9]\d{0,5})", finetune)
    if not match:
        raise HashretError(f"finetune must be head, last:N or all, not {finetune}")
    return None if finetune == "all" else int(match[1] or 0)


def options_from_flags(method: type[Method], flags: Mapping[str, float | None]) -> dict[str, float | str]:
    """Return those of the keywords for options that are given, and warn of those that the method does not have."""
    known = {option.name for option in method.options}
    given: dict[str, float | str] = {name: value for name, value in flags.items() if value is not None}
    for name in given.keys() - known:
        if given[name]:
            warn(f"the method {method.name} has no option {name}, which is left out")
    return {name: value for name, value in given.items() if name in known}


def warn_of_unused(method: type[Method], on_vectors: bool, given: Sequence[str]) -> None:
    """Warn of those of some settings that are given that the method has no use for."""
    used = {"width", "dropout"} & set(HEADS[method.head].options)
    if method.attention and not on_vectors:
        used.add("gate")
    if not method.fitted:
        used |= {"epochs", "lr", "batch_size", "weight_decay"}
    unused = [name for name in given if name not in used]
    if unused:
        of = " over vectors" if on_vectors else ""
        left_out = "which is left out" if len(unused) == 1 else "which are left out"
        warn(f"the method {method.name}{of} has no use for {', '.join(unused)}, {left_out}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise HashretError(f"{name} must be {' or '.join(choices)}, not {value}")
