"""Opens an index folder for the CPU or for a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..addresses import refuse_engine
from ..errors import HashretError
from ..files import StrPath
from ..places import MAKE_ONE
from ..renamed import old_keywords
from .arrays import damaged
from .folder import Index, read_meta, root_of
from .hamming import gpus
from .segment import Segment, check_files

_VERIFY_BYTES = 2**26  # an index up to this size is compared with its checksums when it is opened
_TRIES = 20


@old_keywords
def open_index(
    folder: StrPath = "index", device: str = "auto", verify: bool | None = None, *, backend: str = "auto"
) -> Index:
    """Open an index folder. Files are mapped, not read, and shared between processes.

    Args:
        folder: written by `build_index`.
        device: "cpu", "cuda" for a `hashret.index.resident.Resident`, or "auto" for one where there is a GPU.
        verify: compare each file with its sha256; None does so for an index below 64 MiB, and for a larger one there is
            `Index.verify_in_background`. Every file's type, shape and size are compared with `index.json` in any case,
            and what one file says of another when it is used.
        backend: of the Hamming stage on the CPU, see `hashret.index.hamming.HammingStage`.

    Raises:
        HashretError: no index there, damaged, of another format, or no GPU where one was asked for.
    """
    refuse_engine(folder, hint="name the index that it was exported from")
    folder = Path(folder)
    if not folder.is_dir():
        raise HashretError(f"no index at {folder}", hint=MAKE_ONE)
    for attempt in range(_TRIES):
        meta = read_meta(folder)
        sizes = [file["bytes"] for segment in meta["segments"] for file in segment["files"].values()]
        verified = sum(sizes) <= _VERIFY_BYTES if verify is None else verify
        try:
            segments = [_open_segment(folder, meta, segment, verified, backend) for segment in meta["segments"]]
            bounds = [id for segment in segments for id in (int(segment.ids[0]) - 1, int(segment.ids[-1]))]
            if bounds != sorted(bounds) or bounds[-1] >= meta["next_id"]:
                raise damaged(folder, "ids.npy", "is not as it was written")
            return on_device(Index(meta, segments, folder, verified), device)
        except FileNotFoundError as error:
            # Another process may have replaced the files between our reading index.json and opening them.
            if attempt + 1 == _TRIES or read_meta(folder)["generation"] == meta["generation"]:
                name = Path(error.filename).name
                raise HashretError(f"the index {folder} is damaged: {name} is missing; build it again") from None
    raise AssertionError


def on_device(index: Index, device: str) -> Index:
    """Return an index as a device searches it, see `open_index`. Raises HashretError where there is no such GPU."""
    if device == "cpu" or (device == "auto" and not gpus()):
        return index
    if not gpus():
        raise HashretError("faiss sees no GPU here", hint="use --device cpu")
    import torch

    from .resident import Resident  # which imports torch, too

    if torch.cuda.is_available():
        return index if isinstance(index, Resident) else Resident(index)
    if device == "auto":
        return index
    raise HashretError("torch sees no GPU here", hint="use --device cpu")


def _open_segment(folder: Path, meta: dict[str, Any], segment: dict[str, Any], verify: bool, backend: str) -> Segment:
    changed = check_files(folder / segment["name"], segment["files"], verify)
    if changed:
        raise HashretError(f"the index {folder} is damaged: {changed} has changed; build it again")
    opened = Segment(folder / segment["name"], segment, meta["bits"], backend, root_of(folder, meta))
    if opened.labels is not None and opened.labels.shape[1:] > (len(meta["classes"]),):
        raise damaged(folder, "labels.npy", "has more classes than index.json")
    return opened
