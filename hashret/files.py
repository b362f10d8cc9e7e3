"""Writing files so that a killed run or a full disk never leaves half a file under its final name."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import HashretError


@contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``; flush and rename it there if the block ends well.

    Raises:
        HashretError: where the system refuses the write, with its reason (disk full, no permission).
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise HashretError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:  # what torch and faiss raise on a full disk
        raise HashretError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_json(path, content):
    """Write JSON atomically, with a line end."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


def clear_output(path, overwrite, what):
    """Make sure that nothing is at ``path``: an existing ``what`` is removed with ``overwrite`` and refused else."""
    path = Path(path)
    if not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if not overwrite:
        raise HashretError(f"{path} exists already; add --overwrite to replace that {what}, or name another with --out")
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
