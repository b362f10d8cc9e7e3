"""CSQ: each class has a centre among the codes, a row of a Hadamard matrix."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Labels, Positions
from ..models.heads import HeadOutput
from .codewords import codewords, own_codewords
from .method import Method, Option, Words
from .vggh import SMOOTHING


class CSQ(Method):
    """Each bit learns that of the centre of its photograph's class, or of most of its classes.

    Rows of a Hadamard matrix differ in half of their bits, each from each, so that similarity of pairs need not be
    learned: to be near to one's own centre is to be far from the others. The first bits of such rows are not far apart,
    so that several lengths that are trained together have `own_codewords` in their place.
    """

    name = "csq"
    paper = (
        "Yuan, Wang, Zhang, Tay, Jie, Liu & Feng, Central similarity quantization for efficient image and video "
        "retrieval, CVPR 2020"
    )
    options = (Option("quantization", 1e-4, "pulls hash outputs to 0 and 1"), SMOOTHING)

    @classmethod
    def class_codewords(cls, classes: int, bits: int, seed: int) -> Words:
        return centres(classes, bits, seed)

    def begin(self, labels: Labels, source_rows: Positions) -> None:
        classes = self.count_classes(labels)
        words = own_codewords(self, classes)
        votes = labels @ words if labels.ndim == 2 else words[labels]
        drawn = np.random.default_rng(self.seed).choice([-1, 1], self.bits)  # decides where the votes are even
        codes = torch.from_numpy(np.where(votes == 0, drawn, votes) > 0)
        self.state = {"codes": codes, "codewords": torch.from_numpy(words).float()}

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the binary cross-entropy of each bit with the centre, and quantisation.

        ``quantization`` times the mean of log cosh(|2 v - 1| - 1) of the hash outputs v is added. Where photographs
        have several labels, each bit of their centre is that of most of their classes' centres; those that have none
        have no centre, and do not count. The option ``smoothing``, which the paper does not have, lets the centre's
        bits be as far from 0 and 1 as smoothed labels. Source: formulas (5) to (7) there, as means.
        """
        logits, hash_outputs = output.logits, output.hash_outputs
        if labels.ndim == 2:
            known = labels.any(dim=1)
            if not known.any():
                return 0 * logits.sum()
            logits, hash_outputs, source_rows = logits[known], hash_outputs[known], source_rows[known.cpu().numpy()]
        centre = self.state["codes"][torch.as_tensor(source_rows)].to(logits)
        centre = centre * (1 - self.chosen["smoothing"]) + self.chosen["smoothing"] / 2
        from_corner = (2 * hash_outputs - 1).abs() - 1
        loss = F.binary_cross_entropy_with_logits(logits, centre)
        return loss + self.chosen["quantization"] * from_corner.cosh().log().mean()


def centres(classes: int, bits: int, seed: int = 0) -> Words:
    """Return a centre for each class, (classes, bits) of +1 and -1.

    They are rows of a Hadamard matrix, each with a sign by lot, since its first column would else be a bit that is the
    same for all; with more classes than bits, rows come in both signs. Where no such matrix is known, or there are
    more than twice as many classes as bits, they are `codewords`, which are as far apart as can be found.
    """
    matrix = hadamard(bits)
    if matrix is None or classes > 2 * bits:
        return codewords(classes, bits, seed)
    rng = np.random.default_rng(seed)
    rows = matrix[rng.permutation(bits)] * rng.choice([-1, 1], (bits, 1))
    return np.concatenate([rows, -rows])[:classes]


def hadamard(n: int) -> Words | None:
    """Return a matrix (n, n) of +1 and -1 with orthogonal rows, by the constructions of Sylvester and Paley.

    None where these make none, as for each n that is no multiple of 4.
    """
    if n == 1:
        return np.ones((1, 1), np.int64)
    q = n - 1
    if q % 4 == 3 and all(q % factor for factor in range(2, int(q**0.5) + 1)):
        # Paley's first: 1 on the diagonal, and whether i - j is a square modulo the prime q.
        square = np.isin(np.arange(q), np.arange(1, q) ** 2 % q)
        difference = np.subtract.outer(np.arange(q), np.arange(q)) % q
        matrix = np.ones((n, n), np.int64)
        matrix[1:, 1:] = np.where(square[difference], 1, -1)
        matrix[1:, 0] = -1
        np.fill_diagonal(matrix[1:, 1:], 1)
        return matrix
    half = hadamard(n // 2) if n % 2 == 0 else None
    return None if half is None else np.block([[half, half], [half, -half]])
