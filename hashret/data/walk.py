"""Which files below a folder are photographs to read, and what is passed over, and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import HashretError, warn
from ..files import StrPath
from ..places import LOG_OF_MOVES, OWN_FOLDER
from .formats import is_image_name, reason_passed_over

# Folders in which other programs keep previews, what was thrown away, and earlier states; compared without case.
_OTHER_PROGRAMS = (
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "~snapshot",
    "$recycle.bin", "recycler", "recycled", "system volume information", "__macosx", "network trash folder",
    "temporary items", "lost+found", "*.lrdata", "ipod photo cache",
)  # fmt: skip
# Apple's libraries look like one file to their owner. Only these of their folders hold photographs as they were taken.
_LIBRARIES = ("*.photoslibrary", "*.photolibrary", "*.migratedphotolibrary", "*.aplibrary")
_ORIGINALS = ("originals", "masters")

OTHER_NAME = "not named like a photograph"
HIDDEN = "hidden"
OTHER_PROGRAM = "kept by another program"
SET_ASIDE = "set aside by hashret duplicates"
IN_LIBRARY = "inside a photo library"
SPECIAL = "pipe, socket or device"
LINKED_AGAIN = "linked a second time"
LINKED_UP = "linking to a folder that it lies in"
LINKED_TO_NOTHING = "linking to nothing"


class PassedOver(NamedTuple):
    """A file or folder that was not read, and why. ``path`` starts where the paths of its source start."""

    path: str
    reason: str


def summary(passed_over: Sequence[PassedOver]) -> str:
    """Say how much was passed over, by reason, in one line; "" where nothing was."""
    counts = Counter(item.reason for item in passed_over)
    ordered = sorted(counts.items(), key=lambda item: (item[0] == OTHER_NAME, -item[1], item[0]))
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in ordered)
    return f"{len(passed_over):,} passed over: {reasons}" if counts else ""


def as_patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return patterns that a caller names, one or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def walk(root: StrPath, exclude: Iterable[str] = (), include: Iterable[str] = ()) -> tuple[list[str], list[PassedOver]]:
    """Find the photographs below a folder: -> sorted paths relative to ``root``, and what was passed over.

    Links are followed, but not up, and every folder and every file is taken once: under its own name where that lies
    below ``root``, else under the first link to it in the order of the names. A folder that is left out counts once,
    and what it holds is not looked at.

    Args:
        root: the folder, which itself may have any name.
        exclude: patterns of names, or, where they hold a slash, of paths from ``root`` on, that are left out.
        include: patterns of what is taken although it would be left out: by ``exclude``, since it is hidden, another
            program's, set aside as a duplicate, or not named like a photograph.

    Raises:
        HashretError: ``root`` cannot be listed.
    """
    search = _Walk(root, exclude, include)
    search.enter("", os.path.realpath(root))
    while search.linked_folders:  # each may lead to further links
        links, search.linked_folders = sorted(search.linked_folders), []
        for path in links:
            search.follow(path)
    search.take_linked_files()
    for pattern in search.exclude.unused():
        warn(f"--exclude {pattern!r} matches nothing below {root}")
    for pattern in search.include.unused():
        warn(f"--include {pattern!r} matches nothing below {root} that would be left out")
    return sorted(search.photos), sorted(search.passed_over)


class _Walk:
    def __init__(self, root: StrPath, exclude: Iterable[str], include: Iterable[str]) -> None:
        self.root = os.fspath(root)
        self.exclude, self.include = (_Patterns(as_patterns(patterns), self.root) for patterns in (exclude, include))
        self.photos: list[str] = []
        self.passed_over: list[PassedOver] = []
        self.linked_folders: list[str] = []
        self.linked_files: list[str] = []
        self.entered: set[tuple[int, int] | str] = set()  # see `_identity`
        self.real: dict[str, str] = {}  # real path of each folder entered
        self.kinds: dict[str, str | None] = {}  # why files of a suffix are no photographs; None for those that are

    def enter(self, path: str, real: str) -> None:
        """Look at a folder and all below it but what links lead to. ``path`` is "" or ends with a slash."""
        waiting = [(path, real)]
        while waiting:
            path, real = waiting.pop()
            try:
                identity = _identity(real)
                with os.scandir(os.path.join(self.root, path)) as listed:
                    entries = {entry.name: entry for entry in listed}
            except OSError as error:
                if not path:
                    raise HashretError(f"cannot list {self.root}: {error.strerror}") from None
                self.leave(path, f"that cannot be listed ({error.strerror})")
                continue
            if identity in self.entered:
                self.leave(path, LINKED_AGAIN)
                continue
            self.entered.add(identity)
            self.real[path] = real
            inside = _is_any(os.path.basename(os.path.normpath(os.path.join(self.root, path))), _LIBRARIES)
            entries.pop(OWN_FOLDER, None)  # in which hashret keeps the index of a folder
            # Whoever names the folder that duplicates were moved to wants these.
            moved = _moved_names(entries[LOG_OF_MOVES].path) if path and LOG_OF_MOVES in entries else frozenset()
            if moved is None:
                self.leave(path, SET_ASIDE)
                continue
            if moved:
                entries.pop(LOG_OF_MOVES)
            for name in sorted(entries, reverse=True):  # so that the first name is the first to be entered
                if self.look(path + name, entries[name], entries, inside, name in moved):
                    waiting.append((f"{path}{name}/", os.path.join(real, name)))

    def look(
        self, path: str, entry: os.DirEntry[str], siblings: Collection[str], in_library: bool, moved: bool
    ) -> bool:
        """Take a photograph, note a link, or pass an entry over: -> whether it is a folder to enter now."""
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:  # of what a link leads to
            self.leave(path, f"that cannot be looked at ({error.strerror})")
            return False
        if entry.is_symlink() and not is_folder and not is_file and not os.path.exists(entry.path):
            self.leave(path, LINKED_TO_NOTHING)
            return False
        excluded = self.exclude.match(path, entry.name, siblings)
        why: str | None = SPECIAL
        if is_folder or is_file:
            why = f"excluded by {excluded!r}" if excluded else self.why_not(entry.name, is_folder, in_library)
            why = SET_ASIDE if not why and is_file and moved else why
            why = None if why and self.include.match(path, entry.name, siblings) else why
        if why:
            self.leave(path, why)
        elif entry.is_symlink():
            (self.linked_folders if is_folder else self.linked_files).append(path)
        elif is_folder:
            return True
        else:
            self.photos.append(path)
        return False

    def why_not(self, name: str, is_folder: bool, in_library: bool) -> str | None:
        """Return why a file or folder is left out by its name alone; None if it is not."""
        suffix = os.path.splitext(name)[1].lower()
        if not is_folder and suffix not in self.kinds:
            self.kinds[suffix] = None if is_image_name(name) else reason_passed_over(name) or OTHER_NAME
        if not is_folder and self.kinds[suffix]:
            return self.kinds[suffix]
        if name.startswith("."):  # AppleDouble's ._photo.jpg among them
            return HIDDEN
        if is_folder and _is_any(name, _OTHER_PROGRAMS):
            return OTHER_PROGRAM
        return IN_LIBRARY if in_library and name.casefold() not in _ORIGINALS else None

    def leave(self, path: str, reason: str) -> None:
        self.passed_over.append(PassedOver(path.rstrip("/"), reason))

    def follow(self, path: str) -> None:
        """Enter the folder that a link leads to, unless it was entered already."""
        real = os.path.realpath(os.path.join(self.root, path))
        try:
            again = _identity(real) in self.entered
        except OSError:
            again = False
        if os.path.join(self.real[_folder(path)], "").startswith(os.path.join(real, "")):
            self.leave(path, LINKED_UP)
        elif again:
            self.leave(path, LINKED_AGAIN)
        else:
            self.enter(path + "/", real)

    def take_linked_files(self) -> None:
        """Take the photographs that links lead to and that are not here already."""
        if not self.linked_files:
            return
        taken = {os.path.join(self.real[_folder(path)], os.path.basename(path)) for path in self.photos}
        for path in sorted(self.linked_files):
            real = os.path.realpath(os.path.join(self.root, path))
            if real in taken:
                self.leave(path, LINKED_AGAIN)
            else:
                taken.add(real)
                self.photos.append(path)


class _Patterns:
    """Patterns as a user gives them. One that names what is there, as ``IMG[1].png`` may, matches nothing else."""

    def __init__(self, patterns: Iterable[str], root: str) -> None:
        patterns = [pattern.rstrip("/") or pattern for pattern in patterns]
        self.root = root
        self.names = [pattern for pattern in patterns if "/" not in pattern]
        self.paths = [os.path.normpath(pattern) for pattern in patterns if "/" in pattern]
        self.there = {path for path in self.paths if any(map(os.path.lexists, (path, os.path.join(root, path))))}
        self.used: set[str] = set()

    def match(self, path: str, name: str, siblings: Collection[str]) -> str | None:
        """Return the first pattern that matches an entry, by its name, its path from the root, or its path; or None."""
        matching = [p for p in self.names if name == p or (p not in siblings and fnmatchcase(name, p))]
        for pattern in self.paths:
            for whole in (path, os.path.normpath(os.path.join(self.root, path))):
                if whole == pattern or (pattern not in self.there and fnmatchcase(whole, pattern)):
                    matching.append(pattern)
        self.used.update(matching)
        return matching[0] if matching else None

    def unused(self) -> list[str]:
        """Return the patterns that have matched nothing so far."""
        return [pattern for pattern in self.names + self.paths if pattern not in self.used]


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.casefold(), pattern) for pattern in patterns)


def _moved_names(log: str) -> frozenset[str] | None:
    """Return the names under which `hashret.near_duplicates.moving` has moved photographs to the folder of a log.

    None where the log cannot be read: any file of the folder may then be a copy that must not be taken for the one to
    keep. Other lines, as of another program's file of that name, say nothing.
    """
    if os.path.islink(log) or not os.path.isfile(log):
        return frozenset()
    try:
        with open(log, "rb") as lines:
            return frozenset(name for name in map(_moved_name, lines) if name)
    except OSError:
        return None


def _moved_name(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    named = isinstance(entry, dict) and isinstance(entry.get("from"), str) and isinstance(entry.get("to"), str)
    return entry["to"] if named else None


def _folder(path: str) -> str:
    """Return the folder of a path: "" or with a slash at its end."""
    return path[: path.rfind("/") + 1]


def _identity(folder: str) -> tuple[int, int] | str:
    """Return what tells a folder from others, whatever its path: device and inode, where the files have numbers."""
    status = os.stat(folder)
    return (status.st_dev, status.st_ino) if status.st_ino else folder
