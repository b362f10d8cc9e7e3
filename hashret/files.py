"""Files and folders written so that a kill, a full disk or a power cut leaves the old state or the new one, whole.

What is written gets a temporary name first, and its own once it is on the disk. A folder takes the place of another in
one step, and only then is the other removed. Of what the user's folders hold, only names of hashret's own making are
ever removed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .addresses import refuse_to_write_to_engine
from .errors import HashretError, warn_once
from .names import fitting, from_json, to_json
from .records import Check, checked, fields

StrPath = str | os.PathLike[str]  # a path, wherever one is taken

_UMASK = os.umask(0)
os.umask(_UMASK)
_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp", re.DOTALL)
_LOCKED = re.compile(r"(\.\w{8}\.\d+|\.0)\.tmp$")  # folders of `partial_folder`
_AT_WORKING_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_locks: set[int] = set()  # descriptors of the locks that this process holds
_warned: set[str] = set()
_LARGEST_TEXT = 2**28


def default_cache() -> Path:
    """Return HASHRET_CACHE, or ``hashret`` in the user's cache folder; for a user without a home, `temporary_cache`.

    On macOS caches were kept in ``~/.cache`` once: where there are some, they are used there.
    """
    if os.environ.get("HASHRET_CACHE"):
        return Path(os.environ["HASHRET_CACHE"])
    import platformdirs

    with suppress(RuntimeError):  # no home; earlier versions give a path that begins with ~
        earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hashret"
        folder = earlier if earlier.is_dir() else platformdirs.user_cache_path("hashret", appauthor=False)
        if folder.is_absolute():
            return folder
    return temporary_cache()


def temporary_cache() -> Path:
    """Return a folder of this user's in the system's temporary one."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:  # none that can be written to
        folder = "/tmp"
    return Path(folder) / f"hashret-{os.getuid()}"


def is_private(folder: StrPath) -> bool:
    """Whether a folder is there, or can be made, that nobody else writes to: what lies in it is run."""
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def is_writable(folder: StrPath) -> bool:
    """Whether files can be made in a folder, which is made where it is missing."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def atomic(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; flush and rename it there if the block ends well.

    What killed processes left of the same file is removed.

    Raises:
        HashretError: where the system refuses the write, with its reason (disk full, no permission), or where a name
            is that of something else than a file.
    """
    path = _file_name(path)
    partial = partial_name(path)
    try:
        make_folder(path.parent)
        remove_leftovers(path.parent, re.escape(path.name))
        yield partial
        os.chmod(partial, 0o666 & ~_UMASK)  # safetensors leaves its files to their owner alone
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)
    except OSError as error:
        raise HashretError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:  # what torch and faiss raise on a full disk
        raise HashretError(f"cannot write {path}; is the disk full? ({str(error).splitlines()[0]})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_writable(path: StrPath) -> None:
    """Make sure, before long work, that a file can be written to ``path``: write an empty one beside it and remove it.

    Raises:
        HashretError: ``path`` is a folder or a device, or the system refuses, with its reason.
    """
    path = _file_name(path)
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.stat(path)  # raises where the name is too long, which the temporary one is not
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise HashretError(f"cannot write {path}: {error.strerror or error}") from error


def _file_name(path: StrPath) -> Path:
    """Return a path as `Path`; HashretError where no file can have that name, as one of a folder or a device."""
    path = named(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise HashretError(f"cannot write {path}: it is a folder, or something else than a file")
    return path


def identity(path: StrPath) -> tuple[int, int, int] | str:
    """Return what is equal for two names of one file, by a hard link or in a folder mounted twice; follows links.

    The device is left out: a network folder that is mounted twice has two, but the file's number, size and time to the
    nanosecond are the same there. Those of a true copy differ, or it is one of a whole disk, block by block.

    Raises:
        OSError: no such file.
    """
    status = os.stat(path)
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_ino else str(os.path.realpath(path))


def partial_name(path: Path, pid: int | None = None) -> Path:
    """Return the temporary name beside ``path`` that a process writes to; None for this one."""
    return path.with_name(fitting(f".{path.name}", f".{os.getpid() if pid is None else pid}.tmp"))


@contextmanager
def partial_folder(path: StrPath, resume: bool = False) -> Iterator[Path]:
    """Yield a folder under a temporary name beside ``path``; at the end it is removed, unless it was renamed.

    The folder is locked, by which `remove_leftovers` tells it from one that a killed process left.

    Args:
        path: a name beside which the folder is made; the folder above it is made where it is missing.
        resume: take up the folder that a killed process left for the same ``path``; it stays where the block fails.
    """
    path = Path(path)
    while True:
        try:
            make_folder(path.parent)
            if not resume:
                remove_leftovers(path.parent, re.escape(path.name))
            partial = path.with_name(fitting(f".{path.name}", ".0.tmp")) if resume else _new_partial_folder(path)
            partial.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
                lock = _lock(partial, wait=False)
                break
        except BlockingIOError:  # another process is at work for the same path
            resume = False
        except OSError as error:
            raise HashretError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    try:
        yield partial
        shutil.rmtree(partial, ignore_errors=True)
    except BaseException:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _unlock(lock)


def _new_partial_folder(path: Path) -> Path:
    """Make a folder beside ``path`` under a temporary name, which `_LOCKED` fits."""
    end = f".{os.getpid()}.tmp"
    random = 8 * "x"  # stands for the characters that mkdtemp puts there
    start = fitting(f".{path.name}", f".{random}{end}").removesuffix(f"{random}{end}")
    folder = Path(tempfile.mkdtemp(end, start, path.parent))
    with suppress(FileNotFoundError):  # taken for a leftover, see `partial_folder`
        folder.chmod(0o777 & ~_UMASK)
    return folder


def is_partial(name: str) -> bool:
    """Whether a file's or folder's name is a temporary one of hashret's."""
    return bool(_PARTIAL.fullmatch(name))


def remove_leftovers(folder: StrPath, names: str) -> None:
    """Remove what killed processes left in a folder under temporary names of those that the pattern ``names`` matches.

    A folder is a leftover when nobody holds its lock; a file, or a folder of before there were locks, when no process
    has the number in its name.
    """
    folder = Path(folder)
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        partial = _PARTIAL.fullmatch(path.name)
        if not partial or not re.fullmatch(rf"({names})(\.\w{{8}})?", partial["name"], re.DOTALL):
            continue
        alive = _is_alive(int(partial["pid"]))
        with suppress(OSError):
            if path.is_symlink() or not path.is_dir():
                if not alive:
                    path.unlink()
            else:
                lock = _lock(path, wait=False)
                try:
                    if not alive or (lock is not None and _LOCKED.search(path.name)):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    _unlock(lock)


def remove_partial_files(folder: StrPath, names: Collection[str]) -> None:
    """Remove the temporary files that killed processes left of files of some names, in a folder that is the user's.

    What is no plain file, or goes by any other name, is nobody's leftover there.
    """
    folder = Path(folder)
    for path in list(folder.iterdir()) if names and folder.is_dir() else ():
        partial = _PARTIAL.fullmatch(path.name)
        if not partial or path.is_symlink() or not path.is_file() or _is_alive(int(partial["pid"])):
            continue
        if any(partial_name(folder / name, int(partial["pid"])) == path for name in names):
            with suppress(OSError):
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        pass
    return True


def flush(path: StrPath) -> None:
    """Wait until what was written to a file, or the names in a folder, is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if not os.path.isdir(path):
            raise
        return  # a folder to drop files into, whose names may not be read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # filesystems that flush no folders
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: StrPath) -> None:
    """Flush each file and folder below a folder, and the folder."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(os.path.join(where, name))
        flush(where)


def make_folder(path: StrPath) -> None:
    """Make a folder where it is missing, and those above it, on the disk."""
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush(folder.parent)


@contextmanager
def locked(folder: StrPath, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which lasts as long as the process at most.

    Who waited and finds another folder in the place of the one that was locked waits for that one.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is False.
        OSError: no such folder.
    """
    lock = _lock(folder, wait)
    try:
        yield
    finally:
        _unlock(lock)


@contextmanager
def written_alone(folder: StrPath, out: StrPath, verb: str, kind: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing, so that one process at a time writes a result.

    Args:
        folder: that of the result, or of the state that leads to it.
        out: the result, a ``kind`` of thing, as the user named it with --out.
        verb: of hashret, that writes it.

    Raises:
        HashretError: another process holds the lock, or the folder cannot be made.
    """
    with ExitStack() as held:
        try:
            make_folder(folder)
            held.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise HashretError(
                f"another hashret {verb} writes to {out}", hint=f"wait for it, or name another {kind} with --out"
            ) from None
        except OSError as error:
            raise HashretError(f"cannot write {folder}: {error.strerror or error}") from error
        yield


def _lock(folder: StrPath, wait: bool) -> int | None:
    """Lock a folder: -> descriptor; None where its filesystem locks no folders, as that of some network drives."""
    import fcntl

    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                _locks.add(descriptor)
                return descriptor
        except OSError as error:
            if isinstance(error, (BlockingIOError, FileNotFoundError)):
                raise
            warn_once(_warned, f"the disk of {folder} has no locks; let one hashret at a time write there")
            return None
        finally:
            if descriptor not in _locks:
                os.close(descriptor)


@contextmanager
def turn(path: StrPath, line: str, wait_for: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing and says who holds it.

    Args:
        path: of the file, in a folder that is there.
        line: what the file says while it is locked.
        wait_for: called with the line of the process that is waited for.

    Raises:
        OSError: the file cannot be written.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _locks.add(descriptor)  # so that processes that are forked do not hold it
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait_for(os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip())
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            warn_once(_warned, f"the disk of {path} has no locks; let one hashret at a time write there")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{line}\n".encode(errors="replace"), 0)
        os.fsync(descriptor)
        flush(Path(path).parent)
        yield
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        _unlock(descriptor)


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None and descriptor in _locks:
        _locks.remove(descriptor)
        os.close(descriptor)


def _forget_locks() -> None:
    """Close the locks of the parent in a forked child, which is not to hold them."""
    for descriptor in list(_locks):
        _unlock(descriptor)


os.register_at_fork(after_in_child=_forget_locks)


def replace_folder(new: StrPath, path: StrPath, names: str) -> None:
    """Put the folder ``new`` in the place of the folder ``path``, in one step, then remove what was there.

    Where the system cannot exchange two names, the old folder goes aside first; `recover` brings it back after a kill
    between these two steps.

    Args:
        new: a whole folder, on the same disk.
        path: the folder that it replaces.
        names: pattern of the names of files that the old folder holds. Nothing else in it is removed.

    Raises:
        HashretError: the old folder holds something else, or the system refuses. Both folders are there then.
    """
    path = Path(path).resolve()
    aside = _aside(path)
    check_names(path, names)
    try:
        flush_tree(new)
        if _exchange(new, path):
            aside = Path(new)
        else:
            remove_own(aside, names)
            os.rename(path, aside)
            os.rename(new, path)
        flush(path.parent)
    except OSError as error:
        raise HashretError(f"cannot put {new} in the place of {path}: {error.strerror or error}") from error
    remove_own(aside, names)


def place_folder(new: StrPath, path: StrPath) -> None:
    """Rename a new folder of many files, whole, to a name that is free, on the disk before this returns."""
    os.sync()  # once for all files: one at a time takes minutes for tens of thousands
    os.rename(new, path)
    flush(Path(path).parent)


def recover(path: StrPath, names: str | None = None) -> None:
    """Bring back what `replace_folder` was killed in replacing, or with ``names`` remove what it replaced."""
    path = Path(path).resolve()
    if not path.name:  # the root folder, beside which there is nothing
        return
    aside = _aside(path)
    if not path.exists() and aside.is_dir():
        with suppress(OSError):  # another process was faster
            os.rename(aside, path)
    elif names and aside.is_dir():
        remove_own(aside, names)


def _aside(path: Path) -> Path:
    return path.with_name(fitting(f".{path.name}", ".old"))


def _exchange(one: StrPath, other: StrPath) -> bool:
    """Exchange the names of two folders in one step: -> False where the system does not know how."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    done = call(_AT_WORKING_FOLDER, os.fsencode(one), _AT_WORKING_FOLDER, os.fsencode(other), _EXCHANGE)
    if done and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return not done


def check_names(folder: StrPath, names: str) -> None:
    """Raise HashretError where a folder holds anything but files of names that a pattern matches, or temporary ones."""
    for path in sorted(Path(folder).iterdir()):
        partial = _PARTIAL.fullmatch(path.name)
        if not re.fullmatch(names, partial["name"] if partial else path.name) or not path.is_file():
            raise HashretError(
                f"{folder} holds {path.name}, which hashret did not write there",
                hint="move it elsewhere, or name another folder with --out",
            )


def remove_own(folder: StrPath, names: str) -> None:
    """Remove a folder's files whose names a pattern matches, and the folder where that leaves it empty."""
    remove_leftovers(folder, names)
    with suppress(OSError):
        for path in Path(folder).iterdir():
            if re.fullmatch(names, path.name):
                path.unlink()
        os.rmdir(folder)


def discard(folder: StrPath) -> None:
    """Remove a folder of hashret's own, under a temporary name, so that a kill leaves no half of it under its own."""
    folder = Path(folder)
    if folder.is_dir():
        partial = _new_partial_folder(folder)
        os.rename(folder, partial)
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: StrPath, content: Any, indent: int | None = 2) -> None:
    """Write JSON atomically, with a line end."""
    with atomic(path) as partial:
        partial.write_text(to_json(content, indent=indent) + "\n", encoding="ascii")


def read_json(path: StrPath, what: str, check: Check | None = None, largest: int = _LARGEST_TEXT) -> dict[str, Any]:
    """Read a JSON object of at most ``largest`` bytes, as a ``check`` of `hashret.records` wants it.

    Raises:
        HashretError: there is none or it is damaged; it names ``what``.
    """
    try:
        content = from_json(read_text(path, largest=largest))
    except FileNotFoundError:
        raise HashretError(f"no {what} at {Path(path).parent}: {Path(path).name} is missing") from None
    except (OSError, ValueError) as error:
        raise HashretError(f"the {what} {path} is damaged: {error}") from None
    record: dict[str, Any] = checked(content, check or fields({}), f"the {what} {path}")
    return record


def read_text(path: StrPath, errors: str = "strict", largest: int = _LARGEST_TEXT) -> str:
    """Return the text of a file, UTF-8.

    Raises:
        OSError: it is no file, as a pipe, which would be waited for; or larger than ``largest`` bytes.
        UnicodeDecodeError: it is not UTF-8.
    """
    path = Path(path)
    if path.exists():
        if not path.is_file():
            raise OSError(errno.EINVAL, "not a file", str(path))
        if path.stat().st_size > largest:
            raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", str(path))
    return path.read_text(encoding="utf-8", errors=errors)


def named(path: StrPath) -> Path:
    """Return a path as `Path`; HashretError where nothing can be written under that name: "", ".", "..", "/", or the
    address of an engine.
    """
    refuse_to_write_to_engine(path)
    path = Path(path)
    if path.name in ("", ".."):
        raise HashretError(f"'{path}' names the folder itself", hint="name what is to be written there")
    return path


def check_output(path: StrPath, overwrite: bool, what: str, marker: str | None = None) -> None:
    """Make sure that writing a ``what`` to ``path`` loses nothing that the user did not give up.

    What exists is refused without ``overwrite``; with it, only a file, or a folder that holds ``marker``, may be
    replaced: ``--out photos --overwrite`` must not take the photographs along. Removes nothing.
    """
    path = named(path)
    if not path.exists() or (marker and path.is_dir() and all(is_partial(inside.name) for inside in path.iterdir())):
        return
    if not (path / marker).exists() if marker else not path.is_file():
        raise HashretError(f"{path} exists already and is no {what}", hint="name another with --out")
    if not overwrite:
        raise HashretError(
            f"{path} exists already", hint=f"add --overwrite to replace that {what}, or name another with --out"
        )
