"""The index that is served, which is exchanged for a newer one while requests finish with the one they began with."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import EngineError, is_engine, shown
from ..engines.collection import Collection
from ..errors import HashretError
from ..files import StrPath
from ..index import Database, Index
from ..index.database import Item
from ..index.folder import root_of
from ..index.given import ENCODER
from ..models.checkpoint import load_encoder
from ..models.encoder import Encoder
from ..models.metadata import read_meta
from ..names import shown as shown_line
from ..opening import open_database

_SELECTIONS = 16  # labels whose codes are kept
_WATCH_SECONDS, _WATCH_ENGINE_SECONDS = 1, 10
_RETRY_SECONDS, _RETRY_SECONDS_AT_MOST = 1, 60  # pause before the same newer index is tried again
_log = logging.getLogger("hashret.service")


class Snapshot:
    """An opened index with its encoder, as one request sees both from its beginning to its end.

    Attributes:
        index: the database.
        encoder: None where only indexed photographs can be searched by.
        show_paths: whether visitors are told whole paths.
    """

    def __init__(self, index: Database, encoder: Encoder | None, show_paths: bool = False) -> None:
        self.index, self.encoder, self.show_paths = index, encoder, show_paths
        self._root = root_of(index.folder, index.meta) if isinstance(index, Index) and index.folder else None
        self._select = lru_cache(_SELECTIONS)(lambda labels: index.select(label=labels))

    def path_for_visitors(self, path: str) -> str:
        """Return a path from the folder of photographs on, or else its file and folder: the rest is the server's."""
        if self.show_paths:
            return path
        below = self._below_root(path)
        return below if below != path else "/".join(path.split("/")[-2:])

    def digest(self, item: Item) -> str:
        """Return a few digits of path and code, which tell a photograph from another one of the same id.

        An index that is built again counts ids from 0 again; one that is added to gives no id twice. Visitors do not
        know the key of the digest, so that they cannot find out a path by trying.
        """
        assert item.code is not None
        path = self._below_root(item.path).encode("utf-8", "surrogatepass")
        key = self.index.meta["encoder"].encode()[: hashlib.blake2b.MAX_KEY_SIZE]
        return hashlib.blake2b(path + b"\0" + item.code.tobytes(), digest_size=8, key=key).hexdigest()

    def _below_root(self, path: str) -> str:
        """Return a path from the folder of photographs on, and as it is where it lies elsewhere."""
        return path.removeprefix(os.path.join(self._root, "")) if self._root else path

    def among(self, labels: Sequence[str] | None) -> Any:
        """Return the photographs of any of some labels, kept for later requests; None, which means all, without these.

        Raises:
            HashretError: there is no such class.
        """
        return self._select(tuple(labels)) if labels else None


class LiveIndex:
    """Opens an index and follows its changes.

    Args:
        index: folder of an index, or a collection in an engine.
        model: checkpoint of its encoder, or None.
        device: "auto", "cpu" or "cuda".
        values: see `hashret.Searcher`.
        show_paths: see `Snapshot`.

    Attributes:
        current: the `Snapshot` for new requests.
        stale: why a newer index could not be taken up, one line, or None.
        away: why the engine did not answer, likewise.
        reloads: how often a newer index was taken up.
        failures: how often one could not be.
        watch_seconds: between one `refresh` and the next.

    Raises:
        HashretError: as `hashret.Searcher`.
    """

    def __init__(
        self,
        index: StrPath,
        model: StrPath | None,
        device: str = "auto",
        values: StrPath | None = None,
        *,
        show_paths: bool = False,
    ) -> None:
        self.index, self.model, self.device, self.values = index, model, device, values
        self.show_paths = show_paths
        self.watch_seconds = _WATCH_ENGINE_SECONDS if is_engine(index) else _WATCH_SECONDS
        self.stale: str | None = None
        self.away: str | None = None
        self.reloads, self.failures = 0, 0
        self._logged: str | None = None  # the problem that the log names
        self._tried: Any = object()  # signature of the newer index that was tried last
        self._try_again, self._pause = 0.0, _RETRY_SECONDS
        self.signature = None if is_engine(index) else self._signature()
        self.current = self._open(None)
        if is_engine(index):
            self.signature = self.current.index.meta

    @property
    def problem(self) -> str | None:
        """What keeps the service from answering from the newest index, one line, or None."""
        return self.current.index.damage or self.away or self.stale

    def for_visitors(self, problem: str) -> str:
        """Return what visitors are told of a problem: nothing of where an engine is, unless they are told whole paths.

        What an engine's client says may hold the address, too, so that none of it is told.
        """
        if self.show_paths or not is_engine(self.index):
            return problem
        return "the engine that holds the index does not answer as it should; the log of the service says more"

    def refresh(self) -> None:
        """Exchange the index for a newer one where there is one.

        Raises nothing: `problem` says what is wrong, and the log says it once. A newer index that cannot be opened is
        tried again when it has changed, or after a pause, which doubles each time.
        """
        try:
            self._refresh()
        except Exception as error:  # the index that is served goes on, whatever lies in the folder
            self.stale = str(error) if isinstance(error, HashretError) else f"it cannot be opened: {error!r}"
            self.failures += 1
        problem = self.problem
        if problem != self._logged:
            self._logged = problem
            state = f"still served as it was: {problem}" if problem else "served as it is now"
            if self.current.index.damage:
                state = f"not searched any more: {problem}"
            _log.warning("%s", shown_line(f"note: the index {shown(self.index)} is {state}"))

    def _refresh(self) -> None:
        try:
            signature, self.away = self._signature(), None
        except EngineError as error:
            self.away = str(error)
            return
        if signature == self.signature:
            self.stale = None  # nothing newer, or no longer
            return
        if signature != self._tried:
            self._pause = _RETRY_SECONDS
        elif time.monotonic() < self._try_again:
            return
        self._tried, self._try_again = signature, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _RETRY_SECONDS_AT_MOST)
        self.current = self._open(self.current.encoder)
        self.signature, self.stale = signature, None
        self.reloads += 1

    def _signature(self) -> Any:
        """Return a value that changes whenever `index.json`, or the record of a collection, is replaced."""
        if is_engine(self.index):
            assert isinstance(self.current.index, Collection)
            return self.current.index.engine.read_record()
        try:
            file = Path(self.index, "index.json").stat()
        except OSError:
            return None
        return file.st_ino, file.st_mtime_ns, file.st_size

    def _open(self, encoder: Encoder | None) -> Snapshot:
        index = open_database(self.index, self.device, self.values).warm()
        if self.model is None or index.meta["encoder"] == ENCODER:  # of codes that others made
            return Snapshot(index, None, self.show_paths)
        wanted = index.meta["encoder"]
        needed = wanted, index.meta["precision"], index.bits
        if encoder is None or (encoder.fingerprint, encoder.compute_dtype, encoder.bits) != needed:
            if read_meta(self.model)["fingerprint"] != wanted:
                raise HashretError(
                    f"the index {shown(self.index)} was built by another encoder than {self.model}",
                    hint="name its own with --model",
                )
            encoder = load_encoder(self.model, self.device, index.meta["precision"], fingerprint=wanted)
            encoder = _warm(encoder.shortened(index.bits))
        return Snapshot(index, encoder, self.show_paths)


def _warm(encoder: Encoder) -> Encoder:
    """Encode a black picture, so that the first visitor does not wait for what is set up then; return the encoder."""
    if not encoder.vector_width:
        size = encoder.image_size
        encoder.outputs(encoder.backbone(np.zeros((1, 3, size, size), np.uint8)))
    return encoder
