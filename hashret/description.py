"""`hashret info`: what a checkpoint, a folder of shards or photographs, an index or a collection in an engine is."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import HashretError
from .files import read_json
from .shards import MANIFEST, shard_name


def info(path):
    """Describe a checkpoint, shards, an index, a collection or photographs: -> dict with ``kind`` first.

    Raises:
        HashretError: nothing there, or none of these.
    """
    name, path = path, Path(path)
    if (path / "index.json").exists():
        meta = read_json(path / "index.json", "index")
        segments = meta.pop("segments", [])
        size = sum(file["bytes"] for part in segments for file in part["files"].values())
        names = {True: "distinct codes", False: "all codes"}
        return {
            "kind": "index",
            **meta,
            "segments": len(segments),
            "removed": sum(part.get("removed_count", 0) for part in segments),
            "searched": [f"{part['codes']:,} {names[part['grouped']]} of {part['count']:,}" for part in segments],
            "bytes_per_item": round(size / max(1, meta["count"]), 1),
        }
    if (path / MANIFEST).exists():
        manifest = read_json(path / MANIFEST, "shard folder")
        there = sum((path / shard_name(number)).exists() for number in range(manifest["shards"]))
        skipped, passed_over = path / "skipped.jsonl", path / "passed_over.jsonl"
        unread = skipped.read_bytes().count(b"\n") if skipped.exists() else None
        counts = {"shards_written": there, "complete": unread is not None, "skipped": unread}
        if passed_over.exists():
            counts["passed_over"] = passed_over.read_bytes().count(b"\n")
        return {"kind": "shards"} | manifest | counts
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
