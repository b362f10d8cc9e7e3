"""KSH: supervised hashing with kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..bits import Labels
from ..models.heads import Head, KernelHead
from .method import Method
from .similarity import Floats, Similarity

ANCHORS = 500
MAX_LABELLED = 10_000  # photographs that the projections are learned on
_DOUBLINGS = 50  # of the steepness, before a step is given up


class KSH(Method):
    """Bits are projections of RBF kernels on anchors.

    Each bit's projection starts at the spectral relaxation of what the bits before it leave of the similarity matrix,
    and follows the gradient of the objective with a sigmoid for the sign.
    """

    name = "ksh"
    backbone = "vgg16"
    paper = "Liu, Wang, Ji, Jiang & Chang, Supervised hashing with kernels, CVPR 2012"
    head = "kernel"
    fitted = True

    def fit(self, head: Head, x: Tensor, labels: Labels | None, seed: int) -> None:
        assert isinstance(head, KernelHead)
        assert labels is not None
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(x))
        anchors = x[np.sort(order[:ANCHORS])]
        head.set(anchors, sigma=torch.ones(()))
        head.set(anchors, sigma=head.squared_distances(x).mean())
        head.mean.copy_(head.kernel(x).mean(dim=0))
        rows = np.sort(order[:MAX_LABELLED])
        kernel = head.kernel(x[rows]).double().cpu().numpy()
        weight = projections(kernel, Similarity(labels[rows]), head.weight.shape[1])
        # The sign is KSH's code. Logits of unit spread keep hash outputs apart for the re-rank.
        head.weight.copy_(torch.from_numpy(weight / (kernel @ weight).std(axis=0).clip(min=1e-12)))


def projections(
    kernel: Floats, similarity: Similarity, bits: int, history: list[tuple[float, float]] | None = None
) -> Floats:
    """Return the projections A (anchors, bits) of centred kernels (n, anchors), bit by bit. Algorithm 1 there.

    Args:
        kernel: centred kernels of n photographs.
        similarity: of the same photographs.
        bits: length of the codes.
        history: a list that the relaxed objective of each bit is appended to, before and after its gradient steps.
    """
    n, m = kernel.shape
    # Generalised eigenproblem K'SK a = lambda K'K a through the Cholesky factor; a ridge where K'K is singular.
    gram = kernel.T @ kernel
    root = np.linalg.cholesky(gram + 1e-6 * np.trace(gram) / m * np.eye(m))
    whiten = np.linalg.inv(root)
    residual = whiten @ (bits * (kernel.T @ similarity.times(kernel))) @ whiten.T
    done = np.zeros((n, 0))
    weight = np.zeros((m, bits))

    def residual_times(y: Floats) -> Floats:
        """Return (bits S - sum of y y' of the bits before) @ y."""
        return bits * similarity.times(y) - done @ (done.T @ y)

    def agreement(a: Floats) -> float:
        """Return how well the signs of a projection agree with the residual."""
        code = _sign(kernel @ a)
        return float(code @ residual_times(code))

    for bit in range(bits):
        start = whiten.T @ np.linalg.eigh(residual)[1][:, -1]
        start *= np.sqrt(n / (start @ gram @ start))
        learned = descend(kernel, residual_times, start, history)
        weight[:, bit] = learned if agreement(learned) > agreement(start) else start
        y = _sign(kernel @ weight[:, bit])
        done = np.column_stack([done, y])
        pull = whiten @ (kernel.T @ y)
        residual -= np.outer(pull, pull)
    return weight


def descend(
    kernel: Floats,
    residual_times: Callable[[Floats], Floats],
    a: Floats,
    history: list[tuple[float, float]] | None = None,
    steps: int = 300,
    tolerance: float = 1e-3,
) -> Floats:
    """Return the best point of Nesterov's accelerated descent on -phi(Ka)' R phi(Ka), phi(x) = 2 / (1 + e^-x) - 1.

    Source: formulas (13)-(14) there.

    Args:
        kernel: centred kernels K (n, anchors).
        residual_times: x -> R @ x.
        a: where the descent starts, (anchors,).
        history: a list that the cost at the start and at the best point is appended to.
        steps: most steps.
        tolerance: change of the cost, for each photograph, at which the descent ends.
    """
    first = cost = _cost(kernel, residual_times, a)
    best_cost, best = cost, a
    before, now = a, a
    momentum, steepness = (0.0, 1.0), 1.0
    for _ in range(steps):
        probe = now + (momentum[0] - 1) / momentum[1] * (now - before)
        at_probe, gradient = cost_and_gradient(kernel, residual_times, probe)
        step = _step(kernel, residual_times, probe, at_probe, gradient, steepness)
        if step is None:
            break
        before = now
        now, new_cost, steepness = step
        momentum = momentum[1], (1 + np.sqrt(1 + 4 * momentum[1] ** 2)) / 2
        if new_cost < best_cost:
            best_cost, best = new_cost, now
        if abs(new_cost - cost) / len(kernel) <= tolerance:
            break
        cost = new_cost
    if history is not None:
        history.append((first, best_cost))
    return best


def _step(
    kernel: Floats,
    residual_times: Callable[[Floats], Floats],
    probe: Floats,
    cost: float,
    gradient: Floats,
    steepness: float,
) -> tuple[Floats, float, float] | None:
    """Double the steepness until a step of gradient / steepness lowers the cost enough.

    Returns:
        The point reached, its cost and the steepness; None where no step lowers the cost.
    """
    for _ in range(_DOUBLINGS):
        new = probe - gradient / steepness
        new_cost = _cost(kernel, residual_times, new)
        if new_cost <= cost - gradient @ gradient / (2 * steepness):
            return new, new_cost, steepness
        steepness *= 2
    return None


def _cost(kernel: Floats, residual_times: Callable[[Floats], Floats], a: Floats) -> float:
    y = np.tanh(kernel @ a / 2)
    return -float(y @ residual_times(y))


def cost_and_gradient(kernel: Floats, residual_times: Callable[[Floats], Floats], a: Floats) -> tuple[float, Floats]:
    """Return -phi(Ka)' R phi(Ka) and its gradient; ``residual_times`` is x -> R @ x. Formula (14) there."""
    y = np.tanh(kernel @ a / 2)
    pulled = residual_times(y)
    return -float(y @ pulled), -(kernel.T @ (pulled * (1 - y * y)))


def _sign(x: Floats) -> Floats:
    return np.where(x > 0, 1.0, -1.0)
