"""The feature caches: cache list, cache clear."""

from __future__ import annotations

import click

from ..errors import HashretError
from ..names import to_json
from . import options as shared
from .group import main
from .output import say


@main.group()
def cache() -> None:
    """List and clear the feature caches that train and encode --fill-cache keep.

    \b
    Example: hashret cache list
    """


@cache.command("list")
@shared.CACHE
@click.option("--json", "as_json", is_flag=True, help="a JSON object a cache and line")
def list_caches(cache: str | None, as_json: bool) -> None:
    """List the feature caches: name, photographs, size, days since it was written, image size, precision, source.

    \b
    Example: hashret cache list
    """
    from ..data.feature_cache import caches
    from ..rendering.text import caches_table

    found = caches(cache)
    if as_json:
        for cache_info in found:
            click.echo(to_json(cache_info.as_dict()))
    else:
        click.echo(caches_table(found) if found else "no feature caches")


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@shared.CACHE
@click.option("--yes", is_flag=True, help="clear all, where no NAME is given")
def clear_caches(names: tuple[str, ...], cache: str | None, yes: bool) -> None:
    """Remove the feature caches NAME, as hashret cache list has them, or all with --yes. Photographs stay.

    What was computed is computed again when it is needed.

    \b
    Example: hashret cache clear 0123456789abcdef0123
             hashret cache clear --yes
    """
    from ..data.feature_cache import caches, clear_caches
    from ..rendering.text import caches_table

    found = caches(cache)
    if not names and not found:
        say("no feature caches")
        return
    if not names and not yes:
        click.echo(caches_table(found), err=True)
        raise HashretError("name the feature caches to clear, as above, or clear all with --yes")
    cleared = set(names) or {one.name for one in found}
    freed = clear_caches(cleared, cache)
    say(f"feature caches cleared: {len(cleared)}, {freed:,} bytes")
