"""The checksums of an opened index, compared while it is searched already.

Reading all files of a large index takes longer than opening it and answering a query. Damage that no other check sees,
as a few bits of the hash outputs, is found once a long-running process has read each file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from .segment import check_files


class BackgroundCheck:
    """Compares files with their sha256 in a thread of its own, the smallest first; the thread ends with the process.

    Args:
        folder: of an index.
        segments: what its `index.json` says of them.

    Attributes:
        done: how many files were the same so far.
        damage: name of the first file that differs, after which no more are read; None until then.
    """

    def __init__(self, folder: Path, segments: Sequence[dict[str, Any]]) -> None:
        files = [(folder / meta["name"], name, file) for meta in segments for name, file in meta["files"].items()]
        self._files = sorted(files, key=lambda file: file[2]["bytes"])
        self.done = 0
        self.damage: str | None = None
        self.thread = Thread(target=self._run, name="checksums", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for folder, name, file in self._files:
            try:
                self.damage = check_files(folder, {name: file}, verify=True)
            except FileNotFoundError:  # removed by a later change; the open index keeps its memory map
                continue
            except OSError as error:
                self.damage = f"{name} cannot be read ({error.strerror}), it"
            if self.damage:
                return
            self.done += 1
