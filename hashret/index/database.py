"""What a search needs of a database of encoded photographs, be it an index folder here or a collection in an engine.

The two stages of retrieval stand here once, in `Database.ranked`. A database gives the steps: `nearest`, the Hamming
stage, and `reranked`, the re-rank stage.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import is_whole, several
from ..bits import Codes, Distances, HashOutputs, Labels, Positions, code_width
from ..errors import HashretError
from ..renamed import old_attributes, old_keywords
from ..vectors import Vectors
from .calibration import Calibration
from .rerank import AUTO, DEFAULT, OF_FEATURES

CANDIDATES = 1000  # re-ranked where no number is asked for
MOST_CANDIDATES = 10_000  # and where ties among the nearest go on beyond these, up to so many


@old_attributes
@dataclass(frozen=True)
class Hits:
    """Answers to nq queries, best first.

    Attributes:
        positions: int64 (nq, k), of the photographs in the database.
        hamming: int32 (nq, k), distances in bits.
        euclidean: float32 (nq, k), NaN where there was no re-rank.
        candidates: int64 (nq,), how many were re-ranked, 0 without re-rank.
        cut: bool (nq,), whether ties among the nearest were cut off: photographs were left out that are as near as the
            k-th nearest, and might be better answers.
    """

    positions: Positions
    hamming: Distances
    euclidean: NDArray[np.float32]
    candidates: NDArray[np.int64]
    cut: NDArray[np.bool_]


class Candidates(NamedTuple):
    """The candidates of some queries of a search, which have equally many.

    ``queries`` int64 (m,) are the numbers of the queries, ``hamming`` int32 and ``positions`` int64 (m, c) the
    candidates by (distance, position), and ``cut`` bool (m,) says as in `Hits` where ties were cut off.
    """

    queries: NDArray[np.int64]
    hamming: Distances
    positions: Positions
    cut: NDArray[np.bool_]


class Ranked(NamedTuple):
    """The candidates of some queries in the order of the re-rank.

    ``euclidean`` float32 (m, c) ascends, and is NaN without re-rank; ``order`` int64 (m, c) are the columns of the
    ``candidates`` in that order; ``seconds`` are those of the two stages.
    """

    candidates: Candidates
    euclidean: NDArray[np.float32]
    order: Positions
    seconds: tuple[float, float]

    def with_near_first(self, most_bits: int | None) -> Ranked:
        """Return the same, but that candidates of more than ``most_bits`` come last, of which the euclidean distances
        need not ascend: by Hamming distance. None changes nothing.
        """
        if most_bits is None:
            return self
        hamming = np.take_along_axis(self.candidates.hamming, self.order, axis=1)
        columns = np.argsort(np.where(hamming > most_bits, hamming, 0), axis=1, kind="stable")
        euclidean = np.take_along_axis(self.euclidean, columns, axis=1)
        return self._replace(euclidean=euclidean, order=np.take_along_axis(self.order, columns, axis=1))


class Item(NamedTuple):
    """A photograph.

    ``id``, ``path``, ``label`` (class names with spaces between, "" where unknown), ``code``, packed uint8 (w,), where
    that was asked for, ``labels``, the same class names one by one, and ``columns``, the number or text that it has in
    each column that others have added to `hashret.shards.COLUMNS`.
    """

    id: int
    path: str
    label: str
    code: NDArray[np.uint8] | None = None
    labels: tuple[str, ...] = ()
    columns: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(
        cls,
        id: int,
        path: str,
        labels: tuple[str, ...],
        code: NDArray[np.uint8] | None = None,
        columns: Mapping[str, Any] = MappingProxyType({}),
    ) -> Item:
        """Return a photograph by the names of its classes."""
        return cls(id, path, " ".join(labels), code, labels, columns)


def check_counts(k: int, candidates: int | None) -> None:
    """Raise HashretError unless k and candidates, where they are given, are whole numbers of at least 1."""
    for number in (k, candidates):
        if number is not None and not is_whole(number, 1):
            raise HashretError(f"k and candidates must be whole numbers of at least 1, not {number!r}")


def ids_array(ids: int | Iterable[int]) -> NDArray[np.int64]:
    """Return one or several ids without repetition, int64 (n,), ascending. Raises HashretError for what can be none."""
    is_several = isinstance(ids, Sequence) or (isinstance(ids, np.ndarray) and ids.ndim > 0)
    given: Any = ids if is_several else several(ids, (int, np.integer))
    try:
        numbers = np.asarray(given)
        if len(numbers) and (numbers.dtype.kind not in "iu" or numbers.max() >= 2**63):
            raise TypeError("which int64 would cut off")
        return np.unique(numbers.astype(np.int64))
    except (OverflowError, TypeError, ValueError):
        wrong = next((id for id in given if not isinstance(id, int | np.integer) or not 0 <= id < 2**63), given)
        raise HashretError(f"an id is a whole number from 0 to 2^63 - 1, not {wrong!r}") from None


@old_attributes
class Database(ABC):
    """Encoded photographs, searched by Hamming distance and then by Euclidean distance: the paper's section 1.2.

    A position is the number by which a database finds a photograph again: in an index folder its place among all
    photographs ever added, in an engine its id. Positions ascend as ids do. Whatever takes several positions takes them
    in one step, so that an engine over a network is asked once and not once a hit.

    Attributes:
        meta: bits, count, encoder (fingerprint), precision, image_size, classes, generation, protocol.
        most: answers that `nearest` can give, None for any number.
        damage: why no answer can be trusted, one line, or None.
        checked: what was compared with the database's own record, in words.
    """

    meta: dict[str, Any]

    @property
    def most(self) -> int | None:
        return None

    @property
    def damage(self) -> str | None:
        return None

    @property
    def checked(self) -> str:
        return "nothing"

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return int(self.meta["bits"])

    @abstractmethod
    def __len__(self) -> int:
        """Return how many photographs can be found."""

    @property
    @abstractmethod
    def has_hash_outputs(self) -> bool:
        """Whether the database can re-rank by hash outputs."""

    @property
    def has_fc_features(self) -> bool:
        """Whether the database can re-rank by features: what the hash layer reads, or the vectors that were encoded."""
        return False

    def rerank_choice(self, rerank_by: str) -> str:
        """Return one of `hashret.index.rerank.CHOICES`: what "auto" stands for here, or ``rerank_by`` itself.

        Vectors that an index keeps are compared as its encoder compares them, unless that has learned from labels.
        """
        if rerank_by != AUTO:
            return rerank_by
        choice: str = self.meta.get("rerank_by") or DEFAULT
        if choice in OF_FEATURES and not self.has_fc_features:
            return DEFAULT if self.has_hash_outputs else "asymmetric"
        return choice

    def rerank_choice_in_words(self) -> Literal["directions", "asymmetric"]:
        """Return what "auto" stands for where words are asked for, of which there are logits and no features."""
        return "directions" if self.has_hash_outputs else "asymmetric"

    def rerank_choice_in_texts(self) -> Literal["cosine", "directions", "asymmetric"]:
        """Return what "auto" stands for where a text is asked for: embeddings compare best, where they are kept."""
        return "cosine" if self.has_fc_features else self.rerank_choice_in_words()

    @abstractmethod
    def nearest(self, codes: Codes, k: int, among: Any = None) -> tuple[Distances, Positions]:
        """Answer queries by Hamming distance: the first stage.

        Args:
            codes: packed uint8 (nq, w).
            k: answers a query.
            among: what `select` returned; only its photographs can be answers.

        Returns:
            Distances int32 and positions int64, both (nq, min(k, count)), by (distance, position).
        """

    @abstractmethod
    def within(self, codes: Codes, radius: int, among: Any = None) -> Iterator[tuple[int, Distances, Positions]]:
        """Yield for each query its number and all photographs within a radius in bits: by (distance, position)."""

    @abstractmethod
    def reranked(
        self, queries: Vectors, positions: Positions, rerank_by: str = "values"
    ) -> tuple[NDArray[np.float32], Positions]:
        """Order candidates by Euclidean distance: the second stage.

        Args:
            queries: float32 (nq, bits), or (nq, width) where features are compared.
            positions: int64 (nq, c), of the candidates.
            rerank_by: one of `hashret.index.rerank.CHOICES`.

        Returns:
            Euclidean distances float32 (nq, c), ascending, and the columns of the candidates in that order.
        """

    @abstractmethod
    def select(
        self,
        label: str | Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        ids: Iterable[int] | None = None,
    ) -> Any:
        """Return photographs to search among, for ``among``: an object with a length. What is None does not count.

        Args:
            label: class name, or several, of which a photograph must have one.
            path: path, or pattern of it, or several, see `hashret.index.folder.Index.matching`.
            ids: ids of photographs.

        Raises:
            HashretError: no such class, or a number that can be no id.
        """

    @abstractmethod
    def find(self, id: int) -> tuple[int, Item]:
        """Return the position of a photograph, and its `Item` with the code. Raises HashretError if there is none."""

    @abstractmethod
    def items(self, positions: Sequence[int], codes: bool = False) -> list[Item]:
        """Return the photographs at positions (n,), in any order, repeated or not, with their codes if wanted."""

    @abstractmethod
    def hash_outputs_at(self, position: int) -> NDArray[np.float32] | None:
        """Return the hash outputs of a photograph, float32 (bits,), None where none are kept."""

    def fc_features_at(self, position: int) -> Vectors | None:
        """Return the features of a photograph, or its vector, float32 (width,), None where none are kept."""
        return None

    @abstractmethod
    def sample(self, n: int, seed: int = 0) -> Positions:
        """Return positions of min(n, count) photographs, drawn by the seed."""

    @abstractmethod
    def everything(self) -> tuple[Positions, Codes, Labels | None]:
        """Return of all photographs positions (n,), packed codes (n, w), and labels (n,) or (n, classes), or None."""

    @abstractmethod
    def calibrate(
        self, k: int = 10, recall: float = 0.99, sample: int = 200, seed: int = 0, rerank_by: str = "values"
    ) -> Calibration:
        """Return how many candidates give a recall of the k nearest, see `hashret.index.calibration.calibrate`.

        Args:
            rerank_by: as of `search`: the nearest are those by the distance that the re-rank orders by.
        """

    def warm(self) -> Database:
        """Load what the first searches would load, and return the database."""
        return self

    @old_keywords
    def search(
        self,
        codes: Codes,
        hash_outputs: HashOutputs | None = None,
        k: int = 10,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        query_features: Vectors | None = None,
        most_bits: int | None = None,
    ) -> Hits:
        """Answer queries in two stages: the nearest codes, and these in the order of their Euclidean distance.

        Args:
            codes: packed query codes, uint8 (nq, w).
            hash_outputs: of the queries, float32 (nq, bits); None leaves the Hamming order, as ``rerank_by`` None does.
            k: answers a query.
            candidates: nearest by Hamming distance that are re-ranked by Euclidean distance, at least k. None takes
                1,000 and, where more are as near as the k-th nearest, all of these, up to 10,000: a photograph is then
                found by itself wherever no more share its code.
            rerank_by: one of `hashret.index.rerank.CHOICES`; "auto" for what `rerank_choice` says; None for no re-rank.
            among: what `select` returned; only its photographs can be answers.
            query_features: float32 (nq, width), to re-rank by one of `hashret.index.rerank.OF_FEATURES`.
            most_bits: photographs farther than this by Hamming distance come behind all others, the nearest of them
                first.

        Returns:
            `Hits` of min(k, count) columns.

        Raises:
            HashretError: k or candidates below 1, or codes of another width, or a database without hash outputs.
        """
        rerank = None
        if rerank_by is not None and hash_outputs is not None:
            rerank_by = self.rerank_choice(rerank_by)
            queries = query_features if rerank_by in OF_FEATURES else hash_outputs
            if queries is None:
                raise HashretError(f"a re-rank by {rerank_by} needs the features of the queries")
            rerank = rerank_by, queries
        best = []
        for ranked in self.ranked(codes, rerank, k, candidates, among):
            (numbers, hamming, positions, cut), euclidean, order, _ = ranked.with_near_first(most_bits)
            first = np.arange(len(order))[:, None], order[:, :k]
            counts = np.full(len(order), positions.shape[1] if rerank else 0)
            best.append((numbers, positions[first], hamming[first], euclidean[:, :k], counts, cut))
        queries_in_groups, *columns = (np.concatenate(column) for column in zip(*best, strict=True))
        as_asked = np.argsort(queries_in_groups)
        return Hits(*(column[as_asked] for column in columns))

    def ranked(
        self,
        codes: Codes,
        rerank: tuple[str, Vectors] | None,
        k: int = 10,
        candidates: int | None = None,
        among: Any = None,
    ) -> Iterator[Ranked]:
        """Yield all candidates of queries in both orders, of queries with equally many together.

        Args:
            rerank: what the re-rank compares, one of `hashret.index.rerank.CHOICES`, and that of the queries, float32
                (nq, width). None leaves the Hamming order, of k candidates.
            codes, k, candidates, among: as of `search`, as are the errors.
        """
        started = time.perf_counter()
        if rerank is None:
            self.check(codes, k, 1 if candidates is None else candidates)
            D, positions = self.nearest(codes, k, among)
            groups = [Candidates(np.arange(len(D)), D, positions, np.zeros(len(D), bool))]
        else:
            groups = self.candidates(codes, k, candidates, among)
        hamming_seconds = time.perf_counter() - started
        for group in groups:
            started = time.perf_counter()
            if rerank is None:
                order = np.broadcast_to(np.arange(group.positions.shape[1]), group.positions.shape)
                euclidean = np.full(order.shape, np.nan, np.float32)
            else:
                euclidean, order = self.reranked(rerank[1][group.queries], group.positions, rerank[0])
            yield Ranked(group, euclidean, order, (hamming_seconds, time.perf_counter() - started))

    def candidates(self, codes: Codes, k: int, candidates: int | None = None, among: Any = None) -> list[Candidates]:
        """Return the candidates of queries, as `search` takes them: of queries with equally many together."""
        self.check(codes, k, 1 if candidates is None else candidates)
        least = max(k, CANDIDATES if candidates is None else candidates)
        first = self._nearest_candidates(codes, least, k, among)
        unresolved = np.flatnonzero(first.cut)
        if candidates is not None or not len(unresolved):
            return [first]
        groups = [] if first.cut.all() else [Candidates._make(column[~first.cut] for column in first)]
        most = max(least, min(MOST_CANDIDATES, self.most or MOST_CANDIDATES))
        _, hamming, positions, cut = self._nearest_candidates(codes[unresolved], most, k, among)
        counts = (hamming <= hamming[:, k - 1 : k]).sum(axis=1).tolist()
        for number, count in enumerate(counts):
            one = slice(number, number + 1)
            groups.append(Candidates(unresolved[one], hamming[one, :count], positions[one, :count], cut[one]))
        return groups

    def _nearest_candidates(self, codes: Codes, n: int, k: int, among: Any) -> Candidates:
        """Return the n nearest of each query, and whether others are as near as the k-th nearest."""
        fetched = n if n == self.most else n + 1  # one more says whether a tie ends with the n-th
        D, positions = self.nearest(codes, fetched, among)
        cut = D[:, k - 1] == D[:, n] if D.shape[1] > n else np.zeros(len(D), bool)
        return Candidates(np.arange(len(D)), D[:, :n], positions[:, :n], cut)

    def check(self, codes: Codes, k: int = 1, candidates: int = 1) -> None:
        """Raise HashretError unless queries can be searched so, see `search`."""
        check_counts(k, candidates)
        if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8 or codes.ndim != 2:
            kind = f"{codes.dtype} {codes.shape}" if isinstance(codes, np.ndarray) else type(codes).__name__
            raise HashretError(
                f"queries are packed codes, uint8 (n, width), and not {kind}",
                hint="Searcher.search_codes takes other forms of codes",
            )
        width = code_width(self.bits)
        if codes.shape[1] != width:
            raise HashretError(f"queries of {codes.shape[1]} bytes do not fit an index of {self.bits} bits")

    def _class_numbers(self, label: str | Iterable[str]) -> list[int]:
        """Return the numbers of classes by name, one or several. Raises HashretError where there is no such class."""
        names, classes = several(label, str), self.meta["classes"]
        unknown = [name for name in names if name not in classes]
        if unknown:
            known = ", ".join(classes[:30]) or "none"
            raise HashretError(f"no class {unknown[0]!r} in this index; its classes: {known}")
        return [number for number, name in enumerate(classes) if name in names]
