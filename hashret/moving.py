"""Duplicates moved aside into a folder, and back: nothing is deleted or overwritten, and a log says what was where.

A move takes a free name in the folder, writes its line to the log, on disk, and only then moves the file: a kill at any
moment leaves each photograph whole in one of the two places that its line names, or, between two disks, in both.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import HashretError
from .files import partial_name
from .progress import Progress

LOG = "moved.jsonl"


@dataclass(frozen=True)
class Move:
    """A photograph at ``path`` and the place ``to`` of its move; None where it stays, and ``why`` says the reason."""

    path: str
    to: str | None
    why: str = ""


def set_aside(groups, folder, yes=False, quiet=False):
    """Move all but the kept photograph of each group into a folder: -> list of `Move`, one for each.

    Args:
        groups: as `hashret.duplicates` returns them, the kept photograph first.
        folder: made where it is missing; a name that is there already gets a number, ``photo-2.jpg``.
        yes: False moves nothing, and only says what would be moved.

    Raises:
        HashretError: a file cannot be moved; what was moved before it is in the log, `moved.jsonl`.
    """
    folder, taken, moves = Path(folder).absolute(), {LOG}, []
    if folder.exists() and not folder.is_dir():
        raise HashretError(f"{folder} is a file; name a folder to move to")
    progress = Progress("moving", sum(len(group) - 1 for group in groups), "photographs", quiet=quiet or not yes)
    for kept, *copies in groups:
        for copy in copies:
            why = _why_not(copy.path, kept.path, folder)
            if why:
                moves.append(Move(copy.path, None, why))
            elif yes:
                moves.append(Move(copy.path, str(_set_aside(copy, kept, folder))))
            else:
                name = next(_names(folder, copy.path, taken))
                taken.add(name)
                moves.append(Move(copy.path, str(folder / name)))
            progress.add()
    progress.close()
    return moves


def _set_aside(copy, kept, folder):
    to = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        to = _take_name(folder, copy.path)
        _log(folder, {"id": copy.id, "from": copy.path, "to": to.name, "kept": kept.path})
        _move(copy.path, to)
    except OSError as error:
        if to:
            _release(to)
        raise HashretError(f"cannot move {copy.path} to {folder}: {error.strerror or error}") from error
    return to


def restore(folder):
    """Move what was set aside in a folder back to where it was: -> list of `Move`, the last one first.

    Nothing is overwritten: what is in a photograph's old place stays there. When all is back, the log goes, and the
    folder where it is empty.

    Raises:
        HashretError: no log in the folder, or a file that cannot be moved back.
    """
    folder = Path(folder).absolute()
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise HashretError(f"no {LOG} in {folder}: nothing was moved there by hashret duplicates") from None
    moves = []
    for line in reversed(lines):  # of several moves to one name, the last is of the file that is there
        try:
            entry = json.loads(line)
            aside, place = folder / entry["to"], Path(entry["from"])
        except (ValueError, TypeError, KeyError):  # cut off by a kill, before its file was moved
            continue
        try:
            moves += _restore(aside, place)
        except OSError as error:
            raise HashretError(f"cannot move {aside} back to {place}: {error.strerror or error}") from error
    if not any(move.why for move in moves):
        (folder / LOG).unlink()
        with suppress(OSError):
            folder.rmdir()
    return moves


def _restore(aside, place):
    for path in (aside, place):
        _release(path)  # of a run that was killed before it moved the file
    if not aside.exists():
        return [] if place.exists() else [Move(str(aside), None, "gone from both places")]
    if place.exists():
        return [Move(str(aside), None, f"{place} is there")]
    place.parent.mkdir(parents=True, exist_ok=True)
    _take(place)
    _move(aside, place)
    return [Move(str(aside), str(place))]


def _why_not(path, kept, folder):
    if not os.path.lexists(path):
        return "gone"
    if os.path.islink(path):
        return "a link"
    if Path(path).parent == folder:
        return "there already"
    return "" if os.path.exists(kept) else "the one to keep is gone"


def _names(folder, path, taken=(LOG,)):
    """Free names for a file in a folder: yields photo.jpg, photo-2.jpg, photo-3.jpg ..."""
    path, number = Path(path), 1
    while True:
        name = path.name if number == 1 else f"{path.stem}-{number}{path.suffix}"
        if name not in taken and not os.path.lexists(folder / name):
            yield name
        number += 1


def _take_name(folder, path):
    """Take a free name in a folder, by an empty file: -> its path."""
    for name in _names(folder, path):
        with suppress(FileExistsError):
            return _take(folder / name)
    raise AssertionError


def _take(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    return path


def _release(path):
    """Give up a name that was taken and not used."""
    if path.exists() and not path.stat().st_size:
        path.unlink()


def _log(folder, entry):
    with open(folder / LOG, "ab+") as file:
        file.seek(max(0, file.tell() - 1))
        cut_off = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if cut_off else b"") + json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _move(path, to):
    """Move a file over the empty one that holds its new name."""
    try:
        os.replace(path, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = partial_name(to)  # on another disk: a copy first, whole, under the name at once
        try:
            shutil.copy2(path, partial)
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, to)
        finally:
            partial.unlink(missing_ok=True)
        os.unlink(path)
