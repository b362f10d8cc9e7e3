"""The index that is served now: a newer one is taken up while requests go on with the one they began with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..errors import HashretError
from ..index import Index, open_index
from ..models.checkpoint import load_encoder, read_meta
from ..models.encoder import Encoder

_SELECTIONS = 16  # label filters whose codes are kept


@dataclass(frozen=True)
class Snapshot:
    """An opened index with its ``encoder``, None where only what is indexed can be searched by."""

    index: Index
    encoder: Encoder | None
    selection: object = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "selection", lru_cache(_SELECTIONS)(self._select))

    @property
    def has_values(self):
        """Whether the index can re-rank."""
        return all(segment.values is not None for segment in self.index.segments)

    def _select(self, label):
        return self.index.select(label=label)

    def among(self, label):
        """The `hashret.index.Selection` of a label, kept for the next request; None for all. Raises HashretError."""
        return self.selection(label) if label else None


class LiveIndex:
    """Opens an index and follows its changes.

    Args:
        index: folder of an index.
        model: checkpoint of its encoder, or None.
        device: "auto", "cpu" or "cuda".

    Attributes:
        current: the `Snapshot` for new requests.
        problem: why a newer index could not be taken up, one line, or None.
        reloads: how often a newer one was.

    Raises:
        HashretError: as `hashret.Searcher`.
    """

    def __init__(self, index, model, device="auto"):
        self.folder, self.model, self.device = Path(index), model, device
        self.problem, self.reloads = None, 0
        self.signature = self._signature()
        self.current = self._open(None)

    def refresh(self):
        """Take up a newer index where there is one; after a failure, only when it has changed again."""
        signature = self._signature()
        if signature == self.signature:
            return
        try:
            self.current = self._open(self.current.encoder)
        except HashretError as error:  # half replaced, or built by another encoder
            self.problem = str(error)
            if signature is not None:
                self.signature = signature
            return
        self.signature, self.problem = signature, None
        self.reloads += 1

    def _signature(self):
        """Changes whenever `index.json` is replaced."""
        try:
            found = (self.folder / "index.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open(self, encoder):
        index = open_index(self.folder, self.device).warm()
        if self.model is None:
            return Snapshot(index, None)
        wanted = index.meta["encoder"]
        if encoder is None or encoder.fingerprint != wanted or encoder.precision != index.meta["precision"]:
            if read_meta(self.model)["fingerprint"] != wanted:
                raise HashretError(
                    f"the index {self.folder} was built by another encoder than {self.model}; name its own with --model"
                )
            encoder = load_encoder(self.model, self.device, index.meta["precision"])
        return Snapshot(index, encoder)
