"""An index that mirrors a folder of photographs: sync, relocate."""

from __future__ import annotations

from typing import Any

import click

from ..errors import HashretError
from ..names import shown_path, to_json
from . import options as shared
from .group import main
from .output import counted, say, tell


@main.command()
@click.argument("photos", default=".")
@click.option("--index", metavar="INDEX", help="folder of the index; default: .hashret/index in PHOTOS")
@click.option(
    "--model", metavar="FILE",
    help="checkpoint of the encoder; default: HASHRET_MODEL, that of the index, or model.safetensors beside it",
)  # fmt: skip
@click.option(
    "--weights", metavar="[pretrained|FILE|none]", default="pretrained", show_default=True,
    help="of an encoder that is trained: as of hashret train",
)  # fmt: skip
@shared.EXCLUDE
@shared.INCLUDE
@click.option("--yes", is_flag=True, help="take out what is gone also where it is more than a tenth of the index")
@click.option("--dry-run", is_flag=True, help="say what would be done, and do nothing")
@click.option("--watch", is_flag=True, help="go on, and sync whenever something changes, until Ctrl-C")
@shared.DEVICE
@shared.WORKERS
@click.option("--json", "as_json", is_flag=True, help="the report as a JSON object")
@shared.MAX_PIXELS
@shared.talk
def sync(photos: str, watch: bool, as_json: bool, **options: Any) -> None:
    """Make an index of the folder PHOTOS, or bring it up to date with what is new, changed, moved or gone.

    The first time an encoder that needs no labels is trained. Run it again whenever you like: only what is new or has
    another content is encoded. query, serve and duplicates find the index from PHOTOS and any folder in it.

    \b
    Example: hashret sync ~/Pictures
             cd ~/Pictures && hashret query photo.jpg
    """
    from ..mirror.syncing import sync
    from ..mirror.watching import watch as syncs

    if watch and options["dry_run"]:
        raise HashretError("--watch goes on doing what --dry-run does not do at all")
    for report in syncs(photos, **options) if watch else [sync(photos, **options)]:
        _print(report, as_json)


def _print(report: Any, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(report.as_dict()))
        return
    counts = {name: getattr(report, name) for name in ("unchanged", "new", "changed", "moved", "gone")}
    kept = {"kept though gone": report.held, "out of reach": report.out_of_reach, "unreadable": len(report.unreadable)}
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    said += [f"{count:,} {name}" for name, count in kept.items() if count]
    done = f"{', '.join(said) or 'nothing'}; {report.encoded:,} encoded, {report.photographs:,} in the index"
    say(f"{shown_path(report.index)}: {'would be: ' if report.dry_run else ''}{done}, {report.seconds:.1f} s")


@main.command()
@shared.INDEX_ARGUMENT
@shared.INDEX_FOLDER
@click.option("--root", required=True, metavar="FOLDER", help="where the photographs lie now")
@shared.AS_JSON
@shared.talk
def relocate(index: str | None, root: str, as_json: bool) -> None:
    """Tell an index that its photographs lie in another folder now. Nothing is encoded again.

    An index that hashret sync made needs this only where it and the photographs were moved apart. One that build-index
    made keeps whole paths, and afterwards paths from that folder on, so that hashret sync can take it over.

    \b
    Example: hashret relocate --index ~/photos-index --root /media/disk/photos
    """
    from ..index import relocate
    from ..places import find_index

    index = str(find_index(index))
    done = relocate(index, root)
    line = f"{index}: {counted(done.count, 'photograph')}, {shown_path(done.before)} -> {shown_path(done.root)}"
    tell(done, line, as_json)
