"""Any JSON record, a benchmark's result mostly, as headings with facts and tables."""

from __future__ import annotations

from dataclasses import dataclass

_COLUMNS = 10  # a wider table is shown in parts
_HEADING = 70  # characters of values that name an item of a list
_LISTED = 12  # longer lists of numbers are counted only


@dataclass(frozen=True)
class Block:
    """A part of a record under its ``title``: ``facts`` name -> text, and a table of ``rows`` below ``columns``."""

    title: str
    facts: dict
    columns: tuple = ()
    rows: tuple = ()


def record_blocks(record, title=""):
    """A JSON object as a list of `Block`: its values and small objects first, then each of its larger parts."""
    parts = {name: value for name, value in record.items() if _is_part(value)}
    facts = {words(name): shown(value) for name, value in record.items() if name not in parts}
    blocks = [Block(title, facts)] if facts else []
    for name, value in parts.items():
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


def words(name):
    """A name of a record as a reader wants it."""
    return name.replace("_", " ")


def _is_part(value):
    """Whether a value wants a heading of its own: an object of objects, or a list of objects."""
    if isinstance(value, dict):
        return any(isinstance(item, dict) or _is_part(item) for item in value.values())
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _naming(line):
    """The first plain values of an item of a list, as many as make a heading."""
    named, length = {}, 0
    for name, value in line.items():
        length += len(name) + len(shown(value))
        if isinstance(value, dict | list) or length > _HEADING:
            break
        named[name] = value
    return named


def _table(heading, lines):
    """Objects as lines of a table, or None where they make none; ``lines``: (name or None, object)."""
    flat = [_flat(line) if isinstance(line, dict) else None for _, line in lines]
    if None in flat:
        return None
    columns = tuple(dict.fromkeys(name for line in flat for name in line))
    if not columns or len(columns) > _COLUMNS:
        return None
    first = [() if name is None else (words(name),) for name, _ in lines]
    rows = [
        (*name, *(shown(line.get(column, "")) for column in columns)) for name, line in zip(first, flat, strict=True)
    ]
    return Block(heading, {}, (*([""] if first[0] else []), *columns), tuple(rows))


def _flat(record):
    """An object's values under the names that lead to them, or None where there are lists of objects in it."""
    found = {}
    for name, value in record.items():
        if isinstance(value, dict):
            inner = _flat(value)
            if inner is None:
                return None
            found |= {f"{words(name)} {key}": item for key, item in inner.items()}
        elif _is_part(value):
            return None
        else:
            found[words(name)] = value
    return found


def shown(value):
    """A value as a reader wants it: numbers in four digits, an object as "name value, name value"."""
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
