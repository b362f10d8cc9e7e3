"""What each bit of a set of codes is worth: how often it is one, which bit it repeats, what it tells of the class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..bits import Codes, Labels, pack, unpack
from ..metrics import Floats, average_precision, count_by_distance, ratio
from ..progress import Progress

COPY = 0.95  # correlation from which on a bit is nearly the copy of another
RARE = 0.01  # a bit is nearly constant where a smaller fraction of the photographs has its rarer value
_CODES_AT_ONCE = 2**16  # float32 counts them exactly


@dataclass(frozen=True)
class BitStatistics:
    """Statistics of n codes.

    Attributes:
        ones: fraction of the codes in which each bit is one, (bits,).
        correlation: Pearson correlation of each two bits (the phi coefficient), (bits, bits). A constant bit has 0 with
            the others and 1 with itself.
        information: mutual information of each bit and the label, in bits, (bits,). Where a photograph has several
            labels, that of the label of which the bit tells most. None without labels.
        told: column of that label for each bit, int64 (bits,); None where a photograph has one label.
        distinct: number of different codes.
    """

    ones: Floats
    correlation: Floats
    information: Floats | None
    told: npt.NDArray[np.int64] | None
    distinct: int

    @property
    def entropy(self) -> Floats:
        """Entropy of each bit, in bits: 1 where half the codes have it, 0 where it is constant."""
        return binary_entropy(self.ones)

    @property
    def effective(self) -> float:
        """Number of uncorrelated bits that would vary as much: the participation ratio of the correlation matrix.

        (sum of eigenvalues)^2 / sum of squared eigenvalues, constant bits left out. Gao et al., "A theory of
        multineuronal dimensionality, dynamics and measurement", bioRxiv 214262, 2017.
        """
        varies = np.flatnonzero((self.ones > 0) & (self.ones < 1))
        # The eigenvalues add up to the number of bits, their squares to the sum of the squared entries.
        squares = (self.correlation[np.ix_(varies, varies)] ** 2).sum()
        return float(len(varies) ** 2 / squares) if len(varies) else 0.0

    @property
    def rare(self) -> npt.NDArray[np.int64]:
        """Numbers of the bits that are constant, or nearly so."""
        return np.flatnonzero(np.minimum(self.ones, 1 - self.ones) < RARE)

    @property
    def copies(self) -> list[tuple[int, int, float]]:
        """Bits that nearly repeat, or negate, an earlier one: (bit, the earlier bit, their correlation)."""
        pairs = []
        for bit in range(1, len(self.ones)):
            earlier = int(np.abs(self.correlation[bit, :bit]).argmax())
            if abs(self.correlation[bit, earlier]) >= COPY:
                pairs.append((bit, earlier, float(self.correlation[bit, earlier])))
        return pairs


def bit_statistics(codes: Codes, bits: int, labels: Labels | None = None) -> BitStatistics:
    """Compute the statistics of packed codes, (n, w), with their labels where there are any."""
    several = labels is not None and labels.ndim == 2
    classes = 0 if labels is None else labels.shape[1] if several else int(labels.max(initial=0)) + 1
    both, by_class = np.zeros((bits, bits)), np.zeros((classes, bits))
    for start in range(0, len(codes), _CODES_AT_ONCE):
        block = slice(start, start + _CODES_AT_ONCE)
        ones = unpack(codes[block], bits).astype(np.float32)
        both += ones.T @ ones
        if labels is not None:
            by_class += indicator(labels[block], classes).T @ ones
    count = len(codes)
    information = told = None
    if labels is not None and several:
        of_label = _information_of_labels(by_class, both.diagonal(), labels.sum(axis=0, dtype=np.int64), count)
        information, told = of_label.max(axis=0), of_label.argmax(axis=0)
    elif labels is not None:
        information = _information_of_class(by_class, np.bincount(labels[labels >= 0], minlength=classes))
    distinct = len(np.unique(codes, axis=0))
    return BitStatistics(both.diagonal() / count, _correlation(both, count), information, told, distinct)


def indicator(labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.float32]:
    """Return a matrix (n, classes) with 1 where a photograph has the label, for labels of either form of `Labels`."""
    array = np.asarray(labels)
    return (array[:, None] == np.arange(classes) if array.ndim == 1 else array).astype(np.float32)


def binary_entropy(probability: npt.ArrayLike) -> Floats:
    """Return the entropy, in bits, of events that happen with each probability, in an array of the same shape."""
    p = np.asarray(probability, float)
    logs = [np.log2(q, out=np.zeros_like(q), where=q > 0) for q in (p, 1 - p)]
    entropy: Floats = -(p * logs[0] + (1 - p) * logs[1])
    return entropy


def _correlation(both: Floats, count: int) -> Floats:
    """Return the phi coefficients of bits from the numbers of codes in which two bits are both one, (bits, bits)."""
    ones = both.diagonal()
    spread = np.sqrt(ones * (count - ones))
    product = np.outer(spread, spread)
    phi = ratio(count * both - np.outer(ones, ones), product)
    np.fill_diagonal(phi, 1)
    return phi


def _information_of_class(by_class: Floats, sizes: npt.NDArray[np.int64]) -> Floats:
    """Return the mutual information of each bit and the class, (bits,).

    Args:
        by_class: number of ones of each bit in each class, (classes, bits).
        sizes: number of photographs of each class, (classes,).
    """
    total = max(1, sizes.sum())
    within = binary_entropy(by_class / np.maximum(1, sizes)[:, None])
    information: Floats = binary_entropy(by_class.sum(axis=0) / total) - sizes / total @ within
    return np.maximum(0, information)


def _information_of_labels(with_label: Floats, ones: Floats, sizes: npt.NDArray[np.int64], count: int) -> Floats:
    """Return the mutual information of each bit and having each label, (labels, bits)."""
    return np.stack(
        [
            _information_of_class(np.stack([has, ones - has]), np.array([size, count - size]))
            for has, size in zip(with_label, sizes, strict=True)
        ]
    )


def average_precision_without(
    xq: Codes,
    xb: Codes,
    labels_q: Labels,
    labels_b: Labels,
    bits: int,
    topk: int | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Return the expected average precision of each query with one bit dropped from all codes, (bits, nq).

    The arguments are those of `hashret.metrics.count_by_distance`; ``progress`` counts bits.
    """
    ap = np.empty((bits, len(xq)))
    for bit in range(bits):
        mask = np.ones((1, bits), bool)
        mask[:, bit] = False
        keep = pack(mask)
        counts = count_by_distance(xq & keep, xb & keep, labels_q, labels_b, bits)
        ap[bit] = average_precision(counts, topk=topk)
        if progress:
            progress.add()
    return ap
