"""`hashret encode`: a checkpoint and photographs to HDF5 shards."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bits import HashOutputs, Positions, dithered, pack
from .data import Source, VectorSource, as_source
from .data.batches import Batch, batch_size, batches, split_rows
from .data.embeddings import ROWS_AT_ONCE
from .data.feature_cache import PRESENT, CachedRows, FeatureCache
from .data.walk import PassedOver
from .distributed import barrier, is_main, local_device, main_first, process_group, rank, world
from .errors import HashretError
from .files import (
    StrPath,
    atomic,
    check_names,
    check_output,
    locked,
    named,
    recover,
    remove_leftovers,
    remove_own,
    replace_folder,
    write_json,
    written_alone,
)  # fmt: skip
from .models.checkpoint import load_encoder
from .models.encoder import Encoder, pick_device
from .names import fitting, to_json
from .progress import Progress, takes_quiet
from .results import Result
from .shards import FORMAT, MANIFEST, Shard, encode_paths, read_manifest, read_shard, shard_name, write_shard
from .vectors import unusable

SKIPPED = "skipped.jsonl"
PASSED_OVER = "passed_over.jsonl"
_PENDING = "pending"  # an empty file in the folder of a run that replaces another at its end
_NAMES = rf"{re.escape(MANIFEST)}|codes-\d{{5,}}\.h5|{re.escape(SKIPPED)}|{re.escape(PASSED_OVER)}|{_PENDING}"

_log = logging.getLogger("hashret")


@dataclass(frozen=True)
class EncodeReport(Result):
    """How a run of `encode` ended.

    Attributes:
        encoded: photographs that have codes now, of this run and of runs that it has gone on with.
        skipped: photographs that could not be read.
        rate: photographs a second of this run.
        unreadable: the skipped photographs, a dict of id, path and reason each.
        passed_over: what lies among the photographs and was not read, a `hashret.data.walk.PassedOver` each.
    """

    encoded: int
    skipped: int
    rate: float
    unreadable: tuple[dict[str, Any], ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return super().as_dict() | {"passed_over": [item._asdict() for item in self.passed_over]}


@takes_quiet
@process_group()
def encode(
    data: StrPath | Sequence[StrPath] | Source | npt.NDArray[np.number],
    model: StrPath = "model.safetensors",
    out: StrPath = "codes",
    *,
    split: str | None = None,
    shard_size: int = 4096,
    device: str = "auto",
    precision: str | None = None,
    runtime: str = "auto",
    cache: StrPath | None = None,
    fill_cache: bool = False,
    features: bool = False,
    vectors: str | None = None,
    workers: int | None = None,
    download: bool = False,
    overwrite: bool = False,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> EncodeReport | None:
    """Encode photographs into a folder of shards; a run that was killed goes on where it stopped.

    Under torchrun, each process writes every n-th of the shards that are missing, into a folder that all must see; one
    reports. Once a process is lost, the others end, and the next run writes the shards that are missing then.

    Args:
        data, split, download, exclude, include: see `hashret.data.open_data`; ``data`` may be an open source as well,
            a list of files of photographs, or an array of vectors.
        model: checkpoint.
        out: folder of the shards, `codes.json`, `skipped.jsonl`, which names every unreadable photograph, and, where
            there is more among the photographs, `passed_over.jsonl`, which names that.
        shard_size: photographs a shard, and what a kill loses at most.
        device, precision, runtime: see `hashret.models.checkpoint.load_encoder`.
        cache: folder of feature caches. Features that are there already are used; they give the same codes.
        fill_cache: keep the convolution features of these photographs, for further encoders on the same convolutions.
        features: keep, too, what the hash layer reads (4,096 numbers a photograph by default), to re-rank by.
        vectors: where these are encoded, what is kept of them to re-rank by: "float32", "float16", or "none"; None for
            float32, or for the type that they came in where that is a smaller one.
        workers: decoding processes; None for one a core.
        overwrite: replace shards that exist. They stay until the new run is complete; a run that was killed goes on.

    Returns:
        EncodeReport; None under torchrun but in the main process.

    Raises:
        HashretError: nothing to encode, ``out`` holds something else, a full disk.
    """
    if shard_size < 1:
        raise HashretError(f"a shard holds at least 1 photograph, not {shard_size}")
    with main_first():  # what is downloaded or unpacked is so once
        source = as_source(data, split, download=download, exclude=exclude, include=include)
    if not len(source):
        raise HashretError(f"nothing to encode: there are no photographs and no vectors in {source.spec}")
    encoder = load_encoder(model, local_device(pick_device(device)), precision, runtime=runtime)
    if isinstance(source, VectorSource):
        run: _Run = _VectorRun(encoder, source, named(out), shard_size, vectors)
        if features:
            raise HashretError("vectors are kept as they are, and have no features", hint="leave --features out")
    else:
        run = _Run(encoder, source, named(out), shard_size, workers, features)
        if vectors:
            raise HashretError("photographs have no vectors to keep", hint="leave --vectors out, or take --features")
    with run.claimed(overwrite):
        run.use_cache(cache, fill_cache)
        return run.encode()


class _Run:
    def __init__(
        self, encoder: Encoder, source: Source, out: Path, shard_size: int, workers: int | None, keep_fc_features: bool
    ) -> None:
        if bool(encoder.vector_width) != isinstance(source, VectorSource):
            kinds = ("vectors", "photographs") if encoder.vector_width else ("photographs", "vectors")
            raise HashretError(f"this encoder takes {kinds[0]}, and {source.spec} has {kinds[1]}")
        if keep_fc_features and not encoder.fc_width:
            raise HashretError(f"{encoder.meta['method']} has no fully connected layers whose features could be kept")
        self.kept: tuple[int, np.dtype[Any]] | None = None  # width and type of the features that are kept
        if keep_fc_features and encoder.fc_width:
            self.kept = encoder.fc_width, np.dtype(np.float32)
        self.encoder, self.source, self.out = encoder, source, out
        self.folder = self.out  # that shards are written to
        self.pending = out.resolve().with_name(fitting(f".{out.resolve().name}", ".new"))
        self.shard_size, self.workers = shard_size, workers
        self.feature_maps: CachedRows | None = None
        self.cached = np.zeros(len(source), bool)  # photographs whose feature map is in the cache
        self.batch_size = batch_size(encoder.image_size)
        self.shards = -(-len(source) // shard_size)
        self.manifest: dict[str, Any] = {
            "format": 1, "bits": encoder.bits, "encoder": encoder.fingerprint, "image_size": encoder.image_size,
            "precision": encoder.compute_dtype, "images": len(source), "shards": self.shards, "shard_size": shard_size,
            "data": source.fingerprint, "classes": list(source.classes), "protocol": source.protocol,
        }  # fmt: skip
        if "lengths" in encoder.meta:
            self.manifest["lengths"] = encoder.meta["lengths"]
        if encoder.dither:
            self.manifest |= {"format": FORMAT, "dither": encoder.dither}
        if keep_fc_features:
            self.manifest["features"] = encoder.fc_width

    @contextmanager
    def claimed(self, overwrite: bool) -> Iterator[None]:
        """Hold the folder: a new one, or that of an unfinished run of the same encoder over the same photographs.

        A run that replaces another is written to a folder beside it, and takes its place when it is complete.
        """
        with ExitStack() as held:
            if is_main():
                recover(self.out, _NAMES)
                if self.out.exists() and not self.out.is_dir():
                    check_output(self.out, overwrite, "folder of shards", MANIFEST)
                held.enter_context(written_alone(self.out, self.out, "encode", "folder"))
                try:
                    self._claim(overwrite)
                    if self._replaces(overwrite):
                        held.enter_context(locked(self.pending))  # and still when it has taken the place of the other
                except OSError as error:
                    raise HashretError(f"cannot write {self.out}: {error.strerror}") from error
            barrier()
            if self._replaces(overwrite):
                self.folder = self.pending
            yield

    def _claim(self, overwrite: bool) -> None:
        if (self.out / _PENDING).exists():  # of a run that was killed when it had just taken this place
            (self.out / _PENDING).unlink()
        marked, folder = (self.pending / _PENDING).exists(), self.out
        if self._replaces(overwrite):
            check_names(self.out, _NAMES)
            if os.path.ismount(self.out):
                raise HashretError(
                    f"{self.out} is a mount point, which cannot be replaced", hint="name a folder in it with --out"
                )
            folder = self.pending
            if not marked or self._known_manifest(folder) != self.manifest:
                remove_own(folder, _NAMES)
                write_json(folder / MANIFEST, self.manifest)
                (folder / _PENDING).touch()
        elif (self.out / MANIFEST).exists():
            self._check_resume()
        else:
            check_output(self.out, overwrite, "folder of shards", MANIFEST)
            write_json(self.out / MANIFEST, self.manifest)
            marked = False
        remove_leftovers(folder, _NAMES)
        if folder == self.out and not marked:
            remove_own(self.pending, _NAMES)

    def _replaces(self, overwrite: bool) -> bool:
        """Whether a finished run, or one of something else, is there and is to be replaced."""
        if not overwrite or not (self.out / MANIFEST).exists():
            return False
        return (self.out / SKIPPED).exists() or self._known_manifest(self.out) != self.manifest

    def _known_manifest(self, folder: Path) -> dict[str, Any]:
        """Return the manifest in a folder, as far as this run has its names; empty where it is damaged."""
        try:
            manifest = read_manifest(folder)
        except HashretError:
            return {}
        return {name: value for name, value in manifest.items() if name in self.manifest}

    def _check_resume(self) -> None:
        before = read_manifest(self.out)
        changed = [name for name, value in self.manifest.items() if before.get(name) != value]
        if changed:
            raise HashretError(
                f"{self.out} holds shards of another run (other {', '.join(changed)})",
                hint="add --overwrite to replace them, or name another folder with --out",
            )
        if (self.out / SKIPPED).exists():
            hint = "hashret add takes new photographs into the index, and --overwrite encodes all of them again"
            raise HashretError(f"{self.out} is complete already", hint=hint)

    def use_cache(self, folder: StrPath | None, fill: bool) -> None:
        """Take feature maps from the cache where they are; with ``fill``, compute and keep all of them."""
        encoder = self.encoder
        weights = encoder.meta["weights_fingerprint"]
        dtype = encoder.backbone.compute_dtype
        cache = FeatureCache(folder, self.source, weights, encoder.image_size, dtype, encoder.resize)
        if fill:
            cache.fill(encoder.backbone, self.workers)
        try:
            cached = cache.state() == PRESENT
            shape = encoder.backbone.architecture.map_shape(encoder.image_size)
            self.feature_maps, self.cached = cache.open(shape) if cached.any() else None, cached
        except HashretError as error:
            if fill:
                raise
            warnings.warn(f"{error}; the photographs are read", stacklevel=2)
        if self.cached.any() and is_main():
            count = f"{self.cached.sum():,} of {len(self.cached):,}"
            _log.info("%s photographs have cached convolution features", count)

    def encode(self) -> EncodeReport | None:
        """Write the shards that are missing, and return the report, None but in the main process."""
        missing = [number for number in range(self.shards) if not (self.folder / shard_name(number)).exists()]
        barrier()  # all have seen the same shards before one writes another
        if len(missing) < self.shards and is_main():
            done = self.shards - len(missing)
            _log.info("going on with %s: %d of %d shards are there", self.out, done, self.shards)
        mine, images = missing[rank() :: world()], sum(len(self._rows(number)) for number in missing)
        what = "encoding" if world() == 1 else f"encoding, process 1 of {world()}"
        progress = Progress(what, sum(len(self._rows(number)) for number in mine))
        fresh = [rows for number in mine for rows in self._fresh(number)]
        decoded = self._decoded(fresh)
        for number in mine:
            self._write(number, decoded, progress)
        progress.close()
        barrier()
        return self._finish(images / progress.seconds) if is_main() else None

    def _decoded(self, fresh: list[list[int]]) -> Iterator[Batch]:
        """Yield batches of what is to be encoded, by their rows."""
        encoder = self.encoder
        return iter(batches(self.source, encoder.image_size, fresh, self.workers, resize=encoder.resize))

    def _encoded(self, batch: Batch) -> tuple[HashOutputs, npt.NDArray[Any] | None]:
        """Return the hash outputs of a batch, and the features that are kept of it."""
        return self.encoder.outputs(self.encoder.backbone(batch.images), self.kept is not None)

    def _ids(self, rows: Positions) -> Positions:
        """Return the ids of rows of the source."""
        return rows

    def _rows(self, number: int) -> Positions:
        start = number * self.shard_size
        return np.arange(start, min(start + self.shard_size, len(self.source)))

    def _fresh(self, number: int) -> list[list[int]]:
        """Return batches of rows of a shard whose photographs must be read."""
        rows = self._rows(number)
        return split_rows(rows[~self.cached[rows]].tolist(), self.batch_size)

    def _write(self, number: int, decoded: Iterator[Batch], progress: Progress) -> None:
        """Encode a shard; ``decoded`` yields the batches of all shards, so that decoding never waits for writing."""
        rows = self._rows(number)
        hash_outputs = np.zeros((len(rows), self.encoder.bits), np.float32)
        fc_features = None if self.kept is None else np.zeros((len(rows), self.kept[0]), self.kept[1])
        readable, skipped = np.ones(len(rows), bool), []
        if self.feature_maps is not None:
            for block in split_rows(rows[self.cached[rows]], self.batch_size):
                outputs = self.encoder.outputs(self.feature_maps[block], fc_features is not None)
                self._put(block - rows[0], outputs, hash_outputs, fc_features)
                progress.add(len(block))
        for batch in islice(decoded, len(self._fresh(number))):
            if len(batch.rows):
                self._put(batch.rows - rows[0], self._encoded(batch), hash_outputs, fc_features)
            for row, reason in batch.skipped:
                readable[row - rows[0]] = False
                [id] = self._ids(np.array([row])).tolist()
                skipped.append({"id": id, "path": self.source.reference(row), "reason": reason})
            progress.add(len(batch.rows) + len(batch.skipped))
        rows, hash_outputs = rows[readable], hash_outputs[readable]
        shard = Shard(
            codes=pack(dithered(hash_outputs, self.encoder.dither)),
            hash_outputs=hash_outputs,
            ids=self._ids(rows),
            paths=encode_paths([self.source.reference(row) for row in rows.tolist()]),
            labels=None if self.source.labels is None else self.source.labels[rows],
            skipped=tuple(skipped),
            fc_features=None if fc_features is None else fc_features[readable],
            others={name: array[rows] for name, array in self.source.columns.items()},
        )
        write_shard(
            self.folder / shard_name(number), shard, bits=self.encoder.bits, encoder=self.encoder.fingerprint,
            image_size=self.encoder.image_size, first_id=number * self.shard_size, spread=self.encoder.dither > 0,
        )  # fmt: skip

    def _put(
        self,
        positions: Positions,
        encoded: tuple[HashOutputs, npt.NDArray[Any] | None],
        hash_outputs: HashOutputs,
        fc_features: npt.NDArray[Any] | None,
    ) -> None:
        """Put what `_encoded` returns into the rows of a shard."""
        hash_outputs[positions], kept = encoded
        if fc_features is not None:
            fc_features[positions] = kept

    def _finish(self, rate: float) -> EncodeReport:
        """Name what was skipped, from all shards, whichever run wrote them; this file ends the run."""
        lines: list[dict[str, Any]] = []
        encoded = 0
        for number in range(self.shards):
            shard, _ = read_shard(self.folder / shard_name(number), verify=False)
            lines += shard.skipped
            encoded += len(shard)
        passed_over = self.source.files_passed_over()
        if passed_over:
            _write_lines(self.folder / PASSED_OVER, [item._asdict() for item in passed_over])
        else:
            (self.folder / PASSED_OVER).unlink(missing_ok=True)  # of a run that found more and was killed
        _write_lines(self.folder / SKIPPED, lines)
        if self.folder != self.out:
            replace_folder(self.folder, self.out, _NAMES)
            (self.out / _PENDING).unlink()
        return EncodeReport(encoded, len(lines), rate, tuple(lines), passed_over)


class _VectorRun(_Run):
    """A run over vectors: they are read and encoded here, and kept in the place of features."""

    source: VectorSource

    def __init__(self, encoder: Encoder, source: VectorSource, out: Path, shard_size: int, store: str | None) -> None:
        super().__init__(encoder, source, out, shard_size, 0, False)
        encoder.check_vectors(source.read(slice(0, 1)))
        dtypes = {None: source.stored, "float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "none": None}
        if store not in dtypes:
            raise HashretError(f"vectors are kept as float32, float16 or none, not {store}")
        dtype, self.batch_size = dtypes[store], ROWS_AT_ONCE
        self.manifest |= {"rerank_by": encoder.meta["rerank_by"], "vectors": str(dtype)}
        if dtype is not None:
            self.kept = source.width, dtype
            self.manifest["features"] = source.width
        if source.ids is not None:
            self.manifest["own_ids"] = True

    def use_cache(self, folder: StrPath | None, fill: bool) -> None:
        """Do nothing: there are no feature maps."""

    def _ids(self, rows: Positions) -> Positions:
        return rows if self.source.ids is None else self.source.ids[rows]

    def _decoded(self, fresh: list[list[int]]) -> Iterator[Batch]:
        for rows in fresh:
            vectors = self.source.read(rows)
            skipped = dict(unusable(vectors))
            usable = np.setdiff1d(np.arange(len(rows)), [*skipped])
            yield Batch(np.array(rows)[usable], vectors[usable], [(rows[at], why) for at, why in skipped.items()])

    def _encoded(self, batch: Batch) -> tuple[HashOutputs, npt.NDArray[Any] | None]:
        hash_outputs = self.encoder.encode(batch.images)
        if self.kept is None:
            return hash_outputs, None
        with np.errstate(over="ignore"):
            kept = batch.images.astype(self.kept[1])
        lost = np.flatnonzero(~np.isfinite(kept).all(axis=1))
        if len(lost):
            row = self.source.reference(int(batch.rows[lost[0]]))
            raise HashretError(f"{row} holds numbers beyond those of float16", hint="keep vectors as float32")
        return hash_outputs, kept


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with atomic(file) as partial:
        partial.write_text("".join(to_json(line) + "\n" for line in lines), encoding="ascii")
