"""The index that is served now: a newer one is taken up while requests go on with the one they began with."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..engines import EngineError, is_engine, shown
from ..errors import HashretError
from ..index import Database
from ..models.checkpoint import load_encoder, read_meta
from ..models.encoder import Encoder
from ..names import shown as shown_line
from ..opening import open_database

_SELECTIONS = 16  # label filters whose codes are kept
_WATCH_SECONDS, _WATCH_ENGINE_SECONDS = 1, 10
_RETRY_SECONDS, _RETRY_SECONDS_AT_MOST = 1, 60  # a newer index that could not be taken up and has not changed since
_log = logging.getLogger("hashret.service")


@dataclass(frozen=True)
class Snapshot:
    """An opened index with its ``encoder``, None where only what is indexed can be searched by."""

    index: Database
    encoder: Encoder | None
    selection: object = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "selection", lru_cache(_SELECTIONS)(self._select))

    def _select(self, label):
        return self.index.select(label=label)

    def among(self, label):
        """Photographs of a label, kept for the next request; None for all. Raises HashretError: no such class."""
        return self.selection(label) if label else None


class LiveIndex:
    """Opens an index and follows its changes.

    Args:
        index: folder of an index, or a collection in an engine.
        model: checkpoint of its encoder, or None.
        device: "auto", "cpu" or "cuda".
        values: see `hashret.Searcher`.

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

    def __init__(self, index, model, device="auto", values=None):
        self.index, self.model, self.device, self.values = index, model, device, values
        self.watch_seconds = _WATCH_ENGINE_SECONDS if is_engine(index) else _WATCH_SECONDS
        self.stale, self.away, self.reloads, self.failures = None, None, 0, 0
        self._said = None  # the problem that the log has
        self._tried, self._again, self._pause = object(), 0.0, _RETRY_SECONDS  # what was tried last, and when to again
        self.signature = None if is_engine(index) else self._signature()
        self.current = self._open(None)
        if is_engine(index):
            self.signature = self.current.index.meta

    @property
    def problem(self):
        """What is wrong, one line, or None."""
        return self.current.index.damage or self.away or self.stale

    def refresh(self):
        """Take up a newer index where there is one. Raises nothing: what is wrong is `problem`, and in the log once.

        What could not be taken up is tried again when it has changed, and after a while, twice as long each time.
        """
        try:
            self._refresh()
        except Exception as error:  # whatever lies in the folder, the index that is served goes on
            self.stale = str(error) if isinstance(error, HashretError) else f"it cannot be opened: {error!r}"
            self.failures += 1
        problem = self.problem
        if problem != self._said:
            self._said = problem
            found = f"still served as it was: {problem}" if problem else "served as it is now"
            if self.current.index.damage:
                found = f"not searched any more: {problem}"
            _log.warning("%s", shown_line(f"note: the index {shown(self.index)} is {found}"))

    def _refresh(self):
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
        elif time.monotonic() < self._again:
            return
        self._tried, self._again = signature, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _RETRY_SECONDS_AT_MOST)
        self.current = self._open(self.current.encoder)
        self.signature, self.stale = signature, None
        self.reloads += 1

    def _signature(self):
        """Changes whenever `index.json`, or the record of the collection, is replaced."""
        if is_engine(self.index):
            return self.current.index.engine.read_record()
        try:
            found = Path(self.index, "index.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open(self, encoder):
        index = open_database(self.index, self.device, self.values).warm()
        if self.model is None:
            return Snapshot(index, None)
        wanted = index.meta["encoder"]
        if encoder is None or encoder.fingerprint != wanted or encoder.precision != index.meta["precision"]:
            if read_meta(self.model)["fingerprint"] != wanted:
                raise HashretError(
                    f"the index {shown(self.index)} was built by another encoder than {self.model}; "
                    "name its own with --model"
                )
            encoder = load_encoder(self.model, self.device, index.meta["precision"])
        return Snapshot(index, encoder)
