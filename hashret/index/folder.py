"""The index folder: codes, values, ids, labels and paths, each file named with its sha256 in `index.json`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from ..bits import code_width
from ..errors import HashretError
from ..files import check_output, partial_name, read_json, remove_folder, remove_leftovers, write_json
from ..shards import ShardFolder, decode_path
from .hamming import HammingStage
from .rerank import rerank

FORMAT = 1
_SHARED = ("bits", "encoder", "precision", "image_size")  # what all shard folders of an index must agree on


@dataclass(frozen=True)
class Hits:
    """Answers to nq queries, best first: ``rows`` (nq, k) int64 places in the index, ``hamming`` (nq, k) int32,
    ``euclidean`` (nq, k) float32, NaN where there was no re-rank.
    """

    rows: np.ndarray
    hamming: np.ndarray
    euclidean: np.ndarray


class Index:
    """An opened index: the two stages of the paper's section 1.2 over encoded photographs.

    Attributes:
        meta: what `index.json` says: bits, count, encoder fingerprint, precision, classes ...
        values: float32 (n, bits), memory map.
        ids: int64 (n,), labels: (n,) or (n, classes) or None.
    """

    def __init__(self, meta, hamming, values, ids, labels, paths):
        self.meta, self.hamming, self.values, self.ids, self.labels = meta, hamming, values, ids, labels
        self._path_ends, self._path_bytes = paths

    def __len__(self):
        return len(self.ids)

    @property
    def bits(self):
        return self.meta["bits"]

    def codes(self):
        """Packed codes of all items, uint8 (n, w), as the shards have them."""
        return self.hamming.codes()[:, : code_width(self.bits)]

    def path(self, row):
        """Path of the photograph at ``row``."""
        start = self._path_ends[row - 1] if row else 0
        return decode_path(self._path_bytes[start : self._path_ends[row]])

    def label(self, row):
        """Class names of the photograph at ``row``, "" where unknown."""
        if self.labels is None:
            return ""
        label, classes = self.labels[row], self.meta["classes"]
        return classes[label] if label.ndim == 0 else " ".join(classes[i] for i in np.flatnonzero(label))

    def search(self, codes, values=None, k=10, candidates=1000, rerank_by="values"):
        """The k best photographs for each query: -> `Hits`, min(k, count) columns.

        Args:
            codes: packed query codes, uint8 (nq, w).
            values: hash-layer values float32 (nq, bits); None leaves the Hamming order.
            k: answers a query.
            candidates: nearest by Hamming distance that are re-ranked by Euclidean distance, at least k.
            rerank_by: "values", or "directions" of the logits, see `hashret.index.rerank`.

        Raises:
            HashretError: k or candidates below 1, or codes of another width.
        """
        if k < 1 or candidates < 1:
            raise HashretError(f"k and candidates must be at least 1, not {min(k, candidates)}")
        width = code_width(self.bits)
        if codes.shape[1] != width:
            raise HashretError(f"queries of {codes.shape[1]} bytes do not fit an index of {self.bits} bits")
        if values is None:
            D, rows = self.hamming.search(codes, k)
            return Hits(rows, D, np.full(rows.shape, np.nan, np.float32))
        D, rows = self.hamming.search(codes, max(k, candidates))
        euclidean, order = rerank(values, self.values, rows, rerank_by)
        order = order[:, :k]
        return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(D, order, 1), euclidean[:, :k])


def build_index(codes=("codes",), out="index", overwrite=False):
    """Build an index folder from one or several folders of shards, a shard in memory at a time.

    Returns the metadata written. With several folders, ids go on counting from one to the next.

    Raises:
        HashretError: damaged or incomplete shards, folders of different encoders, no photographs, ``out`` exists.
    """
    folders = [ShardFolder(folder) for folder in ([codes] if isinstance(codes, (str, Path)) else codes)]
    meta = {name: folders[0].manifest[name] for name in (*_SHARED, "classes")}
    for folder in folders:
        if any(folder.manifest[name] != meta[name] for name in _SHARED):
            raise HashretError(f"{folder.folder} and {folders[0].folder} were encoded by different encoders")
        if folder.manifest["classes"] != meta["classes"]:
            meta["classes"] = []  # label numbers mean different things: leave labels out
    meta["protocol"] = folders[0].manifest.get("protocol") if len(folders) == 1 else None
    out = Path(out)
    check_output(out, overwrite, "index", "index.json")
    remove_leftovers(out.parent, out.name)
    partial = partial_name(out)
    try:
        partial.mkdir(parents=True)
        meta = {"format": FORMAT, **meta, "count": _write(partial, folders, meta)}
        meta["sha256"] = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        write_json(partial / "index.json", meta)
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(out)
        partial.rename(out)
    except (OSError, RuntimeError) as error:  # the latter from faiss
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise HashretError(f"cannot write the index {out}: {reason}") from error
    finally:
        remove_folder(partial)
    return meta


def _write(folder, shard_folders, meta):
    stage = HammingStage.empty(meta["bits"])
    writers = {name: _Rows(folder / f"{name}.npy") for name in ("values", "ids", "path_ends", "labels")}
    end = first_id = 0
    with open(folder / "paths.bin", "wb") as path_file:
        for shards in shard_folders:
            next_id = first_id
            for shard in shards:
                if not len(shard):
                    continue
                stage.add(shard.codes)
                writers["values"].add(shard.values.astype(np.float32, copy=False))
                ids = shard.ids + first_id
                writers["ids"].add(ids)
                next_id = int(ids.max()) + 1
                raw = [bytes(path) for path in shard.paths]
                path_file.write(b"".join(raw))
                ends = end + np.cumsum([len(path) for path in raw], dtype=np.int64)
                writers["path_ends"].add(ends)
                end = int(ends[-1])
                if shard.labels is not None and meta["classes"]:
                    writers["labels"].add(np.asarray(shard.labels))
            first_id = next_id
    for writer in writers.values():
        writer.close()
    if not len(stage):
        raise HashretError(f"no photographs in {', '.join(str(shards.folder) for shards in shard_folders)}")
    faiss.write_index_binary(stage.flat, str(folder / "hamming.faiss"))
    return len(stage)


class _Rows:
    """An .npy file that grows by blocks of rows; its header is written at the end, when the count is known."""

    _HEADER = 128

    def __init__(self, path):
        self.path, self.rows, self.file = path, 0, None

    def add(self, block):
        if self.file is None:
            self.dtype, self.shape = block.dtype, block.shape[1:]
            self.file = open(self.path, "wb")
            self.file.write(b" " * self._HEADER)
        self.file.write(np.ascontiguousarray(block))
        self.rows += len(block)

    def close(self):
        if self.file is None:
            return
        shape = (self.rows, *self.shape)
        descr = np.lib.format.dtype_to_descr(self.dtype)
        text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
        magic = np.lib.format.magic(1, 0)
        size = self._HEADER - len(magic) - 2
        self.file.seek(0)
        self.file.write(magic + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n")
        self.file.close()


def open_index(folder="index", device="auto", verify=True):
    """Open an index folder: -> `Index`.

    Args:
        folder: written by `build_index`.
        device: "auto" for the Hamming stage on a GPU where there is one, "cpu" or "cuda".
        verify: compare each file with its sha256 first; faiss may crash on a damaged one.

    Raises:
        HashretError: no index there, damaged, or of a later format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HashretError(f"no index at {folder}; build one with hashret build-index, or name one with --index")
    meta = read_json(folder / "index.json", "index")
    if meta.get("format", 0) > FORMAT:
        raise HashretError(f"{folder} was written by a later hashret (format {meta['format']}); upgrade")
    for name, checksum in meta["sha256"].items():
        if not (folder / name).is_file():
            raise HashretError(f"the index {folder} is damaged: {name} is missing; build it again")
        if verify and _sha256(folder / name) != checksum:
            raise HashretError(f"the index {folder} is damaged: {name} has changed; build it again")
    flat = faiss.read_index_binary(str(folder / "hamming.faiss"))

    def load(name):
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    return Index(
        meta,
        HammingStage(flat, meta["bits"], device),
        load("values"),
        load("ids"),
        load("labels") if "labels.npy" in meta["sha256"] else None,
        (load("path_ends"), np.memmap(folder / "paths.bin", np.uint8, "r")),
    )


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
