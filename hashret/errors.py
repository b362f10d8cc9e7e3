"""HashretError, raised for every mistake of the user, and two ways to warn."""

from __future__ import annotations

import sys
import warnings


class HashretError(Exception):
    """A mistake of the user. The command line prints it as one line and exits with 2.

    Args:
        message: what is wrong, without the name of any option of the command line.
        hint: what to do about it, where the caller can do something; may name options.
    """

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class DamagedIndex(HashretError):
    """A file of an open index has changed since it was written, so that answers could be wrong."""


class NothingRead(HashretError):
    """None of the photographs that were asked for can be read."""


def refuse_given(line: str, **given: object) -> None:
    """Raise HashretError with a line and, as its hint, those options that are given though they can have no effect."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise HashretError(line, hint=f"leave {', '.join(named)} out")


def warn_once(said: set[str], text: str) -> None:
    """Warn that something is slower than one may expect, unless ``said`` holds the text of an earlier warning."""
    if text not in said:
        said.add(text)
        warnings.warn(text, stacklevel=3)


def warn(text: str) -> None:
    """Warn of something unexpected; the warning names the line outside hashret that called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "hashret":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
