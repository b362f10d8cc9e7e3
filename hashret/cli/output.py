"""What verbs print."""

from __future__ import annotations

import click

from ..names import shown


def say(line: str, err: bool = False) -> None:
    """Print a line that has names in it."""
    click.echo(shown(line), err=err)
