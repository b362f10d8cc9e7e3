"""Photographs that were encoded for an index and are not in it yet, so that a killed sync loses no work."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import HashretError
from ..files import make_folder
from ..shards import Shard, read_manifest, read_shard
from .photographs import Seen

FOLDER = "pending"


class Pending:
    """The shards in the folder ``pending`` of an index, of this run and of runs that were killed.

    Args:
        index: folder of the index.
        encoder: fingerprint of the encoder; shards of others do not count.
        compute_dtype: number format of the shards that count; None for that of the first.

    Attributes:
        compute_dtype: that number format, None where there are no shards.
        manifest: what `codes.json` says of shards that count.
        found: digest -> (shard, row, path below the root) of each photograph.
    """

    def __init__(self, index: Path, encoder: str, compute_dtype: str | None, root: str) -> None:
        self.folder, self.encoder, self.compute_dtype, self.root = index / FOLDER, encoder, compute_dtype, root
        self.found: dict[str, tuple[Path, int, str]] = {}
        self.manifest: dict[str, Any] = {}
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            with contextlib.suppress(HashretError):  # no shards, or damaged ones, which are made again
                self.read(folder)

    def read(self, folder: Path) -> None:
        """Take up what is whole of a folder of shards."""
        manifest = read_manifest(folder)
        if manifest["encoder"] != self.encoder or manifest["precision"] != (
            self.compute_dtype or manifest["precision"]
        ):
            return
        self.compute_dtype, self.manifest = manifest["precision"], manifest
        start = self.root.rstrip("/") + "/"
        for path in sorted(folder.glob("codes-*.h5")):
            shard, _ = read_shard(path)
            for row, digest in enumerate([] if shard.digests is None else shard.digests):
                name = bytes(shard.paths[row]).decode("utf-8", "surrogateescape").removeprefix(start)
                self.found[digest.tobytes().hex()] = path, row, name

    def sure(self, before: Mapping[str, Seen], now: Mapping[str, Seen]) -> set[str]:
        """Return the digests of photographs that were not changed while they were encoded.

        A file is read once for its digest, and again to be encoded. It was the same both times if the content is
        there, by the time of change that it had ``before``, ``now`` as well.
        """
        there = {(seen.digest, seen.mtime) for seen in now.values()}
        encoded = {digest: before.get(path) for digest, (_, _, path) in self.found.items()}
        return {digest for digest, seen in encoded.items() if seen and (digest, seen.mtime) in there}

    def new_folder(self) -> Path:
        """Return a name for another folder of shards."""
        make_folder(self.folder)
        numbers = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return self.folder / f"{max(numbers, default=0) + 1:06d}"

    def blocks(self, taken: Mapping[str, str]) -> Iterator[tuple[Shard, list[int], list[str]]]:
        """Yield the shards that have the photographs of some paths, by their digest: with the rows, and the paths."""
        by_shard: dict[Path, list[tuple[int, str]]] = {}
        for path, digest in taken.items():
            shard, row, _ = self.found[digest]
            by_shard.setdefault(shard, []).append((row, path))
        for file, rows in by_shard.items():
            yield read_shard(file, verify=False)[0], [row for row, _ in rows], [path for _, path in rows]

    def columns(self, taken: Iterable[str]) -> set[str] | None:
        """Return the columns that the shards of some digests have in common; None for no digests."""
        shards = [read_shard(file, verify=False)[0] for file in {self.found[digest][0] for digest in taken}]
        return set.intersection(*(set(shard.columns()) for shard in shards)) if shards else None

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
