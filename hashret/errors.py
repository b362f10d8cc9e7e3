"""What is said to the user: the one exception for a mistake, its message the line that is shown, and a warning."""

from __future__ import annotations

import sys
import warnings


class HashretError(Exception):
    """Wrong input. The message says what is wrong and what to do; the CLI prints it and exits with 2."""


class DamagedIndex(HashretError):
    """A file of an index that is open has changed since it was written, so that answers could be wrong."""


def warn_once(said, text):
    """Warn of something that is slower than one may expect, unless the set ``said`` has it already."""
    if text not in said:
        said.add(text)
        warnings.warn(text, stacklevel=3)


def warn(text):
    """Warn the caller of hashret, whom the warning then names as its place, of what is not as one may expect."""
    frame, level = sys._getframe(1), 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == "hashret":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
