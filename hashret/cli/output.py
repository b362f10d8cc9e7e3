"""What verbs print."""

from __future__ import annotations

import click

from ..addresses import masked_line
from ..names import shown, to_json
from ..progress import is_quiet
from ..results import Result


def say(line: str, err: bool = False) -> None:
    """Print a line that has names in it, on stderr without the secrets of addresses: any verb may be given one."""
    click.echo(shown(masked_line(line) if err else line), err=err)


def tell_of(file: str, held: str) -> None:
    """Say which file was written and what it holds, on stderr: stdout is for what other programs read."""
    if not is_quiet():
        say(f"{file}: {held}", err=True)


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with what it counts: "1 hit", "2 hits"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def tell(result: Result, line: str, as_json: bool) -> None:
    """Print what a verb has done: a line, or with --json all that its function returned."""
    if as_json:
        click.echo(to_json(result.as_dict()))
    else:
        say(line)
