"""KSH: supervised hashing with kernels."""

from __future__ import annotations

import numpy as np
import torch

from .method import Method
from .similarity import Similarity

ANCHORS = 500
MAX_LABELLED = 10_000  # photographs that the projections are learned on


class KSH(Method):
    """RBF kernels on anchors; each bit's projection starts at the spectral relaxation of what the bits before it
    leave of the similarity matrix, and follows the gradient of the objective with a sigmoid for the sign."""

    name = "ksh"
    paper = "Liu, Wang, Ji, Jiang & Chang, Supervised hashing with kernels, CVPR 2012"
    head = "kernel"
    fitted = True

    def fit(self, head, x, labels, seed):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(x))
        anchors = x[np.sort(order[:ANCHORS])]
        head.set(anchors, sigma=torch.cdist(x, anchors).square().mean())
        head.mean.copy_(head.kernel(x).mean(dim=0))
        some = np.sort(order[:MAX_LABELLED])
        kernel = head.kernel(x[some]).double().cpu().numpy()
        weight = projections(kernel, Similarity(labels[some]), head.weight.shape[1])
        # The sign is KSH's code. Logits of unit spread keep sigmoid values apart for the re-rank.
        head.weight.copy_(torch.from_numpy(weight / (kernel @ weight).std(axis=0).clip(min=1e-12)))


def projections(kernel, similarity, bits, history=None):
    """Projections A (anchors, bits) of centred kernels (n, anchors), bit by bit. Algorithm 1 there.

    ``history``: a list that the relaxed objective of each bit is appended to, before and after its gradient steps.
    """
    n, m = kernel.shape
    # Generalised eigenproblem K'SK a = lambda K'K a through the Cholesky factor; a ridge where K'K is singular.
    gram = kernel.T @ kernel
    root = np.linalg.cholesky(gram + 1e-6 * np.trace(gram) / m * np.eye(m))
    whiten = np.linalg.inv(root)
    residual = whiten @ (bits * (kernel.T @ similarity.times(kernel))) @ whiten.T
    done = np.zeros((n, 0))
    weight = np.zeros((m, bits))

    def residual_times(y):
        """(bits S - sum of y y' of the bits before) @ y."""
        return bits * similarity.times(y) - done @ (done.T @ y)

    for bit in range(bits):
        start = whiten.T @ np.linalg.eigh(residual)[1][:, -1]
        start *= np.sqrt(n / (start @ gram @ start))
        learned = descend(kernel, residual_times, start, history)
        best = max((start, learned), key=lambda a: (code := _sign(kernel @ a)) @ residual_times(code))
        y = _sign(kernel @ best)
        weight[:, bit] = best
        done = np.column_stack([done, y])
        pull = whiten @ (kernel.T @ y)
        residual -= np.outer(pull, pull)
    return weight


def descend(kernel, residual_times, a, history=None, steps=300, tolerance=1e-3):
    """Nesterov's accelerated descent on -phi(Ka)' R phi(Ka), phi(x) = 2 / (1 + e^-x) - 1. Formulas (13)-(14) there."""
    n = len(kernel)

    def cost_of(a):
        y = np.tanh(kernel @ a / 2)
        return -(y @ residual_times(y))

    before, now = a, a
    momentum, steepness = (0.0, 1.0), 1.0
    cost = cost_of(a)
    first, best = cost, (cost, a)
    for _ in range(steps):
        probe = now + (momentum[0] - 1) / momentum[1] * (now - before)
        at_probe, gradient = cost_and_gradient(kernel, residual_times, probe)
        for _ in range(50):  # backtracking
            new = probe - gradient / steepness
            new_cost = cost_of(new)
            if new_cost <= at_probe - gradient @ gradient / (2 * steepness):
                break
            steepness *= 2
        else:
            break
        before, now = now, new
        momentum = momentum[1], (1 + np.sqrt(1 + 4 * momentum[1] ** 2)) / 2
        best = min(best, (new_cost, new), key=lambda pair: pair[0])
        if abs(new_cost - cost) / n <= tolerance:
            break
        cost = new_cost
    if history is not None:
        history.append((first, best[0]))
    return best[1]


def cost_and_gradient(kernel, residual_times, a):
    """-phi(Ka)' R phi(Ka) and its gradient; ``residual_times`` is x -> R @ x. Formula (14) there."""
    y = np.tanh(kernel @ a / 2)
    pulled = residual_times(y)
    return -(y @ pulled), -(kernel.T @ (pulled * (1 - y * y)))


def _sign(x):
    return np.where(x > 0, 1.0, -1.0)
