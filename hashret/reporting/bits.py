"""What each bit of a set of codes is worth: how often it is one, what it repeats, what it tells of the class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..bits import pack, unpack
from ..metrics import average_precision, count_by_distance

COPY = 0.95  # correlation from which on a bit is nearly the copy of another
RARE = 0.01  # a bit is nearly constant where fewer photographs than this share have its rarer value
_ROWS_AT_ONCE = 2**16  # float32 counts them exactly


@dataclass(frozen=True)
class BitStatistics:
    """Of n codes of some bits.

    Attributes:
        ones: share of codes in which the bit is one, (bits,).
        correlation: Pearson correlation of each two bits (the phi coefficient), (bits, bits); 0 for a constant bit,
            its own diagonal excepted.
        information: what the bit tells of the label, in bits (its mutual information), (bits,); where a photograph has
            several labels, of the label it tells most of. None without labels.
        told: that label's column, int64 (bits,); None where a photograph has one label.
        distinct: different codes among the n.
    """

    ones: np.ndarray
    correlation: np.ndarray
    information: np.ndarray | None
    told: np.ndarray | None
    distinct: int

    @property
    def entropy(self):
        """Entropy of each bit, in bits: 1 where half the codes have it, 0 where it is constant."""
        return binary_entropy(self.ones)

    @property
    def effective(self):
        """Bits that would vary alike if they were uncorrelated: the participation ratio of the correlation matrix.

        (sum of eigenvalues)^2 / sum of squared eigenvalues, constant bits left out. Gao et al., "A theory of
        multineuronal dimensionality, dynamics and measurement", bioRxiv 214262, 2017.
        """
        varies = np.flatnonzero((self.ones > 0) & (self.ones < 1))
        # The eigenvalues add up to the number of bits, their squares to the squared entries.
        squares = (self.correlation[np.ix_(varies, varies)] ** 2).sum()
        return float(len(varies) ** 2 / squares) if len(varies) else 0.0

    @property
    def rare(self):
        """Bits that are constant, or nearly so."""
        return np.flatnonzero(np.minimum(self.ones, 1 - self.ones) < RARE)

    @property
    def copies(self):
        """Bits that nearly repeat, or negate, an earlier one: list of (bit, the earlier bit, their correlation)."""
        found = []
        for bit in range(1, len(self.ones)):
            earlier = int(np.abs(self.correlation[bit, :bit]).argmax())
            if abs(self.correlation[bit, earlier]) >= COPY:
                found.append((bit, earlier, float(self.correlation[bit, earlier])))
        return found


def bit_statistics(codes, bits, labels=None):
    """Statistics of packed codes: uint8 (n, w), labels (n,) with -1 for none, or (n, classes), or None."""
    several = labels is not None and labels.ndim == 2
    classes = 0 if labels is None else labels.shape[1] if several else int(labels.max(initial=0)) + 1
    both, by_class = np.zeros((bits, bits)), np.zeros((classes, bits))
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        rows = unpack(codes[some], bits).astype(np.float32)
        both += rows.T @ rows
        if labels is not None:
            by_class += indicator(labels[some], classes).T @ rows
    count = len(codes)
    information = told = None
    if several:
        of_label = _information_of_labels(by_class, both.diagonal(), labels.sum(axis=0, dtype=np.int64), count)
        information, told = of_label.max(axis=0), of_label.argmax(axis=0)
    elif labels is not None:
        information = _information_of_class(by_class, np.bincount(labels[labels >= 0], minlength=classes))
    distinct = len(np.unique(codes, axis=0))
    return BitStatistics(both.diagonal() / count, _correlation(both, count), information, told, distinct)


def indicator(labels, classes):
    """Labels (n,) with -1 for none, or (n, classes): -> float32 (n, classes), 1 where a photograph has the label."""
    labels = np.asarray(labels)
    return (labels[:, None] == np.arange(classes) if labels.ndim == 1 else labels).astype(np.float32)


def binary_entropy(share):
    """Entropy of a yes with this probability, in bits: shape as ``share``."""
    share = np.asarray(share, float)
    logs = [np.log2(p, out=np.zeros_like(p), where=p > 0) for p in (share, 1 - share)]
    return -(share * logs[0] + (1 - share) * logs[1])


def _correlation(both, count):
    """Phi coefficients from the numbers of codes in which two bits are both one."""
    ones = both.diagonal()
    spread = np.sqrt(ones * (count - ones))
    product = np.outer(spread, spread)
    found = np.divide(count * both - np.outer(ones, ones), product, out=np.zeros_like(both), where=product > 0)
    np.fill_diagonal(found, 1)
    return found


def _information_of_class(by_class, sizes):
    """Mutual information of bit and class: ones (classes, bits) among classes of some sizes -> (bits,)."""
    total = max(1, sizes.sum())
    within = binary_entropy(by_class / np.maximum(1, sizes)[:, None])
    return np.maximum(0, binary_entropy(by_class.sum(axis=0) / total) - sizes / total @ within)


def _information_of_labels(with_label, ones, sizes, count):
    """Mutual information of each bit and each label, had or not: -> (labels, bits)."""
    return np.stack(
        [
            _information_of_class(np.stack([has, ones - has]), np.array([size, count - size]))
            for has, size in zip(with_label, sizes, strict=True)
        ]
    )


def average_precision_without(xq, xb, labels_q, labels_b, bits, topk=None, progress=None):
    """Expected average precision of each query with one bit dropped from all codes: -> (bits, nq).

    Arguments as of `hashret.metrics.count_by_distance`; ``progress`` counts bits.
    """
    found = np.empty((bits, len(xq)))
    for bit in range(bits):
        mask = np.ones((1, bits), bool)
        mask[:, bit] = False
        keep = pack(mask)
        counts = count_by_distance(xq & keep, xb & keep, labels_q, labels_b, bits)
        found[bit] = average_precision(counts, topk=topk)
        if progress:
            progress.add()
    return found
