"""Markdown that pages are made of: tables, sections between markers, and where results were measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table_head(names: Sequence[object]) -> list[str]:
    """Return the first two lines of a table."""
    return [row(names), row(["---"] * len(names))]


def row(cells: Iterable[object]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def fill(text: str, sections: Mapping[str, str]) -> str:
    """Return a page's text with what stands between its markers made anew: sections are {name: Markdown}."""
    for name, section in sections.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}"
    return text


def made_on(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the machines, commits and dates of results, as their JSON has them, in words."""
    machines, commits, dates = (sorted({result[name] for result in results}) for name in ("machine", "commit", "date"))
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"Machine: {'; '.join(machines)}. Commit {', '.join(commits)}. {days}."
