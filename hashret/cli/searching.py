"""Verbs that search: query, compare, explain, serve."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import HashretError, NothingRead
from ..names import names_in, shown_path, to_json
from . import options as shared
from .group import main
from .output import counted, tell_of

if TYPE_CHECKING:
    from ..index import Database


@main.command()
@click.argument("photos", nargs=-1)
@shared.INDEX
@shared.MODEL_OF_INDEX
@click.option("--vector", "vectors", metavar="FILE", help="find what is nearest to these vectors instead: FILE[::NAME]")
@click.option("--words", multiple=True, metavar="NAMES", help="find what has all of these classes: 'bear, snow'")
@click.option(
    "--text", multiple=True, metavar="TEXT", help="find what this text says, of an encoder on a backbone clip:NAME"
)
@click.option("-k", type=int, default=10, show_default=True, help="answers a photograph")
@click.option(
    "--candidates", type=int, help="nearest codes that are re-ranked; default: 1000, and all that tie with the nearest"
)
@click.option(
    "--recall", type=click.FloatRange(0, 1, min_open=True), help="choose the candidates for this share of hits"
)
@click.option("--no-rerank", "rerank", is_flag=True, default=True, flag_value=False, help="leave the Hamming order")
@shared.RERANK_BY
@click.option("--radius", type=click.IntRange(0), help="all within this many bits, instead of -k")
@click.option(
    "--least",
    metavar="WORD|PERCENT",
    help="leave out what is less similar: somewhat (25 %), similar (50 %), very (75 %), same (100 %), or a percentage",
)
@click.option("--label", multiple=True, metavar="CLASS", help="search among this class only; repeatable")
@click.option(
    "--path", multiple=True, metavar="PATTERN", help="search among these paths only, or by 'trips/*'; repeatable"
)
@click.option("--id", "ids", multiple=True, type=shared.ID, help="search among these ids only; repeatable")
@click.option("--exclude-self", is_flag=True, help="leave out the file that is asked for")
@click.option("--together", type=click.Choice(["mean", "union"]), help="take all PHOTOS as one query")
@shared.EXCLUDE
@shared.INCLUDE
@shared.VALUES
@shared.DEVICE
@shared.NULL
@click.option("--json", "as_json", is_flag=True, help="a JSON object a photograph and line")
@click.option("--grid", metavar="PNG", help="draw the hits into a picture")
@click.option("--html", metavar="HTML", help="write the hits as a page")
@click.option("--open", "opened", is_flag=True, help="show the hits in the browser, by a page in a folder of its own")
@click.option("--no-maps", "maps", is_flag=True, default=True, flag_value=False, help="a page without maps of explain")
@shared.MAX_PIXELS
@shared.talk
def query(
    photos: tuple[str, ...],
    index: str | None,
    model: str | None,
    device: str,
    values: str | None,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    null: bool,
    as_json: bool,
    grid: str | None,
    html: str | None,
    opened: bool,
    maps: bool,
    vectors: str | None,
    words: tuple[str, ...],
    text: tuple[str, ...],
    **options: Any,
) -> None:
    """Find the photographs most like PHOTOS (files, folders, or - for paths on standard input), the nearest vectors, or
    what words name of the classes that the encoder has learned, or a text says.

    \b
    Example: hashret query photo.jpg -k 10 --html hits.html
             hashret query --vector queries.npy --json
             hashret query --words "bear, snow"
    """
    from ..queries import existing, expand_in_order
    from ..rendering import pages, pictures
    from ..rendering.text import table
    from ..search import Searcher, query

    pictures.check_suffix(grid, ".png")
    pictures.check_suffix(html, ".html")
    unreadable: dict[str, str] = {}
    if sum(map(bool, (vectors, photos, words, text))) > 1:
        raise HashretError("photographs, vectors, words and texts are asked for one after the other, not together")
    asked: dict[str, Any] = {"vectors": vectors, "words": words, "text": text}
    expanded = [] if any(asked.values()) else expand_in_order(_photos(photos, null), exclude, include)
    names = [str(file) for file, _ in expanded]
    with _unreadable_told("query", names, unreadable, as_json):
        files = existing(expanded, unreadable)
        searcher = Searcher(index, model, device, values=values)
        results = query(files, searcher=searcher, unreadable=unreadable, **asked, **options)
    if as_json:
        _print_in_order("query", names, [(answer.path, answer.as_dict()) for answer in results], unreadable)
    else:
        for path, hits in results:
            click.echo((f"{shown_path(path)}\n" if len(results) > 1 else "") + table(hits))
    found = sum(len(answer.hits) for answer in results)
    held = f"{counted(found, 'hit')} of {counted(len(results), 'query', 'queries')}"
    if grid:
        pictures.grid(results, grid, pictured=not (words or text))
        tell_of(grid, held)
    if opened and html is None:
        html = os.path.join(tempfile.mkdtemp(prefix="hashret-"), "hits.html")
    if html:
        maps = maps and not (options["together"] or any(asked.values()))  # which are of a query's code
        explained = None
        if maps:
            from ..explanation import explain_results  # and torch

            explained = explain_results(results, searcher.encoder)
        facts = {"searched": _searched(searcher.index, bool(vectors), options)}
        if options["together"]:
            facts["asked"] = f"{counted(len(files), 'photograph')} as one query, by their {options['together']}"
        pages.results_page(
            results, html, facts=facts, explained=explained, pictured=not (words or text), unreadable=unreadable
        )
        tell_of(html, f"{held}, opened" if opened else held)
    if opened and html:
        click.launch(html)


def _searched(index: Database, of_vectors: bool, options: Mapping[str, Any]) -> str:
    """Return how much of an index was searched, and by which options it was a part."""
    chosen = {name: options[name] or None for name in ("label", "path", "ids")}
    if not any(chosen.values()):
        return counted(len(index), "item" if of_vectors else "photograph")
    by = ", ".join(f"--{name.removesuffix('s')}" for name, value in chosen.items() if value)
    return f"{len(index.select(**chosen)):,} of {counted(len(index), 'item' if of_vectors else 'photograph')}, by {by}"


@main.command()
@click.argument("first")
@click.argument("second")
@shared.MODEL_OF_INDEX
@shared.DEVICE
@click.option("--json", "as_json", is_flag=True, help="print a JSON object")
@shared.MAX_PIXELS
@shared.talk
def compare(as_json: bool, **options: Any) -> None:
    """Say how similar two photographs are, FIRST and SECOND, by the codes that an encoder gives them.

    \b
    Example: hashret compare holiday.jpg holiday-edited.jpg
    """
    from ..comparison import compare

    comparison = compare(**options)
    click.echo(to_json(comparison.as_dict()) if as_json else comparison)


@main.command()
@click.argument("photos", nargs=-1)
@shared.MODEL_OF_INDEX
@click.option("--out", metavar="PNG", default="explain.png", show_default=True, help="picture to write")
@click.option("--index", metavar="INDEX", help="draw the hits of this index, too")
@click.option("-k", type=shared.POSITIVE, default=3, show_default=True, help="hits a photograph, with --index")
@shared.EXCLUDE
@shared.INCLUDE
@shared.DEVICE
@click.option("--json", "as_json", is_flag=True, help="print all numbers, a JSON object a photograph and line")
@shared.NULL
@shared.OVERWRITE
@shared.MAX_PIXELS
@shared.talk
def explain(photos: tuple[str, ...], as_json: bool, null: bool, **options: Any) -> None:
    """Draw where the codes of PHOTOS (files, folders, or - for paths on standard input) come from.

    A row a photograph: CBAM's spatial gate over it, what each cell of the feature map adds to the bits, the
    channels that add most. With --index, a row a hit follows, with what its cells add to the bits of the query.

    \b
    Example: hashret explain photo.jpg --index index --out map.png
    """
    from ..explanation import explain, table
    from ..queries import existing, expand_in_order

    k_given = click.get_current_context().get_parameter_source("k") is ParameterSource.COMMANDLINE
    if k_given and not options["index"]:
        raise HashretError("-k counts the hits of an index", hint="name it with --index, or leave -k out")
    unreadable: dict[str, str] = {}
    expanded = expand_in_order(_photos(photos, null), options.pop("exclude"), options.pop("include"))
    names = [str(file) for file, _ in expanded]
    with _unreadable_told("path", names, unreadable, as_json):
        explained = explain(existing(expanded, unreadable), unreadable=unreadable, **options)
    if as_json:
        _print_in_order("path", names, [(one.path, one.as_dict()) for one in explained], unreadable)
    else:
        click.echo(table(explained))
    rows = counted(len(explained), "photograph")
    hits = sum(len(explanation.hits) for explanation in explained)
    tell_of(options["out"], f"{rows}, {counted(hits, 'hit')}" if options["index"] else rows)


@contextlib.contextmanager
def _unreadable_told(key: str, names: Sequence[str], unreadable: Mapping[str, str], as_json: bool) -> Iterator[None]:
    """Print the photographs that could not be read as JSON, where that is wanted, also if these are all of them."""
    try:
        yield
    except NothingRead:
        if as_json:
            _print_in_order(key, names, [], unreadable)
        raise


def _print_in_order(
    key: str, names: Sequence[str], answers: Iterable[tuple[str, Any]], unreadable: Mapping[str, str]
) -> None:
    """Print answers as JSON, and the photographs that could not be read, in the order of the names.

    Args:
        key: what has the name of a photograph in the JSON.
        names: of the photographs, none where something else was asked for.
        answers: the name of each, and what is printed: in the order of the names, but for those without an answer.
        unreadable: photographs with the reason, each of which has a note on stderr, too.
    """
    left, known = deque(answers), set(names)
    lines = []
    for name in names:
        if name in unreadable:
            lines.append({key: name, "hits": [], "error": unreadable[name]})
        elif left and left[0][0] == name:
            lines.append(left.popleft()[1])
    lines += [answer for _, answer in left]
    lines += [{key: name, "hits": [], "error": why} for name, why in unreadable.items() if name not in known]
    for line in lines:
        click.echo(to_json(line))


def _photos(photos: Iterable[str], null: bool) -> list[str]:
    """Return the paths that the user named, the ones on standard input among them."""
    named = [photo for photo in photos if photo != "-"]
    if "-" in photos:
        data = sys.stdin.buffer.read() if sys.stdin else b""
        if b"\0" in data and not null:  # as in nearly any photograph
            hint = "name a photograph by its path; -0 takes paths that end in NUL"
            raise HashretError("standard input has paths, one a line, and no photograph", hint=hint)
        named += names_in(data, null)
    if not named:
        raise HashretError(f"name a photograph: hashret {click.get_current_context().info_name} photo.jpg")
    return named


@main.command()
@shared.INDEX_ARGUMENT
@shared.INDEX
@shared.MODEL_OF_INDEX
@shared.VALUES
@click.option(
    "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="address to listen at; 0.0.0.0 for all"
)
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME",
    help="answer to this name, too, as of a proxy; '*' for any; repeatable"
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one")
@shared.DEVICE
@click.option("--max-upload", type=shared.POSITIVE, default=20, show_default=True, help="megabytes of an upload")
@click.option("--max-pixels", type=shared.POSITIVE, default=50, show_default=True, help="megapixels of an upload")
@click.option("--batch", type=shared.POSITIVE, default=32, show_default=True, help="uploads encoded together, at most")
@click.option("--show-paths", is_flag=True, help="tell visitors whole paths, not from the folder of photographs on")
@shared.talk
def serve(**options: Any) -> None:
    """Serve an index to browsers and programs on this machine: a page, a JSON API, metrics.

    INDEX may also be named without --index.

    \b
    Example: hashret serve
             hashret serve --index ~/Pictures
    """
    from ..service import serve

    serve(**options)
