"""CNNH and CNNH+: codes from the similarity matrix first, then a network that predicts them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Labels, Positions
from ..models.heads import HeadOutput
from .method import Method
from .similarity import Floats, Similarity
from .vggh import CLASSIFIER_RATE, SMOOTHING, classification_loss

SWEEPS = 5


class CNNH(Method):
    """Stage one: codes H with H H^T / bits near the similarity matrix. Stage two: the hash layer learns them."""

    name = "cnnh"
    backbone = "vgg16"
    paper = "Xia et al., Supervised hashing for image retrieval via image representation learning, AAAI 2014"

    def begin(self, labels: Labels, source_rows: Positions) -> None:
        codes = torch.zeros(len(labels), self.bits)
        rows, first = torch.as_tensor(source_rows), None
        if self.before is not None:  # whose codes these go on from
            first = np.where(self.before.state["codes"][rows].numpy() > 0, 1, -1)
        signs = approximate(Similarity(labels[source_rows]), self.bits, self.seed, first=first)
        codes[rows] = torch.from_numpy(signs > 0).float()
        self.state = {"codes": codes}

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the binary cross-entropy of each bit with the code of stage one."""
        target = self.state["codes"][torch.as_tensor(source_rows)].to(output.logits)
        return F.binary_cross_entropy_with_logits(output.logits, target)


class CNNHPlus(CNNH):
    """CNNH whose network predicts the class labels, too."""

    name = "cnnh+"
    classifier = True
    options = (SMOOTHING, CLASSIFIER_RATE)

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return CNNH's loss plus the classification loss."""
        assert output.scores is not None
        classification = classification_loss(output.scores, labels, self.chosen["smoothing"])
        return super().loss(output, labels, source_rows) + classification


def approximate(
    similarity: Similarity,
    bits: int,
    seed: int = 0,
    sweeps: int = SWEEPS,
    history: list[float] | None = None,
    first: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return codes H that minimise |S - H H^T / bits|^2 (Frobenius), entry by entry: -> (n, bits) of +1 and -1.

    H is relaxed to [-1, 1] and its sign taken in the end. Each entry moves to the minimum of the second-order
    expansion of the objective, in random order (Algorithm 1 there). With S by label pattern and H^T H kept up to
    date, an entry costs O(bits + patterns) and not O(n).

    Args:
        similarity: a `Similarity` of n photographs.
        history: a list that the relaxed objective is appended to, before the first sweep and after each.
        first: the first bits of the codes, (n, fewer) of +1 and -1, where these are given.
    """
    rng = np.random.default_rng(seed)
    n = len(similarity)
    given = np.empty((n, 0)) if first is None else first
    fixed = given.shape[1]
    h: Floats = np.hstack([given, rng.uniform(-1, 1, (n, bits - fixed))])
    between, pattern = similarity.between, similarity.pattern
    gram = h.T @ h
    pulled = similarity.by_pattern(h)  # rows of S @ H, by pattern
    for _ in range(sweeps):
        _note(history, similarity, h, bits)
        for i in rng.permutation(n):
            z, row = pattern[i], h[i]
            for j in fixed + rng.permutation(bits - fixed):
                old = row[j]
                column = gram[j]
                # Of f(d) = |S - (H + d e_ij) (...)^T / bits|^2: slope and curvature at d = 0, over 4 / bits.
                slope = (row @ column) / bits - pulled[z, j]
                own = between[z, z] - (row @ row) / bits  # S_ii - h_i . h_i / bits
                curvature = (column[j] + old * old) / bits - own
                goal = old - slope / curvature if curvature > 0 else -np.sign(slope)
                step = min(1.0, max(-1.0, goal)) - old
                if step:
                    gram[j] += step * row
                    gram[:, j] = gram[j]
                    gram[j, j] += step * (old + step)  # row[j] changes, too
                    row[j] = old + step
                    pulled[:, j] += step * between[z]
    _note(history, similarity, h, bits)
    return np.where(h >= 0, 1, -1)


def _note(history: list[float] | None, similarity: Similarity, h: Floats, bits: int) -> None:
    if history is not None:
        history.append(objective(similarity, h, bits))


def objective(similarity: Similarity, h: Floats, bits: int) -> float:
    """Return |S - H H^T / bits|^2 (Frobenius) for h (n, bits), without the n^2 entries of S."""
    n = len(h)
    gram = h.T @ h
    return float(n * n - 2 * (h * similarity.times(h)).sum() / bits + (gram * gram).sum() / bits**2)
