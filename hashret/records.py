"""What a JSON record must say: each field's type and range, declared once beside the code that reads the record.

Files may be damaged, or come from anybody. A record that passed its check can be read without further care: a count is
a whole number within a range, a name is text, and no field that is needed is missing. Fields that no check names are
let be: a later hashret may have added them.

A `Check` is called with a value and where it stands in the record, and raises `Misfit`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import HashretError

Check = Callable[[Any, str], None]


class Misfit(ValueError):
    """A value of a record that is not what it must be; the message says which, and what it must be."""


def checked(record: Any, check: Check, what: str, advice: str = "") -> Any:
    """Return a record that is as the check wants it; HashretError naming ``what``, the file, where it is not."""
    try:
        check(record, "")
    except Misfit as error:
        raise HashretError(f"{what} is damaged: {error}{advice and f'; {advice}'}") from None
    return record


def check_format(version: Any, newest: int, where: object) -> None:
    """Check the number of a format, before any field whose meaning it decides.

    Args:
        version: what the record says.
        newest: the format that this hashret writes.
        where: the file, folder or address of the record, for the message.

    Raises:
        HashretError: it is no number, or of a later hashret.
    """
    checked({"format": version}, fields({"format": whole()}), str(where))
    if version > newest:
        raise HashretError(f"{where} was written by a later hashret (format {version})", hint="upgrade hashret")


def whole(low: int = 0, high: int = 2**53) -> Check:
    """Check for a whole number from ``low`` to ``high``."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Misfit(f"{where} is {_short(value)}, not a whole number from {low} to {high}")

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """Check for a number from ``low`` to ``high``, and a finite one."""

    def check(value: Any, where: str) -> None:
        # A number of hundreds of digits is no float.
        if type(value) not in (int, float) or not (low <= value <= high and -1e308 <= value <= 1e308):
            raise Misfit(f"{where} is {_short(value)}, not a number" + ("" if low == -math.inf else f" from {low}"))

    return check


def text(pattern: str | None = None, wrong: str = "not what it must be") -> Check:
    """Check for text; all of it of a pattern, where one is given: what is not, is ``wrong``."""

    def check(value: Any, where: str) -> None:
        if type(value) is not str:
            raise Misfit(f"{where} is {_short(value)}, not text")
        if pattern and not re.fullmatch(pattern, value):
            raise Misfit(f"{where}: {_short(value)} is {wrong}")

    return check


def one_of(*values: Any) -> Check:
    """Check for one of some values, and of its type."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            raise Misfit(f"{where} is {_short(value)}, not {' or '.join(map(_short, values))}")

    return check


def or_none(inner: Check) -> Check:
    """Check for what passes another check, or null."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def either(first: Check, second: Check) -> Check:
    """Check for what passes one of two checks."""

    def check(value: Any, where: str) -> None:
        try:
            first(value, where)
        except Misfit:
            second(value, where)

    return check


def list_of(inner: Check, least: int = 0) -> Check:
    """Check for a list of at least so many values that pass a check."""

    def check(value: Any, where: str) -> None:
        if type(value) is not list or len(value) < least:
            raise Misfit(f"{where} is {_short(value)}, not a list" + (f" of {least} or more" if least else ""))
        for number, item in enumerate(value):
            inner(item, f"{where}[{number}]")

    return check


def ascending(inner: Check) -> Check:
    """Check for a list of at least two values, each of which is larger than the one before and passes ``inner``."""

    def check(value: Any, where: str) -> None:
        list_of(inner, 2)(value, where)
        if sorted(set(value)) != value:
            raise Misfit(f"{where} does not ascend")

    return check


def table_of(inner: Check, names: str | None = None, wrong: str = "not what it must be") -> Check:
    """Check for an object whose values pass a check, and whose keys are all of a pattern: what is not, is ``wrong``."""

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise Misfit(f"{where} is {_short(value)}, not a JSON object")
        for name, item in value.items():
            if names and not re.fullmatch(names, name):
                raise Misfit(f"{where}: {_short(name)} is {wrong}")
            inner(item, f"{where}.{name}")

    return check


def fields(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Check for an object that has some fields, and perhaps others; each passes its check."""

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise Misfit(f"{where or 'it'} is {_short(value)}, not a JSON object")
        for name, inner in {**needed, **(optional or {})}.items():
            if name in value:
                inner(value[name], _at(where, name))
            elif name in needed:
                raise Misfit(f"{_at(where, name)} is missing")

    return check


def plain(value: Any, where: str) -> None:
    """Check for what has no inside: text, a number, true, false or null."""
    if isinstance(value, list | dict):
        raise Misfit(f"{where} is {_short(value)}, not a single value")


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _short(value: Any) -> str:
    """Return a value in a few words."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        shown = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a very large number"
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
