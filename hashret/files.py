"""Writing files so that a killed run or a full disk never leaves half a file under its final name."""

from __future__ import annotations

import glob
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import HashretError
from .names import fitting, to_json

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``; flush and rename it there if the block ends well.

    Raises:
        HashretError: where the system refuses the write, with its reason (disk full, no permission).
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_UMASK)  # safetensors leaves its files to their owner alone
        os.replace(partial, path)
    except OSError as error:
        raise HashretError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:  # what torch and faiss raise on a full disk
        raise HashretError(f"cannot write {path}; is the disk full? ({str(error).splitlines()[0]})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_writable(path):
    """Make sure, before long work, that a file can be written to ``path``: write an empty one beside it and remove it.

    Raises:
        HashretError: ``path`` is a folder, or the system refuses, with its reason.
    """
    path = Path(path)
    if path.is_dir():
        raise HashretError(f"{path} is a folder; name a file")
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise HashretError(f"cannot write {path}: {error.strerror or error}") from error


def identity(path):
    """What is equal for two names of one file, of a hard link as of a folder that is mounted twice; follows links.

    The device is left out: a network folder that is mounted twice has two, but the file's number, size and time to the
    nanosecond are the same there. Those of a true copy differ, or it is one of a whole disk, block by block.

    Raises:
        OSError: no such file.
    """
    found = os.stat(path)
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found.st_ino else os.path.realpath(path)


def partial_name(path):
    """The temporary name beside ``path`` that this process writes to."""
    return path.with_name(fitting(f".{path.name}", f".{os.getpid()}.tmp"))


def remove_leftovers(folder, name=None):
    """Remove what killed processes left under temporary names, of the file ``name`` or of all, in a folder."""
    for leftover in Path(folder).glob(f".{glob.escape(name) if name else '*'}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            remove_folder(leftover)
            with suppress(OSError):
                leftover.unlink()


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def write_json(path, content):
    """Write JSON atomically, with a line end."""
    with atomic(path) as partial:
        partial.write_text(to_json(content, indent=2) + "\n", encoding="ascii")


def read_json(path, what):
    """Read a JSON object; HashretError naming ``what`` where there is none or it is damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HashretError(f"no {what} at {Path(path).parent}: {Path(path).name} is missing") from None
    except (OSError, ValueError) as error:
        raise HashretError(f"the {what} {path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise HashretError(f"the {what} {path} is damaged: not a JSON object")
    return content


def check_output(path, overwrite, what, marker=None):
    """Make sure that writing a ``what`` to ``path`` loses nothing that the user did not give up.

    What exists is refused without ``overwrite``; with it, only a file, or a folder that holds ``marker``, may be
    replaced: ``--out photos --overwrite`` must not take the photographs along. Removes nothing.
    """
    path = Path(path)
    if not path.exists() or (marker and path.is_dir() and not any(path.iterdir())):
        return
    if not (path / marker).exists() if marker else not path.is_file():
        raise HashretError(f"{path} exists already and is no {what}; name another with --out")
    if not overwrite:
        raise HashretError(f"{path} exists already; add --overwrite to replace that {what}, or name another with --out")


def remove_folder(path):
    """Remove a folder of hashret's own: partial work, or an output that `check_output` let pass."""
    shutil.rmtree(path, ignore_errors=True)
