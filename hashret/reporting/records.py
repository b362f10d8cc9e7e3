"""Any JSON record, mostly a benchmark's result, as headings with facts and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_COLUMNS = 10  # a wider table is shown in parts
_HEADING = 70  # characters of values that name an item of a list
_LISTED = 12  # longer lists of numbers are counted only


@dataclass(frozen=True)
class Block:
    """What stands below one heading: ``facts``, name -> text, and a table of ``lines`` below ``columns``."""

    title: str
    facts: dict[str, str]
    columns: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


def record_blocks(record: dict[str, Any], title: str = "") -> list[Block]:
    """Split a JSON object into blocks: its values and small objects first, then each of its larger parts."""
    larger = {name: value for name, value in record.items() if _has_heading(value)}
    facts = {words(name): shown(value) for name, value in record.items() if name not in larger}
    blocks = [Block(title, facts)] if facts else []
    for name, value in larger.items():
        heading = f"{title}: {words(name)}" if title else words(name)
        lines = list(value.items()) if isinstance(value, dict) else [(None, line) for line in value]
        table = _table(heading, lines)
        if table:
            blocks.append(table)
        elif isinstance(value, dict):
            blocks += record_blocks(value, heading)
        else:
            for line in value:
                named = _naming(line)
                rest = {key: item for key, item in line.items() if key not in named}
                naming = ", ".join(f"{words(key)} {shown(item)}" for key, item in named.items())
                blocks += record_blocks(rest, f"{heading}: {naming}" if naming else heading)
    return blocks


def words(name: str) -> str:
    """Return the name of a record's field as a reader wants it."""
    return name.replace("_", " ")


def _has_heading(value: Any) -> bool:
    """Whether a value gets a heading of its own: an object of objects, or a list of objects."""
    if isinstance(value, dict):
        return any(isinstance(item, dict) or _has_heading(item) for item in value.values())
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _naming(line: dict[str, Any]) -> dict[str, Any]:
    """Return the first plain values of an item of a list, as many as make a heading."""
    named, length = {}, 0
    for name, value in line.items():
        length += len(name) + len(shown(value))
        if isinstance(value, dict | list) or length > _HEADING:
            break
        named[name] = value
    return named


def _table(heading: str, lines: Sequence[tuple[str | None, Any]]) -> Block | None:
    """Return objects, each with its name or None, as the lines of a table; None where they do not make one."""
    flat = [_flat(line) if isinstance(line, dict) else None for _, line in lines]
    known = [line for line in flat if line is not None]
    columns = tuple(dict.fromkeys(name for line in known for name in line))
    if len(known) < len(flat) or not columns or len(columns) > _COLUMNS:
        return None
    first = [() if name is None else (words(name),) for name, _ in lines]
    rows = [
        (*name, *(shown(line.get(column, "")) for column in columns)) for name, line in zip(first, known, strict=True)
    ]
    return Block(heading, {}, (*([""] if first[0] else []), *columns), tuple(rows))


def _flat(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return an object's values under the names that lead to them; None where the object has lists of objects."""
    values: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            inner = _flat(value)
            if inner is None:
                return None
            values |= {f"{words(name)} {key}": item for key, item in inner.items()}
        elif _has_heading(value):
            return None
        else:
            values[words(name)] = value
    return values


def shown(value: Any) -> str:
    """Return a value as a reader wants it: numbers in four digits, an object as "name value, name value"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{words(name)} {shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        numbers = len(value) > _LISTED and not any(isinstance(item, str) for item in value)
        return f"{len(value)} numbers" if numbers else ", ".join(map(shown, value))
    return str(value)
