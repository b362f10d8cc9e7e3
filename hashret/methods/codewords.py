"""VGGH+ and AM-VGGH+: the classifier is a fixed set of far-apart codewords, one a class, read by the cosine."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bits import Labels, Positions
from ..distributed import is_main
from ..models.heads import HeadOutput
from .method import Method, Option, Words
from .similarity import pairwise_loss
from .vggh import BALANCE, QUANTIZATION, SMOOTHING, VGGH

PAIRS = Option("pairs", 0.0, "weight of pairs of photographs; 3 for codes of up to 16 bits and several labels")

SCALE, MARGIN = 8.0, 0.2
SHORT = 16  # bits, up to which pairs of photographs with several labels count
_TRIES = 10
_ALL_TRIES = 50_000  # bits of all codewords together up to which all tries are made, in half a minute
_SAID = 10_000  # bits of all codewords together from which on the search takes seconds

_log = logging.getLogger("hashret")


class VGGHPlus(VGGH):
    """VGGH with a normalised classifier with a margin.

    The paper's classifier learns where in the code space its classes lie, and few bits leave it little room; the
    hash layer saturates before the classes are apart. Here codewords that are far apart are there from the start, and
    the margin asks for nearness to the right one, not for saturated values.

    A photograph with several labels wants to be near to several words, for which codes of up to 16 bits have no room.
    There the pairs of a batch count as well, without dropout, and bring those together that share one.
    """

    name = "vggh+"
    paper = (
        "VGGH with fixed codewords and a cosine margin after Hoe et al., One loss for all: deep hashing with a single "
        "cosine similarity based learning objective, NeurIPS 2021"
    )
    classifier = False
    options = (QUANTIZATION, BALANCE, SMOOTHING, PAIRS)

    @classmethod
    def defaults_for(cls, bits: int, several_labels: bool) -> dict[str, Any]:
        short = {"pairs": 3.0, "dropout": 0.0} if several_labels and bits <= SHORT else {}
        return cls.defaults | short

    @classmethod
    def class_codewords(cls, classes: int, bits: int, seed: int) -> Words:
        return codewords(classes, bits, seed)

    def begin(self, labels: Labels, source_rows: Positions) -> None:
        classes = self.count_classes(labels)
        words = own_codewords(self, classes)
        self.state = {"codewords": torch.from_numpy(words).float()}

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the cross-entropy of 8 (cos(2v - 1, codeword) - 0.2 where the label holds) over the classes.

        The target of a photograph with several labels is all of them in equal parts; one without any has no target,
        and no part in that mean. ``pairs`` times `pairwise_loss` is added, and ``quantization`` and ``balance`` as in
        VGGH.
        """
        words = self.state["codewords"].to(output.logits)
        cosine = F.normalize(2 * output.hash_outputs - 1, dim=1) @ F.normalize(words, dim=1).T
        target = F.one_hot(labels, len(words)) if labels.ndim == 1 else labels
        target = target.to(cosine)
        scores = SCALE * (cosine - MARGIN * target)
        known = target.any(dim=1)
        wanted = target[known] / target[known].sum(dim=1, keepdim=True)
        if known.any():
            loss = F.cross_entropy(scores[known], wanted, label_smoothing=self.chosen["smoothing"])
        else:
            loss = 0 * scores.sum()
        if self.chosen["pairs"]:
            loss = loss + self.chosen["pairs"] * pairwise_loss(output.logits, labels)
        return loss + self.regularization(output.hash_outputs)


class AMVGGHPlus(VGGHPlus):
    """VGGH+ with CBAM after the convolutions."""

    name = "am-vggh+"
    paper = VGGHPlus.paper.replace("VGGH", "AM-VGGH", 1)
    attention = True


def codewords(classes: int, bits: int, seed: int = 0, tries: int | None = None, first: Words | None = None) -> Words:
    """Return codes far from each other and with balanced bits, (classes, bits) of +1 and -1.

    From random codes on, one bit is flipped at a time while that lowers the sum over pairs of
    exp(2 c_i . c_j / sqrt(bits)), which the nearest pairs rule, plus 0.05 times the squared sums of the bits over the
    classes.

    Args:
        classes: how many codes.
        bits: their length.
        seed: decides where the search begins.
        tries: how many times it begins; the best that is found counts. None is ten times, and fewer from 1,000 classes
            at 48 bits on, as the time of one grows with the square of the bits of all codes.
        first: the first bits of all codes, (classes, fewer), where these are given.
    """
    if tries is None:
        tries = max(1, int(_TRIES * min(1, _ALL_TRIES / (classes * bits)) ** 2))
    if classes * bits >= _SAID and is_main():
        _log.info("looking for codewords of %d bits for %s classes", bits, f"{classes:,}")
    rng = np.random.default_rng(seed)
    given = np.empty((classes, 0), np.int64) if first is None else first
    free = bits - given.shape[1]
    found = [
        _descend(np.hstack([given, np.where(rng.random((classes, free)) < 0.5, -1, 1)]), rng, free)
        for _ in range(tries)
    ]
    return min(found, key=_cost)


def own_codewords(method: Method, classes: int) -> Words:
    """Return the codeword of each class for a method that keeps them in its state, (classes, bits) of +1 and -1.

    They are its `Method.class_codewords`. Where several lengths are trained together, `codewords` of one length are
    extended to the next: all read the same outputs, and each length on its own would ask other bits of them.
    """
    if len(method.together) == 1:
        words = method.class_codewords(classes, method.bits, method.seed)
        assert words is not None
        return words
    first = None if method.before is None else method.before.state["codewords"].numpy().astype(np.int64)
    return codewords(classes, method.bits, method.seed, first=first)


def _descend(start: Words, rng: np.random.Generator, free: int) -> Words:
    """Flip bits of words (classes, bits), each of the last ``free`` ones in random order, where that lowers `_cost`.

    A flip of bit j of word i multiplies the term of its pair with each other word by one number where their bits j are
    the same, and by another where they are not. So the change of all terms follows from their sum and from their sum
    weighted by the bits j of the others, which are kept up to date: an entry costs a few operations, and a flip as
    many as there are entries.
    """
    classes, bits = start.shape
    words, sums = start.astype(np.float64), start.sum(axis=0)
    same, other = np.exp(np.array([-4, 4]) / np.sqrt(bits))
    by_sum, by_weighted = (same + other) / 2 - 1, (other - same) / 2
    terms = _pair_terms(words @ words.T, bits)
    np.fill_diagonal(terms, 0)  # a word is no pair with itself
    moved = True
    while moved:
        moved = False
        total, weighted = terms.sum(axis=1), terms @ words  # anew for each sweep, so that rounding does not add up
        order, done, ahead = rng.permutation(classes * free), 0, 16
        while done < len(order):
            i, j = np.divmod(order[done : done + ahead], free)
            j += bits - free
            bit = words[i, j]
            changes = by_sum * total[i] - by_weighted * bit * weighted[i, j]
            changes += 0.05 * ((sums[j] - 2 * bit) ** 2 - sums[j] ** 2)
            lower = np.flatnonzero(changes < -1e-9)
            if not len(lower):
                done, ahead = done + ahead, min(2 * ahead, 4096)
                continue
            first = lower[0]
            row, column = i[first], j[first]
            sums[column] -= 2 * int(bit[first])
            words[row, column] *= -1
            before, after = terms[row].copy(), _pair_terms(words @ words[row], bits)
            after[row] = 0
            weighted += np.outer(after - before, words[row])
            weighted[:, column] += 2 * words[row, column] * before
            weighted[row] = after @ words
            total += after - before
            total[row] = after.sum()
            terms[row] = terms[:, row] = after
            done, ahead, moved = done + int(first) + 1, 16, True
    return words.astype(np.int64)


def _pair_terms(products: npt.NDArray[np.number], bits: int) -> npt.NDArray[np.float64]:
    terms: npt.NDArray[np.float64] = np.exp(2 * products / np.sqrt(bits))
    return terms


def _cost(words: Words) -> float:
    classes, bits = words.shape
    pairs = (words @ words.T)[np.triu_indices(classes, 1)]
    return float(_pair_terms(pairs, bits).sum() + 0.05 * (words.sum(axis=0) ** 2).sum())
