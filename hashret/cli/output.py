"""What verbs print."""

from __future__ import annotations

import click

from ..names import shown, to_json
from ..results import Result


def say(line: str, err: bool = False) -> None:
    """Print a line that has names in it."""
    click.echo(shown(line), err=err)


def tell(result: Result, line: str, as_json: bool) -> None:
    """Print what a verb has done: a line, or with --json all that its function returned."""
    if as_json:
        click.echo(to_json(result.as_dict()))
    else:
        say(line)
