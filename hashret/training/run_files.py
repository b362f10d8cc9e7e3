"""The files of a training run: checkpoint, record, and what an unfinished run is resumed from. They survive a kill."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from ..data import Source, VectorSource
from ..distributed import barrier, is_main
from ..errors import HashretError
from ..files import (
    StrPath,
    atomic,
    check_output,
    check_writable,
    discard,
    named,
    remove_leftovers,
    written_alone,
)  # fmt: skip
from ..records import checked, fields, list_of, plain, table_of
from .settings import EPOCH, Settings

_STATE_FILE, _BEST_FILE = "state.pt", "best.pt"
_STATE = fields(
    {
        "module": lambda value, place: None, "optimizer": lambda value, place: None,  # torch says what is wrong there
        "schedule": lambda value, place: None, "method": lambda value, place: None, "settings": table_of(plain),
        "epochs": list_of(EPOCH, 1), "best": EPOCH,
    }
)  # fmt: skip


class RunFiles:
    """The files of one training run.

    Args:
        out: checkpoint to write.

    Attributes:
        record: JSON beside the checkpoint.
        folder: of the state and of the network of the epoch that is kept, beside the checkpoint, while a run lasts.
    """

    def __init__(self, out: StrPath) -> None:
        self.out = named(out)
        self.record = self.out.with_suffix(".json")
        self.folder = self.out.with_name(f".{self.out.name}.training")

    @contextmanager
    def claimed(
        self, settings: Settings, source: Source, resume: bool, overwrite: bool
    ) -> Iterator[dict[str, Any] | None]:
        """Hold the checkpoint and its state, refuse to lose those of other runs, and yield the state to resume from,
        None for a run from the start.

        Two trainings that wrote to one state would mix their epochs. What writing the results at the end could fail
        for is found out now, too.

        Raises:
            HashretError: another process trains the same checkpoint, results or an unfinished run exist and may not be
                replaced, there is nothing to resume, the unfinished run is another or damaged, or the results cannot be
                written.
        """
        if self.record == self.out:
            raise HashretError(
                f"{self.out} is the name of the training record", hint="name the checkpoint *.safetensors"
            )
        state = None
        with ExitStack() as held:
            if is_main():
                for path in (self.out, self.record, self.folder):
                    if not os.path.isdir(path):
                        check_writable(path)
                held.enter_context(written_alone(self.folder, self.out, "train", "checkpoint"))
                remove_leftovers(self.out.parent, rf"\.?{re.escape(self.out.name)}(\.training)?")
                remove_leftovers(self.folder, rf"{re.escape(_STATE_FILE)}|{re.escape(_BEST_FILE)}")
            try:
                if is_main() or resume:
                    state = self._claim(settings, source, resume, overwrite)
                barrier()
                yield state
            except BaseException:
                if is_main():
                    with suppress(OSError):  # there is a state to resume from
                        self.folder.rmdir()
                raise

    def _claim(self, settings: Settings, source: Source, resume: bool, overwrite: bool) -> dict[str, Any] | None:
        unfinished = (self.folder / _STATE_FILE).exists()
        if is_main() and not unfinished:
            self._clear_complete()
        if resume and unfinished:
            return self._load_state(settings, source)
        if resume and not self.out.exists():
            raise HashretError(f"no unfinished training of {self.out} to resume", hint="leave --resume out")
        if resume:
            raise HashretError(f"the training of {self.out} is complete; nothing to resume")
        if unfinished and not overwrite:
            raise HashretError(
                f"an unfinished training of {self.out} is here", hint="add --resume to go on, or --overwrite"
            )
        check_output(self.out, overwrite, "checkpoint")
        if self.out.exists() or not (self.folder / _BEST_FILE).exists():  # else it is of a killed run
            check_output(self.record, overwrite, "training record")
        self._clear_state()
        return None

    def check_space(self, net: nn.Module, module: nn.Module, fitted: bool) -> None:
        """Raise HashretError where the disk cannot hold what the training of a ``module`` of ``net`` writes to it."""
        if not is_main():
            return
        # The state has parameters and two moments of each. A file is replaced when the new one is whole.
        best, state = bytes_of(net), 0 if fitted else 3 * bytes_of(module)
        exists = sum(file.stat().st_size for file in self.folder.glob("*.pt"))
        need, free = best + state + max(best, state) - exists, shutil.disk_usage(self.out.parent).free
        if need > free:
            raise HashretError(
                f"training writes up to {need / 2**20:,.0f} MiB beside {self.out}, and {free / 2**20:,.0f} MiB are "
                "free there", hint="free some, or name another place with --out",
            )  # fmt: skip

    def _clear_complete(self) -> None:
        """Remove what a run left that was killed when its checkpoint was there already."""
        best = self.folder / _BEST_FILE
        if self.out.exists() and best.exists() and best.stat().st_mtime_ns <= self.out.stat().st_mtime_ns:
            self._clear_state()

    def _clear_state(self) -> None:
        """Remove the state of another run from the folder, which stays locked; a kill in between leaves no state."""
        for name in (_STATE_FILE, _BEST_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def _load_state(self, settings: Settings, source: Source) -> dict[str, Any]:
        """Return the state of the unfinished run.

        Raises:
            HashretError: it is damaged, or a run with other settings or photographs.
        """
        path = self.folder / _STATE_FILE
        state: dict[str, Any] = checked(_load(path), _STATE, f"the unfinished training {path}")
        changed = settings.changed_since(state["settings"])
        if changed:
            raise HashretError(f"the unfinished training of {self.out} has other settings: {', '.join(changed)}")
        known = {"classes": list(source.classes), "images": len(source)}
        if "digest" in state:  # which earlier ones lack
            known["digest"] = digest_of(source)
        if any(state.get(name, value) != value for name, value in known.items()):
            raise HashretError(
                f"the photographs or their labels changed since the unfinished training of {self.out}",
                hint="start again with --overwrite",
            )
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Write what a run is resumed from, which `_STATE` checks."""
        _save(self.folder / _STATE_FILE, state)

    def save_best(self, best: dict[str, Any]) -> None:
        """Write the network of the epoch that is kept, and what is known of that epoch."""
        _save(self.folder / _BEST_FILE, best)

    def load_best(self) -> dict[str, Any]:
        """Return what `save_best` wrote. Raises HashretError where it is damaged."""
        return _load(self.folder / _BEST_FILE)

    def damaged(self, error: Exception) -> HashretError:
        """Return the error to raise where the state, or the network that is kept, does not fit the run."""
        return _damaged(self.folder, error)

    def complete(self) -> None:
        """Remove the state of a run whose checkpoint and record are written."""
        discard(self.folder)


def digest_of(source: Source) -> str:
    """Return what tells the photographs and labels of a source from others: the sha256 of paths, ids and labels.

    Pixels and vectors are not read for it, and times do not count, which a copy may change.
    """
    digest = hashlib.sha256("\0".join(source.paths).encode(errors="surrogateescape"))
    known: list[npt.NDArray[Any] | None] = [source.labels]
    if isinstance(source, VectorSource):
        digest.update(f"\0{len(source)} {source.width}".encode())
        known += [source.ids, source.numbered]
    for array in known:
        digest.update(b"-" if array is None else f"{array.shape}".encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()


def bytes_of(module: nn.Module) -> int:
    """Return how many bytes the parameters and buffers of a module take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _save(path: Path, content: dict[str, Any]) -> None:
    """Save a dict of tensors and plain values, with a checksum: a bit that flips in it would be trained on unseen."""
    with atomic(path) as partial:
        torch.save(content | {"sha256": _checksum(content).hexdigest()}, partial)


def _load(path: Path) -> dict[str, Any]:
    """Return what `_save` wrote.

    Raises:
        HashretError: it is damaged.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        wanted = content.pop("sha256", None)  # earlier ones have none
        if wanted and wanted != _checksum(content).hexdigest():
            raise ValueError("its checksum does not match")
    except Exception as error:  # torch's unpickler fails on damaged files in many ways
        raise _damaged(path.parent, error) from None
    return content


def _damaged(folder: Path, error: Exception) -> HashretError:
    reason = (str(error) or repr(error)).splitlines()[0]
    return HashretError(
        f"the unfinished training in {folder} is damaged ({reason})", hint="start again with --overwrite"
    )


def _checksum(value: object, digest: Any = None) -> Any:
    """Return the sha256 over tensors and plain values, in lists and dicts."""
    digest = digest or hashlib.sha256()
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict | list | tuple):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for inner in value.items() if isinstance(value, dict) else value:
            _checksum(inner, digest)
    else:
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    return digest
