"""Verbs that measure and describe: evaluate, report, info."""

from __future__ import annotations

from typing import Any

import click

from ..errors import HashretError
from ..names import to_json
from . import options as shared
from .group import main
from .output import counted, say, tell_of


@main.command()
@click.argument("queries")
@shared.INDEX
@shared.MODEL_OF_INDEX
@shared.SPLIT
@shared.EXCLUDE
@shared.INCLUDE
@click.option(
    "--bits", type=shared.LENGTHS, help="length of the codes, or several, 12,24,48; default: that of the index"
)
@click.option("--candidates", type=int, default=1000, show_default=True, help="nearest codes that are re-ranked")
@shared.RERANK_BY
@click.option("-k", multiple=True, type=int, default=(1, 10, 100), show_default=True, help="of precision@k; repeatable")
@click.option("--topk", type=int, help="ranks that count for mAP, 0: all; default: the protocol's, else all")
@click.option("--index-order", is_flag=True, help="also mAP with ties in the order of the index")
@click.option("--protocol", metavar="NAME", help="name of the protocol to record")
@shared.VALUES
@shared.DEVICE
@click.option("--out", metavar="JSON", help="write the figures to a file, too")
@shared.MAX_PIXELS
@shared.talk
def evaluate(bits: list[int] | None, **options: Any) -> None:
    """Score QUERIES (a folder of shards, or photographs with labels) against an index.

    \b
    Example: hashret encode cifar10:data --split test --out codes-test && hashret evaluate codes-test
    """
    from ..evaluation import evaluate

    lengths: list[int | None] = [*bits] if bits else [None]
    if len(lengths) > 1 and options["out"]:
        raise HashretError("figures of several lengths of code fit in no one file", hint="leave --out out, or name one")
    figures = [evaluate(**options, bits=length).as_dict() for length in lengths]
    click.echo(to_json(figures if len(figures) > 1 else figures[0], indent=2))
    if options["out"]:
        tell_of(options["out"], f"figures of {counted(figures[0]['queries'], 'query', 'queries')}")


@main.command()
@click.argument("run", default=".")
@click.option("--out", metavar="HTML", default="report.html", show_default=True, help="page to write")
@click.option("--index", metavar="INDEX", help="index folder, where it is not RUN/index")
@click.option("--queries", metavar="FOLDER", help="folder of the queries' shards, where it is not RUN/codes-test")
@click.option("--title", metavar="TEXT", help="of the page; default: method, bits and data")
@shared.DEVICE
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON, too")
@shared.OVERWRITE
@shared.MAX_PIXELS
@shared.talk
def report(as_json: bool, **options: Any) -> None:
    """Show a RUN on one page: training, retrieval, bits, classes, best and worst queries.

    RUN is the folder that the other verbs worked in, by default this one; or a checkpoint, an index, or the JSON of a
    benchmark. What is not there is left out.

    \b
    Example: hashret report hashret-demo --out report.html
    """
    from ..reporting.page import report

    figures = report(**options)
    if as_json:
        click.echo(to_json(figures.as_dict()))
        tell_of(options["out"], str(figures))
    else:
        say(f"{options['out']}: {figures}")


@main.command()
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="as JSON")
@click.option("--verify", is_flag=True, help="compare all files of an index with their checksums, however large it is")
@shared.SPLIT
def info(path: str | None, as_json: bool, verify: bool, split: str | None) -> None:
    """Describe a checkpoint, a folder of shards, a shard, an index, and say what of it was checked; or count the
    photographs of a folder or another data source, and name what is passed over in it.

    Without PATH it is the index that query would search.

    \b
    Example: hashret info index
             hashret info list:photos.txt
    """
    from ..description import info
    from ..places import find_index

    found = info(find_index() if path is None else path, verify or None, split=split).as_dict()
    if as_json:
        click.echo(to_json(found, indent=2))
        return
    if found["kind"] == "photographs":
        for item in found.pop("passed_over"):
            say(f"{item['path']}: {item['reason']}")
    for name, value in found.items():
        say(f"{name:<20} {', '.join(map(str, value)) if isinstance(value, list) else value}")
