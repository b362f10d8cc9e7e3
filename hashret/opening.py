"""One way to open whatever can be searched."""

from __future__ import annotations

import logging

from .engines.kinds import KINDS
from .engines.names import is_engine
from .errors import HashretError
from .files import StrPath
from .index import Database, open_index
from .renamed import old_keywords

_log = logging.getLogger("hashret")


@old_keywords
def open_database(
    name: StrPath = "index", device: str = "auto", values: StrPath | None = None, *, backend: str = "auto"
) -> Database:
    """Open an index folder or a collection in an engine.

    Where an index is so large that its checksums were not compared when it was opened, that is done in the background.

    Args:
        name: a folder, or as `hashret.engines.names.parse` takes it.
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
