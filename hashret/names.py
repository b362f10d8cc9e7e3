"""Names of files and classes, which may be any bytes: how they are kept, shown, and sent as JSON.

Kept: as Python has them. Bytes that are not UTF-8 are lone surrogates there (`os.fsdecode`), and `os.fsencode` gives
back the bytes. Shown, on a terminal, a page or a picture: as `shown` has them, so that no name moves the cursor, turns
the direction of a line or begins a new one. Sent to programs: as JSON in ASCII, where a lone surrogate is ``\\udcff``
and Python reads back the same name.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 255  # bytes of a file's name
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (directions among them), surrogate, separator of lines
_DEEPEST = 50  # lists and objects within one another in JSON; hashret writes five
_JOINERS = "\u200c\u200d"  # format characters that words of Persian and many emoji are written with


def shown(name: object) -> str:
    r"""Return a name, or a line that has names in it, for a reader: one line of text that any UTF-8 output takes.

    What has no picture of its own is escaped: a byte that is not UTF-8 as ``\xff``, a control character as ``\x1b`` or
    ``\n``, others as ``\u202e``. Backslashes stay single, so that text which is shown twice looks the same: for the
    exact name there is JSON.
    """
    text = str(name)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _HIDDEN or letter in _JOINERS:
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _SHORT.get(letter, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path, or an address, as a reader wants it: relative below the working folder, else whole; `shown`."""
    if "://" in str(path):
        return shown(path)
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working folder is gone, or the path is empty
        relative = ".."
    return shown(path if relative.startswith("..") else relative)


def fitting(stem: str, end: str = "") -> str:
    """Return a file's name, its stem cut so that stem and end have the 255 bytes at most that file systems take."""
    while len(os.fsencode(stem + end)) > LONGEST:
        stem = stem[:-1]
    return stem + end


@contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a file's path for a library that takes UTF-8 alone, as safetensors and faiss: its own, or that of the
    opened file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        file = os.open(path, os.O_RDONLY)
        try:
            yield f"/dev/fd/{file}"
        finally:
            os.close(file)
    else:
        yield str(path)


def to_json(content: Any, **options: Any) -> str:
    """Return JSON in ASCII, which holds every name and keeps it, whatever the encoding of a file or a terminal.

    Raises:
        ValueError: a number is NaN or infinity, which JSON has no words for; other programs refuse such a file.
    """
    return json.dumps(content, allow_nan=False, **options)


def names_in(data: bytes, null: bool = False) -> list[str]:
    """Return the file names in what another program printed, bytes: one a line, or each with NUL behind it."""
    if null:
        return [os.fsdecode(name) for name in data.split(b"\0") if name]
    lines = (line.removesuffix(b"\r") for line in data.split(b"\n"))
    return [os.fsdecode(line) for line in lines if line.strip()]


def from_json(text: str) -> Any:
    """Return the value of JSON. Raises ValueError, too, for what is nested deeply, and for a name that stands twice."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level if isinstance(outer, list | dict) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return content


def _inside(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def json_lines(text: str) -> list[Any]:
    """Return the values of JSON lines, which end in a line feed and in no other of Unicode's ends of a line."""
    return [from_json(line) for line in text.split("\n") if line]
