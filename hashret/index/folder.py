"""The index folder: segments of photographs, and `index.json`, which names those that count.

Segments are never changed. A change writes new files beside them and then replaces `index.json`, in one step. A reader
sees either the old or the new state, also after a crash. The next change deletes files that index.json no longer lists.
A process that has the index open keeps its memory-mapped files.
"""

from __future__ import annotations

import contextlib
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bits import MAX_BITS, MIN_BITS, MOST_BITS, Codes, Distances, Labels, Positions, code_width
from ..data.references import is_there
from ..errors import DamagedIndex, HashretError
from ..files import StrPath, read_json
from ..labels import renumbered
from ..places import is_index
from ..precision import PRECISIONS
from ..records import check_format, checked, fields, list_of, one_of, or_none, table_of, text, whole
from ..renamed import forwarding, old_attributes
from ..shards import (
    COLUMNS,
    LENGTHS,
    PROTOCOL,
    Shard,
    ShardFolder,
    decode_path,
    encode_paths,
    is_shard_folder,
    unknown_column,
    unknown_columns,
)
from ..vectors import Vectors, common_type
from . import rerank
from .background import BackgroundCheck
from .calibration import Calibration, calibrate
from .database import Database, Item, ids_array
from .distinct import damaged_table
from .given import CodeFile
from .hamming import HammingStage
from .paths import (
    below_root,
    common_root,
    cut,
    file_key,
    folder_key,
    path_matches,
    path_patterns,
    readings,
    stored_path,
    whole_path,
)
from .rows import Rows, concatenated
from .segment import MAX_ITEMS, Segment, SegmentWriter, row_columns

__getattr__ = forwarding(__name__)
FORMAT = 2
SHARED = ("bits", "encoder", "precision", "image_size", "rerank_by")  # what all shard folders of an index must agree on
SEGMENT = r"\d{6,}"  # names of segments,
REMOVED = r"removed-\d{6,}\.npy"  # and of their files
_NONE: Mapping[str, str] = MappingProxyType({})
HIGHEST_NEXT_ID = 2**63 - 1  # as ids are int64
_LOOKED_FOR = 100  # photographs of a segment, to find the folder that paths start from
_ARRAYS = "starts|items|numbers|planes|path_ends|substring_(starts|numbers|rest)"
_OWN_FILE = rf"hamming\.faiss|paths\.bin|({_ARRAYS})\.npy|{REMOVED}"
_LISTED_FILE = rf"{_OWN_FILE}|[a-z][a-z0-9_]{{0,62}}\.npy"  # or of a column, which a plugin may add that is not loaded
_NO_FILE = "no file of an index"
_NEEDED = {"hamming.faiss", "planes.npy", "ids.npy", "paths.bin", "path_ends.npy"}
_SEGMENT = fields(
    {
        "name": text(SEGMENT, _NO_FILE), "count": whole(1, MAX_ITEMS), "codes": whole(1, MAX_ITEMS),
        "grouped": one_of(True, False),
        "files": table_of(fields({"bytes": whole(), "sha256": text("[0-9a-f]{64}")}), _LISTED_FILE, _NO_FILE),
    },
    {"removed": or_none(text(REMOVED, _NO_FILE)), "removed_count": whole(0, MAX_ITEMS)},
)  # fmt: skip
_META = fields(
    {
        "bits": whole(MIN_BITS, MOST_BITS), "encoder": text(), "precision": one_of(*PRECISIONS),
        "image_size": whole(1, 2**15), "classes": list_of(text()), "count": whole(), "generation": whole(1),
        "next_id": whole(0, HIGHEST_NEXT_ID), "segments": list_of(_SEGMENT, 1),
    },
    {"protocol": or_none(PROTOCOL), "rerank_by": or_none(one_of(*rerank.CHOICES)), "lengths": LENGTHS,
     "root": text(), "model": text(), "exclude": list_of(text()), "include": list_of(text())},
)  # fmt: skip


@old_attributes
class Index(Database):
    """An opened index folder, which the CPU searches; `hashret.index.resident.Resident` is one that a GPU searches.

    A position is a photograph's place among all ever added, segment after segment; ``alive`` says which were not
    removed.

    Attributes:
        meta: what `index.json` says: bits, count, encoder fingerprint, precision, classes ...
        segments: the `hashret.index.segment.Segment` it consists of.
        offsets: position of each segment's first photograph, and behind them the number of all.
        folder: that it was opened from.
        verified: whether each file was compared with its sha256 when the index was opened.
    """

    def __init__(
        self, meta: dict[str, Any], segments: Sequence[Segment], folder: Path | None = None, verified: bool = False
    ) -> None:
        self.meta, self.segments, self.folder, self.verified = meta, segments, folder, verified
        self._background: BackgroundCheck | None = None
        self.offsets = [0, *accumulate(len(segment) for segment in segments)]

    def __len__(self) -> int:
        return sum(segment.count for segment in self.segments)

    @property
    def root(self) -> str | None:
        """The folder that paths of photographs are kept from, whole; None where all are kept whole."""
        return None if self.folder is None else root_of(self.folder, self.meta)

    @cached_property
    def common_root(self) -> str | None:
        """The folder that patterns of paths begin below, see `hashret.index.paths.common_root`."""
        return common_root(set[str]().union(*(segment.paths.folders() for segment in self.segments)), self.root)

    @property
    def checked(self) -> str:
        """What was compared with `index.json` so far, in words."""
        total = sum(len(meta["files"]) for meta in self.meta["segments"])
        done = total if self.verified else self._background.done if self._background else 0
        sums = f", sha256 of {done} of {total} files" if done < total else f", sha256 of {total} files"
        return "types, shapes and sizes" + (sums if done else "")

    @property
    def damage(self) -> str | None:
        """What `verify_in_background` found to have changed, one line, or None."""
        name = self._background and self._background.damage
        return f"the index {self.folder} is damaged: {name} has changed; build it again" if name else None

    def verify_in_background(self) -> Index:
        """Compare each file with its sha256 while the index is searched, unless that was done, and return the index.

        From the first file on that has changed, every search raises `DamagedIndex`.
        """
        if not self.verified and self._background is None:
            assert self.folder is not None
            self._background = BackgroundCheck(self.folder, self.meta["segments"])
        return self

    def check(self, codes: Codes, k: int = 1, candidates: int = 1) -> None:
        if self.damage:
            raise DamagedIndex(self.damage)
        super().check(codes, k, candidates)

    @property
    def has_hash_outputs(self) -> bool:
        return self.hash_outputs is not None

    @property
    def has_fc_features(self) -> bool:
        """Whether the index keeps what the hash layer reads."""
        return self.fc_features is not None

    @property
    def is_of_vectors(self) -> bool:
        """Whether rows are vectors, or codes that others made, several of which may have one path."""
        return bool(self.meta["image_size"] == 1)  # which no network of photographs takes

    @property
    def codes_compared(self) -> int:
        """How many codes a query is compared with: distinct ones where they repeat."""
        return sum(len(segment.stage.table.codes) for segment in self.segments)

    def column(self, name: str) -> Any:
        """Return a column of `hashret.shards.COLUMNS` to read rows of by position, None where the index lacks it.

        Codes, paths and labels are kept in other ways: see `code`, `path` and ``labels``.
        """
        arrays = [segment.columns[name] for segment in self.segments if name in segment.columns]
        return concatenated(arrays) if len(arrays) == len(self.segments) else None

    @cached_property
    def ids(self) -> Any:
        """The id at each position, int64 (n,), to read rows of, see `hashret.index.rows.concatenated`."""
        return self.column("ids")

    @cached_property
    def hash_outputs(self) -> Any:
        """Hash outputs, float32 (n, bits), to read rows of, or None where the index keeps none."""
        return self.column("hash_outputs")

    @cached_property
    def fc_features(self) -> Any:
        """What the hash layer reads, float32 (n, width), to read rows of, or None where the index keeps none."""
        return self.column("fc_features")

    @cached_property
    def labels(self) -> Labels | None:
        """(n,) or (n, classes), or None where unknown; a photograph added without has -1, or zeros.

        Each segment has the labels that it was written with. Where photographs of any have several labels, all are
        given flags; flags that know fewer classes than the index are widened.
        """
        known = [segment.labels for segment in self.segments if segment.labels is not None]
        if not known:
            return None
        classes = self.meta["classes"]
        for labels in known:
            if labels.ndim == 1 and not -1 <= labels.min() <= labels.max() < len(classes):
                raise damaged_table("labels.npy")
        several, united = any(labels.ndim == 2 for labels in known), []
        for segment in self.segments:
            labels = np.full(len(segment), -1) if segment.labels is None else segment.labels
            names = classes if labels.ndim == 1 else classes[: labels.shape[1]]
            united.append(renumbered(labels, names, classes, several))
        return _whole(united)

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """Which positions were not removed, bool (n,)."""
        return _whole([segment.alive for segment in self.segments])

    def codes(self) -> Codes:
        """Return the packed codes at all positions, uint8 (n, w), as the shards have them."""
        return _whole([np.asarray(codes) for codes in self._padded_codes])[:, : code_width(self.bits)]

    def codes_at(self, positions: Positions) -> Codes:
        """Return the packed codes at positions (m,), uint8 (m, w)."""
        codes: Codes = concatenated(self._padded_codes)[positions][:, : code_width(self.bits)]
        return codes

    @property
    def _padded_codes(self) -> list[Any]:
        return [segment.stage.codes() for segment in self.segments]

    def blocks(self, size: int) -> Iterator[Positions]:
        """Yield the positions of all photographs, by id, at most ``size`` at a time."""
        for segment, offset in zip(self.segments, self.offsets, strict=False):
            positions = np.flatnonzero(segment.alive) + offset
            for start in range(0, len(positions), size):
                yield positions[start : start + size]

    def position(self, id: int) -> int:
        """Return the position of a photograph. Raises HashretError where there is none, or it was removed."""
        positions = self.positions([id])
        if not len(positions):
            raise HashretError(f"no photograph with id {id} in the index")
        return int(positions[0])

    def positions(self, ids: int | Iterable[int]) -> Positions:
        """Return the positions of those of some ids that were not removed, int64, ascending."""
        ids = ids_array(ids)
        segments = zip(self.segments, self.offsets, strict=False)
        return np.concatenate([segment.rows_of(ids) + offset for segment, offset in segments])

    def has_ids(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some ids (n,) photographs in the index have, bool (n,)."""
        return np.isin(ids, self.ids[self.positions(ids)])

    def code(self, position: int) -> NDArray[np.uint8]:
        """Return the packed code of a photograph, uint8 (w,)."""
        code: NDArray[np.uint8] = self.codes_at(np.array([position]))[0]
        return code

    def hash_outputs_at(self, position: int) -> NDArray[np.float32] | None:
        return None if self.hash_outputs is None else np.array(self.hash_outputs[position])

    def fc_features_at(self, position: int) -> Vectors | None:
        return None if self.fc_features is None else np.array(self.fc_features[[position]][0], np.float32)

    def path(self, position: int) -> str:
        """Return the path of a photograph."""
        segment, row = self._segment_of(position)
        return segment.paths[row]

    def known(self, paths: Collection[str]) -> set[str]:
        """Return those of some paths that photographs in the index have."""
        return set(self._indexed(paths))

    def _indexed(self, paths: Collection[str]) -> dict[str, float]:
        """Return those of some paths that photographs in the index have, each with the time of the last of them."""
        return {path: segment.written for segment, path in self._with_path(paths)}  # segments are in order of time

    def shared(self, paths: Collection[str]) -> set[str]:
        """Return those of some paths that several rows of the index have, as the vectors of one document do."""
        return {path for path, rows in Counter(path for _, path in self._with_path(paths)).items() if rows > 1}

    def _with_path(self, paths: Collection[str]) -> Iterator[tuple[Segment, str]]:
        """Yield for each photograph that has one of some paths its segment and the path."""
        for segment in self.segments:
            yield from ((segment, path) for row, path in segment.paths.find(paths) if segment.alive[row])

    def known_files(self, paths: Collection[str], earlier: Mapping[str, str] = _NONE) -> dict[str, float]:
        """Return those of some paths that lead to files of photographs in the index, each with the time, in seconds
        since 1970, when the last photograph of that file was indexed, or compacted.

        A file is its folder, by device and inode, and its name there: through a link to a folder, or a second mount of
        it, it is the same one. A link to a file is that file; but where the index has the link,
        the file itself is not known by it.

        Args:
            earlier: other paths that some of them may have in the index, see
                `hashret.data.embeddings.VectorSource.earlier_names`.
        """
        folders: dict[str, Any] = {}
        names = {path: file_key(path, folders) for path in paths}
        keys = {key[0] for key in names.values()}
        aliases: dict[Any, list[str]] = {}
        for folder in set[str]().union(*(segment.paths.folders() for segment in self.segments)):
            key = folder_key(folder or "/", folders)
            if key in keys:
                aliases.setdefault(key, []).append(folder)
        asked = {
            path: {path, earlier.get(path, path), *(f"{a}/{name}" for a in aliases.get(key, ()))}
            for path, (key, name) in names.items()
        }
        indexed = self._indexed(set[str]().union(*asked.values()))
        times = {path: [indexed[other] for other in others & indexed.keys()] for path, others in asked.items()}
        return {path: max(of_file) for path, of_file in times.items() if of_file}

    def label(self, position: int) -> str:
        """Return the class names of a photograph with spaces between, "" where unknown."""
        return " ".join(self.label_names(position))

    def label_names(self, position: int) -> tuple[str, ...]:
        """Return the class names of a photograph, empty where unknown."""
        return tuple(self.meta["classes"][number] for number in self.label_numbers(position))

    def label_numbers(self, position: int) -> tuple[int, ...]:
        """Return the numbers of a photograph's classes, empty where unknown."""
        segment, row = self._segment_of(position)
        if segment.labels is None:
            return ()
        label = segment.labels[row]
        if label.ndim:
            return tuple(np.flatnonzero(label).tolist())
        if not -1 <= label < len(self.meta["classes"]):
            raise damaged_table("labels.npy")
        return (int(label),) if label >= 0 else ()

    def find(self, id: int) -> tuple[int, Item]:
        position = self.position(id)
        return position, self.items([position], codes=True)[0]

    def items(self, positions: Sequence[int], codes: bool = False) -> list[Item]:
        return [
            Item.of(
                int(self.ids[one]),
                self.path(one),
                self.label_names(one),
                self.code(one) if codes else None,
                {name: _plain(column[one]) for name, column in self._added_columns.items()},
            )
            for one in positions
        ]

    @cached_property
    def _added_columns(self) -> dict[str, Any]:
        """The columns beside those of every shard that have a number or a text a photograph, by name."""
        columns = {column.name: self.column(column.name) for column in COLUMNS if column.is_added}
        return {name: column for name, column in columns.items() if column is not None and len(column.shape) == 1}

    def sample(self, n: int, seed: int = 0) -> Positions:
        positions = np.flatnonzero(self.alive)
        return np.random.default_rng(seed).choice(positions, min(n, len(positions)), replace=False)

    def everything(self) -> tuple[Positions, Codes, Labels | None]:
        labels = None if self.labels is None else np.asarray(self.labels)[self.alive]
        return np.flatnonzero(self.alive), self.codes()[self.alive], labels

    def _segment_of(self, position: int) -> tuple[Segment, int]:
        """Return the segment of a position, and the row there."""
        number = bisect_right(self.offsets, position) - 1
        return self.segments[number], int(position) - self.offsets[number]

    def warm(self) -> Index:
        for segment in self.segments:
            segment.stage.warm()
        return self

    def select(
        self,
        label: str | Iterable[str] | None = None,
        path: StrPath | Iterable[StrPath] | None = None,
        ids: int | Iterable[int] | None = None,
    ) -> Selection:
        mask: NDArray[np.bool_] = self.alive.copy()
        if label is not None:
            mask &= self._has_label(label)
        if ids is not None:
            named = np.zeros(len(mask), bool)
            named[self.positions(ids)] = True
            mask &= named
        if path is not None:
            matched = np.zeros(len(mask), bool)
            for pattern in path_patterns(path):
                matched |= self.matching(pattern, mask)
            mask &= matched
        return Selection(self, mask)

    def _checked(self, among: Any) -> Selection | None:
        """Return what a search is among. Raises HashretError unless it is None, or was selected from the same files."""
        if among is None:
            return None
        if not isinstance(among, Selection):
            raise HashretError(
                f"a search is among what select returned, not {type(among).__name__}", hint="index.select(ids=[1, 2])"
            )
        if among.index is not self and among.index.meta.get("segments") != self.meta.get("segments"):
            raise HashretError(
                "the selection is of another index, or of another state of this one", hint="select again"
            )
        return among

    def _has_label(self, label: str | Iterable[str]) -> NDArray[np.bool_]:
        numbers = self._class_numbers(label)
        labels = np.full(len(self.alive), -1) if self.labels is None else np.asarray(self.labels)
        flags: NDArray[np.bool_] = np.isin(labels, numbers) if labels.ndim == 1 else labels[:, numbers].sum(axis=1) > 0
        return flags

    def matching(self, pattern: str, among: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Return which positions a path or a pattern stands for, bool (n,), of ``among``, bool (n,), or of all.

        Photographs of that very path, or of one that ends so, come first: with ``a/IMG[1].png`` in the index, that is
        the photograph, and ``a/IMG1.png`` is not. Only where there is none is it taken for a pattern, see
        `hashret.index.paths.readings`.
        """
        matched, among = np.zeros(self.offsets[-1], bool), self.alive if among is None else among
        names, glob = readings(pattern)
        for name in names:
            for segment, offset in zip(self.segments, self.offsets, strict=False):
                matched[segment.paths.named(name) + offset] = True
            matched &= self.alive
            if matched.any():
                return matched & among
        for segment, offset in zip(self.segments, self.offsets, strict=False):  # a name, though a file is called so
            matched[segment.paths.called(pattern) + offset] = True
        matched &= self.alive
        if matched.any():
            return matched & among
        if glob:
            positions, globs = np.flatnonzero(among), below_root(glob, self.common_root)
            matched[positions] = [
                any(path_matches(path, one) for one in globs) for path in map(self.path, positions.tolist())
            ]
        return matched

    def within(self, codes: Codes, radius: int, among: Any = None) -> Iterator[tuple[int, Distances, Positions]]:
        self.check(codes)
        among = self._checked(among)
        for query in range(len(codes)):
            near = []
            for segment, offset in zip(self.segments, self.offsets, strict=False):
                near += [(D, I + offset) for _, D, I in segment.within(codes[query : query + 1], radius)]
            D, positions = np.concatenate([D for D, _ in near]), np.concatenate([I for _, I in near])
            if among is not None:
                keep = among.mask[positions]
                D, positions = D[keep], positions[keep]
            order = np.argsort(D, kind="stable")
            yield query, D[order], positions[order]

    def calibrate(
        self, k: int = 10, recall: float = 0.99, sample: int = 200, seed: int = 0, rerank_by: str = "values"
    ) -> Calibration:
        if len(self.segments) > 1 or self.meta["count"] < self.offsets[-1]:
            raise HashretError("candidates are calibrated on an index of one piece", hint="run hashret compact first")
        by = self.rerank_choice(rerank_by)
        of_features = by in rerank.OF_FEATURES
        compared = self.fc_features if of_features else self.hash_outputs
        if compared is None:
            raise HashretError(f"this index keeps no {'features' if of_features else 'values'} to calibrate on")
        stage = self.segments[0].stage
        return calibrate(stage, compared, k, recall, sample, seed, by, hash_outputs=self.hash_outputs)

    def nearest(self, codes: Codes, k: int, among: Any = None) -> tuple[Distances, Positions]:
        self.check(codes)
        among = self._checked(among)
        stages = self.segments if among is None else among.stages
        nearest = [stage.search(codes, k) for stage in stages]
        if len(nearest) == 1:
            return nearest[0]
        D = np.concatenate([D for D, _ in nearest], axis=1)
        positions = np.concatenate([I + offset for (_, I), offset in zip(nearest, self.offsets, strict=False)], axis=1)
        order = np.argsort(D, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(D, order, 1), np.take_along_axis(positions, order, 1)

    def reranked(
        self, queries: Vectors, positions: Positions, rerank_by: str = "values"
    ) -> tuple[NDArray[np.float32], Positions]:
        rerank.check_rerank_by(rerank_by)
        if rerank_by in rerank.OF_FEATURES and not self.has_fc_features:
            raise HashretError("this index keeps no features", hint="encode its photographs with --features")
        if rerank_by in ("values", "directions") and not self.has_hash_outputs:
            raise HashretError("this index keeps no values", hint="take --rerank-by asymmetric")
        if len(self.segments) == 1:
            return rerank.rerank(queries, _compared(self.segments[0], rerank_by), positions, rerank_by)
        squared = np.full(positions.shape, np.inf, np.float32)
        for segment, offset in zip(self.segments, self.offsets, strict=False):
            inside = (positions >= offset) & (positions < offset + len(segment))
            rows = np.where(inside, positions - offset, -1)
            np.minimum(squared, rerank.squared(queries, _compared(segment, rerank_by), rows, rerank_by), out=squared)
        return rerank.by_distance(squared)


def _compared(segment: Segment, rerank_by: str) -> Rows:
    """Return what a re-rank by one of `hashret.index.rerank.CHOICES` compares the query with."""
    if rerank_by == "asymmetric":
        return segment.stage.codes()
    compared = segment.fc_features if rerank_by in rerank.OF_FEATURES else segment.hash_outputs
    assert compared is not None
    return compared


def _plain(value: Any) -> Any:
    """Return a number or a text of a column as Python has it, and JSON: None for NaN and infinity."""
    if isinstance(value, bytes):
        return decode_path(value)
    return None if value.dtype.kind == "f" and not np.isfinite(value) else value.item()


class Selection:
    """Photographs of an index to search among: ``mask`` bool (n,) over its positions."""

    def __init__(self, index: Index, mask: NDArray[np.bool_]) -> None:
        self.index, self.mask = index, mask

    def __len__(self) -> int:
        return int(self.mask.sum())

    @cached_property
    def stages(self) -> list[HammingStage]:
        """The Hamming stage of each segment, of these photographs alone."""
        offsets = self.index.offsets
        segments = zip(self.index.segments, offsets[:-1], offsets[1:], strict=True)
        return [segment.stage.subset(self.mask[start:end]) for segment, start, end in segments]


def segment_name(generation: int) -> str:
    """Return the folder of the segment that a generation of the index adds."""
    return f"{generation:06d}"


class Known:
    """What of some shards an index has already: by the user's own ids, where they have them, else by the files.

    Args:
        index: an opened index.
        folders: of shards.
    """

    def __init__(self, index: Index, folders: Iterable[ShardFolder | CodeFile]) -> None:
        self.index, paths, earlier = index, list[str](), dict[str, str]()
        for shards in folders:
            if "own_ids" not in shards.manifest:
                paths += map(decode_path, shards.paths())
                earlier |= shards.source.earlier_names() if isinstance(shards, CodeFile) else {}
        self.paths = index.known_files(paths, earlier)

    def has(self, shard: Shard, own_ids: bool) -> NDArray[np.bool_]:
        """Return which rows of a shard the index has, bool (n,)."""
        if own_ids:
            return self.index.has_ids(shard.ids)
        return np.array([decode_path(path) in self.paths for path in shard.paths], bool)


def write_shards(
    writer: SegmentWriter,
    folders: Sequence[ShardFolder | CodeFile],
    classes: Sequence[str],
    first_id: int = 0,
    known: Known | None = None,
    root: str | None = None,
) -> int:
    """Copy shards into a segment and return the next id.

    Where photographs of any folder have several labels, those of all get flags. Features of several types get the type
    that has the numbers of all. Ids that the user gave stay what they
    are, and must be above all before them; others count on.

    Args:
        writer: of the segment.
        folders: of shards.
        classes: the labels become numbers in this list.
        first_id: ids count on from it.
        known: says what is left out; None for nothing.
        root: from which paths are kept, see `hashret.index.paths.stored_path`.

    Raises:
        HashretError: ids that the user gave are not above those before them, or the ids have come to an end.
    """
    columns = [shards.optional_columns() for shards in folders if shards.manifest["shards"]]
    carried = set.intersection(*columns) - {"labels"} if columns else set[str]()  # what all folders have
    dimensions = [shards.label_dimensions() for shards in folders]
    labelled, several = any(dimensions), 2 in dimensions
    types = [found for shards in folders if (found := shards.features_type()) is not None]
    for shards in folders:
        next_id, names, own = first_id, shards.manifest["classes"], "own_ids" in shards.manifest
        for shard in shards:
            if known is not None:
                shard = shard.at(~known.has(shard, own))
            if not len(shard):
                continue
            first = 0 if own else first_id
            following = checked_next_id(first + int(shard.ids.max()) + 1)
            ids = shard.ids + first
            if ids[0] < next_id:
                raise HashretError(
                    f"{shards.folder} has a row of id {ids[0]}, and ids up to {next_id - 1} are given already",
                    hint="give higher ids, or none, so that they count on",
                )
            next_id = following
            written: dict[str, NDArray[Any]] = {"codes": shard.codes, "hash_outputs": shard.hash_outputs, "ids": ids}
            written |= {name: array for name, array in shard.columns().items() if name in carried}
            if "fc_features" in written:
                written["fc_features"] = written["fc_features"].astype(common_type(types), copy=False)
            if labelled:
                labels = np.full(len(shard), -1) if shard.labels is None else shard.labels
                written["labels"] = renumbered(labels, names, classes, several)
            paths = shard.paths
            if root:
                paths = encode_paths([stored_path(decode_path(path), root) for path in paths])
            writer.add(written, cut(paths))
        first_id = next_id
    return first_id


def checked_next_id(next_id: int) -> int:
    """Return the id that is to be given next. Raises HashretError where no such number can be kept."""
    if next_id > HIGHEST_NEXT_ID:
        raise HashretError(
            f"ids end at 2^63 - 2, and an id of {next_id - 1} would have to be given",
            hint="the highest id of the index is too high for more: build it again with lower ids, or with none",
        )
    return next_id


def root_of(folder: StrPath, meta: Mapping[str, Any]) -> str | None:
    """Return the folder that an index keeps paths from, whole; None where it keeps whole paths.

    What `index.json` says of it starts at the folder of the index, so that both can be moved together. Where the index
    is named by a link, that may start where the link is or where it leads to: the one that has photographs counts.
    """
    if "root" not in meta:
        return None
    named, *others = named_locations(folder, meta["root"])
    if others:
        below = _first_paths(folder, meta)
        with_photographs = (root for root in (named, *others) if any(map(is_there, below(root))))
        return next(with_photographs, named)
    return named


def _first_paths(folder: StrPath, meta: Mapping[str, Any]) -> Callable[[str], list[str]]:
    """Return what gives, for a root, the whole paths of some photographs of an index, as if they lay below that root.

    None are given where the files are damaged, which opening them will say.
    """
    stored: list[str] = []
    for segment in meta["segments"]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            place = Path(folder) / segment["name"]
            ends = np.load(place / "path_ends.npy", mmap_mode="r")[:_LOOKED_FOR].tolist()
            raw = (place / "paths.bin").open("rb").read(ends[-1])
            stored += [decode_path(raw[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return lambda root: [whole for path in stored if (whole := whole_path(path, root)) != path]


def named_locations(folder: StrPath, path: str) -> list[str]:
    """Return the whole path of a file or a folder as `index.json` names it, see `location_name`: from the index as it
    is named and, where links on the way to it make that another place, from where it is.
    """
    places = [
        os.path.normpath(os.path.join(start, path)) for start in (os.path.abspath(folder), os.path.realpath(folder))
    ]
    return places[:1] if os.path.realpath(places[0]) == os.path.realpath(places[1]) else places


def location_name(folder: StrPath, path: StrPath) -> str:
    """Return how `index.json` names a file or a folder: from the index on where that lies in it, or it beside the
    index, so that they are likely to be moved together; else, or where the index is named by a link, by its whole path.
    """
    if os.path.islink(folder):
        return os.path.abspath(path)
    index, whole = os.path.abspath(folder), os.path.abspath(path)
    common = os.path.commonpath([index, whole])
    return os.path.relpath(whole, index) if common in (whole, os.path.dirname(index)) and common != "/" else whole


def segment_file() -> str:
    """Return the pattern of the names that hashret gives to files in the folder of a segment."""
    return "|".join([_OWN_FILE, *(rf"{column.stored}\.npy" for column in row_columns())])


def read_meta(folder: StrPath) -> dict[str, Any]:
    """Return what `index.json` says. Raises HashretError where there is none, or it is of another format."""
    if is_shard_folder(folder) and not is_index(folder):
        hint = f"build an index of them with hashret build-index {folder}"
        raise HashretError(f"{folder} is a folder of shards, and no index", hint=hint)
    meta = read_json(Path(folder) / "index.json", "index")
    version = meta.get("format", 0)
    check_format(version, FORMAT, folder)
    if version < FORMAT:
        raise HashretError(
            f"{folder} was written by an earlier hashret (format {version})", hint="run hashret build-index again"
        )
    checked(meta, _META, f"the index {Path(folder) / 'index.json'}", "build it again")
    names = {name for segment in meta["segments"] for name in segment["files"] if not re.fullmatch(_OWN_FILE, name)}
    if unknown := unknown_columns(name.removesuffix(".npy") for name in names):
        raise unknown_column(folder, unknown)
    wrong = _contradiction(meta)
    if wrong:
        raise HashretError(f"the index {Path(folder) / 'index.json'} is damaged: {wrong}; build it again")
    complete: dict[str, Any] = {"protocol": None, "rerank_by": None} | meta
    return complete


def _contradiction(meta: dict[str, Any]) -> str | None:
    """Return what of an index's metadata cannot be together, or None."""
    if len({segment["name"] for segment in meta["segments"]}) < len(meta["segments"]):
        return "a segment is named twice"
    for segment in meta["segments"]:
        name, codes, count = segment["name"], segment["codes"], segment["count"]
        needed = _NEEDED - ({"planes.npy"} if meta["bits"] > MAX_BITS else set())
        needed |= {"starts.npy", "items.npy"} if segment["grouped"] else set()
        needed |= {segment["removed"]} if segment.get("removed") else set()
        if needed - segment["files"].keys():
            return f"segment {name} lacks {min(needed - segment['files'].keys())}"
        if codes > count or not (segment["grouped"] or codes == count):
            return f"segment {name} has {codes} codes of {count} photographs"
        removed = segment.get("removed_count", 0)
        if removed > count or bool(removed) != bool(segment.get("removed")):
            return f"segment {name} has other photographs removed than it says"
    total = sum(segment["count"] - segment.get("removed_count", 0) for segment in meta["segments"])
    return None if total == meta["count"] else f"it counts {meta['count']} photographs, and its segments {total}"


def _whole(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return several arrays as one in memory; a single one as it is."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)
