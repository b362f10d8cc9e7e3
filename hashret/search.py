"""From a photograph to its answers: the only module that knows both the encoder and the index."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from . import __version__
from .bits import HashOutputs, binarize, pack
from .data import ImageSource, Source, VectorSource, as_source, open_data, warn_passed_over
from .data import vectors as vector_source
from .data.batches import split_rows
from .data.images import UnreadableImage, read_image
from .data.in_memory import Held, Photo, photographs, refuse_in_memory
from .data.references import is_there, kind_of
from .data.walk import LINKED_TO_NOTHING, SPECIAL, summary, walk
from .engines import refuse_engine, shown
from .errors import HashretError, refuse_given, warn
from .files import StrPath, partial_folder, remove_leftovers
from .index import Database, Index, Item, open_index
from .index.database import Hits
from .index.given import ENCODER, CodeFile, is_code_file, packed
from .index.opening import on_device
from .index.paths import file_key
from .index.rerank import AUTO, OF_FEATURES
from .models.metadata import Described, read_meta
from .models.ready import ready_encoder
from .names import to_json
from .opening import find_model, open_database
from .places import find_index
from .progress import takes_quiet
from .renamed import old_keywords
from .results import Result
from .similar import bits_within, least_percent, similarity
from .vectors import Vectors

if TYPE_CHECKING:
    from .encoding import EncodeReport
    from .models.encoder import Encoder
    from .models.ready import ReadyEncoder

P = ParamSpec("P")
T = TypeVar("T")
TOGETHER = ("mean", "union")
Photos = Photo | Sequence[Photo] | VectorSource  # queries: photographs, or vectors or `Asked`, whose items are names
_PHOTOS_AT_ONCE = 64  # decoded before they are encoded
_ITEMS_AT_ONCE = 1000  # photographs within a radius that are looked up together


def _old_rerank(function: Callable[P, T]) -> Callable[P, T]:
    """Let a method be called with ``rerank=False``, whose place ``rerank_by=None`` has taken, with a warning."""

    @functools.wraps(function)
    def called(*args: Any, rerank: bool | None = None, **options: Any) -> T:
        if rerank is not None:
            text = f"{function.__qualname__}(rerank=False) is now {function.__qualname__}(rerank_by=None)"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        return function(*args, **(options if rerank in (None, True) else options | {"rerank_by": None}))

    return called  # type: ignore[return-value]


@dataclass(frozen=True)
class Hit(Result):
    """One answer.

    Attributes:
        rank: from 1.
        id: of the photograph.
        path: of its file.
        label: class names with spaces between, "" where unknown.
        hamming: distance in bits.
        euclidean: distance; None without re-rank.
        labels: the same class names one by one.
        columns: the number or text of the photograph in each column that others have added to the shards, by name.
        similarity: percent, see `hashret.similar.similarity`.
    """

    rank: int
    id: int
    path: str
    label: str
    hamming: int
    euclidean: float | None
    labels: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict, hash=False)
    similarity: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them, ``columns`` only where there are any."""
        return {name: value for name, value in super().as_dict().items() if name != "columns" or value}


class HitList(list[Hit]):
    """The `Hit` of one query, best first.

    Attributes:
        candidates: how many of the nearest were re-ranked, 0 without re-rank.
        ties_cut: whether photographs that are as near as the k-th nearest were not among them.
        least: percent of similarity that was asked for, or None.
        nearest: the nearest photograph, where none is as similar as ``least``, else None.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        candidates: int = 0,
        ties_cut: bool = False,
        least: float | None = None,
        nearest: Hit | None = None,
    ) -> None:
        super().__init__(hits)
        self.candidates, self.ties_cut, self.least, self.nearest = candidates, ties_cut, least, nearest

    def as_dict(self) -> dict[str, Any]:
        """Return the hits, the number of candidates and whether ties were cut off, for JSON, and ``nearest``."""
        nearest = {"nearest": self.nearest.as_dict()} if self.nearest else {}
        hits = [hit.as_dict() for hit in self]
        return {"hits": hits, "candidates": self.candidates, "ties_cut": self.ties_cut} | nearest

    def at_least(self, least: str | float | None) -> HitList:
        """Return the hits that are so similar; ``least`` as of `hashret.similar.least_percent`, None takes all."""
        if least is None:
            return self
        percent = least_percent(least)
        near = [hit for hit in self if hit.similarity is not None and hit.similarity >= percent]
        nearest = max(self, key=lambda hit: hit.similarity or 0, default=None)
        return HitList(_ranked(near), self.candidates, self.ties_cut, percent, None if near else nearest)


class QueryOutputs(NamedTuple):
    """What the encoder gives for the photographs of a query that could be read.

    ``numbers`` say which of the photographs these are, ``hash_outputs`` float32 (n, bits), and ``fc_features``
    float32 (n, width) what the hash layer reads, where the re-rank compares that, else None.
    """

    numbers: list[int]
    hash_outputs: HashOutputs
    fc_features: Vectors | None


class Asked(list[str]):
    """Queries that are no photographs, by name, with the ``outputs`` to search by."""

    def __init__(self, names: Iterable[str], outputs: QueryOutputs) -> None:
        super().__init__(names)
        self.outputs = outputs


class Searcher:
    """An index and the encoder it was built with.

    Args:
        index: folder of an index, see `hashret build-index`, a collection in an engine, see `hashret export`, or an
            opened `hashret.index.Database`; None for the one that `hashret.places.find_index` finds.
        model: checkpoint of the encoder, or the loaded `Encoder`; None for the one of `hashret.opening.find_model`.
        device: "auto", "cpu" or "cuda", for both; see `hashret.index.resident.Resident` for how a GPU searches.
        backend: of the Hamming stage, see `hashret.index.hamming.HammingStage`.
        values: with a collection, folder of the index that it was exported from, to take hash outputs for the re-rank
            from.

    Attributes:
        index: the opened `hashret.index.Database`.

    Raises:
        HashretError: either is missing or damaged, or the index was built by another encoder.
    """

    @old_keywords
    def __init__(
        self,
        index: StrPath | Database | None = None,
        model: StrPath | Encoder | None = None,
        device: str = "auto",
        *,
        backend: str = "auto",
        values: StrPath | None = None,
    ) -> None:
        if isinstance(index, Database):
            self.index = on_device(index, device) if isinstance(index, Index) else index
        else:
            index = find_index(index)
            self.index = open_database(index, device, values, backend=backend)
        self._encoder: Encoder | None = None
        self._load: Callable[[], Encoder] | None = None  # the encoder, where it is not loaded
        self._ready: ReadyEncoder | None = None  # what encodes photographs in its place, without torch
        if self.index.meta["encoder"] == ENCODER:
            return
        if not isinstance(model, Described):
            model = find_model(model, self.index)
        meta = model.meta if isinstance(model, Described) else read_meta(model)
        if meta["fingerprint"] != self.index.meta["encoder"]:
            raise HashretError(
                f"the index {shown(index)} was built by another encoder than {model}",
                hint="name its own with --model, or encode and build the index again",
            )
        if isinstance(model, Described):
            self._encoder = model.shortened(self.index.bits)
            return
        precision, bits = self.index.meta["precision"], self.index.bits
        self._load = functools.partial(_load_encoder, model, device, precision, bits)
        if device in ("auto", "cpu"):
            self._ready = ready_encoder(meta, precision, bits)
        if self._ready is None:
            self._encoder = self._load()

    @property
    def encoder(self) -> Encoder:
        """The loaded `Encoder`, for codes of the length that the index has.

        Raises:
            HashretError: others made the codes of the index, nobody knows how; or its checkpoint is damaged.
        """
        if self._encoder is None:
            if self._load is None:
                raise HashretError("nobody knows the encoder of this index, which is asked with codes")
            self._encoder = self._load()
        return self._encoder

    def warm(self) -> Searcher:
        """Load now what the first searches would load, and return the searcher."""
        self.index.warm()
        return self

    @_old_rerank
    def search(
        self,
        photo: Photo,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        exclude_self: bool = False,
        least: str | float | None = None,
    ) -> HitList:
        """Answer one photograph; arguments as of `search_many`. Raises HashretError if it cannot be read."""
        answers = self.search_many(
            [photo], k, candidates=candidates, rerank_by=rerank_by, among=among, exclude_self=exclude_self, least=least
        )
        assert answers[0] is not None
        return answers[0]

    @_old_rerank
    def search_many(
        self,
        photos: Photos,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        exclude_self: bool = False,
        least: str | float | None = None,
        unreadable: dict[str, str] | None = None,
    ) -> list[HitList | None]:
        """Answer several photographs, each on its own.

        Args:
            photos: paths, Pillow images, arrays of pixels or open files, see `hashret.data.in_memory.photographs`; or
                vectors.
            k, candidates, rerank_by, among: see `hashret.index.Database.search`.
            exclude_self: leave out the file that is asked for.
            least: leave out what is less similar: a word of `hashret.similar.LEVELS`, or percent.
            unreadable: a dict, to which photographs that cannot be read are added, with the reason; their answer is
                None then. Without it, one of them is an error.
        """
        extra = int(exclude_self)  # the file itself is one of the first, but may tie with others
        named = _named(photos)
        answers: list[HitList | None] = [None] * len(named)
        outputs = self._outputs(named, rerank_by, unreadable)
        if outputs is None:
            return answers
        more = None if candidates is None else candidates + extra
        hit_lists = self._hits(outputs, k + extra, more, rerank_by, among, least)
        for number, hits in zip(outputs.numbers, hit_lists, strict=True):
            kept = _without(str(named[number]), hits, k) if exclude_self else hits
            answers[number] = kept.at_least(least)
        return answers

    @_old_rerank
    def search_together(
        self,
        photos: Photos,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        by: str = "mean",
        least: str | float | None = None,
        unreadable: dict[str, str] | None = None,
    ) -> HitList:
        """Answer several photographs as one query.

        Args:
            photos, k, candidates, rerank_by, among, least: as of `search_many`.
            by: "mean": one query, the mean of their hash outputs; "union": what is near to any of them, by the least
                distance.
            unreadable: as of `search_many`; photographs that cannot be read are left out of the query.

        Raises:
            HashretError: another ``by``, or a photograph that cannot be read; with ``unreadable``, none that can.
        """
        if by not in TOGETHER:
            raise HashretError(f"photographs are taken together by {' or '.join(TOGETHER)}, not {by}")
        outputs = self._outputs(photos, rerank_by, unreadable)
        if outputs is None:
            raise nothing_read(unreadable or {})
        if by == "mean":
            features = outputs.fc_features
            mean = QueryOutputs(
                [0],
                outputs.hash_outputs.mean(axis=0, keepdims=True),
                None if features is None else features.mean(axis=0, keepdims=True),
            )
            return self._hits(mean, k, candidates, rerank_by, among, least)[0].at_least(least)
        answers = [hits.at_least(least) for hits in self._hits(outputs, k, candidates, rerank_by, among, least)]
        best: dict[int, Hit] = {}
        for hits in answers:
            for hit in hits:
                best[hit.id] = min(best.get(hit.id, hit), hit, key=_distance)
        most, cut = max(hits.candidates for hits in answers), any(hits.ties_cut for hits in answers)
        near = _ranked(sorted(best.values(), key=_distance)[:k])
        away = [hits.nearest for hits in answers if hits.nearest]
        nearest = None if near else min(away, key=_distance_of_codes, default=None)
        return HitList(near, most, cut, answers[0].least, nearest)

    def search_vectors(
        self,
        vectors: npt.ArrayLike | VectorSource,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        least: str | float | None = None,
    ) -> list[HitList]:
        """Answer vectors, where the encoder takes these: (n, width), or one (width,), of any type of numbers.

        Args:
            vectors: the queries, each of which is answered on its own.
            k, candidates, among, least: as of `search_many`.
            rerank_by: see `hashret.index.Database.search`; "auto" compares the vectors themselves, if the index keeps
                them and its encoder has learned from no labels.

        Raises:
            HashretError: vectors of another width, or with NaN or infinity.
        """
        source = vectors if isinstance(vectors, VectorSource) else vector_source(vectors)
        answers = self.search_many(source, k, candidates=candidates, rerank_by=rerank_by, among=among, least=least)
        return [hits for hits in answers if hits is not None]

    def search_words(
        self,
        words: str | Sequence[str],
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        least: str | float | None = None,
    ) -> HitList:
        """Answer words: find photographs of classes that the encoder has learned, best those of all of them.

        Args:
            words: names of classes, see `hashret.words.names_in`.
            k, candidates, among, least: as of `search_many`.
            rerank_by: see `hashret.index.Database.search`; "auto" compares directions, if the index keeps hash outputs.

        Raises:
            HashretError: the encoder learned no classes, or none of such a name.
        """
        asked, rerank_by = self.in_words([words]), self.rerank_in_words(rerank_by)
        [hits] = self._hits(asked.outputs, k, candidates, rerank_by, among, least)
        return hits.at_least(least)

    def in_words(self, queries: Iterable[str | Sequence[str]]) -> Asked:
        """Return queries, each of which is words as `search_words` takes them; the errors are the same."""
        from .words import names_in, word_outputs

        names = [names_in(words, self.encoder) for words in queries]
        outputs = np.array([word_outputs(classes, self.encoder) for classes in names]).reshape(-1, self.index.bits)
        return Asked(map(", ".join, names), QueryOutputs(list(range(len(names))), outputs, None))

    def search_text(
        self,
        text: str,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        least: str | float | None = None,
    ) -> HitList:
        """Answer a text, where the encoder's backbone is a network of open_clip.

        Args:
            text: what photographs should show.
            k, candidates, among, least: as of `search_many`.
            rerank_by: see `hashret.index.Database.search`; "auto" compares what the hash layer reads by the cosine, if
                the index keeps it, which for ``itq``, ``lsh`` and ``bihalf`` are the embeddings; else directions.

        Raises:
            HashretError: the encoder takes no texts.
        """
        asked, rerank_by = self.in_texts([text]), self.rerank_in_texts(rerank_by)
        [hits] = self._hits(asked.outputs, k, candidates, rerank_by, among, least)
        return hits.at_least(least)

    def in_texts(self, texts: Sequence[str]) -> Asked:
        """Return queries by texts, as `search_text` takes them; the errors are the same."""
        from .words import text_outputs

        return Asked(texts, QueryOutputs(list(range(len(texts))), *text_outputs(texts, self.encoder)))

    def rerank_in_texts(self, rerank_by: str | None) -> str | None:
        """Return what the re-rank compares with a text: ``rerank_by`` itself, or what "auto" stands for."""
        return self.index.rerank_choice_in_texts() if rerank_by == AUTO else rerank_by

    def rerank_in_words(self, rerank_by: str | None) -> str | None:
        """Return what the re-rank compares with a query in words: ``rerank_by`` itself, or what "auto" stands for."""
        if rerank_by in OF_FEATURES:
            raise HashretError(f"words have no features to re-rank by {rerank_by}", hint="take directions")
        return self.index.rerank_choice_in_words() if rerank_by == AUTO else rerank_by

    def search_codes(
        self, codes: npt.ArrayLike, k: int = 10, *, among: Any = None, least: str | float | None = None
    ) -> list[HitList]:
        """Answer packed codes, (n, w) or one (w,), by Hamming distance.

        Args:
            codes: uint8, as hashret and numpy pack them, or int8 with an offset of 128, see `hashret.index.given`.
            k, among, least: as of `search_many`.

        Raises:
            HashretError: codes of another width than those of the index.
        """
        answers = self._hit_lists(self.index.search(packed(codes), k=k, rerank_by=None, among=among))
        return [hits.at_least(least) for hits in answers]

    def within(self, photo: Photo, radius: int, among: Any = None) -> Iterator[Hit]:
        """Yield all photographs within ``radius`` bits of one, by Hamming distance."""
        yield from self._within(self.encode([photo]), radius, among)

    def _within(self, hash_outputs: HashOutputs, radius: int, among: Any) -> Iterator[Hit]:
        codes = pack(binarize(hash_outputs))
        for _, D, positions in self.index.within(codes, radius, among):
            for start in range(0, len(positions), _ITEMS_AT_ONCE):
                block = slice(start, start + _ITEMS_AT_ONCE)
                items = self.index.items(positions[block].tolist())
                yield from _hits(items, self.index.bits, D[block].tolist(), [math.nan] * len(items), start + 1)

    def _all_within(
        self, files: Sequence[str | Held] | VectorSource, radius: int, among: Any, unreadable: dict[str, str]
    ) -> list[QueryAnswer]:
        """Return for each file that can be read all photographs within a radius."""
        outputs = self._outputs(files, unreadable=unreadable)
        if outputs is None:
            return []
        return [
            QueryAnswer(str(files[number]), HitList(self._within(outputs.hash_outputs[row : row + 1], radius, among)))
            for row, number in enumerate(outputs.numbers)
        ]

    def encode(self, photos: Photos) -> HashOutputs:
        """Return the hash outputs of photographs, float32 (n, bits). Raises HashretError if one cannot be read."""
        outputs = self._outputs(photos)
        assert outputs is not None
        return outputs.hash_outputs

    def _outputs(
        self, queries: Photos, rerank_by: str | None = AUTO, unreadable: dict[str, str] | None = None
    ) -> QueryOutputs | None:
        """Return what the encoder gives for photographs or vectors; None where none of them could be read."""
        photos = _named(queries)
        if not len(photos):
            raise HashretError("no photographs to look for")
        if isinstance(photos, Asked):
            return photos.outputs
        if isinstance(photos, VectorSource):
            return self._vector_outputs(photos, unreadable)
        encoder = self._ready or self.encoder
        if encoder.vector_width:
            raise HashretError("this index is of vectors, not of photographs", hint="name vectors with --vector")
        full = rerank_by is not None and self.index.rerank_choice(rerank_by) in OF_FEATURES
        if full and not encoder.fc_width:
            raise HashretError(f"{encoder.meta['method']} has no features to re-rank by")
        numbers: list[int] = []
        outputs = []
        for block in split_rows(range(len(photos)), _PHOTOS_AT_ONCE):
            read = {number: read_query(photos[number], encoder, unreadable) for number in block}
            images = {number: image for number, image in read.items() if image is not None}
            if images:
                numbers += images
                outputs.append(encoder.outputs(encoder.backbone(np.stack([*images.values()])), full))
        if not numbers:
            return None
        features = np.concatenate([features for _, features in outputs]) if full else None
        return QueryOutputs(numbers, np.concatenate([hash_outputs for hash_outputs, _ in outputs]), features)

    def _vector_outputs(self, source: VectorSource, unreadable: dict[str, str] | None) -> QueryOutputs | None:
        for row, reason in source.skipped.items():
            if unreadable is None:
                raise HashretError(f"cannot use the vector {source.reference(row)}: it {reason}")
            unreadable[source.reference(row)] = reason
        numbers = [row for row in range(len(source)) if row not in source.skipped]
        vectors = source.read(numbers)
        return QueryOutputs(numbers, self.encoder.encode(vectors), vectors) if numbers else None

    @old_keywords
    @_old_rerank
    def hits(
        self,
        hash_outputs: HashOutputs,
        k: int = 10,
        *,
        candidates: int | None = None,
        rerank_by: str | None = AUTO,
        among: Any = None,
        query_features: Vectors | None = None,
    ) -> list[HitList]:
        """Answer encoded photographs: hash outputs (n, bits), and features (n, width) to re-rank by these."""
        outputs = QueryOutputs(list(range(len(hash_outputs))), hash_outputs, query_features)
        return self._hits(outputs, k, candidates, rerank_by, among)

    def _hits(
        self,
        outputs: QueryOutputs,
        k: int,
        candidates: int | None,
        rerank_by: str | None,
        among: Any,
        least: str | float | None = None,
    ) -> list[HitList]:
        """Return the k nearest of each query, those that are not as similar as ``least`` last, see `at_least`."""
        codes = pack(binarize(outputs.hash_outputs))
        most_bits = None if least is None else bits_within(least, self.index.bits)
        features = outputs.fc_features
        return self._hit_lists(
            self.index.search(codes, outputs.hash_outputs, k, candidates, rerank_by, among, features, most_bits)
        )

    def _hit_lists(self, answers: Hits) -> list[HitList]:
        items, k = self.index.items(answers.positions.ravel().tolist()), answers.positions.shape[1]
        lists = [
            _hits(items[query * k : (query + 1) * k], self.index.bits, hamming, euclidean)
            for query, (hamming, euclidean) in enumerate(
                zip(answers.hamming.tolist(), answers.euclidean.tolist(), strict=True)
            )
        ]
        return list(map(HitList, lists, answers.candidates.tolist(), answers.cut.tolist()))


def _hits(
    items: Sequence[Item], bits: int, hamming: Sequence[int], euclidean: Sequence[float], first: int = 1
) -> list[Hit]:
    distances = [None if math.isnan(distance) else distance for distance in euclidean]
    return [
        Hit(
            rank, item.id, item.path, item.label, differing, distance, item.labels, dict(item.columns),
            similarity(differing, bits),
        )
        for rank, (item, differing, distance) in enumerate(zip(items, hamming, distances, strict=True), first)
    ]  # fmt: skip


def _distance(hit: Hit) -> tuple[float, int, int]:
    return (hit.hamming if hit.euclidean is None else hit.euclidean, hit.hamming, hit.id)


def _distance_of_codes(hit: Hit) -> tuple[int, int]:
    return hit.hamming, hit.id


def _ranked(hits: Iterable[Hit]) -> list[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]


def _named(photos: Photos) -> Sequence[str | Held] | VectorSource:
    """Return queries as a sequence, whose items are paths, or have the names of the queries by ``str``."""
    return photos if isinstance(photos, VectorSource | Asked) else photographs(photos)


def _without(path: StrPath, hits: HitList, k: int) -> HitList:
    """Return hits without those of a file."""
    file = os.path.realpath(path)
    others = _ranked([hit for hit in hits if os.path.realpath(hit.path) != file][:k])
    return HitList(others, hits.candidates, hits.ties_cut)


def _load_encoder(model: StrPath, device: str, precision: str, bits: int) -> Encoder:
    from .models.checkpoint import load_encoder

    return load_encoder(model, device, precision).shortened(bits)


def read_query(photo: Photo, encoder: Described, unreadable: dict[str, str] | None = None) -> NDArray[np.uint8] | None:
    """Return one photograph as uint8 (3, size, size), as its encoder wants it.

    One that cannot be read is an error, or, where a dict ``unreadable`` is given, added to it with the reason, and
    None.
    """
    try:
        return read_image(photo, encoder.image_size, resize=encoder.resize)
    except UnreadableImage as error:
        if unreadable is None:
            raise HashretError(f"cannot read {photo}: {error}") from None
        unreadable[str(photo)] = str(error)
        return None


def nothing_read(unreadable: dict[str, str]) -> HashretError:
    """Return the error to raise where no photograph could be read."""
    photo, reason = next(iter(unreadable.items()))
    others = f", nor {len(unreadable) - 1:,} others" if len(unreadable) > 1 else ""
    return HashretError(f"cannot read {photo}: {reason}{others}")


class QueryAnswer(NamedTuple):
    """The ``hits`` of a photograph, which was asked for by its ``path``."""

    path: str
    hits: HitList

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as plain types, for JSON."""
        return {"query": self.path} | self.hits.as_dict()


def query(
    photos: Photo | Iterable[Photo] = (),
    index: StrPath | Database | None = None,
    model: StrPath | Encoder | None = None,
    *,
    k: int = 10,
    candidates: int | None = None,
    recall: float | None = None,
    rerank: bool = True,
    rerank_by: str | None = AUTO,
    radius: int | None = None,
    label: Iterable[str] = (),
    path: Iterable[str] = (),
    ids: Iterable[int] = (),
    exclude_self: bool = False,
    together: str | None = None,
    least: str | float | None = None,
    values: StrPath | None = None,
    device: str = "auto",
    searcher: Searcher | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    vectors: StrPath | npt.NDArray[np.number] | VectorSource | None = None,
    words: str | Iterable[str | Sequence[str]] = (),
    text: str | Iterable[str] = (),
    unreadable: dict[str, str] | None = None,
) -> list[QueryAnswer]:
    """Look for photographs, for vectors, or for what words say, in an index.

    Photographs that cannot be read are warned of, and left out, and so are vectors that hold NaN.

    Args:
        photos: image files, one or several, of which a folder stands for all images below it; or Pillow images, arrays
            of pixels or open files, see `hashret.data.in_memory.photographs`.
        index, model, values, device: see `Searcher`.
        k: answers a photograph.
        candidates: nearest by Hamming distance that are re-ranked; None for 1,000 and, where more are as near as the
            k-th nearest, all of these, up to 10,000. Where some are left out even so, that is a warning.
        recall: take as many candidates as give this fraction of the k nearest by what the re-rank compares, instead:
            hash outputs, or features or vectors.
        rerank: False leaves the order of the Hamming distance, as ``rerank_by`` None does.
        rerank_by: one of `hashret.index.rerank.CHOICES`, or None; "auto" is what the index is made for.
        radius: all photographs within this many bits, instead of k.
        label, path, ids: search among photographs of these labels, path patterns and ids only.
        exclude_self: leave out the file that is asked for.
        together: "mean" or "union" takes all photographs as one query, which goes by the name of the first.
        least: leave out what is less similar: a word of `hashret.similar.LEVELS`, or percent. Where nothing is left,
            `HitList.nearest` says what comes nearest.
        searcher: an open `Searcher`, instead of index, model and device.
        exclude, include: patterns of what is left out of folders and what is not, see `hashret.data.walk.walk`.
        vectors: an array, a file of vectors or an open source of them, to look for in the place of photographs; or
            ``codes:FILE``, see `hashret.index.given`.
        words: one query in words, as ``"bear, snow"``, or several, see `Searcher.search_words`.
        text: one query by a text, or several, see `Searcher.search_text`.
        unreadable: a dict, to which photographs that cannot be read are added, with the reason.

    Raises:
        HashretError: none of the photographs can be read, or what is asked for cannot be done.
    """
    choice = rerank_by if rerank_by != AUTO else None
    if not rerank:
        refuse_given(
            "without a re-rank there are no candidates", candidates=candidates, recall=recall, rerank_by=choice
        )
        rerank_by = None
    if radius is not None:
        refuse_given(
            "within a radius are all photographs by their codes alone, of each query on its own",
            candidates=candidates, recall=recall, rerank_by=choice, together=together,
        )  # fmt: skip
    if candidates is not None and recall is not None:
        raise HashretError("candidates and recall both say how many are re-ranked; take one of them")
    unreadable = {} if unreadable is None else unreadable
    if least is not None:
        least = least_percent(least)
        if radius is not None:
            raise HashretError("radius and least both say how near a hit must be; take one of them")
    files: Sequence[str | Held] | VectorSource = []
    named = photographs(photos)
    if words or text:
        if exclude_self or vectors is not None or named or (words and text):
            raise HashretError("words or a text are asked for alone, without photographs, vectors or exclude_self")
    elif vectors is None:
        files = expand(named, exclude, include, unreadable)
    elif not is_code_file(vectors):
        files = _query_vectors(vectors)
    searcher = searcher or Searcher(index, model, device, values=values)
    if words:
        files = searcher.in_words([words] if isinstance(words, str) else words)
        rerank_by = searcher.rerank_in_words(rerank_by)
    elif text:
        files = searcher.in_texts([text] if isinstance(text, str) else list(text))
        rerank_by = searcher.rerank_in_texts(rerank_by)
    among = searcher.index.select(label or None, path or None, ids or None) if label or path or ids else None
    if among is not None and not len(among):
        warn("the index has no photograph of what --label, --path and --id ask for together")
    if is_code_file(vectors):
        if together or exclude_self or radius is not None:
            raise HashretError("codes are asked one by one, for the k nearest")
        refuse_given("codes have nothing to re-rank by", candidates=candidates, recall=recall, rerank_by=choice)
        file = CodeFile(str(vectors))
        hits_of_codes = searcher.search_codes(file.codes(), k, among=among, least=least)
        return [QueryAnswer(name, hits) for name, hits in zip(file.source, hits_of_codes, strict=True)]
    if recall is not None:
        candidates = searcher.index.calibrate(k, recall, rerank_by=rerank_by or "values").candidates
    if exclude_self and (together or radius is not None):
        raise HashretError("exclude_self goes with neither together nor radius")
    if radius is not None:
        results = searcher._all_within(files, radius, among, unreadable)
    elif together:
        one = searcher.search_together(
            files, k, candidates=candidates, rerank_by=rerank_by, among=among, by=together, least=least,
            unreadable=unreadable,
        )  # fmt: skip
        results = [QueryAnswer(next(str(file) for file in files if str(file) not in unreadable), one)]
    else:
        answers = searcher.search_many(
            files, k, candidates=candidates, rerank_by=rerank_by, among=among, exclude_self=exclude_self, least=least,
            unreadable=unreadable,
        )  # fmt: skip
        pairs = zip(files, answers, strict=True)
        results = [QueryAnswer(str(file), hits) for file, hits in pairs if hits is not None]
    if not results:
        raise nothing_read(unreadable)
    warn_unreadable(unreadable)
    if recall is None:  # which was measured with the ties cut off
        _warn_of_cut_ties([answer.hits for answer in results])
    return results


def _query_vectors(vectors: StrPath | npt.NDArray[np.number] | VectorSource) -> VectorSource:
    """Open vectors that are asked for: a file is named with or without the ``vectors:`` before it."""
    if isinstance(vectors, str | os.PathLike):
        name = os.fspath(vectors)
        vectors = cast(VectorSource, open_data(name if name.startswith("vectors:") else f"vectors:{name}"))
    return vectors if isinstance(vectors, VectorSource) else vector_source(vectors)


def _warn_of_cut_ties(answers: Sequence[HitList]) -> None:
    """Warn where the order of ids, not the re-rank, decided what was among the candidates."""
    cut = [hits for hits in answers if hits.ties_cut]
    if cut:
        of = f" of {len(cut):,} of {len(answers):,} queries" if len(answers) > 1 else ""
        warn(
            f"more photographs are as near as the answers{of} than the {cut[0].candidates:,} candidates; those of the "
            "highest ids were left out: take more --candidates"
        )


def warn_unreadable(unreadable: dict[str, str]) -> None:
    """Warn of each photograph of a dict from paths to reasons."""
    for photo, reason in unreadable.items():
        warn(f"cannot read {photo}: {reason}")


@takes_quiet
def add(
    index: StrPath,
    photos: StrPath | Iterable[StrPath] | Source | npt.NDArray[np.number],
    model: StrPath | None = None,
    *,
    split: str | None = None,
    again: bool = False,
    device: str = "auto",
    workers: int | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> EncodeReport:
    """Encode photographs, add those to an index that are new, and report what was added.

    A file is added once, even if it is named by two paths, or added by two processes at a time. A call that was killed
    is taken up by the next one for the same photographs.

    Args:
        index, model, device: see `Searcher`.
        photos: image files, or data sources as of `hashret.data.open_data`, which ``split``, ``exclude`` and
            ``include`` are for; or an open source, or an array of vectors; or ``codes:FILE`` of `hashret.index.given`.
        again: add also photographs whose file is in the index already, which are left out otherwise.
        workers: decoding processes, see `hashret.encoding.encode`.

    Raises:
        HashretError: nothing there, none of the photographs can be read, or the index is of another encoder.
    """
    from .encoding import SKIPPED, EncodeReport, encode
    from .index import append

    refuse_engine(index)
    index = find_index(index)
    opened = open_index(index, "cpu")
    names = [photos] if isinstance(photos, str) else photos if isinstance(photos, list | tuple) else []
    if names and all(map(is_code_file, names)):
        return EncodeReport(append(index, [str(name) for name in names], new_only=not again), 0, 0.0)
    model = find_model(model, opened)
    if read_meta(model)["fingerprint"] != opened.meta["encoder"]:
        raise HashretError(
            f"the index {index} was built by another encoder than {model}", hint="name its own with --model"
        )
    sources = list(_sources(photos, split, exclude, include))
    passed_over = tuple(item for source in sources for item in source.files_passed_over())
    new = _new_photographs(opened, sources, again)
    if not new:
        remove_leftovers(index, r"added-\w+")  # of a run that was killed when all was in the index
        return EncodeReport(0, 0, 0.0, (), passed_over)
    # A killed run is taken up, by the name of its folder, where all of this is the same.
    same = [__version__, read_meta(model)["fingerprint"], opened.meta["precision"], opened.has_fc_features]
    same += [[source.fingerprint, source.classes, source.protocol] for source in new]
    name = hashlib.sha256(to_json(same).encode()).hexdigest()[:16]
    reports, shards = [], []
    with partial_folder(Path(index) / f"added-{name}", resume=True) as folder:
        for number, source in enumerate(new):
            shards.append(folder / str(number))
            (shards[-1] / SKIPPED).unlink(missing_ok=True)  # of a run that was killed after this source
            report = encode(
                source, model, shards[-1], device=device, precision=opened.meta["precision"],
                features=opened.has_fc_features and not isinstance(source, VectorSource), workers=workers,
                vectors=_stored(opened) if isinstance(source, VectorSource) else None,
            )  # fmt: skip
            assert report is not None  # as this is the main process
            reports.append(report)
        unreadable = tuple(line for report in reports for line in report.unreadable)
        reasons = {line["path"]: line["reason"] for line in unreadable}
        if len(reasons) == sum(map(len, sources)):
            raise nothing_read(reasons)
        added = append(index, shards, new_only=not again)
    warn_unreadable(reasons)
    rate = float(np.mean([report.rate for report in reports]))
    return EncodeReport(added, len(unreadable), rate, unreadable, passed_over)


def _stored(index: Index) -> str | None:
    """Return how an index keeps vectors, as `hashret.encode` takes it; None where that is as they come."""
    if not index.has_fc_features:
        return "none"
    dtype = str(index.segments[0].columns["fc_features"].dtype)
    return dtype if dtype in ("float32", "float16") else None


def _new_photographs(index: Index, sources: Iterable[Source], again: bool) -> list[Source]:
    """Return the photographs whose file is not in the index yet, each once, as sources that are not empty."""
    folders: dict[str, Any] = {}
    seen, new = set(), []
    for source in sources:
        paths = [source.reference(row) for row in range(len(source))]
        known = set() if again else index.known_files(paths)
        rows = []
        for row, path in enumerate(paths):
            key = file_key(path, folders)
            if path not in known and key not in seen:
                rows.append(row)
            seen.add(key)
        if rows:
            new.append(source.subset(rows))
    return new


def _sources(
    photos: StrPath | Iterable[StrPath] | Source | npt.NDArray[np.number],
    split: str | None,
    exclude: Sequence[str],
    include: Sequence[str],
) -> Iterator[Source]:
    """Yield data sources of what a user names: files together as one, each folder or data set on its own."""
    if isinstance(photos, np.ndarray | ImageSource):
        yield as_source(photos)
        return
    refuse_in_memory(photos)
    named = [photos] if isinstance(photos, (str, os.PathLike)) else list(cast(Iterable[StrPath], photos))
    files = [photo for photo in named if is_there(photo)]
    if files:
        yield ImageSource(Path("."), tuple(str(file) for file in files), spec=str(files[0]))
    for photo in named:
        if photo not in files:
            yield open_data(photo, split, exclude=exclude, include=include)


def expand(
    photos: Photo | Iterable[Photo],
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    unreadable: dict[str, str] | None = None,
) -> list[str | Held]:
    """Return the photographs of a list in which a folder stands for the images below it.

    Args:
        photos: paths of files and folders, and photographs in memory, see `hashret.data.in_memory.photographs`.
        exclude, include: patterns of what is left out of folders and what is not, see `hashret.data.walk.walk`.
        unreadable: a dict, to which what is missing is added, with the reason.

    Raises:
        HashretError: one of them is missing or no file, or a folder holds no image; with ``unreadable``, all of them.
    """
    files: list[str | Held] = []
    missing: dict[str, str] = {}
    for photo in photographs(photos):
        if isinstance(photo, Held):
            files.append(photo)
            continue
        inside, reason = _inside(photo, exclude, include)
        files += inside
        if reason:
            missing[str(photo)] = reason
    if missing and (unreadable is None or not files):
        named, reason = next(iter(missing.items()))
        raise HashretError(f"{reason}: {named}")
    if unreadable is not None:
        unreadable.update(missing)
    return files


def _inside(photo: StrPath, exclude: Sequence[str], include: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the image files that a path stands for, and why there are none."""
    path = Path(photo)
    if kind_of(photo):
        return [str(photo)], None
    if path.is_dir():
        inside, passed_over = walk(path, exclude, include)
        if inside:
            warn_passed_over(path, passed_over)
            return [str(path / name) for name in inside], None
        return [], "no images in this folder" + (f" ({summary(passed_over)})" if passed_over else "")
    if path.is_file():
        return [str(path)], None
    if path.exists():
        return [], f"a {SPECIAL}, no file"
    return [], LINKED_TO_NOTHING if path.is_symlink() else "no such file"
