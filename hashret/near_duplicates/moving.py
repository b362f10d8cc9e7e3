"""Duplicates moved aside into a folder, and back: nothing is deleted or overwritten, and a log says what was where.

A move takes a free name in the folder, writes its line to the log, on disk, and only then moves the file. So a kill or
a power cut at any moment leaves each photograph whole in one of the two places that its line names, or, between two
disks, in both. The lock of the folder lets one process at a time move files there and back.
Each line carries a checksum of itself, so that no damaged line is obeyed; lines of earlier releases have none.
Each photograph that is moved aside has a copy that stays. Before each move and after it, the copy is looked for once
more, as a file of its own.
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..addresses import refuse_to_write_to_engine
from ..data.references import kind_of
from ..errors import HashretError, warn
from ..files import StrPath, flush, identity, locked, make_folder, partial_name, remove_partial_files
from ..names import fitting
from ..places import LOG_OF_MOVES
from ..progress import Progress, takes_quiet
from ..results import Result, ResultList
from .groups import Photograph

LOG = LOG_OF_MOVES
_TAKEN = 1_000_000_000  # seconds: the time of an empty file that holds a name, whole and even for any file system


@dataclass(frozen=True)
class Move(Result):
    """A photograph that was moved, or stays.

    Attributes:
        path: where the photograph was.
        to: where it was moved, or would be; None where it stays.
        why: the reason why it stays.
    """

    path: str
    to: str | None
    why: str = ""


@dataclass(frozen=True, eq=False)
class Moves(ResultList[Move]):
    """What `set_aside` or `restore` did; as a sequence, it is the list of the moves."""

    moves: list[Move]

    @property
    def moved(self) -> int:
        """How many photographs were moved, or would be."""
        return sum(move.to is not None for move in self.moves)


@takes_quiet
def set_aside(groups: Sequence[Sequence[Photograph]], folder: StrPath, yes: bool = False) -> Moves:
    """Move all but the kept photograph of each group into a folder.

    Args:
        groups: groups that `hashret.duplicates` returned, the kept photograph of each first.
        folder: folder to move to, made where it is missing. Where it has a file of the same name, the photograph gets
            a number, ``photo-2.jpg``.
        yes: False moves nothing, and only says what would be moved.

    Raises:
        HashretError: a file cannot be moved; what was moved before it is in the log, `moved.jsonl`.
    """
    refuse_to_write_to_engine(folder)
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise HashretError(f"{folder} is a file", hint="name a folder to move to")
    if os.path.lexists(folder / LOG) and ((folder / LOG).is_symlink() or not (folder / LOG).is_file()):
        what = f"{folder / LOG} is no plain file, and no log of moves"
        raise HashretError(what, hint="name another folder to move to")
    if not yes:
        return _set_all_aside(groups, folder, yes)
    new = not folder.exists()
    try:
        make_folder(folder)
    except OSError as error:
        raise HashretError(f"cannot make {folder}: {error.strerror or error}") from error
    with _held(folder):
        try:
            return _set_all_aside(groups, folder, yes)
        finally:
            with suppress(OSError):
                if new:
                    folder.rmdir()  # which fails where something was moved


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and clear the folder of what a killed process left: of files that the log names, as
    a move writes its line first.
    """
    with locked(folder):
        remove_partial_files(folder, {name for name, _ in _logged(folder)})
        for path in folder.iterdir():
            _release(path)
        yield


def _set_all_aside(groups: Sequence[Sequence[Photograph]], folder: Path, yes: bool) -> Moves:
    moves: list[Move] = []
    taken, begun = {LOG}, _begun(folder) if yes else {}
    progress = Progress("moving", sum(len(group) - 1 for group in groups), "photographs")
    for kept, *copies in groups:
        for copy in copies:
            why = _why_not(copy.path, kept.path, folder)
            if why:
                moves.append(Move(copy.path, None, why))
            elif yes:
                moves.append(_set_aside(copy, kept, folder, begun.get(copy.path)))
            else:
                name = next(_names(folder, copy.path, taken))
                taken.add(name)
                moves.append(Move(copy.path, str(folder / name)))
            progress.add()
    progress.close()
    return Moves(moves)


def _begun(folder: Path) -> dict[str, Path]:
    """Return where the log says that files were moved to: paths in the folder by their old places."""
    return {str(origin): folder / name for name, origin in _logged(folder)}


def _logged(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what the readable lines of a folder's log say, see `_read_line`; nothing where there is no log."""
    for line in _log_lines(folder) if (folder / LOG).is_file() else ():
        with suppress(ValueError, RecursionError):
            yield _read_line(line)


def _log_lines(folder: Path) -> list[bytes]:
    """Return the lines of a folder's log; HashretError where the log cannot be read."""
    try:
        return (folder / LOG).read_bytes().split(b"\n")
    except OSError as error:
        raise HashretError(f"cannot read {folder / LOG}: {error.strerror or error}") from None


def _set_aside(copy: Photograph, kept: Photograph, folder: Path, begun: Path | None) -> Move:
    to = None
    try:
        if begun and _is_whole_copy(begun, copy.path):
            os.unlink(copy.path)
            return Move(copy.path, str(begun))
        to = _take_name(folder, copy.path)
        _log(folder, {"id": copy.id, "from": copy.path, "to": to.name, "kept": kept.path})
        _move(copy.path, to)
        if not _is_readable(kept.path):  # a disk that has several names for a file, and another number for each
            _move(to, _take(Path(copy.path)))
            return Move(copy.path, None, f"it is the same file as {kept.path}, which was gone with it")
    except OSError as error:
        if to:
            _release(to)
        raise HashretError(f"cannot move {copy.path} to {folder}: {error.strerror or error}") from error
    return Move(copy.path, str(to))


def _is_readable(path: StrPath) -> bool:
    """Whether a plain file can be opened, which a network disk is asked anew."""
    if not os.path.isfile(path):
        return False
    try:
        open(path, "rb").close()
    except OSError:
        return False
    return True


def restore(folder: StrPath) -> Moves:
    """Move what was set aside in a folder back to where it was, the last photograph first.

    Nothing is overwritten: what is in a photograph's old place stays there. Only plain files of the folder itself are
    moved, whatever the log says. When all photographs are back, the log is removed, and the folder if it is empty.

    Raises:
        HashretError: no log in the folder, or a file that cannot be moved back.
    """
    folder = Path(folder).absolute()
    if not (folder / LOG).is_file():
        raise HashretError(f"no {LOG} in {folder}: nothing was moved there by hashret duplicates")
    with _held(folder):
        return _restore_all(folder)


def _restore_all(folder: Path) -> Moves:
    moves: list[Move] = []
    lines, refused = _log_lines(folder), 0
    for number in range(len(lines), 0, -1):  # of several moves to one name, the last is of the file that is there
        try:
            name, origin = _read_line(lines[number - 1])
        except (ValueError, RecursionError) as error:
            if lines[number - 1] and number < len(lines):  # the last may be cut off, before its file was moved
                warn(f"line {number} of {folder / LOG} is passed over: {error}")
                refused += 1
            continue
        try:
            moves += _restore(folder / name, origin)
        except OSError as error:
            raise HashretError(f"cannot move {folder / name} back to {origin}: {error.strerror or error}") from error
    if not any(move.why for move in moves) and not (refused and len(os.listdir(folder)) > 1):
        (folder / LOG).unlink()
        with suppress(OSError):
            folder.rmdir()
    return Moves(moves)


def _read_line(line: bytes) -> tuple[str, Path]:
    """Read a line of the log.

    Returns:
        The name of a file in the folder, and the place that the file came from.

    Raises:
        ValueError: the line is damaged, or names what no move could have made.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("from", "to")):
        raise ValueError("it does not say what was moved where")
    if "checksum" in entry and entry.pop("checksum") != _checksum(entry):
        raise ValueError("it is not as it was written")
    name, path = entry["to"], entry["from"]
    if name in ("", ".", "..", LOG) or "/" in name or b"\0" in os.fsencode(name):
        raise ValueError(f"{name!r} is no name of a file in the folder")
    if not os.path.isabs(path) or path != os.path.normpath(path) or b"\0" in os.fsencode(path):
        raise ValueError(f"{path!r} is no whole path to go back to")
    origin = Path(path)
    number = re.search(r"-\d+" + re.escape(origin.suffix) + r"\Z", name)
    if name != origin.name and not (number and name == fitting(origin.stem, number[0])):
        raise ValueError(f"{name!r} is not what {origin.name!r} is called in the folder")
    return name, origin


def _restore(aside: Path, origin: Path) -> list[Move]:
    _release(origin)  # a run that was killed before it moved the file has left it
    remove_partial_files(origin.parent, [origin.name])
    if not os.path.lexists(aside):
        return [] if os.path.lexists(origin) else [Move(str(aside), None, "gone from both places")]
    if aside.is_symlink() or not aside.is_file():
        return [Move(str(aside), None, "no plain file")]
    if _is_whole_copy(origin, aside):
        os.unlink(aside)
        return [Move(str(aside), str(origin))]
    if os.path.lexists(origin):
        return [Move(str(aside), None, f"{origin} is there")]
    make_folder(origin.parent)
    _take(origin)
    _move(aside, origin)
    return [Move(str(aside), str(origin))]


def _is_whole_copy(copy: StrPath, path: StrPath) -> bool:
    """Whether a move of ``path`` to another disk was killed when the copy was whole and both were there."""
    if not all(os.path.isfile(file) and not os.path.islink(file) for file in (copy, path)):
        return False
    times = [os.lstat(file).st_mtime_ns for file in (copy, path)]
    return times[0] == times[1] and identity(copy) != identity(path) and filecmp.cmp(copy, path, shallow=False)


def _why_not(path: str, kept: str, folder: Path) -> str:
    """Return why a photograph cannot be set aside, "" where it can."""
    if kind_of(path):
        return "no file of its own"
    if not os.path.lexists(path):
        return "gone"
    if os.path.islink(path):
        return "a link"
    if not os.path.isfile(path):
        return "no plain file"
    if os.path.realpath(Path(path).parent) == os.path.realpath(folder):
        return "there already"
    if not _is_readable(kept):
        return "the one to keep cannot be read" if os.path.lexists(kept) else "the one to keep is gone"
    return f"it is the same file as {kept}" if identity(path) == identity(kept) else ""


def _names(folder: Path, photograph: str, taken: Container[str] = (LOG,)) -> Iterator[str]:
    """Yield free names for a file in a folder: photo.jpg, photo-2.jpg, photo-3.jpg ..."""
    path, number = Path(photograph), 1
    while True:
        name = path.name if number == 1 else fitting(path.stem, f"-{number}{path.suffix}")
        if name not in taken and not os.path.lexists(folder / name):
            yield name
        number += 1


def _take_name(folder: Path, path: str) -> Path:
    """Take a free name in a folder for a file, and return its path."""
    for name in _names(folder, path):
        with suppress(FileExistsError):
            return _take(folder / name)
    raise AssertionError


def _take(path: Path) -> Path:
    """Hold a name by an empty file that nobody may read and that has a time of its own, and return the path.

    Permissions or time tell the file from others: a kill may come before the time is set, and some disks keep no
    permissions.

    Raises:
        FileExistsError: the name is taken.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL, 0)
    try:
        os.utime(descriptor, (_TAKEN, _TAKEN))
    finally:
        os.close(descriptor)
    return path


def _release(path: Path) -> None:
    """Give up a name that was taken and not used."""
    with suppress(FileNotFoundError):
        state = os.lstat(path)
        ours = state.st_mtime == _TAKEN or not stat.S_IMODE(state.st_mode)
        if stat.S_ISREG(state.st_mode) and not state.st_size and ours:
            os.unlink(path)


def _checksum(entry: dict[str, object]) -> int:
    """Return the checksum of what a line of the log says."""
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _log(folder: Path, entry: dict[str, object]) -> None:
    """Add a line to the log, with its checksum, on the disk before this returns."""
    entry = entry | {"checksum": _checksum(entry)}
    with open(folder / LOG, "ab+") as file:
        file.seek(max(0, file.tell() - 1))
        cut_off = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if cut_off else b"") + json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    flush(folder)


def _move(path: StrPath, to: Path) -> None:
    """Move a file over the empty one that holds its new name; the move is on the disk before this returns."""
    try:
        os.replace(path, to)
        flush(to.parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = partial_name(to)  # on another disk: a copy first, whole, under the name at once
        try:
            shutil.copy2(path, partial)
            flush(partial)
            os.replace(partial, to)
            flush(to.parent)
        finally:
            partial.unlink(missing_ok=True)
        os.unlink(path)
