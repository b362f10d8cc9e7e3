"""The feature caches, and the networks as OpenVINO runs them: cache list, cache clear."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..errors import HashretError
from ..names import to_json
from . import options as shared
from .group import main
from .output import counted, say

if TYPE_CHECKING:
    from ..data.feature_cache import CacheInfo


@main.group()
def cache() -> None:
    """List and clear the feature caches that train and encode --fill-cache keep, and the networks that OpenVINO runs.

    \b
    Example: hashret cache list
    """


def _all_caches(folder: str | None) -> list[CacheInfo]:
    """Return the feature caches in a folder, and as one more the networks that were converted for OpenVINO."""
    from ..data.feature_cache import CacheInfo, caches
    from ..models.openvino_runtime import KEPT, kept_networks

    found, networks = caches(folder), kept_networks(folder)
    if networks:
        files = [file.stat() for network in networks for file in network.iterdir() if file.is_file()]
        written = max([file.st_mtime for file in files], default=time.time())
        found.append(
            CacheInfo(
                name=KEPT, source=f"{counted(len(networks), 'network')} as OpenVINO runs them", photographs=0,
                bytes=sum(512 * file.st_blocks for file in files), image_size=None, precision=None,
                days=max(0.0, (time.time() - written) / 86400), root=None,
            )
        )  # fmt: skip
    return found


@cache.command("list")
@shared.CACHE
@click.option("--json", "as_json", is_flag=True, help="a JSON object a cache and line")
def list_caches(cache: str | None, as_json: bool) -> None:
    """List the feature caches: name, photographs, size, days since it was written, image size, precision, source.

    The networks that were converted for OpenVINO are one more, of the name openvino.

    \b
    Example: hashret cache list
    """
    from ..rendering.text import caches_table

    found = _all_caches(cache)
    if as_json:
        for cache_info in found:
            click.echo(to_json(cache_info.as_dict()))
    else:
        click.echo(caches_table(found) if found else "no caches")


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@shared.CACHE
@click.option("--yes", is_flag=True, help="clear all, where no NAME is given")
def clear_caches(names: tuple[str, ...], cache: str | None, yes: bool) -> None:
    """Remove the feature caches NAME, as hashret cache list has them, or all with --yes. Photographs stay.

    What was computed is computed again when it is needed. The name openvino is that of the networks that were converted
    for OpenVINO.

    \b
    Example: hashret cache clear 0123456789abcdef0123 openvino
             hashret cache clear --yes
    """
    from ..data.feature_cache import clear_caches
    from ..models.openvino_runtime import KEPT, clear_networks
    from ..rendering.text import caches_table

    found = _all_caches(cache)
    if not names and not found:
        say("no caches")
        return
    if not names and not yes:
        click.echo(caches_table(found), err=True)
        raise HashretError("name the caches to clear, as above, or clear all with --yes")
    cleared = set(names) or {one.name for one in found}
    networks = [one for one in found if one.name == KEPT and KEPT in cleared]
    freed = clear_caches(cleared - {one.name for one in networks}, cache)
    if networks:
        clear_networks(cache)
        freed += networks[0].bytes
    say(f"caches cleared: {len(cleared)}, {freed:,} bytes")
