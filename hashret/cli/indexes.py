"""Verbs that make and change an index: build-index, add, remove, compact, export."""

from __future__ import annotations

from typing import Any

import click

from ..errors import HashretError
from . import options as shared
from .group import main
from .output import tell


@main.command("build-index")
@click.option("--codes", multiple=True, default=("codes",), show_default=True, help="folder of shards, or codes:FILE")
@click.option("--out", default="index", show_default=True, help="index folder to write")
@click.option(
    "--bits", type=int, help="length of the codes, where the encoder was trained for several; default: longest"
)
@click.option("--no-values", "values", is_flag=True, default=True, flag_value=False, help="codes only: a small index")
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def build_index(as_json: bool, **options: Any) -> None:
    """Build an index from folders of shards.

    \b
    Example: hashret build-index --codes codes --out index
    """
    from ..index import build_index

    built = build_index(**options)
    tell(built, f"{options['out']}: {built.count:,} photographs, {built.bits} bits", as_json)


@main.command()
@click.argument("index")
@click.argument("photos", nargs=-1, required=True)
@shared.MODEL_OF_INDEX
@shared.SPLIT
@shared.EXCLUDE
@shared.INCLUDE
@click.option("--again", is_flag=True, help="add also photographs whose file is in the index already")
@shared.DEVICE
@shared.WORKERS
@shared.MAX_PIXELS
@shared.AS_JSON
@shared.talk
def add(index: str, photos: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Encode PHOTOS (files, folders, data sources) and add those that are new to INDEX.

    \b
    Example: hashret add index photos
    """
    from ..search import add

    report = add(index, photos, **options)
    counts = f"{report.encoded:,} photographs added"
    counts += f", {report.skipped:,} unreadable" if report.skipped else ""
    counts += f", {len(report.passed_over):,} passed over" if report.passed_over else ""
    tell(report, f"{index}: {counts}", as_json)


@main.command()
@click.argument("index")
@click.option("--id", "ids", multiple=True, type=shared.ID, help="id of a photograph; repeatable")
@click.option(
    "--path", "paths", multiple=True, metavar="PATTERN", help="path of a photograph, else pattern as 'trips/*'"
)
@click.option("--gone", is_flag=True, help="those whose file is no longer in its folder")
@click.option("--yes", is_flag=True, help="with --gone: also where more than a tenth of the index would go")
@shared.AS_JSON
@shared.talk
def remove(index: str, ids: tuple[int, ...], paths: tuple[str, ...], gone: bool, yes: bool, as_json: bool) -> None:
    """Remove photographs from INDEX by id or path. Other ids stay; the files are not touched.

    \b
    Example: hashret remove index --path 'photos/blurred/*'
    """
    from ..engines import refuse_engine
    from ..index import remove

    refuse_engine(index)
    if not ids and not paths and not gone:
        raise HashretError("say what to remove, with --id, --path or --gone")
    removed = remove(index, ids, paths, gone=gone, yes=yes)
    tell(removed, f"{index}: {removed.count:,} photographs removed", as_json)


@main.command()
@click.argument("index")
@shared.AS_JSON
@shared.talk
def compact(index: str, as_json: bool) -> None:
    """Merge what was added to INDEX, and free the space of what was removed.

    Searches go on meanwhile: for the background.

    \b
    Example: hashret compact index &
    """
    from ..engines import refuse_engine
    from ..index import compact

    refuse_engine(index)
    done = compact(index)
    line = f"{index}: {done.count:,} photographs, {done.bytes_before:,} -> {done.bytes_after:,} bytes"
    tell(done, line, as_json)


@main.command(cls=shared.ListedCommand, names=shared.engines)
@click.argument("index")
@click.argument("to", metavar="ENGINE")
@click.option("--collection", metavar="NAME", help="collection or table, where ENGINE does not end in #NAME")
@click.option("--approximate", is_flag=True, help="for many millions: an approximate index, whose recall is measured")
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def export(as_json: bool, **options: Any) -> None:
    """Copy INDEX into ENGINE, a database that others run.

    ENGINE is one of: {}. Run again after a kill, it goes on where it stopped. query, evaluate and serve search the copy
    by its name.

    \b
    Example: hashret export index milvus:http://host:19530#photos
             hashret query photo.jpg --index milvus:http://host:19530#photos
    """
    from ..engines import export

    report = export(**options)
    recall = "" if report.recall is None else f", finds {report.recall:.2%} of the nearest 100"
    line = f"{report.address}: {report.count:,} photographs, {report.written:,} written now{recall}"
    tell(report, line, as_json)
