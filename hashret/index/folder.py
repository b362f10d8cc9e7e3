"""The index folder: segments of photographs, and `index.json`, which names those that count.

Segments are never changed. A change writes new files beside them and then replaces `index.json`, in one step: a reader
sees the old state or the new one, and so does who comes after a kill. What no `index.json` names is removed by the next
change. Who has an index open keeps what it mapped.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from ..bits import MAX_BITS, MIN_BITS, code_width
from ..errors import DamagedIndex, HashretError
from ..files import read_json
from ..labels import renumbered
from ..records import checked, fields, list_of, one_of, or_none, table_of, text, whole
from ..shards import PROTOCOL, read_shard
from . import rerank
from .arrays import damaged
from .background import BackgroundCheck
from .calibration import calibrate
from .database import Database, Item
from .distinct import damaged_table
from .paths import cut, file_key, folder_key, path_matches, readings
from .rows import joined
from .segment import MAX_ITEMS, ROW_COLUMNS, Segment, check_files

FORMAT = 2
SHARED = ("bits", "encoder", "precision", "image_size")  # what all shard folders of an index must agree on
SEGMENT = r"\d{6,}"  # names of segments,
REMOVED = r"removed-\d{6,}\.npy"  # and of their files
_ARRAYS = "|".join(["starts", "items", "numbers", "planes", "path_ends", *(column.stored for column in ROW_COLUMNS)])
SEGMENT_FILE = rf"hamming\.faiss|paths\.bin|({_ARRAYS})\.npy|{REMOVED}"
_NO_FILE = "no file of an index"
_NEEDED = {"hamming.faiss", "planes.npy", "ids.npy", "paths.bin", "path_ends.npy"}
_SEGMENT = fields(
    {
        "name": text(SEGMENT, _NO_FILE), "count": whole(1, MAX_ITEMS), "codes": whole(1, MAX_ITEMS),
        "grouped": one_of(True, False),
        "files": table_of(fields({"bytes": whole(), "sha256": text("[0-9a-f]{64}")}), SEGMENT_FILE, _NO_FILE),
    },
    {"removed": or_none(text(REMOVED, _NO_FILE)), "removed_count": whole(0, MAX_ITEMS)},
)  # fmt: skip
_META = fields(
    {
        "bits": whole(MIN_BITS, MAX_BITS), "encoder": text(), "precision": one_of("bfloat16", "float32"),
        "image_size": whole(1, 2**15), "classes": list_of(text()), "count": whole(), "generation": whole(1),
        "next_id": whole(0, 2**63 - 1), "segments": list_of(_SEGMENT, 1),
    },
    {"protocol": or_none(PROTOCOL)},
)  # fmt: skip
_VERIFY_BYTES = 2**26  # an index up to this size is compared with its checksums when it is opened
_TRIES = 20


class Index(Database):
    """An opened index folder.

    A row is a place among all photographs ever added, segment after segment; ``alive`` says which were not removed.

    Attributes:
        meta: what `index.json` says: bits, count, encoder fingerprint, precision, classes ...
        segments: the `hashret.index.segment.Segment` it consists of.
        folder: that it was opened from.
        verified: whether each file was compared with its sha256 when the index was opened.
    """

    def __init__(self, meta, segments, folder=None, verified=False):
        self.meta, self.segments, self.folder, self.verified = meta, segments, folder, verified
        self._background = None
        self.offsets = [0, *accumulate(len(segment) for segment in segments)]

    def __len__(self):
        return sum(segment.count for segment in self.segments)

    @property
    def checked(self):
        """What was compared with `index.json` so far, in words."""
        total = sum(len(part["files"]) for part in self.meta["segments"])
        done = total if self.verified else self._background.done if self._background else 0
        sums = f", sha256 of {done} of {total} files" if done < total else f", sha256 of {total} files"
        return "types, shapes and sizes" + (sums if done else "")

    @property
    def damage(self):
        """What `verify_in_background` found to have changed, one line, or None."""
        found = self._background and self._background.damage
        return f"the index {self.folder} is damaged: {found} has changed; build it again" if found else None

    def verify_in_background(self):
        """Compare each file with its sha256 while the index is searched, unless that was done: -> the index.

        From the first file on that has changed, every search raises `DamagedIndex`.
        """
        if not self.verified and self._background is None:
            self._background = BackgroundCheck(self.folder, self.meta["segments"])
        return self

    def check(self, codes, k=1, candidates=1):
        if self.damage:
            raise DamagedIndex(self.damage)
        super().check(codes, k, candidates)

    @property
    def has_values(self):
        return all(segment.hash_outputs is not None for segment in self.segments)

    @cached_property
    def ids(self):
        """The id of each row, int64 (n,), to read rows of, see `hashret.index.rows.joined`."""
        return joined([segment.ids for segment in self.segments])

    @cached_property
    def values(self):
        """Hash-layer values, float32 (n, bits), to read rows of, or None where the index keeps none."""
        return joined([segment.hash_outputs for segment in self.segments]) if self.has_values else None

    @cached_property
    def labels(self):
        """(n,) or (n, classes), or None where unknown; a photograph added without has -1, or zeros.

        Each segment has the labels that it was written with. Where photographs of any have several labels, all are
        given flags; flags that know fewer classes than the index are widened.
        """
        known = [segment.labels for segment in self.segments if segment.labels is not None]
        if not known:
            return None
        for part in known:
            if part.ndim == 1 and not -1 <= part.min() <= part.max() < len(self.meta["classes"]):
                raise damaged_table("labels.npy")
        several, classes, parts = any(part.ndim == 2 for part in known), self.meta["classes"], []
        for segment in self.segments:
            part = np.full(len(segment), -1) if segment.labels is None else segment.labels
            names = classes if part.ndim == 1 else classes[: part.shape[1]]
            parts.append(renumbered(part, names, classes, several))
        return _whole(parts)

    @cached_property
    def alive(self):
        """Which rows were not removed, bool (n,)."""
        return _whole([segment.alive for segment in self.segments])

    def codes(self):
        """Packed codes of all rows, uint8 (n, w), as the shards have them."""
        return _whole([segment.stage.codes() for segment in self.segments])[:, : code_width(self.bits)]

    def row(self, id):
        """The row of a photograph by its id. Raises HashretError where there is none, or it was removed."""
        rows = self.rows([id])
        if not len(rows):
            raise HashretError(f"no photograph with id {id} in the index")
        return int(rows[0])

    def rows(self, ids):
        """The rows of those of some ids that are there and were not removed, int64, ascending."""
        parts = zip(self.segments, self.offsets, strict=False)
        return np.concatenate([segment.rows(ids) + offset for segment, offset in parts])

    def code(self, row):
        """Packed code of the photograph at ``row``, uint8 (w,)."""
        segment, place = self._place(row)
        return segment.stage.codes()[place][: code_width(self.bits)]

    def value(self, row):
        segment, place = self._place(row)
        return None if segment.hash_outputs is None else np.array(segment.hash_outputs[place])

    def path(self, row):
        """Path of the photograph at ``row``."""
        segment, place = self._place(row)
        return segment.paths[place]

    def known(self, paths):
        """Which of some paths are those of photographs in the index, as a set."""
        found = set()
        for segment in self.segments:
            rows = segment.paths.find(paths)
            found |= {path for row, path in rows if segment.alive[row]}
        return found

    def known_files(self, paths):
        """Which of some paths are of files that photographs in the index are: as a set.

        A file is its folder, by device and inode, and its name there: through a link to a folder, or a second mount of
        it, it is the same one. A link to a file is that file; but where the index has the link,
        the file itself is not known by it.
        """
        folders = {}
        names = {path: file_key(path, folders) for path in paths}
        wanted = {key[0] for key in names.values()}
        aliases = {}
        for folder in set().union(*(segment.paths.folders() for segment in self.segments)):
            key = folder_key(folder or "/", folders)
            if key in wanted:
                aliases.setdefault(key, []).append(folder)
        asked = {path: {path, *(f"{a}/{name}" for a in aliases.get(key, ()))} for path, (key, name) in names.items()}
        known = self.known(set().union(*asked.values()))
        return {path for path, others in asked.items() if others & known}

    def label(self, row):
        """Class names of the photograph at ``row``, "" where unknown."""
        return " ".join(self.label_names(row))

    def label_names(self, row):
        """Class names of the photograph at ``row``, a tuple, empty where unknown."""
        segment, place = self._place(row)
        if segment.labels is None:
            return ()
        label, classes = segment.labels[place], self.meta["classes"]
        if not label.ndim and not -1 <= label < len(classes):
            raise damaged_table("labels.npy")
        numbers = np.flatnonzero(label) if label.ndim else [label] if label >= 0 else []
        return tuple(classes[number] for number in numbers)

    def find(self, id):
        row = self.row(id)
        return row, self.items([row], codes=True)[0]

    def items(self, rows, codes=False):
        return [
            Item.of(int(self.ids[row]), self.path(row), self.label_names(row), self.code(row) if codes else None)
            for row in rows
        ]

    def sample(self, n, seed=0):
        rows = np.flatnonzero(self.alive)
        return np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False)

    def everything(self):
        labels = None if self.labels is None else np.asarray(self.labels)[self.alive]
        return np.flatnonzero(self.alive), self.codes()[self.alive], labels

    def _place(self, row):
        number = bisect_right(self.offsets, row) - 1
        return self.segments[number], int(row) - self.offsets[number]

    def warm(self):
        for segment in self.segments:
            segment.stage.warm()
        return self

    def select(self, label=None, path=None, ids=None):
        mask = self.alive.copy()
        if label is not None:
            mask &= self._has_label(label)
        if ids is not None:
            some = np.zeros(len(mask), bool)
            some[self.rows(ids)] = True
            mask &= some
        if path is not None:
            patterns = [path] if isinstance(path, str) else path
            mask &= np.any([self.matching(pattern, mask) for pattern in patterns], axis=0)
        return Selection(self, mask)

    def _has_label(self, names):
        numbers = self._class_numbers(names)
        labels = np.full(len(self.alive), -1) if self.labels is None else np.asarray(self.labels)
        return np.isin(labels, numbers) if labels.ndim == 1 else labels[:, numbers].any(axis=1)

    def matching(self, pattern, among=None):
        """Which rows a path or a pattern stands for: -> bool (n,), of ``among``, bool (n,), or of all that are there.

        Photographs of that very path, or of one that ends so, come first: with ``a/IMG[1].png`` in the index, that is
        the photograph, and ``a/IMG1.png`` is not. Only where there is none is it taken for a pattern, see
        `hashret.index.paths.readings`.
        """
        found, among = np.zeros(self.offsets[-1], bool), self.alive if among is None else among
        names, pattern = readings(pattern)
        for name in names:
            for segment, offset in zip(self.segments, self.offsets, strict=False):
                found[segment.paths.named(name) + offset] = True
            found &= self.alive
            if found.any():
                return found & among
        if pattern:
            rows = np.flatnonzero(among)
            found[rows] = [path_matches(self.path(row), pattern) for row in rows]
        return found

    def within(self, codes, radius, among=None):
        self.check(codes)
        for query in range(len(codes)):
            parts = []
            for segment, offset in zip(self.segments, self.offsets, strict=False):
                parts += [(D, I + offset) for _, D, I in segment.within(codes[query : query + 1], radius)]
            D, rows = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            if among is not None:
                keep = among.mask[rows]
                D, rows = D[keep], rows[keep]
            order = np.argsort(D, kind="stable")
            yield query, D[order], rows[order]

    def calibrate(self, k=10, recall=0.99, sample=200, seed=0):
        if len(self.segments) > 1 or self.meta["count"] < self.offsets[-1]:
            raise HashretError("candidates are calibrated on an index of one piece; run hashret compact first")
        if self.values is None:
            raise HashretError("this index keeps no values to calibrate on")
        return calibrate(self.segments[0].stage, self.segments[0].hash_outputs, k, recall, sample, seed)

    def nearest(self, codes, k, among=None):
        self.check(codes)
        parts = self.segments if among is None else among.stages
        found = [part.search(codes, k) for part in parts]
        if len(found) == 1:
            return found[0]
        D = np.concatenate([D for D, _ in found], axis=1)
        rows = np.concatenate([I + offset for (_, I), offset in zip(found, self.offsets, strict=False)], axis=1)
        order = np.argsort(D, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(D, order, 1), np.take_along_axis(rows, order, 1)

    def reranked(self, values, rows, features="values"):
        rerank.check_features(features)
        if features == "features" and any(segment.fc_features is None for segment in self.segments):
            raise HashretError("this index keeps no features; encode its photographs with --features")
        if features in ("values", "directions") and not self.has_values:
            raise HashretError("this index keeps no values; take --rerank-by asymmetric")
        squared = None
        for segment, offset in zip(self.segments, self.offsets, strict=False):
            inside = (rows >= offset) & (rows < offset + len(segment))
            places = rows if len(self.segments) == 1 else np.where(inside, rows - offset, -1)
            part = rerank.squared(values, segment.compared(features), places, features)
            squared = part if squared is None else np.minimum(squared, part)
        return rerank.by_distance(squared)


class Selection:
    """Photographs of an index to search among: ``mask`` bool (n,) over its rows."""

    def __init__(self, index, mask):
        self.index, self.mask = index, mask

    def __len__(self):
        return int(self.mask.sum())

    @cached_property
    def stages(self):
        """The Hamming stage of each segment, of these photographs alone."""
        offsets = self.index.offsets
        parts = zip(self.index.segments, offsets[:-1], offsets[1:], strict=True)
        return [segment.stage.subset(self.mask[start:end]) for segment, start, end in parts]


def segment_name(generation):
    """Folder of the segment that a generation of the index adds."""
    return f"{generation:06d}"


def write_shards(writer, folders, classes, first_id=0, known=frozenset()):
    """Copy shards into a segment, ids counting on from ``first_id``, labels by their numbers in ``classes``: -> the
    next id. Where photographs of any folder have several labels, those of all get flags. Those whose paths are in the
    set ``known`` are left out.
    """
    columns = [shards.optional_columns() for shards in folders if shards.manifest["shards"]]
    carried = set.intersection(*columns) - {"labels"} if columns else set()  # what all of them have
    dimensions = [_label_dimensions(shards) for shards in folders]
    labelled, several = any(dimensions), 2 in dimensions
    for shards in folders:
        next_id, names = first_id, shards.manifest["classes"]
        for shard in shards:
            if known:
                shard = shard.without(known)
            if not len(shard):
                continue
            ids = shard.ids + first_id
            next_id = int(ids.max()) + 1
            columns = {"codes": shard.codes, "hash_outputs": shard.hash_outputs, "ids": ids}
            columns |= {name: array for name, array in shard.columns().items() if name in carried}
            if labelled:
                labels = np.full(len(shard), -1) if shard.labels is None else shard.labels
                columns["labels"] = renumbered(labels, names, classes, several)
            writer.add(columns, cut(shard.paths))
        first_id = next_id
    return first_id


def _label_dimensions(shards):
    """0 where the photographs of a folder of shards have no labels, 1 where one each, 2 where several."""
    if not shards.manifest["shards"]:
        return 0
    labels = read_shard(shards.shard_path(0), verify=False)[0].labels
    return 0 if labels is None else labels.ndim


def open_index(folder="index", device="auto", verify=None, engine="auto"):
    """Open an index folder: -> `Index`. Files are mapped, not read, and shared between processes.

    Args:
        folder: written by `build_index`.
        device: "auto" for the Hamming stage on a GPU where there is one, "cpu" or "cuda".
        verify: compare each file with its sha256; None does so for an index below 64 MiB, and for a larger one there is
            `Index.verify_in_background`. Every file's type, shape and size are compared with `index.json` in any case,
            and what one file says of another when it is used.
        engine: of the Hamming stage, see `hashret.index.hamming.HammingStage`.

    Raises:
        HashretError: no index there, damaged, or of another format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HashretError(f"no index at {folder}; build one with hashret build-index, or name one with --index")
    for attempt in range(_TRIES):
        meta = read_meta(folder)
        sizes = [file["bytes"] for part in meta["segments"] for file in part["files"].values()]
        verified = sum(sizes) <= _VERIFY_BYTES if verify is None else verify
        try:
            segments = [_open_segment(folder, meta, part, device, verified, engine) for part in meta["segments"]]
            bounds = [id for segment in segments for id in (int(segment.ids[0]) - 1, int(segment.ids[-1]))]
            if bounds != sorted(bounds) or bounds[-1] >= meta["next_id"]:
                raise damaged(folder, "ids.npy", "is not as it was written")
            return Index(meta, segments, folder, verified)
        except FileNotFoundError as error:
            # Another process may have replaced the files between our reading index.json and opening them.
            if attempt + 1 == _TRIES or read_meta(folder)["generation"] == meta["generation"]:
                name = Path(error.filename).name
                raise HashretError(f"the index {folder} is damaged: {name} is missing; build it again") from None
    raise AssertionError


def read_meta(folder):
    """What `index.json` says. Raises HashretError where there is none, or it is of another format."""
    meta = read_json(Path(folder) / "index.json", "index")
    found = meta.get("format", 0)
    checked(found, whole(), f"the format of the index {folder}")
    if found > FORMAT:
        raise HashretError(f"{folder} was written by a later hashret (format {found}); upgrade")
    if found < FORMAT:
        raise HashretError(
            f"{folder} was written by an earlier hashret (format {found}); run hashret build-index again"
        )
    checked(meta, _META, f"the index {Path(folder) / 'index.json'}", "build it again")
    wrong = _contradiction(meta)
    if wrong:
        raise HashretError(f"the index {Path(folder) / 'index.json'} is damaged: {wrong}; build it again")
    return {"protocol": None} | meta


def _contradiction(meta):
    """What of an index's metadata cannot be together, or None."""
    if len({part["name"] for part in meta["segments"]}) < len(meta["segments"]):
        return "a segment is named twice"
    for part in meta["segments"]:
        needed = _NEEDED | ({"starts.npy", "items.npy"} if part["grouped"] else set())
        needed |= {part["removed"]} if part.get("removed") else set()
        if needed - part["files"].keys():
            return f"segment {part['name']} lacks {min(needed - part['files'].keys())}"
        if part["codes"] > part["count"] or not (part["grouped"] or part["codes"] == part["count"]):
            return f"segment {part['name']} has {part['codes']} codes of {part['count']} photographs"
        if part.get("removed_count", 0) > part["count"] or bool(part.get("removed_count")) != bool(part.get("removed")):
            return f"segment {part['name']} has other photographs removed than it says"
    there = sum(part["count"] - part.get("removed_count", 0) for part in meta["segments"])
    return None if there == meta["count"] else f"it counts {meta['count']} photographs, and its segments {there}"


def _open_segment(folder, meta, segment, device, verify, engine):
    files = segment["files"]
    wrong = check_files(folder / segment["name"], files, verify)
    if wrong:
        raise HashretError(f"the index {folder} is damaged: {wrong} has changed; build it again")
    opened = Segment(folder / segment["name"], segment, meta["bits"], device, engine)
    if opened.labels is not None and opened.labels.shape[1:] > (len(meta["classes"]),):
        raise damaged(folder, "labels.npy", "has more classes than index.json")
    return opened


def _whole(parts):
    """Several arrays as one in memory; a single one as it is."""
    return np.asarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)
