"""Which photographs are alike: those that share a label. Pair matrices are kept by label pattern, not by image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def alike(labels_a, labels_b):
    """Whether photographs share a label: tensors (n,) and (m,), or (n, c) and (m, c) -> (n, m) bool."""
    if labels_a.ndim == 1:
        return labels_a[:, None] == labels_b[None, :]
    return labels_a.float() @ labels_b.float().T > 0


def pairwise_loss(u, labels):
    """Negative log-likelihood of a batch's pairs, -mean(s theta - log(1 + e^theta)) with theta = u_i . u_j / 2, for
    logits u (n, bits) and s = 1 where two photographs share a label. Formula (2) of Li, Wang & Kang, IJCAI 2016.
    """
    theta = u @ u.T / 2
    s = alike(labels, labels).to(u.dtype)
    pairs = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    return -(s * theta - F.softplus(theta))[pairs].mean()


class Similarity:
    """The matrix S (n, n) of +1 where two photographs share a label and -1 elsewhere, without its n^2 entries.

    Photographs with the same labels have the same row of S, so S = Z P Z^T with ``pattern`` z (n,) and a small
    matrix ``between`` P of the distinct label patterns.
    """

    def __init__(self, labels):
        labels = np.asarray(labels)
        patterns, self.pattern = np.unique(labels, axis=0, return_inverse=True)
        self.pattern = self.pattern.ravel()
        patterns = torch.as_tensor(patterns)
        self.between = np.where(alike(patterns, patterns).numpy(), 1.0, -1.0)

    def __len__(self):
        return len(self.pattern)

    def times(self, x):
        """S @ x for x (n,) or (n, k)."""
        return self.by_pattern(x)[self.pattern]

    def by_pattern(self, x):
        """Row of S @ x for each pattern: x (n, k) -> (patterns, k)."""
        sums = np.zeros((len(self.between), *x.shape[1:]))
        np.add.at(sums, self.pattern, x)
        return self.between @ sums

    def dense(self):
        """S itself (n, n)."""
        return self.between[self.pattern][:, self.pattern]
