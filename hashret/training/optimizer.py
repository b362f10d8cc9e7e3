"""What a training run descends by: AdamW under a cosine schedule with a warm start, and where classifiers begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def make_optimizer(
    module: nn.Module, rates: Mapping[nn.Module, float], lr: float, weight_decay: float, steps: int, warm: int
) -> tuple[AdamW, LambdaLR]:
    """Return the optimizer of a module and the schedule of its learning rates.

    Args:
        module: what is trained.
        rates: learning rates of parts of the module, or of more than it, that have one of their own.
        lr: learning rate of all other parts.
        weight_decay: of AdamW.
        steps: how many there will be.
        warm: steps over which the rates rise from zero.
    """
    optimizer = AdamW(_groups(module, rates), lr=lr, weight_decay=weight_decay, fused=True)
    return optimizer, LambdaLR(optimizer, _warm_cosine(steps, warm))


def _groups(module: nn.Module, rates: Mapping[nn.Module, float]) -> list[dict[str, Any]]:
    """Return the parameters of a module for the optimizer: first those without a learning rate of their own, then
    those of each part of the module that has one.
    """
    trained = {id(parameter) for parameter in module.parameters()}
    parts = [([p for p in part.parameters() if id(p) in trained], rate) for part, rate in rates.items()]
    of_parts = {id(parameter) for parameters, _ in parts for parameter in parameters}
    groups: list[dict[str, Any]] = [{"params": [p for p in module.parameters() if id(p) not in of_parts]}]
    return groups + [{"params": parameters, "lr": rate} for parameters, rate in parts if parameters]


def _warm_cosine(steps: int, warm: int) -> Callable[[int], float]:
    """Return the learning-rate factor by step: a linear rise over ``warm`` steps, then half a cosine down to zero."""

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor


def begin_at_frequencies(classifier: nn.Linear, labels: Tensor) -> None:
    """Let the scores begin at the frequency of each label (n, classes). Lin et al., "Focal loss", ICCV 2017, 3.3.

    Frequencies far from one half would otherwise be learned first, by making every bit constant, and a saturated bit
    does not come back.
    """
    frequency = labels.float().mean(dim=0).clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        classifier.bias.copy_(torch.logit(frequency))
