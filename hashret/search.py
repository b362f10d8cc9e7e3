"""From a photograph to its answers: the only module that knows both the encoder and the index."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np

from . import __version__
from .bits import binarize, pack
from .data import ImageSource, open_data, warn_passed_over
from .data.batches import split_rows
from .data.images import UnreadableImage, read_image
from .data.references import is_there, kind_of
from .data.walk import LINKED_TO_NOTHING, SPECIAL, summary, walk
from .engines import refuse_engine, shown
from .errors import HashretError, warn
from .files import partial_folder, remove_leftovers
from .index import Database, Index, append, open_index
from .index.hamming import gpus
from .index.paths import file_key
from .index.resident import Resident
from .models.checkpoint import load_encoder, read_meta
from .models.encoder import Encoder, pick_device
from .names import to_json
from .opening import open_database
from .progress import takes_quiet

TOGETHER = ("mean", "union")
_AT_ONCE = 64  # photographs decoded before they are encoded
_ITEMS_AT_ONCE = 1000  # photographs within a radius that are looked up together


@dataclass(frozen=True)
class Hit:
    """One answer: ``rank`` from 1, ``id`` and ``path`` of the photograph, its ``label`` (class names with spaces
    between, "" where unknown), its ``hamming`` distance in bits, its ``euclidean`` distance (None without re-rank), and
    ``labels``, the same class names one by one.
    """

    rank: int
    id: int
    path: str
    label: str
    hamming: int
    euclidean: float | None
    labels: tuple[str, ...] = ()

    def as_dict(self):
        """The hit as plain types, for JSON."""
        return asdict(self)


class HitList(list):
    """The `Hit` of one query, best first.

    Attributes:
        candidates: how many of the nearest were re-ranked, 0 without re-rank.
        ties_cut: whether photographs that are as near as the k-th nearest were not among them.
    """

    def __init__(self, hits=(), candidates=0, ties_cut=False):
        super().__init__(hits)
        self.candidates, self.ties_cut = candidates, ties_cut


class Searcher:
    """An index and the encoder it was built with.

    On a GPU, the index is searched where it lies until that has taken about as long as copying it onto the card would;
    from then on, the card holds it (`hashret.index.resident.Resident`).

    Args:
        index: folder of an index, see `hashret build-index`, a collection in an engine, see `hashret export`, or an
            opened `hashret.index.Database`.
        model: checkpoint of the encoder, or the loaded `Encoder`.
        device: "auto", "cpu" or "cuda", for both.
        engine: of the Hamming stage, see `hashret.index.hamming.HammingStage`.
        values: with a collection, folder of the index that it was exported from, to take values for the re-rank from.

    Raises:
        HashretError: either is missing or damaged, or the index was built by another encoder.
    """

    def __init__(self, index="index", model="model.safetensors", device="auto", engine="auto", values=None):
        on_gpu = gpus() > 0 and pick_device(device).type == "cuda"
        opened = isinstance(index, Database)
        self.index = index if opened else open_database(index, "cpu" if on_gpu else device, values, engine)
        self._resident, self._lock = None, Lock()
        on_gpu &= isinstance(self.index, Index)
        self._unpaid = 4 * self.index.bits * self.index.offsets[-1] if on_gpu else math.inf
        meta = model.meta if isinstance(model, Encoder) else read_meta(model)
        if meta["fingerprint"] != self.index.meta["encoder"]:
            raise HashretError(
                f"the index {shown(index)} was built by another encoder than {model}; "
                "name its own with --model, or encode and build the index again"
            )
        loaded = isinstance(model, Encoder)
        self.encoder = model if loaded else load_encoder(model, device, self.index.meta["precision"])

    def warm(self):
        """Load now what the first searches would load: -> the searcher."""
        if self._unpaid < math.inf:
            self._unpaid = 0
            self._place(0)
        else:
            self.index.warm()
        return self

    def _place(self, queries):
        """What is to answer some queries: the index, or its copy on the GPU.

        The CPU takes about as long for a comparison of codes as the card for a byte of the values to get there.
        """
        if self._unpaid == math.inf:
            return self.index
        with self._lock:
            self._unpaid -= queries * sum(len(segment.stage.table.codes) for segment in self.index.segments)
            if self._resident is None and self._unpaid <= 0:
                self._resident = Resident(self.index, self.encoder.device)
        return self._resident or self.index

    def search(self, photo, k=10, candidates=None, rerank=True, rerank_by="values", **among):
        """Answers to one photograph: path -> `HitList`. Raises HashretError if it cannot be read."""
        return self.search_many([photo], k, candidates, rerank, rerank_by, **among)[0]

    def search_many(
        self,
        photos,
        k=10,
        candidates=None,
        rerank=True,
        rerank_by="values",
        among=None,
        exclude_self=False,
        unreadable=None,
    ):
        """Answers to several photographs: paths -> a `HitList` for each.

        Args:
            k, candidates, rerank_by, among: see `hashret.index.Database.search`.
            rerank: False leaves the order of the Hamming distance.
            exclude_self: leave out the file that is asked for.
            unreadable: a dict, to which photographs that cannot be read are added, with the reason; their answer is
                None then. Without it, one of them is an error.
        """
        extra = int(exclude_self)  # the file itself is one of the first, but may tie with others
        rows, values, features = self._outputs(photos, rerank_by, unreadable)
        answers, candidates = [None] * len(photos), candidates if candidates is None else candidates + extra
        found = self.hits(values, k + extra, candidates, rerank, rerank_by, among, features) if rows else []
        for row, hits in zip(rows, found, strict=True):
            answers[row] = _without(photos[row], hits, k) if exclude_self else hits
        return answers

    def search_together(
        self,
        photos,
        k=10,
        candidates=None,
        rerank=True,
        rerank_by="values",
        among=None,
        by="mean",
        unreadable=None,
    ):
        """Answers to several photographs as one query: paths -> `HitList`.

        ``by`` "mean": one query, the mean of their values; "union": what is near to any of them, by the least distance.
        ``unreadable`` as of `search_many`: what cannot be read is left out of the query.

        Raises:
            HashretError: another ``by``, or a photograph that cannot be read; with ``unreadable``, none that can.
        """
        if by not in TOGETHER:
            raise HashretError(f"photographs are taken together by {' or '.join(TOGETHER)}, not {by}")
        rows, values, features = self._outputs(photos, rerank_by, unreadable)
        if not rows:
            raise nothing_read(unreadable)
        if by == "mean":
            values, features = (
                part if part is None else part.mean(axis=0, keepdims=True) for part in (values, features)
            )
            return self.hits(values, k, candidates, rerank, rerank_by, among, features)[0]
        answers, best = self.hits(values, k, candidates, rerank, rerank_by, among, features), {}
        for hits in answers:
            for hit in hits:
                best[hit.id] = min(best.get(hit.id, hit), hit, key=_distance)
        most, cut = max(hits.candidates for hits in answers), any(hits.ties_cut for hits in answers)
        return HitList(_ranked(sorted(best.values(), key=_distance)[:k]), most, cut)

    def within(self, photo, radius, among=None):
        """All photographs within ``radius`` bits of one: yields `Hit` by Hamming distance, as they are asked for."""
        yield from self._within(self.encode([photo]), radius, among)

    def _within(self, values, radius, among):
        codes = pack(binarize(values))
        for _, D, rows in self.index.within(codes, radius, among):
            for start in range(0, len(rows), _ITEMS_AT_ONCE):
                some = slice(start, start + _ITEMS_AT_ONCE)
                items = self.index.items(rows[some].tolist())
                yield from _hits(items, D[some].tolist(), [math.nan] * len(items), start + 1)

    def encode(self, photos):
        """Hash-layer values of photographs: paths -> float32 (n, bits). Raises HashretError if one cannot be read."""
        return self._outputs(photos)[1]

    def _outputs(self, photos, rerank_by="values", unreadable=None):
        """Hash-layer values of photographs, and the features before it where the re-rank compares these.

        Returns:
            Rows of the photographs that were read, a list; values and features of these, None where there are none.
        """
        if not len(photos):
            raise HashretError("no photographs to look for")
        full = rerank_by == "features"
        if full and not self.encoder.feature_width:
            raise HashretError(f"{self.encoder.meta['method']} has no features to re-rank by")
        rows, outputs = [], []
        for some in split_rows(range(len(photos)), _AT_ONCE):
            images = {row: read_query(photos[row], self.encoder.image_size, unreadable) for row in some}
            images = {row: image for row, image in images.items() if image is not None}
            if images:
                rows += images
                outputs.append(self.encoder.outputs(self.encoder.convolutions(np.stack([*images.values()])), full))
        if not rows:
            return rows, None, None
        values, features = zip(*outputs, strict=True)
        return rows, np.concatenate(values), None if features[0] is None else np.concatenate(features)

    def hits(self, values, k=10, candidates=None, rerank=True, rerank_by="values", among=None, features=None):
        """Answers to encoded photographs: values (n, bits), features (n, width) or None -> `HitList` of each."""
        codes = pack(binarize(values))
        place = self._place(len(codes))
        found = place.search(codes, values if rerank else None, k, candidates, rerank_by, among, features)
        items, k = self.index.items(found.rows.ravel().tolist()), found.rows.shape[1]
        distances = zip(found.hamming.tolist(), found.euclidean.tolist(), strict=True)
        answers = [_hits(items[q * k : (q + 1) * k], *both) for q, both in enumerate(distances)]
        return list(map(HitList, answers, found.candidates.tolist(), found.cut.tolist()))


def _hits(items, hamming, euclidean, first=1):
    found = enumerate(zip(items, hamming, euclidean, strict=True), first)
    return [
        Hit(rank, item.id, item.path, item.label, bits, None if math.isnan(distance) else distance, item.labels)
        for rank, (item, bits, distance) in found
    ]


def _distance(hit):
    return (hit.hamming if hit.euclidean is None else hit.euclidean, hit.hamming, hit.id)


def _ranked(hits):
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)]


def _without(path, hits, k):
    file = os.path.realpath(path)
    others = _ranked([hit for hit in hits if os.path.realpath(hit.path) != file][:k])
    return HitList(others, hits.candidates, hits.ties_cut)


def read_query(photo, size, unreadable=None):
    """One photograph as uint8 (3, size, size). One that cannot be read is an error, or, where a dict ``unreadable`` is
    given, added to it with the reason, and None.
    """
    try:
        return read_image(photo, size)
    except UnreadableImage as error:
        if unreadable is None:
            raise HashretError(f"cannot read {photo}: {error}") from None
        unreadable[str(photo)] = str(error)
        return None


def nothing_read(unreadable):
    """The error to raise where no photograph could be read."""
    photo, reason = next(iter(unreadable.items()))
    others = f", nor {len(unreadable) - 1:,} others" if len(unreadable) > 1 else ""
    return HashretError(f"cannot read {photo}: {reason}{others}")


def query(
    photos,
    index="index",
    model="model.safetensors",
    *,
    k=10,
    candidates=None,
    recall=None,
    rerank=True,
    rerank_by="values",
    radius=None,
    label=(),
    path=(),
    ids=(),
    exclude_self=False,
    together=None,
    values=None,
    device="auto",
    searcher=None,
    exclude=(),
    include=(),
    unreadable=None,
):
    """Look for photographs in an index: paths or folders -> list of (path, `HitList`).

    Photographs that cannot be read are warned of, and left out.

    Args:
        photos: image files; a folder stands for all images below it.
        index, model, values, device: see `Searcher`.
        k: answers a photograph.
        candidates: nearest by Hamming distance that are re-ranked; None for 1,000 and, where more are as near as the
            k-th nearest, all of these, up to 10,000. Where some are left out even so, that is a warning.
        recall: take as many candidates as give this share of the k nearest by Euclidean distance, instead.
        rerank: False leaves the order of the Hamming distance.
        rerank_by: one of `hashret.index.rerank.FEATURES`.
        radius: all photographs within this many bits, instead of k.
        label, path, ids: search among photographs of these labels, path patterns and ids only.
        exclude_self: leave out the file that is asked for.
        together: "mean" or "union" takes all photographs as one query, which goes by the name of the first.
        searcher: an open `Searcher`, instead of index, model and device.
        exclude, include: patterns of what is left out of folders and what is not, see `hashret.data.walk.walk`.
        unreadable: a dict, to which photographs that cannot be read are added, with the reason.

    Raises:
        HashretError: none of the photographs can be read, or what is asked for cannot be done.
    """
    unreadable = {} if unreadable is None else unreadable
    files = expand(photos, exclude, include, unreadable)
    searcher = searcher or Searcher(index, model, device, values=values)
    among = searcher.index.select(label or None, path or None, ids or None) if label or path or ids else None
    if among is not None and not len(among):
        warn("the index has no photograph of what --label, --path and --id ask for together")
    if recall is not None:
        candidates = searcher.index.calibrate(k, recall).candidates
    if exclude_self and (together or radius is not None):
        raise HashretError("--exclude-self goes with neither --together nor --radius")
    if radius is not None:
        rows, encoded, _ = searcher._outputs(files, unreadable=unreadable)
        near = (HitList(searcher._within(encoded[i : i + 1], radius, among)) for i in range(len(rows)))
        results = list(zip([files[row] for row in rows], near, strict=True))
    elif together:
        hits = searcher.search_together(files, k, candidates, rerank, rerank_by, among, together, unreadable)
        results = [(next(file for file in files if file not in unreadable), hits)]
    else:
        hits = searcher.search_many(files, k, candidates, rerank, rerank_by, among, exclude_self, unreadable)
        results = [(file, some) for file, some in zip(files, hits, strict=True) if some is not None]
    if not results:
        raise nothing_read(unreadable)
    warn_unreadable(unreadable)
    if recall is None:  # which was measured with the ties cut off
        _warn_of_cut_ties([hits for _, hits in results])
    return results


def _warn_of_cut_ties(answers):
    """Say where the order of ids, not the re-rank, decided what was among the candidates."""
    cut = [hits for hits in answers if hits.ties_cut]
    if cut:
        of = f" of {len(cut):,} of {len(answers):,} queries" if len(answers) > 1 else ""
        warn(
            f"more photographs are as near as the answers{of} than the {cut[0].candidates:,} candidates; those of the "
            "highest ids were left out: take more --candidates"
        )


def warn_unreadable(unreadable):
    """Warn of each photograph of a dict from paths to reasons."""
    for photo, reason in unreadable.items():
        warn(f"cannot read {photo}: {reason}")


@takes_quiet
def add(
    index,
    photos,
    model="model.safetensors",
    *,
    split=None,
    again=False,
    device="auto",
    workers=None,
    exclude=(),
    include=(),
):
    """Encode photographs and add them to an index: -> `EncodeReport` of what was new.

    A file is added once, by whatever path and however many processes at a time. When this was killed, the next call
    for the same photographs goes on where it stopped.

    Args:
        index, model, device: see `Searcher`.
        photos: image files, or data sources as of `hashret.data.open_data`, which ``split``, ``exclude`` and
            ``include`` are for.
        again: add also photographs whose file is in the index already, which are left out otherwise.

    Raises:
        HashretError: nothing there, none of the photographs can be read, or the index is of another encoder.
    """
    from .encoding import SKIPPED, EncodeReport, encode

    refuse_engine(index)
    opened = open_index(index, "cpu")
    if read_meta(model)["fingerprint"] != opened.meta["encoder"]:
        raise HashretError(f"the index {index} was built by another encoder than {model}; name its own with --model")
    keep_features = all(segment.fc_features is not None for segment in opened.segments)
    sources = list(_sources(photos, split, exclude, include))
    passed_over = tuple(item for source in sources for item in source.files_passed_over())
    new = _new_photographs(opened, sources, again)
    if not new:
        remove_leftovers(index, r"added-\w+")  # of a run that was killed when all was in the index
        return EncodeReport(0, 0, 0.0, (), passed_over)
    said = [__version__, read_meta(model)["fingerprint"], opened.meta["precision"], keep_features]
    said += [[source.fingerprint, source.classes, source.protocol] for source in new]
    name = hashlib.sha256(to_json(said).encode()).hexdigest()[:16]
    reports, shards = [], []
    with partial_folder(Path(index) / f"added-{name}", resume=True) as folder:
        for number, source in enumerate(new):
            shards.append(folder / str(number))
            (shards[-1] / SKIPPED).unlink(missing_ok=True)  # which a run that was killed later on has
            reports.append(encode(
                source, model, shards[-1], device=device, precision=opened.meta["precision"], features=keep_features,
                workers=workers,
            ))  # fmt: skip
        unreadable = tuple(line for report in reports for line in report.unreadable)
        reasons = {line["path"]: line["reason"] for line in unreadable}
        if len(reasons) == sum(map(len, sources)):
            raise nothing_read(reasons)
        added = append(index, shards, new_only=not again)
    warn_unreadable(reasons)
    rate = float(np.mean([report.rate for report in reports]))
    return EncodeReport(added, len(unreadable), rate, unreadable, passed_over)


def _new_photographs(index, sources, again):
    """Of some sources, the photographs whose file is not in the index yet, each once, as sources that are not empty."""
    folders, seen, new = {}, set(), []
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


def _sources(photos, split, exclude, include):
    """Data sources of what a user names: files together as one, each folder or data set on its own."""
    photos = [photos] if isinstance(photos, (str, Path)) else photos
    files = [photo for photo in photos if is_there(photo)]
    if files:
        yield ImageSource(Path("."), tuple(str(file) for file in files), spec=str(files[0]))
    for photo in photos:
        if photo not in files:
            yield open_data(photo, split, exclude=exclude, include=include)


def expand(photos, exclude=(), include=(), unreadable=None):
    """Image files of a list in which a folder stands for the images below it.

    Args:
        photos: paths of files and folders.
        exclude, include: patterns of what is left out of folders and what is not, see `hashret.data.walk.walk`.
        unreadable: a dict, to which what is missing is added, with the reason.

    Raises:
        HashretError: one of them is missing or no file, or a folder holds no image; with ``unreadable``, all of them.
    """
    files, missing = [], {}
    for photo in photos:
        inside, reason = _inside(photo, exclude, include)
        files += inside
        if reason:
            missing[str(photo)] = reason
    if missing and (unreadable is None or not files):
        photo, reason = next(iter(missing.items()))
        raise HashretError(f"{reason}: {photo}")
    if missing:
        unreadable.update(missing)
    return files


def _inside(photo, exclude, include):
    """The image files that a path stands for, and why there are none."""
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
