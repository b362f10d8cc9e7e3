"""Which photographs are similar: those that share a label. Pair matrices are kept by label pattern, not by image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Labels

Floats = npt.NDArray[np.float64]


def share_a_label(labels_a: Tensor, labels_b: Tensor) -> Tensor:
    """Say which photographs share a label: tensors (n,), -1 for none, and (m,), or (n, c) and (m, c) -> (n, m) bool."""
    if labels_a.ndim == 1:
        return (labels_a[:, None] == labels_b[None, :]) & (labels_a >= 0)[:, None]
    return labels_a.float() @ labels_b.float().T > 0


def common_labels(labels: Tensor) -> Tensor:
    """Return how many labels of two photographs are common over how many either has: (n, c) -> float32 (n, n)."""
    flags = labels.float()
    common = flags @ flags.T
    counts = flags.sum(dim=1)
    return common / (counts[:, None] + counts - common).clamp(min=1)


def pair_weights(similar: Tensor) -> Tensor:
    """Return the weights of a batch's pairs, (n, n) bool -> float32 (n, n), by which both kinds count the same.

    That is pairs / similar pairs for similar ones, pairs / dissimilar pairs for the others, and 0 on the diagonal.
    Source: formula (3) of Cao, Long, Wang & Yu, ICCV 2017.
    """
    pairs = ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    weights = torch.zeros(similar.shape, device=similar.device)
    for kind in (similar & pairs, ~similar & pairs):
        weights[kind] = pairs.sum() / kind.sum().clamp(min=1)
    return weights


def triplets(similar: Tensor) -> Tensor:
    """Say which (q, i, j) are triplets, i similar to q and not q itself, and j not: (n, n) bool -> (n, n, n)."""
    others = ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    return (similar & others)[:, :, None] & ~similar[:, None, :]


def pairwise_loss(u: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of a batch's pairs, for logits u (n, bits).

    That is -mean(s theta - log(1 + e^theta)) with theta = u_i . u_j / 2, and s = 1 where two photographs share a label.
    Source: formula (2) of Li, Wang & Kang, IJCAI 2016.
    """
    theta = u @ u.T / 2
    s = share_a_label(labels, labels).to(u.dtype)
    pairs = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    return -(s * theta - F.softplus(theta))[pairs].mean()


class Similarity:
    """The matrix S (n, n) of +1 where two photographs share a label and -1 elsewhere, without its n^2 entries.

    Photographs with the same labels have the same row of S, so S = Z P Z^T with ``pattern`` z (n,) and a small
    matrix ``between`` P of the distinct label patterns.
    """

    def __init__(self, labels: Labels) -> None:
        labels = np.asarray(labels)
        patterns, self.pattern = np.unique(labels, axis=0, return_inverse=True)
        self.pattern = self.pattern.ravel()
        distinct = torch.as_tensor(patterns)
        self.between: Floats = np.where(share_a_label(distinct, distinct).numpy(), 1.0, -1.0)

    def __len__(self) -> int:
        return len(self.pattern)

    def times(self, x: Floats) -> Floats:
        """Return S @ x for x (n,) or (n, k)."""
        return self.by_pattern(x)[self.pattern]

    def by_pattern(self, x: Floats) -> Floats:
        """Return the row of S @ x of each pattern: x (n, k) -> (patterns, k)."""
        sums = np.zeros((len(self.between), *x.shape[1:]))
        np.add.at(sums, self.pattern, x)
        return self.between @ sums

    def dense(self) -> Floats:
        """Return S itself (n, n)."""
        return self.between[self.pattern][:, self.pattern]
