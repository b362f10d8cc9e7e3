"""Verbs that make and change an index: build-index, add, remove, compact, export."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from ..errors import HashretError
from ..places import find_index, is_index, own_index
from . import options as shared
from .group import main
from .output import counted, say, tell


def _codes_named(context: click.Context, _argument: click.Parameter, codes: tuple[str, ...]) -> None:
    """Take folders of shards that are named without ``--codes``."""
    if codes:
        if context.get_parameter_source("codes") is ParameterSource.COMMANDLINE:
            raise click.UsageError("folders of shards are named with --codes or without, not both ways", context)
        context.params["codes"] = codes


def _index_and_photos(context: click.Context, _argument: click.Parameter, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the photographs that are named, behind the index, or alone where ``--index`` names that or none does."""
    from ..engines import is_engine

    several = len(named) > 1
    if context.params.get("index") is None and any(
        is_index(name) or (several and (is_engine(name) or is_index(own_index(name)))) for name in named[:1]
    ):
        shared.name_index(context, named[0])
        named = named[1:]
    if not named:
        raise click.UsageError("name photographs to add, as in hashret add photos", context)
    return named


def _index_and_engine(context: click.Context, _argument: click.Parameter, named: tuple[str, ...]) -> str:
    """Return the engine that is named, behind the index or alone."""
    if len(named) > 2:
        raise click.UsageError(f"name an index and an engine at most, not also {named[2]}", context)
    for index in named[:-1]:
        shared.name_index(context, index)
    return named[-1]


@main.command("build-index")
@click.argument("named", nargs=-1, metavar="[CODES]...", expose_value=False, callback=_codes_named)
@click.option(
    "--codes", multiple=True, metavar="CODES", default=("codes",), show_default=True, is_eager=True,
    help="folder of shards, or codes:FILE; repeatable",
)  # fmt: skip
@click.option("--out", metavar="FOLDER", default="index", show_default=True, help="index folder to write")
@click.option(
    "--bits", type=int, help="length of the codes, where the encoder was trained for several; default: longest"
)
@click.option("--no-values", "values", is_flag=True, default=True, flag_value=False, help="codes only: a small index")
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def build_index(as_json: bool, **options: Any) -> None:
    """Build an index from CODES, folders of shards as hashret encode writes them, or codes:FILE.

    \b
    Example: hashret build-index codes --out index
    """
    from ..index import build_index

    built = build_index(**options)
    tell(built, f"{options['out']}: {counted(built.count, 'photograph')}, {built.bits} bits", as_json)


@main.command()
@click.argument("photos", nargs=-1, metavar="[INDEX] PHOTOS...", callback=_index_and_photos)
@shared.INDEX_FOLDER
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
def add(index: str | None, photos: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Encode PHOTOS (files, folders, data sources) and add those that are new to an index.

    The first of what is named is the index, where it is one, unless --index names it.

    \b
    Example: hashret add photos
             hashret add --index ~/photos-index holidays/*.jpg
    """
    from ..adding import add

    index = str(find_index(index))
    report = add(index, photos, **options)
    counts = f"{counted(report.encoded, 'photograph')} added"
    counts += f", {report.skipped:,} unreadable" if report.skipped else ""
    counts += f", {len(report.passed_over):,} passed over" if report.passed_over else ""
    tell(report, f"{index}: {counts}", as_json)


@main.command()
@shared.INDEX_ARGUMENT
@shared.INDEX_FOLDER
@click.option("--id", "ids", multiple=True, metavar="ID", type=shared.ID, help="id of a photograph; repeatable")
@click.option(
    "--path", "paths", multiple=True, metavar="PATTERN", help="path of a photograph, else pattern as 'trips/*'"
)
@click.option("--gone", is_flag=True, help="those whose file is no longer in its folder")
@click.option("--yes", is_flag=True, help="with --gone: also where more than a tenth of the index would go")
@click.option("--dry-run", is_flag=True, help="name what would be removed, and remove nothing")
@shared.AS_JSON
@shared.talk
def remove(
    index: str | None, ids: tuple[int, ...], paths: tuple[str, ...], gone: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove photographs from an index by id or path. Other ids stay; the files are not touched.

    \b
    Example: hashret remove --path 'photos/blurred/*' --dry-run
    """
    from ..engines import refuse_engine
    from ..index import remove

    index = str(find_index(index))
    refuse_engine(index)
    if not ids and not paths and not gone:
        raise HashretError("say what to remove, with --id, --path or --gone")
    if yes and not gone:
        raise HashretError("--yes goes with --gone")
    removed = remove(index, ids, paths, gone=gone, yes=yes, dry_run=dry_run)
    if not as_json:
        for path in removed.would_remove or ():
            say(path)
    would_be = "would be: " if dry_run else ""
    tell(removed, f"{index}: {would_be}{counted(removed.count, 'photograph')} removed", as_json)


@main.command()
@shared.INDEX_ARGUMENT
@shared.INDEX_FOLDER
@shared.AS_JSON
@shared.talk
def compact(index: str | None, as_json: bool) -> None:
    """Merge what was added to an index, and free the space of what was removed.

    Searches go on meanwhile: for the background.

    \b
    Example: hashret compact &
    """
    from ..engines import refuse_engine
    from ..index import compact

    index = str(find_index(index))
    refuse_engine(index)
    done = compact(index)
    line = f"{index}: {counted(done.count, 'photograph')}, {done.bytes_before:,} -> {done.bytes_after:,} bytes"
    tell(done, line, as_json)


@main.command(cls=shared.ListedCommand, names=shared.engines)
@click.argument("to", nargs=-1, metavar="[INDEX] ENGINE", required=True, callback=_index_and_engine)
@shared.INDEX_FOLDER
@click.option("--collection", metavar="NAME", help="collection or table, where ENGINE does not end in #NAME")
@click.option("--approximate", is_flag=True, help="for many millions: an approximate index, whose recall is measured")
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def export(index: str | None, as_json: bool, **options: Any) -> None:
    """Copy an index into ENGINE, a database that others run.

    ENGINE is one of: {}. Run again after a kill, it goes on where it stopped. query, evaluate and serve search the copy
    by its name.

    \b
    Example: hashret export milvus:http://host:19530#photos
             hashret query photo.jpg --index milvus:http://host:19530#photos
    """
    from ..engines import export

    report = export(find_index(index), **options)
    recall = "" if report.recall is None else f", finds {report.recall:.2%} of the nearest 100"
    line = f"{report.address}: {counted(report.count, 'photograph')}, {report.written:,} written now{recall}"
    tell(report, line, as_json)
