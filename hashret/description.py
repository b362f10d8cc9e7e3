"""`hashret info`: what a checkpoint, a folder of shards or photographs, an index or a collection in an engine is."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import HashretError
from .files import read_text
from .names import json_lines
from .records import checked, list_of
from .shards import MANIFEST, SKIPPED_LINE, count_shards, read_manifest


def info(path, verify=None):
    """Describe a checkpoint, shards, an index, a collection or photographs: -> dict with ``kind`` first.

    ``verify``: compare the files of an index with their checksums, see `hashret.index.open_index`.

    Raises:
        HashretError: nothing there, or none of these.
    """
    name, path = path, Path(path)
    if (path / "index.json").exists():
        from .index import open_index

        opened = open_index(path, "cpu", verify)
        meta, segments = opened.meta, opened.meta["segments"]
        files = [file for part in segments for file in part["files"].values()]
        names = {True: "distinct codes", False: "all codes"}
        return {
            "kind": "index",
            **meta,
            "segments": len(segments),
            "removed": sum(part.get("removed_count", 0) for part in segments),
            "searched": [f"{part['codes']:,} {names[part['grouped']]} of {part['count']:,}" for part in segments],
            "bytes_per_item": round(sum(file["bytes"] for file in files) / max(1, meta["count"]), 1),
            "checked": opened.checked,
        }
    if (path / MANIFEST).exists():
        manifest = read_manifest(path)
        return {"kind": "shards"} | manifest | _progress(path, manifest)
    if path.suffix == ".h5":
        from .shards import read_shard

        shard, attributes = read_shard(path)
        return {"kind": "shard", "rows": len(shard), "skipped": len(shard.skipped)} | attributes
    if path.is_file():
        from .models.checkpoint import read_meta

        return {"kind": "checkpoint"} | read_meta(path)
    if not path.exists():
        from .engines import is_engine, open_collection

        if is_engine(name):
            return {"kind": "collection"} | open_collection(name).meta
        raise HashretError(f"no such file or folder: {path}")
    return _photographs(path)


def _photographs(folder):
    """How many photographs a folder holds, and what is passed over in it, by name."""
    from .data.walk import OTHER_NAME, walk

    photographs, passed_over = walk(folder) if folder.is_dir() else ([], [])
    if not photographs and all(item.reason == OTHER_NAME for item in passed_over):
        raise HashretError(f"{folder} is neither a checkpoint, nor a folder of shards or photographs, nor an index")
    named = [{"path": os.path.join(folder, item.path), "reason": item.reason} for item in passed_over]
    return {"kind": "photographs", "photographs": len(photographs), "passed_over": named}


def _progress(folder, manifest):
    """How far `hashret encode` has come with a folder of shards."""
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
