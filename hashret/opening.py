"""One way to open whatever can be searched."""

from __future__ import annotations

from .engines.collection import open_collection
from .engines.names import is_engine
from .errors import HashretError
from .index import open_index


def open_database(name="index", device="auto", values=None, engine="auto"):
    """Open an index folder or a collection in an engine: -> `hashret.index.Database`.

    Where an index is so large that its checksums were not compared when it was opened, that is done in the background.

    Args:
        name: a folder, or as `hashret.engines.names.parse` takes it.
        device, engine: of a folder's Hamming stage, see `hashret.index.open_index`.
        values: with an engine, folder of the index that was exported, to take values for the re-rank from.

    Raises:
        HashretError: nothing there, damaged, half written; EngineError: an engine that does not answer.
    """
    if is_engine(name):
        return open_collection(name, values)
    if values:
        raise HashretError(
            f"--values goes with an engine, as milvus:http://host:19530; {name} is searched with its own"
        )
    return open_index(name, device, engine=engine).verify_in_background()
