"""The checksums of an opened index, compared while it is searched already.

Reading all files of a large index takes longer than opening it and answering a query. Damage that no other check sees,
as a few bits of the values, is found once a process that goes on has read each file.
"""

from __future__ import annotations

from threading import Thread

from .segment import check_files


class BackgroundCheck:
    """Compares files with their sha256 in a thread of its own, the smallest first; the thread ends with the process.

    Args:
        folder: of an index.
        segments: what its `index.json` says of them.

    Attributes:
        total: how many files there are.
        done: how many were the same so far.
        damage: name of the first file that differs, after which no more are read; None until then.
    """

    def __init__(self, folder, segments):
        files = [(folder / part["name"], name, file) for part in segments for name, file in part["files"].items()]
        self._files = sorted(files, key=lambda file: file[2]["bytes"])
        self.total, self.done, self.damage = len(files), 0, None
        self.thread = Thread(target=self._run, name="checksums", daemon=True)
        self.thread.start()

    def _run(self):
        for folder, name, file in self._files:
            try:
                self.damage = check_files(folder, {name: file}, verify=True)
            except FileNotFoundError:  # removed by a later change; the index that is open keeps what it mapped
                continue
            except OSError as error:
                self.damage = f"{name} cannot be read ({error.strerror}), it"
            if self.damage:
                return
            self.done += 1
