"""Paths and patterns as engines hold them: text that is valid everywhere, and comes back as the bytes it was.

A file name is bytes, a text of an engine is UTF-8 without control characters, which filters could not name. Each byte
that has no place there stands as a private character, U+EF00 plus the byte, and so do the bytes of such characters
themselves.
"""

from __future__ import annotations

import re

_FIRST = 0xEF00
_PRIVATE = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + 255)}]+")
_TABLE = {byte: chr(_FIRST + byte) for byte in (*range(32), 127)}
_TABLE |= {0xDC00 + byte: chr(_FIRST + byte) for byte in range(128, 256)}  # as os.fsdecode has undecodable bytes
_TABLE |= {_FIRST + n: "".join(chr(_FIRST + byte) for byte in chr(_FIRST + n).encode()) for n in range(256)}


def to_text(path: str) -> str:
    """Return a path, as `os.fsdecode` gives it, as text for an engine."""
    return path.translate(_TABLE)


def from_text(text: str) -> str:
    """Return the path of which `to_text` made a text."""
    if text.isascii():  # long texts are
        return text
    return _PRIVATE.sub(lambda match: bytes(ord(c) - _FIRST for c in match[0]).decode("utf-8", "surrogateescape"), text)


def sql_pattern(pattern: str) -> str:
    r"""Return a shell's pattern of ``*`` and ``?`` as SQL's LIKE has it, with ``\`` before what stands for itself."""
    return re.sub(r"\*+", "*", literally(pattern)).replace("*", "%").replace("?", "_")


def literally(path: str) -> str:
    r"""Return a path as SQL's LIKE has it, with ``\`` before what would stand for more."""
    return re.sub(r"([%_\\])", r"\\\1", to_text(path))
