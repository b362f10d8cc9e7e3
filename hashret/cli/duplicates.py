"""Near-duplicates: duplicates, restore."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..errors import HashretError
from ..names import shown_path, to_json
from . import options as shared
from .group import main
from .output import counted, say, tell_of

if TYPE_CHECKING:
    from ..near_duplicates.groups import Duplicates
    from ..near_duplicates.moving import Move


@main.command()
@click.argument("named", metavar="[PHOTOS|INDEX]", required=False, expose_value=False, callback=shared.index_named)
@shared.INDEX_FOLDER
@click.option(
    "--radius", type=click.IntRange(0), help="bits that codes may differ in; default: a sixth, PHOTOS: 10 of 64"
)
@click.option(
    "--by",
    type=click.Choice(["pixels", "features", "directions", "values", "details", "codes"]),
    help="of INDEX: pixels, features, directions, values or codes; of PHOTOS: details or codes; default: the first",
)
@click.option(
    "--distance",
    type=click.FloatRange(0),
    help="default: pixels 6, features 0.1, directions 0.2, values 0.3, details 0.75",
)
@click.option("--json", "as_json", is_flag=True, help="a JSON object a group and line")
@click.option("--html", metavar="HTML", help="write the groups as a page, with pictures")
@click.option("--move-to", metavar="FOLDER", help="say which photographs would be moved there: all but the kept ones")
@click.option("--yes", is_flag=True, help="with --move-to: move them")
@shared.SPLIT
@shared.EXCLUDE
@shared.INCLUDE
@shared.CACHE
@shared.WORKERS
@shared.MAX_PIXELS
@shared.talk
def duplicates(
    index: str | None, as_json: bool, html: str | None, move_to: str | None, yes: bool, **options: Any
) -> None:
    """Find groups of near-duplicates among PHOTOS, or in INDEX, and suggest which photograph of each to keep.

    PHOTOS are a folder, or other data as encode takes them; they need no index and no encoder. Copies of them are found
    though they were saved again, resized, turned by quarters, mirrored, made grey, brighter or darker, given a border,
    or cropped by up to a tenth at each edge. Small pictures of them are kept (hashret cache list), so that the next run
    reads only what is new or changed.

    Photographs whose codes differ in at most --radius bits are compared by --by, and are a pair within --distance. Of
    what pairs link, the photograph of most pixels is kept, then of most bytes, then of the lowest id, and the others
    of its group are each within --distance of it. By pixels or details, a copy that was enlarged is told by following
    from the smaller one, which is then kept; one that was sharpened as well, or saved as JPEG more than lightly, may
    not be. Animations and scans of several pages are copies where they have as many frames or pages, of which 16 at
    equal distances, with the first and the last, are compared. Two names of one file are one photograph.

    \b
    --by details     of PHOTOS: how far the details of two pictures are apart once one is laid over the other, 0 to 2.
    --by pixels      of INDEX: the files, shrunk to 8 x 8 pixels, in grey levels of 255: 4 for what was saved again or
                     resized, 8 or more for shots of one moment as well. Not what was mirrored, or cropped by more
                     than a hair.
    --by values      of the hash layer, or the directions of its logits: no file is read. For encoders that need no
                     labels, itq and lsh; one trained on classes says the same of thousands of photographs.
    --by features    what the hash layer reads (encode --features), scaled to unit length; better than values there
    --by codes       nothing else: all within the radius

    A larger radius finds copies that changed more, and takes longer. Look at the page before you move anything.
    Nothing is moved without --yes, nothing is ever deleted or overwritten, and moved.jsonl in the folder says what was
    where, for hashret restore.

    \b
    Example: hashret duplicates photos --html duplicates.html
             hashret duplicates photos --move-to aside --yes
             hashret duplicates --move-to aside --yes && hashret remove --gone --yes
    """
    from ..near_duplicates.groups import duplicates, is_source
    from ..places import find_index
    from ..rendering import pages, pictures
    from ..rendering.text import duplicates_table

    pictures.check_suffix(html, ".html")
    if yes and not move_to:
        raise HashretError("--yes goes with --move-to FOLDER")
    index = str(find_index()) if index is None else index
    groups = duplicates(index, **options)
    if as_json:
        for group in groups.as_dict()["groups"]:
            click.echo(to_json(group))
    else:
        click.echo(duplicates_table(groups) if groups else "no duplicates")
    where = "photographs" if is_source(index) else "index"
    if html:
        pages.duplicates_page(groups, html, {where: index, "duplicates": groups.criterion})
        copies = counted(sum(map(len, groups)), "photograph")
        tell_of(html, f"{counted(len(groups), 'group')} of {copies}")
    if move_to:
        _set_aside(groups, move_to, yes, "" if where == "photographs" else index)


def _set_aside(groups: Duplicates, folder: str, yes: bool, index: str) -> None:
    from ..near_duplicates.moving import set_aside

    moves = set_aside(groups, folder, yes)
    _print_moves(moves)
    moved = counted(moves.moved, "photograph")
    if yes:
        say(
            f"{folder}: {moved} moved; hashret restore {folder} moves {'it' if moves.moved == 1 else 'them'} back",
            err=True,
        )
        if index:
            say(f"now run: hashret remove {index} --gone --yes", err=True)
    else:
        say(f"{moved} would be moved to {folder}; add --yes to do so", err=True)


def _print_moves(moves: Iterable[Move]) -> None:
    for move in moves:
        say(f"{shown_path(move.path)} -> {shown_path(move.to) if move.to else f'stays: {move.why}'}", err=True)


@main.command()
@click.argument("folder", metavar="FOLDER")
@shared.talk
def restore(folder: str) -> None:
    """Move photographs that duplicates --move-to set aside in FOLDER back to where they were.

    \b
    Example: hashret restore aside
    """
    from ..near_duplicates.moving import restore

    moves = restore(folder)
    _print_moves(moves)
    say(f"{folder}: {counted(moves.moved, 'photograph')} moved back")
