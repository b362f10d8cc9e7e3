"""One way to open whatever can be searched."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from .addresses import KINDS, is_engine
from .errors import HashretError
from .files import StrPath
from .index import Database, Index, open_index
from .index.folder import named_locations
from .index.folder import read_meta as read_index_meta
from .models.metadata import read_meta
from .places import MODEL
from .renamed import old_keywords

_log = logging.getLogger("hashret")


def find_model(model: StrPath | None = None, index: StrPath | Database | None = None) -> StrPath:
    """Return the checkpoint that is meant.

    Args:
        model: as the user names it; None for what HASHRET_MODEL names, the one that the index remembers, or
            ``model.safetensors`` beside the index or in the working folder, of which one that the index was built by
            comes first.
        index: folder of the index, or an opened one; None without one.
    """
    if model is not None or os.environ.get("HASHRET_MODEL"):
        return model if model is not None else os.environ["HASHRET_MODEL"]
    folder = index.folder if isinstance(index, Index) else None if isinstance(index, Database) else index
    known: list[Path] = []
    encoder = None
    if folder is not None and (Path(folder) / "index.json").is_file():
        meta = index.meta if isinstance(index, Index) else read_index_meta(folder)
        encoder = meta["encoder"]
        known = list(map(Path, named_locations(folder, meta["model"]))) if "model" in meta else []
        known.append(Path(os.path.abspath(folder)).with_name(MODEL))
    there = [path for path in (*known, Path(MODEL)) if path.is_file()]
    for path in there if len(there) > 1 else ():
        with suppress(HashretError):
            if read_meta(path)["fingerprint"] == encoder:
                return path
    return there[0] if there else Path(MODEL)


@old_keywords
def open_database(
    name: StrPath = "index", device: str = "auto", values: StrPath | None = None, *, backend: str = "auto"
) -> Database:
    """Open an index folder or a collection in an engine.

    Where an index is so large that its checksums were not compared when it was opened, that is done in the background.

    Args:
        name: a folder, or as `hashret.addresses.parse` takes it.
        device, backend: of a folder, see `hashret.index.open_index`.
        values: with an engine, folder of the index that was exported, to take hash outputs for the re-rank from.

    Raises:
        HashretError: nothing there, damaged, half written; EngineError: an engine that does not answer.
    """
    if is_engine(name):
        from .engines.collection import open_collection  # which a query of a folder does without

        collection: Database = open_collection(str(name), values)
        return collection
    if values:
        engine = next(iter(KINDS.values())).examples[0]
        hint = f"--values goes with an engine, as {engine}"
        raise HashretError(f"{name} is searched with its own hash outputs", hint=hint)
    index = open_index(name, device, backend=backend).verify_in_background()
    _log.debug("index %s: %d photographs, %d bits, on %s", name, len(index), index.bits, device)
    return index
