"""A living index: build it, add and remove photographs, and compact what that leaves, while others read.

Each change runs under a lock, writes new files, and then replaces `index.json`. Files in the folder that are not of
hashret's making stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..addresses import refuse_engine
from ..bits import check_length, lengths_of
from ..errors import HashretError, warn
from ..files import (
    StrPath,
    check_output,
    discard,
    flush,
    flush_tree,
    is_partial,
    locked,
    partial_folder,
    read_json,
    remove_leftovers,
    remove_own,
    write_json,
)  # fmt: skip
from ..labels import united
from ..places import MAKE_ONE, find_index, is_index
from ..results import Result, WasDict, WasInt, WasTuple
from ..shards import COLUMNS, Array, ShardFolder, encode_paths
from ..vectors import common_type
from .arrays import damaged
from .blocks import ROWS_AT_ONCE
from .database import ids_array
from .folder import (
    FORMAT,
    REMOVED,
    SEGMENT,
    SHARED,
    Index,
    Known,
    checked_next_id,
    location_name,
    read_meta,
    root_of,
    segment_file,
    segment_name,
    write_shards,
)  # fmt: skip
from .given import ENCODER, CodeFile, is_code_file
from .gone import gone_positions
from .hamming import compile_for
from .opening import open_index
from .paths import cut, path_patterns, stored_path, whole_path
from .segment import Segment, SegmentWriter, check_files, describe, save_array

_TOLD_BY = frozenset({"ids.npy", "paths.bin", "path_ends.npy"})  # by which photographs to remove or add are told
_OUTPUTS = frozenset({"hash_outputs"})  # what an index that is built without values leaves out
_Folders = StrPath | Iterable[StrPath]  # one folder, or several
_LOOKED_FOR = 1000  # photographs that are looked for where an index is told of another folder
Block = tuple[Mapping[str, Array], Sequence[str]]  # columns but for the ids, by name, and whole paths


@dataclass(frozen=True)
class BuiltIndex(WasDict):
    """What `build_index` made.

    Attributes:
        folder: of the index.
        count: photographs in it.
        bits: length of their codes.
        classes: names of their classes.
        meta: all that `index.json` says, which `as_dict` returns.
    """

    folder: str
    count: int
    bits: int
    classes: tuple[str, ...]
    meta: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return self.meta


@dataclass(frozen=True, eq=False)
class Removed(WasInt):
    """What `remove` did: ``count`` photographs were removed. After a dry run they would have been, and ``would_remove``
    has their paths; it is None after any other.
    """

    count: int
    would_remove: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Compacted(WasTuple):
    """What `compact` did: ``count`` photographs are in the index, whose files had ``bytes_before`` and now have
    ``bytes_after``.
    """

    count: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Relocated(Result):
    """What `relocate` did: the paths of ``count`` photographs, which started at ``before``, now start at ``root``."""

    count: int
    before: str
    root: str


def build_index(
    codes: _Folders = ("codes",),
    out: StrPath = "index",
    *,
    overwrite: bool = False,
    values: bool = True,
    bits: int | None = None,
) -> BuiltIndex:
    """Build an index folder from one or several folders of shards, a shard in memory at a time.

    An index that is replaced stays as it is until `index.json` names the new segment, in one step; then its own files
    are removed, and others in the folder stay.

    Args:
        codes: folders of shards, or packed codes that others made, see `hashret.index.given`. Ids go on counting from
            one to the next, and their classes are united by name.
        out: folder to write.
        overwrite: replace an index that is there.
        values: keep the hash outputs. Without them the index is a tenth the size, and the re-rank can only be
            asymmetric.
        bits: length of the codes, one that the encoder was trained for; None for the longest.

    Raises:
        HashretError: damaged or incomplete shards, folders of different encoders, no photographs, ``out`` exists, no
            codes of that length.
    """
    folders = _shard_folders(codes)
    meta = {name: folders[0].manifest[name] for name in SHARED if name in folders[0].manifest}
    for folder in folders:
        differing = [name for name in SHARED if folder.manifest.get(name) != meta.get(name)]
        if differing == ["precision"]:
            raise HashretError(
                f"{folder.folder} was encoded in {folder.manifest['precision']}, and {folders[0].folder} in "
                + meta["precision"],
                hint="encode them with the same --precision and --runtime",
            )
        if differing:
            raise HashretError(f"{folder.folder} and {folders[0].folder} were encoded by different encoders")
    meta = _of_length(meta | {"lengths": lengths_of(folders[0].manifest)}, meta["bits"] if bits is None else bits)
    meta["classes"] = united(*(folder.manifest["classes"] for folder in folders))
    meta["protocol"] = folders[0].manifest.get("protocol") if len(folders) == 1 else None
    values &= meta["encoder"] != ENCODER  # whose shards have none
    out = Path(out)
    _check_output(out, overwrite)
    remove_leftovers(out.parent, re.escape(out.name))  # of before indexes were built in their own folder
    made = not out.exists()
    try:
        with _new_segment(out, meta["bits"], frozenset() if values else _OUTPUTS) as writer:
            next_id = write_shards(writer, folders, meta["classes"])
            if not len(writer):
                raise HashretError(f"no photographs in {', '.join(str(shards.folder) for shards in folders)}")
            segment = _finished(writer)
            compile_for(segment["codes"])
            with locked(out):
                _check_output(out, overwrite)  # another may have been built meanwhile
                before, generation = _state(out), _next_generation(out)
                segment = _placed(segment, writer, out, generation)
                meta = {
                    "format": FORMAT, **meta, "count": segment["count"], "generation": generation, "next_id": next_id,
                    "segments": [segment],
                }  # fmt: skip
                write_json(out / "index.json", meta)
                _clean(out)
                if before.get("format") == 1:
                    remove_own(out, segment_file())
    except (OSError, RuntimeError) as error:  # the latter from faiss
        raise HashretError(f"cannot write the index {out}: {_reason(error)}") from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # where nothing came of it
    return BuiltIndex(str(out), meta["count"], meta["bits"], tuple(meta["classes"]), meta)


def _shard_folders(codes: _Folders) -> list[ShardFolder | CodeFile]:
    """Open one or several folders of shards, or files of codes. Raises HashretError where one is named twice."""
    named = [codes] if isinstance(codes, (str, os.PathLike)) else list(codes)
    seen: set[object] = set()
    opened: list[ShardFolder | CodeFile] = []
    for name in named:
        folder = CodeFile(str(name)) if is_code_file(name) else ShardFolder(name)
        same = folder.identity if isinstance(folder, CodeFile) else os.path.realpath(name)
        if same in seen:
            raise HashretError(f"{name} is named twice: its photographs would be in the index two times")
        seen.add(same)
        opened.append(folder)
    return opened


def _of_length(meta: dict[str, Any], bits: int) -> dict[str, Any]:
    """Return what describes an index whose codes are the first ``bits`` bits of those that ``meta`` describes.

    Raises:
        HashretError: the encoder was not trained for codes of that length.
    """
    lengths = [length for length in lengths_of(meta) if length <= check_length(bits, meta)]
    others = {name: value for name, value in meta.items() if name != "lengths"}
    return others | {"bits": bits} | ({"lengths": lengths} if len(lengths) > 1 else {})


def append(index: StrPath, codes: _Folders, *, new_only: bool = False) -> int:
    """Add folders of shards to an index, and return how many photographs that were.

    Their ids count on from the highest ever given. Their classes are those of the index of the same name; new ones are
    put behind these.

    Args:
        index, codes: folders.
        new_only: leave out what is in the index already: photographs by their file, see `Index.known_files`, and what
            has ids that the user gave by these.

    Raises:
        HashretError: shards of another encoder.
    """
    folders = _shard_folders(codes)
    with _changing(index) as (folder, meta):
        for shards in folders:
            fits = shards.manifest | ({"bits": meta["bits"]} if meta["bits"] in lengths_of(shards.manifest) else {})
            if any(fits.get(name) != meta.get(name) for name in SHARED):
                raise HashretError(f"{shards.folder} was encoded by another encoder than the index {index}")
            _check_columns(index, meta["segments"], shards)
        known = Known(_opened(folder), folders) if new_only else None
        classes = united(meta["classes"], *(shards.manifest["classes"] for shards in folders))
        without = frozenset() if "values.npy" in meta["segments"][0]["files"] else _OUTPUTS
        with _new_segment(folder, meta["bits"], without) as writer:
            next_id = write_shards(writer, folders, classes, meta["next_id"], known, root_of(folder, meta))
            if not len(writer):
                return 0
            generation = _next_generation(folder)
            segment = _placed(_finished(writer), writer, folder, generation)
        _switch(folder, meta | {"classes": classes}, [*meta["segments"], segment], next_id, generation)
        return int(segment["count"])


def _check_columns(index: StrPath, segments: Sequence[Mapping[str, Any]], shards: ShardFolder | CodeFile) -> None:
    """Refuse shards without a column that others have added to the index, and say where they have no features.

    A column that not all photographs have is given of none, and would be gone with the next `compact`.
    """
    if not shards.manifest["shards"]:
        return
    there = shards.optional_columns()
    for column in COLUMNS:
        missed = column.optional and column.name not in there
        if missed and all(f"{column.stored}.npy" in segment["files"] for segment in segments):
            line = f"the photographs of {shards.folder} have no {column.name}, as all of the index {index} have"
            if column.is_added:
                raise HashretError(line, hint="encode them with it")
            if column.name == "fc_features":
                warn(f"{line}: the index gives none any more")


def _opened(folder: Path) -> Index:
    """Open an index whose photographs are told by id and path, however large: these files are as they were written."""
    index = open_index(folder, "cpu", verify=False)
    for segment in index.segments:
        names = _TOLD_BY | {segment.meta.get("removed")}
        told_by = {name: file for name, file in segment.meta["files"].items() if name in names}
        if changed := check_files(segment.folder, told_by, verify=True):
            raise damaged(folder, changed, "has changed")
    return index


def remove(
    index: StrPath,
    ids: int | Iterable[int] = (),
    paths: StrPath | Iterable[StrPath] = (),
    *,
    gone: bool = False,
    yes: bool = False,
    dry_run: bool = False,
) -> Removed:
    """Remove photographs by id or by path.

    Args:
        index: folder.
        ids: one or several, of photographs to remove.
        paths: one or several, of photographs to remove, or patterns, see `hashret.index.folder.Index.matching`.
        gone: also remove those whose file is no longer there, see `hashret.index.gone.gone_positions`.
        yes: remove what is ``gone`` also where that is a large fraction of the index.
        dry_run: say what would be removed, and change nothing; the index may be one that cannot be written to.

    Raises:
        HashretError: an id or a path that is not there, or ``gone`` where no file at all is; nothing is removed then.
    """

    def leaving_from(opened: Index) -> NDArray[np.bool_]:
        leaving = _with_ids(opened, ids) | _with_paths(opened, paths)
        return leaving | gone_positions(opened, yes) if gone else leaving

    if dry_run:
        opened = _opened(Path(find_index(index)))
        would_remove = tuple(map(opened.path, np.flatnonzero(leaving_from(opened)).tolist()))
        return Removed(len(would_remove), would_remove)
    with _changing(index) as (folder, meta):
        opened = _opened(folder)
        leaving = leaving_from(opened)
        if not leaving.any():
            return Removed(0)
        generation = _next_generation(folder)
        _switch(folder, meta, _without(opened, leaving, folder, generation), meta["next_id"], generation)
        return Removed(int(leaving.sum()))


def _without(opened: Index, leaving: NDArray[np.bool_], folder: Path, generation: int) -> list[dict[str, Any]]:
    """Return what `index.json` says of the segments once the photographs at some positions are removed."""
    segments = []
    for number, segment in enumerate(opened.segments):
        new = leaving[opened.offsets[number] : opened.offsets[number + 1]]
        if new.any():
            rows = np.union1d(segment.removed, np.flatnonzero(new)).astype(np.int64)
            segments += [_with_removed(folder, segment, rows, generation)]
        else:
            segments += [segment.meta]
    return segments


def create(folder: StrPath, about: Mapping[str, Any], blocks: Iterable[Block]) -> int:
    """Write a new index of blocks of photographs, each with the same columns, and return how many there are.

    Args:
        folder: of the index; what is in it that is not an index's stays.
        about: what `index.json` says beside counts and segments, with ``bits`` and ``classes``.
        blocks: of photographs.

    Raises:
        HashretError: an index is there, or no photographs.
    """
    out = Path(folder)
    try:
        with locked(out), _new_segment(out, about["bits"]) as writer:
            if (out / "index.json").exists():
                raise HashretError(f"an index was made at {out} meanwhile", hint="try again")
            next_id = _write_blocks(writer, blocks, 0, root_of(out, about))
            if not len(writer):
                raise HashretError(f"no photographs for the index {out}")
            segment = _finished(writer)
            compile_for(segment["codes"])
            generation = _next_generation(out)
            segment = _placed(segment, writer, out, generation)
            counts = {"count": segment["count"], "generation": generation, "next_id": next_id, "segments": [segment]}
            write_json(out / "index.json", {"format": FORMAT, **about, "protocol": None, **counts})
            _clean(out)  # of what a killed process left that wrote no index.json
            return int(segment["count"])
    except (OSError, RuntimeError) as error:  # the latter from faiss
        raise HashretError(f"cannot write the index {out}: {_reason(error)}") from error


def exchange(
    index: StrPath,
    leaving: NDArray[np.bool_],
    blocks: Iterable[Block],
    *,
    generation: int,
    about: Mapping[str, Any] | None = None,
) -> bool:
    """Remove photographs from an index and add others, in one step.

    Args:
        index: folder.
        leaving: which positions leave, bool (n,).
        blocks: of photographs to add, each with the same columns; they get new ids.
        generation: of the index that ``leaving`` is of.
        about: what `index.json` is to say otherwise.

    Returns:
        Whether that was done; False where another process has changed the index since.
    """
    with _changing(index) as (folder, meta):
        if meta["generation"] != generation:
            return False
        opened, number, next_id = _opened(folder), _next_generation(folder), meta["next_id"]
        segments, added, blocks = _without(opened, leaving, folder, number), [], iter(blocks)
        for block in blocks:  # the first, if there are any
            with _new_segment(folder, meta["bits"]) as writer:
                next_id = _write_blocks(writer, itertools.chain([block], blocks), next_id, root_of(folder, meta))
                added = [_placed(_finished(writer), writer, folder, number)]
        kept = [one for one in segments if one["count"] > one.get("removed_count", 0)] + added
        _switch(folder, meta | dict(about or {}), kept or segments, next_id, number)
        return True


def _write_blocks(writer: SegmentWriter, blocks: Iterable[Block], next_id: int, root: str | None) -> int:
    """Write blocks of photographs to a segment and return the next id."""
    for columns, paths in blocks:
        ids = np.arange(next_id, checked_next_id(next_id + len(paths)))
        writer.add({**columns, "ids": ids}, cut(encode_paths([stored_path(path, root) for path in paths])))
        next_id += len(paths)
    return next_id


def relocate(index: StrPath, root: StrPath) -> Relocated:
    """Tell an index that the photographs lie below another folder now, or that it may be moved along with them.

    An index that keeps whole paths is written anew: paths are then kept from the folder that all its photographs have
    in common, in whose place ``root`` steps.

    Args:
        index: folder of an index.
        root: folder of the photographs.

    Raises:
        HashretError: no such folder, or no photograph of the index in it.
    """
    if not os.path.isdir(root):
        raise HashretError(f"no such folder: {root}", hint="name the one that the photographs lie in now")
    with _changing(index) as (folder, meta):
        opened, whole = _opened(folder), os.path.abspath(root)
        paths = [opened.path(position) for position in np.flatnonzero(opened.alive).tolist()]
        if not paths:
            raise HashretError(f"the index {index} has no photographs, whose place could be told")
        before = opened.root or _common_folder(paths)
        below = [stored_path(path, before) for path in paths if path != stored_path(path, before)]
        if below and not any(os.path.lexists(whole_path(path, whole)) for path in below[:_LOOKED_FOR]):
            raise HashretError(f"none of the photographs of {index} is below {root}, as {below[0]}")
        segments, generation = meta["segments"], _next_generation(folder)
        if not opened.root:
            with _new_segment(folder, meta["bits"]) as writer:
                _copy(opened, writer, before)
                segments = [_placed(_finished(writer), writer, folder, generation)]
        _switch(folder, meta | {"root": location_name(folder, whole)}, segments, meta["next_id"], generation)
        return Relocated(len(below), before, whole)


def _common_folder(paths: Iterable[str]) -> str:
    """Return the folder that all photographs of an index have in common, by their paths."""
    whole = {os.path.dirname(path) for path in paths if path.startswith("/")}
    common = os.path.commonpath(whole) if whole else "/"
    if common == "/":
        raise HashretError("the photographs of this index have no folder in common that could be moved")
    return common


def compact(index: StrPath) -> Compacted:
    """Merge all segments into one without what was removed."""
    with _changing(index) as (folder, meta):
        before = _bytes(meta["segments"])
        if len(meta["segments"]) == 1 and not meta["segments"][0].get("removed"):
            return Compacted(meta["count"], before, before)
        opened = open_index(folder, "cpu", verify=True)
        with _new_segment(folder, meta["bits"]) as writer:
            _copy(opened, writer)
            if not len(writer):
                raise HashretError(f"every photograph of {index} was removed; nothing is left to compact")
            generation = _next_generation(folder)
            merged = _placed(_finished(writer), writer, folder, generation)
        _switch(folder, meta, [merged], meta["next_id"], generation)
        return Compacted(merged["count"], before, _bytes([merged]))


def _copy(index: Index, writer: SegmentWriter, root: str | None = None) -> None:
    """Write the photographs of an index that were not removed to a segment; paths below a ``root`` from there on."""
    common = common_columns(index)
    has_digests = any("digests" in segment.columns for segment in index.segments)
    types = [segment.columns["fc_features"].dtype for segment in index.segments if "fc_features" in common]
    labels = index.labels
    for segment, offset in zip(index.segments, index.offsets, strict=False):
        codes, alive = segment.stage.codes(), np.flatnonzero(segment.alive)
        for start in range(0, len(alive), ROWS_AT_ONCE):
            rows = alive[start : start + ROWS_AT_ONCE]
            columns = {"codes": codes[rows]} | {name: segment.columns[name][rows] for name in common}
            if labels is not None:
                columns["labels"] = labels[rows + offset]
            if "fc_features" in columns:
                columns["fc_features"] = columns["fc_features"].astype(common_type(types), copy=False)
            if has_digests:
                columns["digests"] = digests_at(segment, rows)
            paths = segment.paths.cut_at(rows)
            if root:
                paths = cut(encode_paths([stored_path(segment.paths[row], root) for row in rows.tolist()]))
            writer.add(columns, paths)


def common_columns(index: Index) -> set[str]:
    """Return the columns that all segments of an index have, but for labels and digests, which can be filled in."""
    return set.intersection(*(set(segment.columns) for segment in index.segments)) - {"labels", "digests"}


def digests_at(segment: Segment, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the digests at positions in a segment, uint8 (m, 32), zeros where it has none."""
    digests = segment.columns.get("digests")
    return np.zeros((len(positions), 32), np.uint8) if digests is None else np.asarray(digests[positions])


def write_shortened(index: Index, out: StrPath, bits: int) -> None:
    """Write an index to a new folder with codes of ``bits`` bits, the first of its own.

    Raises:
        HashretError: the encoder was not trained for codes of that length.
    """
    folder = Path(out)
    meta = _of_length(index.meta, bits)
    with _new_segment(folder, bits) as writer:
        _copy(index, writer)
        segment = _placed(_finished(writer), writer, folder, 1)
    _switch(folder, meta, [segment], meta["next_id"], 1)


def _check_output(out: Path, overwrite: bool) -> None:
    """`check_output` of an index: what a build left that was killed before it wrote `index.json` is in nobody's way."""
    inside = list(out.iterdir()) if out.is_dir() else []
    begun = [path for path in inside if re.fullmatch(SEGMENT, path.name) and path.is_dir()]
    names = [file.name for path in begun for file in path.iterdir()]
    ours = all(path in begun or is_partial(path.name) for path in inside)
    if (out / "index.json").is_file() and not is_index(out):
        raise HashretError(f"{out} holds an index.json of another program", hint="name another folder with --out")
    if not begun or not ours or not all(re.fullmatch(segment_file(), name) for name in names):
        check_output(out, overwrite, "index", "index.json")


@contextlib.contextmanager
def _changing(index: StrPath) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Hold the index's lock: yields (folder, metadata); what no index.json names is removed before and after."""
    refuse_engine(index)
    folder = Path(find_index(index))
    if not folder.is_dir():
        raise HashretError(f"no index at {folder}", hint=MAKE_ONE)
    read_meta(folder)
    try:
        with locked(folder):
            for segment in read_meta(folder)["segments"]:
                if (folder / segment["name"]).is_symlink():
                    raise HashretError(
                        f"{folder / segment['name']} is a link, and nothing outside the index is changed; "
                        "put the folder that it leads to in its place"
                    )
            _clean(folder)
            yield folder, read_meta(folder)
            _clean(folder)
    except (OSError, RuntimeError) as error:  # the latter from faiss
        raise HashretError(f"cannot change the index {index}: {_reason(error)}; it is as it was") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


def _clean(folder: Path) -> None:
    """Remove what no `index.json` names: segments, and files in them, of names that hashret gives alone."""
    meta = read_meta(folder)
    remove_leftovers(folder, rf"index\.json|segment|{SEGMENT}|added-\w+")
    used = {segment["name"]: segment["files"] for segment in meta["segments"]}
    for path in _own_segments(folder):
        with contextlib.suppress(OSError):
            if path.name in used:
                for file in path.iterdir():
                    if re.fullmatch(REMOVED, file.name) and file.name not in used[path.name]:
                        file.unlink()
            elif int(path.name) <= meta["generation"] + 1 and all(
                re.fullmatch(segment_file(), file.name) for file in path.iterdir()
            ):
                discard(path)


def _own_segments(folder: Path) -> list[Path]:
    """Return the folders that have a segment's name; a link is none of hashret's making."""
    return [
        path
        for path in folder.iterdir()
        if re.fullmatch(SEGMENT, path.name) and path.is_dir() and not path.is_symlink()
    ]


def _state(folder: Path) -> dict[str, Any]:
    """Return what `index.json` says, of whatever format; empty where there is none, or it is damaged."""
    try:
        state: dict[str, Any] = read_json(folder / "index.json", "index")
        return state
    except HashretError:
        return {}


def _next_generation(folder: Path) -> int:
    """Return a number above that of the index, by which no segment in the folder goes."""
    generation = _state(folder).get("generation")
    if not isinstance(generation, int):  # damaged: above those of its segments
        generation = max([0, *(int(path.name) for path in _own_segments(folder) if (path / "hamming.faiss").exists())])
    while os.path.lexists(folder / segment_name(generation + 1)):
        generation += 1
    return generation + 1


@contextlib.contextmanager
def _new_segment(folder: Path, bits: int, without: Collection[str] = ()) -> Iterator[SegmentWriter]:
    """Yield a writer of a segment under a temporary name, which `_placed` gives its own."""
    with partial_folder(folder / "segment") as partial:
        yield SegmentWriter(partial, bits, without)


def _finished(writer: SegmentWriter) -> dict[str, Any]:
    """Write the rest of a segment, onto the disk, and return what `index.json` says of it."""
    segment = writer.close()
    flush_tree(writer.folder)
    return segment


def _placed(segment: dict[str, Any], writer: SegmentWriter, folder: Path, generation: int) -> dict[str, Any]:
    """Give a finished segment its name, and return what `index.json` says of it."""
    os.rename(writer.folder, folder / segment_name(generation))
    flush(folder)
    return segment | {"name": segment_name(generation)}


def _with_removed(folder: Path, segment: Segment, rows: NDArray[np.int64], generation: int) -> dict[str, Any]:
    """Write which rows of a segment are removed, and return what `index.json` says of the segment then."""
    name = f"removed-{generation:06d}.npy"
    path = folder / segment.meta["name"] / name
    save_array(path, rows)
    flush(path)
    flush(path.parent)
    files = {file: about for file, about in segment.meta["files"].items() if file != segment.meta.get("removed")}
    return segment.meta | {"files": files | {name: describe(path)}, "removed": name, "removed_count": len(rows)}


def _switch(folder: Path, meta: dict[str, Any], segments: list[dict[str, Any]], next_id: int, generation: int) -> None:
    """Replace `index.json`: the one step at which a change happens."""
    count = sum(segment["count"] - segment.get("removed_count", 0) for segment in segments)
    changes = {"count": count, "generation": generation, "next_id": next_id, "segments": segments}
    # What was changed is no longer the data set of a protocol.
    same = len(segments) == len(meta["segments"]) == 1 and count == meta["count"]
    write_json(folder / "index.json", meta | changes | {"protocol": meta["protocol"] if same else None})


def _with_ids(index: Index, ids: int | Iterable[int]) -> NDArray[np.bool_]:
    """Return which positions have one of some ids. Raises HashretError where an id is missing."""
    asked = ids_array(ids)
    positions = index.positions(asked)
    missing = np.setdiff1d(asked, index.ids[positions])
    if len(missing):
        raise HashretError(f"no photograph with id {missing[0]} in the index")
    mask = np.zeros(index.offsets[-1], bool)
    mask[positions] = True
    return mask


def _with_paths(index: Index, patterns: StrPath | Iterable[StrPath]) -> NDArray[np.bool_]:
    """Return which positions match one of some patterns. Raises HashretError where one matches none."""
    mask = np.zeros(index.offsets[-1], bool)
    for pattern in path_patterns(patterns):
        matched = index.matching(pattern)
        if not matched.any():
            raise HashretError(f"no photograph {pattern} in the index")
        mask |= matched
    return mask


def _bytes(segments: Iterable[dict[str, Any]]) -> int:
    return sum(file["bytes"] for segment in segments for file in segment["files"].values())
