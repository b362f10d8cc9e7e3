"""`hashret info`: what a checkpoint, a folder of shards, a data source, an index or a collection in an engine is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import HashretError, refuse_given
from .files import StrPath, read_text
from .names import json_lines
from .records import checked, list_of
from .results import WasDict
from .shards import MANIFEST, SKIPPED_LINE, count_shards, read_manifest

if TYPE_CHECKING:
    from .index.substrings import Tables


@dataclass(frozen=True)
class Description(WasDict):
    """What `info` says of a file or folder.

    Attributes:
        kind: "checkpoint", "shards", "shard", "index", "collection" or "photographs".
        facts: name -> value, as JSON has them: the metadata of that kind, and what was counted and checked.
    """

    kind: str
    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return kind and facts as one JSON object, the kind first."""
        return {"kind": self.kind, **self.facts}


def info(path: StrPath, verify: bool | None = None, *, split: str | None = None) -> Description:
    """Describe a checkpoint, shards, an index, a collection, photographs or another data source.

    Args:
        path: file or folder, the address of a collection, or a data source as of `hashret.data.open_data`.
        verify: compare the files of an index with their checksums, see `hashret.index.open_index`.
        split: of a data source, see there.

    Raises:
        HashretError: nothing there, or none of these.
    """
    name, path = path, Path(path)
    if path.is_file() or (path / "index.json").exists() or (path / MANIFEST).exists():
        refuse_given(f"{name} is no data source, and not split", split=split)
    if (path / "index.json").exists():
        return Description("index", _index(path, verify))
    if (path / MANIFEST).exists():
        manifest = read_manifest(path)
        return Description("shards", manifest | _progress(path, manifest))
    if path.suffix == ".h5" and ":" not in str(name).partition("/")[0]:  # vectors:FILE.h5 is a data source
        from .shards import read_shard

        shard, attributes = read_shard(path)
        return Description("shard", {"rows": len(shard), "skipped": len(shard.skipped)} | attributes)
    if path.is_file():
        from .data.formats import is_image_name
        from .models.metadata import read_meta

        try:
            return Description("checkpoint", read_meta(path))
        except HashretError:
            if path.suffix == ".safetensors":
                raise
        what = "a photograph" if is_image_name(path.name) else "neither a checkpoint nor a shard"
        hint = "name a folder of photographs or of shards, a checkpoint or an index"
        raise HashretError(f"{path} is {what}", hint=hint)
    if not path.exists():
        from .engines import is_engine, open_collection

        if is_engine(name):
            return Description("collection", open_collection(str(name)).meta)
        from .data.source import SOURCES

        kind, colon, _ = str(name).partition(":")
        if colon and kind in SOURCES:
            return Description("photographs", _source(str(name), split))
        raise HashretError(f"no such file or folder: {path}")
    return Description("photographs", _photographs(path) if split is None else _source(str(name), split))


def _index(folder: Path, verify: bool | None) -> dict[str, Any]:
    """Return the metadata of an index, how it is searched, and what of it was checked."""
    from .index import open_index

    opened = open_index(folder, "cpu", verify)
    meta, segments = opened.meta, opened.meta["segments"]
    size = sum(file["bytes"] for segment in segments for file in segment["files"].values())
    names = {True: "distinct codes", False: "all codes"}
    return {
        **meta,
        "segments": len(segments),
        "removed": sum(segment.get("removed_count", 0) for segment in segments),
        "searched": [f"{one['codes']:,} {names[one['grouped']]} of {one['count']:,}" for one in segments],
        "tables": [_tables(one.stage.tables) for one in opened.segments],
        "bytes_per_item": round(size / max(1, meta["count"]), 1),
        "checked": opened.checked,
    }


def _tables(tables: Tables | None) -> str | None:
    """Return over which substrings of the codes a segment has tables, in words; None where it has none."""
    return tables and f"{len(tables.layout.lengths)} substrings of {' + '.join(map(str, tables.layout.lengths))} bits"


def _photographs(folder: Path) -> dict[str, Any]:
    """Return how many photographs a folder holds, and what is passed over in it, by name."""
    from .data.walk import OTHER_NAME, walk

    photographs, passed_over = walk(folder) if folder.is_dir() else ([], [])
    if not photographs and all(item.reason == OTHER_NAME for item in passed_over):
        raise HashretError(f"{folder} is neither a checkpoint, nor a folder of shards or photographs, nor an index")
    named = [{"path": os.path.join(folder, item.path), "reason": item.reason} for item in passed_over]
    return {"photographs": len(photographs), "passed_over": named}


def _source(name: str, split: str | None) -> dict[str, Any]:
    """Return how many photographs a data source has, of which classes, and what is passed over in it."""
    from .data import open_data

    source = open_data(name, split)
    named = [{"path": item.path, "reason": item.reason} for item in source.files_passed_over()]
    return {"photographs": len(source), "classes": list(source.classes), "passed_over": named}


def _progress(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return how far `hashret encode` has come with a folder of shards."""
    skipped, unread = folder / "skipped.jsonl", None
    if skipped.exists():
        try:
            unread = len(checked(json_lines(read_text(skipped)), list_of(SKIPPED_LINE), str(skipped)))
        except (OSError, ValueError) as error:
            raise HashretError(f"{skipped} is damaged: {error}") from None
    counts = {"shards_written": count_shards(folder, manifest), "complete": unread is not None, "skipped": unread}
    passed_over = folder / "passed_over.jsonl"
    if passed_over.is_file():
        counts["passed_over"] = passed_over.read_bytes().count(b"\n")
    return counts
