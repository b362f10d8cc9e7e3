"""The photographs of a folder by their content: the sha256 of each, computed again only where a file has changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..data.images import may_be_read_now
from ..errors import HashretError
from ..files import StrPath, read_json, write_json
from ..progress import Progress
from ..records import Misfit, fields, table_of, text

FILE = "sync.json"
_LARGEST = 2**33  # bytes of that file, which has some 150 for each photograph
_READERS = 4  # threads; more than a few only make a disk seek
_TRIES = 3
_TICK = 0.05  # seconds in which a file may change twice without a change of its time, on local disks
_SETTLED = 3  # seconds in which it may on others: FAT counts in twos


class Seen(NamedTuple):
    """A file as it was looked at.

    Attributes:
        size: in bytes.
        mtime, ctime: times of its last change, and of that of its name or rights, in ns.
        digest: sha256 of its content, in hexadecimal.
        settled: whether the times were old enough then to tell any later change.
    """

    size: int
    mtime: int
    ctime: int
    digest: str
    settled: bool

    def is_as(self, status: os.stat_result) -> bool:
        """Whether a file is surely as it was."""
        return self.settled and (self.size, self.mtime, self.ctime) == _times(status)


class Memory:
    """What a sync remembers beside the index, in ``sync.json``: of use, and not needed.

    Attributes:
        files: each photograph by its path below the root.
        unreadable: why content cannot be read, by its digest; not where it may be by now, see `may_be_read_now`.
    """

    def __init__(self, files: Mapping[str, Seen] | None = None, unreadable: Mapping[str, str] | None = None) -> None:
        self.files, self.unreadable = dict(files or {}), dict(unreadable or {})
        self._saved = self._content()

    @classmethod
    def load(cls, index: StrPath) -> Memory:
        """Return what the folder of an index says; nothing where it is missing or damaged."""
        try:
            content = read_json(Path(index) / FILE, "memory of hashret sync", _CHECK, largest=_LARGEST)
        except HashretError:
            return cls()
        unreadable = {digest: why for digest, why in content["unreadable"].items() if not may_be_read_now(why)}
        return cls({path: Seen(*seen) for path, seen in content["files"].items()}, unreadable)

    def save(self, index: StrPath) -> None:
        """Write it to the folder of an index, unless it is there as it is."""
        if self._content() != self._saved:
            self._saved = self._content()
            write_json(Path(index) / FILE, {"files": self.files, "unreadable": self.unreadable}, indent=None)

    def _content(self) -> tuple[dict[str, Seen], dict[str, str]]:
        return dict(self.files), dict(self.unreadable)


def _seen(value: Any, where: str) -> None:
    if not isinstance(value, list) or [type(item) for item in value] != [int, int, int, str, bool]:
        raise Misfit(f"{where} is not as it was written")


_CHECK = fields({"files": table_of(_seen), "unreadable": table_of(text())})


def look(root: StrPath, paths: Iterable[str], before: Mapping[str, Seen]) -> tuple[dict[str, Seen], dict[str, str]]:
    """Look at photographs, and read those that have changed.

    Args:
        root: folder.
        paths: of the photographs, below it.
        before: as they were.

    Returns:
        The photographs by path, and why others cannot be read.
    """
    files: dict[str, Seen] = {}
    unreadable: dict[str, str] = {}
    changed = []
    for path in paths:
        try:
            status = os.stat(os.path.join(root, path))
        except OSError as error:
            unreadable[path] = error.strerror or str(error)
            continue
        if path in before and before[path].is_as(status):
            files[path] = before[path]
        else:
            changed.append(path)
    progress = Progress("reading files", len(changed), "files")
    with ThreadPoolExecutor(_READERS) as pool:
        for path, seen in zip(changed, pool.map(lambda path: _read(os.path.join(root, path)), changed), strict=True):
            if isinstance(seen, Seen):
                files[path] = seen
            else:
                unreadable[path] = seen
            progress.add()
    progress.close()
    return {path: files[path] for path in sorted(files)}, unreadable


def _read(path: str) -> Seen | str:
    """Return a file as it is, or why it cannot be read."""
    try:
        for _ in range(_TRIES):
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would be waited for
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "not a file")
                age = time.time() - max(status.st_mtime, status.st_ctime)
                if 0 <= age < _TICK:
                    time.sleep(_TICK - age)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if _times(os.fstat(file.fileno())) == _times(status) == _times(os.stat(path)):
                    return Seen(*_times(status), digest, age > _SETTLED)
    except OSError as error:
        return error.strerror or str(error)
    return "it is being written"


def _times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
