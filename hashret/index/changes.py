"""A living index: add and remove photographs, and compact what that leaves, while others read.

Each change runs under a lock, writes new files, and then replaces `index.json`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from ..errors import HashretError
from ..files import partial_name, remove_folder, remove_leftovers, write_json
from ..labels import united
from ..shards import ShardFolder
from .folder import SHARED, open_index, read_meta, segment_name, write_shards
from .segment import SegmentWriter, describe

_ROWS_AT_ONCE = 2**16


def append(index, codes):
    """Add folders of shards to an index: -> how many photographs. Their ids count on from the highest ever given.

    Their classes are those of the index of the same name; new ones are put behind these.

    Raises:
        HashretError: shards of another encoder.
    """
    folders = [ShardFolder(folder) for folder in ([codes] if isinstance(codes, (str, Path)) else codes)]
    with _changing(index) as (folder, meta):
        for shards in folders:
            if any(shards.manifest[name] != meta[name] for name in SHARED):
                raise HashretError(f"{shards.folder} was encoded by another encoder than the index {index}")
        generation = meta["generation"] + 1
        classes = united(meta["classes"], *(shards.manifest["classes"] for shards in folders))
        values = "values.npy" in meta["segments"][0]["files"]
        with _new_segment(folder, generation, meta["bits"], values) as writer:
            next_id = write_shards(writer, folders, classes, meta["next_id"])
            if not len(writer):
                return 0
            segment = writer.close()
        _switch(folder, meta | {"classes": classes}, [*meta["segments"], segment], next_id)
        return segment["count"]


def remove(index, ids=(), paths=(), gone=False):
    """Remove photographs by id or by path, see `hashret.index.folder.Index.matching`: -> how many.

    With ``gone``, also those whose file is no longer there.

    Raises:
        HashretError: an id or a path that is not there, or ``gone`` where no file at all is; nothing is removed then.
    """
    with _changing(index) as (folder, meta):
        opened = open_index(folder, "cpu", verify=False)
        leaving = _rows_of_ids(opened, ids) | _rows_of_paths(opened, paths)
        if gone:
            leaving |= _rows_of_missing_files(opened)
        if not leaving.any():
            return 0
        segments = []
        for number, part in enumerate(opened.segments):
            new = leaving[opened.offsets[number] : opened.offsets[number + 1]]
            if new.any():
                rows = np.union1d(part.removed, np.flatnonzero(new)).astype(np.int64)
                segments += [_with_removed(folder, part, rows, meta["generation"] + 1)]
            else:
                segments += [part.meta]
        _switch(folder, meta, segments, meta["next_id"])
        return int(leaving.sum())


def compact(index):
    """Merge all segments into one without what was removed: -> (photographs, bytes before, bytes after)."""
    with _changing(index) as (folder, meta):
        before = _bytes(meta["segments"])
        if len(meta["segments"]) == 1 and not meta["segments"][0].get("removed"):
            return meta["count"], before, before
        opened = open_index(folder, "cpu", verify=True)
        values = all(segment.values is not None for segment in opened.segments)
        features = all(segment.features is not None for segment in opened.segments)
        with _new_segment(folder, meta["generation"] + 1, meta["bits"], values) as writer:
            labels = opened.labels
            for number, segment in enumerate(opened.segments):
                codes = segment.stage.codes()
                alive = np.flatnonzero(segment.alive)
                for start in range(0, len(alive), _ROWS_AT_ONCE):
                    rows = alive[start : start + _ROWS_AT_ONCE]
                    some = None if labels is None else labels[rows + opened.offsets[number]]
                    paths = segment.paths.cut(rows)
                    writer.add(
                        codes[rows], segment.values[rows] if values else None, segment.ids[rows], paths, some,
                        segment.features[rows] if features else None,
                    )  # fmt: skip
            if not len(writer):
                raise HashretError(f"every photograph of {index} was removed; nothing is left to compact")
            segment = writer.close()
        _switch(folder, meta, [segment], meta["next_id"])
        return segment["count"], before, _bytes([segment])


@contextlib.contextmanager
def _changing(index):
    """Hold the index's lock: yields (folder, metadata); what no index.json names is removed before and after."""
    folder = Path(index)
    if not folder.is_dir():
        raise HashretError(f"no index at {folder}; build one with hashret build-index")
    read_meta(folder)
    try:
        with _locked(folder):
            _clean(folder)
            yield folder, read_meta(folder)
            _clean(folder)
    except (OSError, RuntimeError) as error:  # the latter from faiss
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise HashretError(f"cannot change the index {index}: {reason}; it is as it was") from error


@contextlib.contextmanager
def _locked(folder):
    """Wait for another change to end, and let none begin; a process that dies leaves no lock behind."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clean(folder):
    meta = read_meta(folder)
    remove_leftovers(folder)
    used = {part["name"]: part["files"] for part in meta["segments"]}
    for path in folder.iterdir():
        if path.is_dir() and path.name.isdigit():
            if path.name not in used:
                remove_folder(path)
            else:
                for file in path.iterdir():
                    if file.name not in used[path.name]:
                        file.unlink()


@contextlib.contextmanager
def _new_segment(folder, generation, bits, values):
    """A writer whose files are moved to their place at the end."""
    final = folder / segment_name(generation)
    partial = partial_name(final)
    try:
        writer = SegmentWriter(partial, bits, values)
        writer.name = final.name
        yield writer
        if len(writer):
            for file in partial.iterdir():
                _flush(file)
            partial.rename(final)
    finally:
        remove_folder(partial)


def _with_removed(folder, segment, rows, generation):
    name = f"removed-{generation:06d}.npy"
    path = folder / segment.meta["name"] / name
    np.save(path, rows)
    _flush(path)
    files = {file: value for file, value in segment.meta["files"].items() if file != segment.meta.get("removed")}
    return segment.meta | {"files": files | {name: describe(path)}, "removed": name, "removed_count": len(rows)}


def _switch(folder, meta, segments, next_id):
    """The one step at which a change happens."""
    count = sum(part["count"] - part.get("removed_count", 0) for part in segments)
    for place in {folder, *(folder / part["name"] for part in segments)}:
        _flush(place)
    changes = {"count": count, "generation": meta["generation"] + 1, "next_id": next_id, "segments": segments}
    # What was changed is no longer the data set of a protocol.
    same = len(segments) == len(meta["segments"]) == 1 and count == meta["count"]
    write_json(folder / "index.json", meta | changes | {"protocol": meta["protocol"] if same else None})
    _flush(folder)


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rows_of_ids(index, ids):
    ids = np.asarray(list(ids), np.int64)
    rows = index.rows(ids)
    missing = np.setdiff1d(ids, index.ids[rows])
    if len(missing):
        raise HashretError(f"no photograph with id {missing[0]} in the index")
    found = np.zeros(index.offsets[-1], bool)
    found[rows] = True
    return found


def _rows_of_paths(index, patterns):
    gone = np.zeros(index.offsets[-1], bool)
    for pattern in sorted(patterns):
        found = index.matching(pattern)
        if not found.any():
            raise HashretError(f"no photograph {pattern} in the index")
        gone |= found
    return gone


def _rows_of_missing_files(index):
    gone = np.zeros(index.offsets[-1], bool)
    rows = np.flatnonzero(index.alive)
    gone[rows] = [not os.path.lexists(index.path(row)) for row in rows]
    if gone.any() and gone[rows].all():
        raise HashretError(f"no photograph of the index is there, as {index.path(rows[0])}; is a disk missing?")
    return gone


def _bytes(segments):
    return sum(file["bytes"] for part in segments for file in part["files"].values())
