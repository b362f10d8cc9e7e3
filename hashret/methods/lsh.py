"""LSH and ITQ: projections that need no labels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..bits import Labels
from ..errors import HashretError
from ..models.heads import Head, ProjectionHead
from .method import Method

ITERATIONS = 50


class LSH(Method):
    """Signs of random projections of the centred descriptors."""

    name = "lsh"
    backbone = "vgg16"
    paper = "Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002 (random hyperplanes)"
    head = "projection"
    needs_labels = False
    fitted = True

    def fit(self, head: Head, x: Tensor, labels: Labels | None, seed: int) -> None:
        assert isinstance(head, ProjectionHead)
        random = torch.Generator().manual_seed(seed)
        weight = torch.randn(head.weight.shape, generator=random).to(x.device)
        _set(head, x, weight)


class ITQ(LSH):
    """Principal components, rotated so that their signs lose least."""

    name = "itq"
    backbone = "efficientnet_lite0"
    paper = "Gong & Lazebnik, Iterative quantization: a Procrustean approach to learning binary codes, CVPR 2011"

    def fit(self, head: Head, x: Tensor, labels: Labels | None, seed: int) -> None:
        assert isinstance(head, ProjectionHead)
        width, bits = head.weight.shape
        if bits > width:
            raise HashretError(
                f"{self.name} gives at most {width} bits of {width} numbers, not {bits}", hint="take lsh"
            )
        centred = (x - x.mean(dim=0)).double()
        # The largest `bits` eigenvectors of the covariance, and a random rotation to start from.
        components = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :bits]
        # Of several lengths, the bits that one has more than the one before are those of its own rotation: they see all
        # of its components. The components that it has more alone carry little, and bits of these find much less.
        projections = []
        for start, end in itertools.pairwise([0, *(method.bits for method in self.shorter), bits]):
            first = components[:, :end]
            projections.append((first @ rotation(centred @ first, seed))[:, start:])
        _set(head, x, torch.cat(projections, dim=1).float())


def rotation(v: Tensor, seed: int = 0, iterations: int = ITERATIONS, history: list[float] | None = None) -> Tensor:
    """Return the rotation R (k, k) that minimises |sign(vR) - vR|^2 for v (n, k), from a random start.

    Source: formula (2) there. The loss before each update is appended to ``history``.
    """
    k = v.shape[1]
    random = torch.randn(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    r: Tensor = torch.linalg.qr(random)[0].to(v)
    for _ in range(iterations):
        projected = v @ r
        codes = torch.where(projected >= 0, 1.0, -1.0).to(v)
        if history is not None:
            history.append((codes - projected).square().sum().item())
        left, _, right = torch.linalg.svd(codes.T @ v)
        r = (left @ right).T
    return r


def _set(head: ProjectionHead, x: Tensor, weight: Tensor) -> None:
    """Fill a head; each bit is scaled to unit spread, so that hash outputs stay apart for the re-rank."""
    head.mean.copy_(x.mean(dim=0))
    head.weight.copy_(weight / ((x - head.mean) @ weight).std(dim=0, correction=0).clamp(min=1e-12))
