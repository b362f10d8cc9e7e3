"""`hashret sync`: an index of a folder of photographs, made the first time and brought up to date every other."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..addresses import masked
from ..data import ImageSource, warn_passed_over
from ..data.walk import PassedOver, as_patterns, summary, walk
from ..engines import refuse_engine
from ..errors import HashretError, warn
from ..files import StrPath, make_folder, read_json, turn
from ..index import Index, open_index
from ..index.blocks import ROWS_AT_ONCE
from ..index.changes import Block, common_columns, compact, create, exchange
from ..index.folder import SHARED, location_name
from ..index.gone import large_share, out_of_reach
from ..methods import WITHOUT_LABELS
from ..models.metadata import read_meta
from ..opening import find_model
from ..places import MODEL, is_index, own_index
from ..progress import takes_quiet
from ..records import fields, text, whole
from ..results import Result
from ..shards import Array, is_shard_folder
from .pending import Pending
from .photographs import Memory, Seen, look
from .plan import Indexed, Plan, make_plan

_LOCK = "sync.lock"
_TO_TRAIN = 5000  # photographs that an encoder is trained on
_OUTGROWN = 10  # times as many photographs as the encoder learned from, from which on a new one is advised
_MANY = 500  # photographs from which on a faster way is worth to be named
_SHARD = 256  # photographs that a kill loses at most, encoded
_ROUNDS = 3  # of encoding, where photographs change meanwhile
_SEGMENTS, _REMOVED = 16, 0.25  # pieces of an index, and fraction of it removed, from which on it is compacted

_log = logging.getLogger("hashret")


@dataclass(frozen=True)
class SyncReport(Result):
    """What `sync` did, or would do.

    Attributes:
        index, model: folder of the index, and checkpoint of its encoder.
        photographs: how many of the folder are in the index now.
        unchanged: of these, how many were there and stayed as they were.
        new: how many came, a copy of another photograph among them.
        changed: how many have the path that they had, and another content.
        moved: how many were elsewhere in the folder before, and were not encoded again.
        gone: how many left the index as their files are gone.
        held: how many of such stay, as they are a large part of the index and ``yes`` was not given.
        out_of_reach: how many stay as their folders are not there.
        encoded: how many went through the encoder.
        unreadable: those that could not be read, a dict of path and reason each.
        passed_over: what lies in the folder and is not read, a `hashret.data.walk.PassedOver` each.
        trained: whether an encoder was trained.
        dry_run: whether nothing was done.
        seconds: that it took.
    """

    index: str
    model: str
    photographs: int
    unchanged: int
    new: int
    changed: int
    moved: int
    gone: int
    held: int
    out_of_reach: int
    encoded: int
    unreadable: tuple[dict[str, str], ...]
    passed_over: tuple[PassedOver, ...]
    trained: bool
    dry_run: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return super().as_dict() | {"passed_over": [item._asdict() for item in self.passed_over]}


@takes_quiet
def sync(
    photos: StrPath = ".",
    *,
    index: StrPath | None = None,
    model: StrPath | None = None,
    weights: StrPath = "pretrained",
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    yes: bool = False,
    dry_run: bool = False,
    device: str = "auto",
    workers: int | None = None,
) -> SyncReport:
    """Make an index of a folder of photographs, or bring one up to date, so that it has what the folder has.

    The first time an encoder that needs no labels is trained on the photographs, as `hashret.train` does by default.
    Later, photographs that are new or have changed are encoded; those that were moved are known by their content, and
    so are copies. What is gone leaves the index, unless its folder is not there, as that of a disk that is not mounted.
    A call that was killed is taken up by the next, and two at once wait for each other.

    Args:
        photos: folder. Its folders are no classes, and none of them is a split.
        index: folder of the index; None for ``.hashret/index`` among the photographs.
        model: checkpoint of the encoder, trained where it is missing and there is no index yet; None for the one that
            the index remembers, else model.safetensors beside the index.
        weights: what a backbone that is trained starts from, see `hashret.train`.
        exclude, include: patterns of what is left out and what is not, see `hashret.data.walk.walk`. The index
            remembers them, until others are given.
        yes: let more than ten photographs that are more than a tenth of the index leave it, too.
        dry_run: say what would be done, and do nothing.
        device: "auto", "cpu" or "cuda".
        workers: decoding processes, see `hashret.encode`.

    Raises:
        HashretError: no folder, no photographs that can be read, an index of another folder or of another encoder, or
            every photograph is out of reach.
    """
    run = _Sync(photos, index, model, weights, device, workers, dry_run)
    with nullcontext() if dry_run else run.turn():
        while (report := run.once(exclude, include, yes)) is None:
            _log.info("another process has changed %s; looking again", run.folder)
    return report


class _Sync:
    def __init__(
        self,
        photos: StrPath,
        index: StrPath | None,
        model: StrPath | None,
        weights: StrPath,
        device: str,
        workers: int | None,
        dry_run: bool,
    ) -> None:
        self.root = os.path.abspath(photos)
        if not os.path.isdir(self.root):
            if os.path.exists(self.root):
                raise HashretError(f"{photos} is a file, not a folder", hint="name a folder of photographs")
            raise HashretError(f"no such folder: {masked(str(photos))}")
        if index is not None:
            refuse_engine(index)
        self.folder = own_index(photos) if index is None else Path(index)
        if is_shard_folder(self.folder) and not is_index(self.folder):
            raise HashretError(f"{self.folder} is a folder of shards", hint="name another place with --index")
        self.model, self.weights, self.device, self.workers, self.dry_run = model, weights, device, workers, dry_run
        self.started = time.monotonic()
        self.trained, self.encoded = False, 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for other processes that sync the same index."""
        line = f"hashret sync, process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}"
        try:
            make_folder(self.folder)
            with turn(self.folder / _LOCK, line, lambda other: _log.info("waiting for %s", other or "another process")):
                yield
        except OSError as error:
            hint = "name another place with --index"
            raise HashretError(f"cannot write {error.filename or self.folder}: {error.strerror}", hint=hint) from error

    def once(self, exclude: Sequence[str], include: Sequence[str], yes: bool) -> SyncReport | None:
        """Do all of it once; None where another process has changed the index meanwhile."""
        opened = self._open()
        self.patterns = self._patterns(opened, exclude, include)
        paths, passed_over = self._walk(remembered=not (exclude or include))
        if opened is None and not paths:
            raise HashretError(f"no images in {self.root}" + (f"; {summary(passed_over)}" if passed_over else ""))
        if opened is None and Path(os.path.abspath(self.folder)) == own_index(self.root):
            self._warn_of_one_above()
        memory = Memory.load(self.folder)
        files, unreadable = look(self.root, paths, memory.files)
        indexed = Indexed(opened, self.root)
        model = Path(self._beside() if opened is None else find_model(self.model, opened))
        if self.dry_run:
            plan = make_plan(indexed, files, unreadable, passed_over, memory, (), yes)
            plan.taken = {path: files[path].digest for path in plan.new + plan.changed if path not in plan.copies}
            return self._report(plan, model, passed_over, len(plan.to_encode), indexed)
        before = dict(memory.files)
        if opened is None and not model.exists():
            self._save(memory, files)
            self._train(model, files)
        fingerprint = read_meta(model)["fingerprint"]
        if opened is not None and fingerprint != opened.meta["encoder"]:
            raise HashretError(
                f"the index {self.folder} was built by another encoder than {model}", hint="name its own with --model"
            )
        pending = Pending(self.folder, fingerprint, opened.meta["precision"] if opened else None, self.root)
        self._save(memory, {path: before[path] for _, _, path in pending.found.values() if path in before} | files)
        for left in reversed(range(_ROUNDS + 1)):
            plan = make_plan(indexed, files, unreadable, passed_over, memory, pending.sure(before, files), yes)
            if not plan.to_encode or not left:
                break
            before |= {path: files[path] for path in plan.to_encode}
            failed = self._encode(pending, model, plan.to_encode, files, opened)
            again, cannot = look(self.root, plan.to_encode, files)
            files = {path: seen for path, seen in files.items() if path not in cannot} | again
            unreadable |= cannot
            for path, reason in failed.items():
                if path in again and again[path].digest == before[path].digest:
                    memory.unreadable[again[path].digest] = reason
        if opened is not None and indexed.paths and not files and len(plan.away) == len(indexed):
            raise HashretError(f"{out_of_reach(self._folders(plan.away))}; is a disk missing?")
        if not self._write(opened, plan, files, pending, model):
            return None
        pending.clear()
        memory.unreadable = {
            seen.digest: memory.unreadable[seen.digest] for seen in files.values() if seen.digest in memory.unreadable
        }
        self._save(memory, files)
        return self._report(plan, model, passed_over, self.encoded, indexed)

    def _warn_of_one_above(self) -> None:
        """Warn where a folder above the photographs has an index of its own, which takes these photographs in, too."""
        above = next((folder for folder in Path(self.root).parents if is_index(own_index(folder))), None)
        if above is not None:
            warn(
                f"{above} has an index already, to which hashret sync {above} adds what is in {self.root}; this makes "
                "a second one, of that folder alone"
            )

    def _beside(self) -> StrPath:
        """Return the checkpoint of an index that is to be made."""
        return self.model or os.environ.get("HASHRET_MODEL") or self.folder.with_name(MODEL)

    def _open(self) -> Index | None:
        """Open the index; None where there is none."""
        if not is_index(self.folder):
            return None
        opened = open_index(self.folder, "cpu")
        hint = f"hashret relocate {self.folder} --root {self.root} tells it of that folder"
        if opened.root is None:
            raise HashretError(f"the index {self.folder} was not made by hashret sync", hint=hint)
        if os.path.realpath(opened.root) != os.path.realpath(self.root):
            raise HashretError(f"the index {self.folder} is of {opened.root}, not of {self.root}", hint=hint)
        self.root = opened.root  # which may be another name of the folder
        return opened

    def _patterns(self, opened: Index | None, exclude: Sequence[str], include: Sequence[str]) -> dict[str, list[str]]:
        """Return the patterns that are given, or that the index remembers."""
        known = opened.meta if opened else {}
        given = {"exclude": list(as_patterns(exclude)), "include": list(as_patterns(include))}
        return {name: patterns or known.get(name, []) for name, patterns in given.items()}

    def _walk(self, remembered: bool) -> tuple[list[str], list[PassedOver]]:
        with warnings.catch_warnings():
            if remembered:  # of patterns that match nothing any more
                warnings.simplefilter("ignore")
            paths, passed_over = walk(self.root, **self.patterns)
        own = os.path.relpath(os.path.realpath(self.folder), os.path.realpath(self.root))
        return paths, [item for item in passed_over if item.path != own and not item.path.startswith(f"{own}/")]

    def _save(self, memory: Memory, files: Mapping[str, Seen]) -> None:
        memory.files = dict(files)
        memory.save(self.folder)

    def _source(self, paths: Sequence[str], **columns: Array) -> ImageSource:
        return ImageSource(Path(self.root), tuple(paths), spec=self.root, columns=columns)

    def _train(self, model: Path, files: Mapping[str, Seen]) -> None:
        """Train an encoder on some of the photographs."""
        from ..models.encoder import pick_device
        from ..models.openvino_runtime import has_openvino
        from ..training.start import train

        paths = sorted({seen.digest: path for path, seen in files.items()}.values())  # each content once
        chosen = np.random.default_rng(0).permutation(len(paths))[:_TO_TRAIN]
        _log.info("training an encoder on %s photographs: %s", f"{len(chosen):,}", model)
        if len(chosen) > _MANY and not has_openvino() and pick_device(self.device).type == "cpu":
            _log.info("pip install 'hashret[openvino]' makes this and encoding several times as fast on a CPU")
        train(
            self._source([paths[number] for number in sorted(chosen.tolist())]), model, weights=self.weights,
            device=self.device, workers=self.workers, cache=self._cache(),
        )  # fmt: skip
        self.trained = True

    def _cache(self) -> Path:
        return self.folder / "pending" / "cache"

    def _encode(
        self, pending: Pending, model: Path, paths: Sequence[str], files: Mapping[str, Seen], opened: Index | None
    ) -> dict[str, str]:
        """Encode photographs into the pending ones, and return why some cannot be read."""
        from ..encoding import encode

        digests = np.array([list(bytes.fromhex(files[path].digest)) for path in paths], np.uint8)
        source, folder = self._source(paths, digests=digests), pending.new_folder()
        report = encode(
            source, model, folder, shard_size=_SHARD, device=self.device, precision=pending.compute_dtype,
            features=opened is not None and opened.has_fc_features, workers=self.workers,
            cache=self._cache() if self.trained else folder / "none",
        )  # fmt: skip
        assert report is not None  # as this is the main process
        pending.read(folder)
        self.encoded += report.encoded
        references = {source.reference(row): path for row, path in enumerate(paths)}
        return {references[line["path"]]: line["reason"] for line in report.unreadable}

    def _write(
        self, opened: Index | None, plan: Plan, files: Mapping[str, Seen], pending: Pending, model: Path
    ) -> bool:
        """Change the index as planned, and say whether nobody else has changed it meanwhile."""
        if opened is None:
            if not plan.taken:
                path, reason = next(iter(plan.unreadable.items()), (self.root, "it changes all the time"))
                raise HashretError(f"cannot read {os.path.join(self.root, path)}: {reason}, nor any other photograph")
            manifest = pending.manifest
            about = {name: manifest[name] for name in (*SHARED, "lengths") if name in manifest}
            about |= {"classes": [], "root": location_name(self.folder, self.root)}
            about |= {"model": location_name(self.folder, model), **self.patterns}
            create(self.folder, about, self._blocks(opened, plan, files, pending))
            return True
        news = {"model": location_name(self.folder, model), **self.patterns}
        news = {name: value for name, value in news.items() if opened.meta.get(name, []) != value}
        if not (len(plan.leaving) or plan.needed or news):
            return True
        leaving = np.zeros(opened.offsets[-1], bool)
        leaving[plan.leaving] = True
        blocks = self._blocks(opened, plan, files, pending)
        if not exchange(self.folder, leaving, blocks, generation=opened.meta["generation"], about=news):
            return False
        now = open_index(self.folder, "cpu", verify=False)
        if len(now) and (len(now.segments) > _SEGMENTS or len(now) < (1 - _REMOVED) * now.offsets[-1]):
            compact(self.folder)
        return True

    def _blocks(self, opened: Index | None, plan: Plan, files: Mapping[str, Seen], pending: Pending) -> Iterator[Block]:
        """Yield the photographs that enter the index: codes that it has, and codes that were encoded."""
        names = pending.columns(plan.taken.values())
        if opened is not None:
            own = common_columns(opened) | {"codes"}
            names = own if names is None else own & names
        names = (names or set()) - {"ids", "paths", "labels", "digests"}
        labels = None if opened is None else opened.labels

        def digests(paths: Sequence[str]) -> Array:
            return np.array([list(bytes.fromhex(files[path].digest)) for path in paths], np.uint8)

        copies = list(plan.copies.items())
        for start in range(0, len(copies) if opened else 0, ROWS_AT_ONCE):
            assert opened is not None
            paths = [path for path, _ in copies[start : start + ROWS_AT_ONCE]]
            positions = np.array([position for _, position in copies[start : start + ROWS_AT_ONCE]], np.int64)
            columns = {name: opened.column(name)[positions] for name in names - {"codes"}}
            columns |= {"codes": opened.codes_at(positions), "digests": digests(paths)}
            if labels is not None:
                columns["labels"] = labels[positions]
            yield columns, [os.path.join(self.root, path) for path in paths]
        for shard, shard_rows, paths in pending.blocks(plan.taken):
            columns = {name: array[shard_rows] for name, array in shard.columns().items() if name in names}
            columns["digests"] = digests(paths)
            if labels is not None:
                columns["labels"] = np.full(
                    (len(paths), *labels.shape[1:]), -1 if labels.ndim == 1 else 0, labels.dtype
                )
            yield columns, [os.path.join(self.root, path) for path in paths]

    def _folders(self, paths: Sequence[str]) -> list[str]:
        return [os.path.dirname(os.path.join(self.root, path)) for path in paths]

    def _report(
        self, plan: Plan, model: Path, passed_over: Sequence[PassedOver], encoded: int, indexed: Indexed
    ) -> SyncReport:
        """Say what was done, and warn of what was not."""
        warn_passed_over(self.root, passed_over)
        for path, reason in plan.unreadable.items():
            warn(f"cannot read {os.path.join(self.root, path)}: {reason}")
        if plan.away:
            warn(f"{out_of_reach(self._folders(plan.away))}; they stay in the index (is a disk missing?)")
        if plan.held:
            warn(f"{large_share(self._folders(plan.held), len(indexed))}; they stay in the index until --yes is given")
        photographs = len(indexed) - len(plan.leaving) + plan.needed
        if plan.new and not self.dry_run:
            self._warn_if_outgrown(model, photographs)
        unreadable = tuple(
            {"path": os.path.join(self.root, path), "reason": reason} for path, reason in plan.unreadable.items()
        )
        return SyncReport(
            index=str(self.folder), model=str(model), photographs=photographs,
            unchanged=plan.unchanged, new=len(plan.new), changed=len(plan.changed), moved=len(plan.moved),
            gone=len(plan.gone), held=len(plan.held), out_of_reach=len(plan.away), encoded=encoded,
            unreadable=unreadable, passed_over=tuple(passed_over), trained=self.trained, dry_run=self.dry_run,
            seconds=round(time.monotonic() - self.started, 3),
        )  # fmt: skip

    def _warn_if_outgrown(self, model: Path, photographs: int) -> None:
        """Advise a new encoder where that of the first sync learned from a small part of what there is now."""
        record = model.with_suffix(".json")
        own = os.path.realpath(self.folder.with_name(MODEL))
        if os.path.realpath(model) != own or not record.exists():
            return
        try:
            learned = read_json(record, "training record", fields({"method": text(), "train_images": whole()}))
        except HashretError:  # without which there is nothing to advise; the index is made
            return
        few = learned["train_images"]
        if learned["method"] == WITHOUT_LABELS and 0 < few < _TO_TRAIN and photographs >= _OUTGROWN * few:
            warn(
                f"the encoder learned from {few:,} photographs, and there are {photographs:,} now; remove "
                f"{self.folder} and {model}, and sync again, for one that learns from more of them"
            )
