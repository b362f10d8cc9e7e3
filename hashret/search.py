"""From a photograph to its answers: an index and the encoder that it was built with."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from .arguments import several
from .bits import HashOutputs, binarize, code_width, pack
from .data import VectorSource, open_data
from .data import vectors as vector_source
from .data.batches import split_rows
from .data.in_memory import Held, Photo, photographs
from .engines import shown
from .errors import HashretError, refuse_given, warn
from .files import StrPath
from .hits import Hit, HitList, QueryAnswer, hits_of, union, without
from .index import Database, Index
from .index.database import Hits, check_counts
from .index.given import ENCODER, CodeFile, is_code_file, packed
from .index.opening import on_device
from .index.paths import is_pattern, path_patterns
from .index.rerank import AUTO, OF_FEATURES
from .models.metadata import Described, read_meta
from .models.ready import ready_encoder
from .opening import find_model, open_database
from .places import find_index
from .queries import Asked, Photos, QueryOutputs, as_named, expand, nothing_read, read_query, warn_unreadable
from .renamed import forwarding, old_keywords
from .similar import bits_within, least_percent
from .vectors import Vectors

if TYPE_CHECKING:
    from .models.encoder import Encoder
    from .models.ready import ReadyEncoder

P = ParamSpec("P")
T = TypeVar("T")
TOGETHER = ("mean", "union")
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
        self._load = functools.partial(_load_encoder, model, device, precision, bits, meta["fingerprint"])
        if device in ("auto", "cpu"):
            self._ready = ready_encoder(meta, precision, bits)
        if self._ready is None:
            self._encoder = self._load()

    @property
    def encoder(self) -> Encoder:
        """The loaded `Encoder`, for codes of the length that the index has.

        Raises:
            HashretError: others made the codes of the index, nobody knows how; or its checkpoint is damaged, or was
                replaced by that of another encoder since the searcher was made.
        """
        if self._encoder is None:
            if self._load is None:
                raise HashretError(
                    "nobody knows the encoder of this index, which is asked with codes", hint="--vector codes:FILE"
                )
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
        check_counts(k, candidates)
        named = as_named(photos)
        answers: list[HitList | None] = [None] * len(named)
        outputs = self._outputs(named, rerank_by, unreadable)
        if outputs is None:
            return answers

        def ask(queries: QueryOutputs, extra: int) -> list[HitList]:
            more = None if candidates is None else candidates + extra
            return self._hits(queries, k + extra, more, rerank_by, among, least)

        extra = int(exclude_self)  # the file itself is one of the first, but may tie with others
        for n, (number, hits) in enumerate(zip(outputs.numbers, ask(outputs, extra), strict=True)):
            if exclude_self:
                ask_again = functools.partial(ask, outputs.nth(n))
                hits = self._without_itself(str(named[number]), hits, k, ask_again)
            answers[number] = hits.at_least(least)
        return answers

    def _without_itself(self, file: str, hits: HitList, k: int, ask_again: Callable[[int], list[HitList]]) -> HitList:
        """Return k hits without those of a file, which may have been indexed more than once.

        Args:
            file: of the query.
            hits: its hits, one more than k, as long as there are so many.
            ask_again: returns as many more than k as it is told.
        """
        extra = 1
        while len(others := without(file, hits, k)) < k and len(hits) == k + extra:
            extra *= 2
            if self.index.most and k + extra > self.index.most:
                break
            [hits] = ask_again(extra)
        return others

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
        answers = self._hits(outputs, k, candidates, rerank_by, among, least)
        return union([hits.at_least(least) for hits in answers], k)

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
            HashretError: codes of another length than those of the index.
        """
        given, bits = packed(codes), self.index.bits
        if given.shape[1] == code_width(bits):
            given = packed(given, bits)
        answers = self._hit_lists(self.index.search(given, k=k, rerank_by=None, among=among))
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
                yield from hits_of(items, self.index.bits, D[block].tolist(), [math.nan] * len(items), start + 1)

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
        photos = as_named(queries)
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
            hits_of(items[query * k : (query + 1) * k], self.index.bits, hamming, euclidean)
            for query, (hamming, euclidean) in enumerate(
                zip(answers.hamming.tolist(), answers.euclidean.tolist(), strict=True)
            )
        ]
        return list(map(HitList, lists, answers.candidates.tolist(), answers.cut.tolist()))


def _load_encoder(model: StrPath, device: str, precision: str, bits: int, fingerprint: str) -> Encoder:
    from .models.checkpoint import load_encoder

    return load_encoder(model, device, precision, fingerprint=fingerprint).shortened(bits)


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
    label: str | Iterable[str] = (),
    path: StrPath | Iterable[StrPath] = (),
    ids: int | Iterable[int] = (),
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
        recall: take as many candidates as give this fraction of the k nearest by the re-rank's own distance, instead.
        rerank: False leaves the order of the Hamming distance, as ``rerank_by`` None does.
        rerank_by: one of `hashret.index.rerank.CHOICES`, or None; "auto" is what the index is made for.
        radius: all photographs within this many bits, instead of k.
        label, path, ids: search among photographs of these labels, path patterns and ids only; each one or several.
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
    elif vectors is not None and named:
        raise HashretError("photographs and vectors are asked for one after the other, not together")
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
    labels, patterns, numbers = _given(label, str), _given(path, (str, os.PathLike)), _given(ids, (int, np.integer))
    among = None
    if labels or patterns or numbers:
        among = searcher.index.select(labels or None, patterns or None, numbers or None)
    if among is not None and not len(among):
        text = "the index has no photograph of what --label, --path and --id ask for together"
        warn(text + _folder_hint(searcher.index, path_patterns(patterns)))
    if is_code_file(vectors):
        if together or exclude_self or radius is not None:
            raise HashretError("codes are asked one by one, for the k nearest")
        refuse_given("codes have nothing to re-rank by", candidates=candidates, recall=recall, rerank_by=choice)
        file = CodeFile(str(vectors))
        if file.given_bits not in (None, searcher.index.bits):
            raise HashretError(f"the codes have {file.given_bits} bits, and those of the index {searcher.index.bits}")
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


def _given(value: Any, single: type | tuple[type, ...]) -> list[Any]:
    """Return what a search is to be among, one or several, as a list: empty for None and an empty text."""
    return [] if value is None or (isinstance(value, str) and not value) else several(value, single)


def _folder_hint(index: Database, paths: Iterable[str]) -> str:
    """Return how to ask for what lies in a folder, where one of ``paths`` is a folder of the index, else nothing."""
    for path in paths:
        below = f"{path.rstrip('/')}/*"
        if not is_pattern(path) and len(index.select(path=below)):
            return f"; --path '{below}' asks for what lies in a folder"
    return ""


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


__getattr__ = forwarding(__name__)
