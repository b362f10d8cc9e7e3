"""Small input for the losses of methods, and what a plain reference needs."""

import numpy as np
import torch

from hashret.methods import get_method
from hashret.models.heads import HeadOutput

SINGLE = np.array([0, 0, 1, 2, 1, 0])
SEVERAL = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]])


def make(name, **options):
    """A method of 4 bits, whose options are 0 but for those given."""
    cls = get_method(name)
    return cls(4, 0, {option.name: options.get(option.name, 0) for option in cls.options})


def output(seed=0, n=6, bits=4, classes=3):
    """A head's output in float64, with gradients."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, bits, generator=random, dtype=torch.float64).requires_grad_()
    return HeadOutput(logits, torch.randn(n, classes, generator=random, dtype=torch.float64))


def shares_label(a, b):
    return a == b if np.ndim(a) == 0 else bool((a & b).any())


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_of(name, labels, out=None, **changes):
    method = make(name, **changes)
    rows = np.arange(len(labels))
    method.begin(labels, rows)
    return method, method.loss(out or output(), torch.as_tensor(labels), rows)
