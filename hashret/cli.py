"""The command line: each verb parses, calls the function of the same name, prints."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings

import click

from . import __version__
from .distributed import SaidElsewhereError, is_main
from .errors import HashretError
from .names import names_in, shown, shown_path, to_json


def _for_decoders(context, _option, megapixels):
    """Hand ``--max-pixels`` on to all that read photographs, decoding processes among them, by the environment."""
    before = os.environ.get("HASHRET_MAX_PIXELS", "")
    if megapixels and str(megapixels) != before:
        os.environ["HASHRET_MAX_PIXELS"] = str(megapixels)
        context.call_on_close(lambda: os.environ.update({"HASHRET_MAX_PIXELS": before}))


_MODEL = click.option("--model", default="model.safetensors", show_default=True, help="checkpoint of the encoder")
_INDEX = click.option(
    "--index", default="index", show_default=True, envvar="HASHRET_INDEX", help="index folder, or a collection: "
    "milvus:http://host:19530#NAME, postgresql://host/db#NAME"
)  # fmt: skip
_VALUES = click.option(
    "--values", metavar="INDEX", help="with a collection: take values from the index it is a copy of"
)
_DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
_SPLIT = click.option("--split", help="train, database or test, where the data are split")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="replace what is there")
_PRECISION = click.option("--precision", type=click.Choice(["bfloat16", "float32"]), help="default: what is fast here")
_CACHE = click.option("--cache", help="folder of feature caches; default: HASHRET_CACHE or ~/.cache/hashret")
_WORKERS = click.option("--workers", type=click.IntRange(0), help="decoding processes; default: one a core")
_MAX_PIXELS = click.option(
    "--max-pixels", type=click.IntRange(1), metavar="MEGAPIXELS", envvar="HASHRET_MAX_PIXELS", expose_value=False,
    callback=_for_decoders, help="of a photograph, about 8 MB of memory each; default: 178, or HASHRET_MAX_PIXELS",
)  # fmt: skip
_DOWNLOAD = click.option("--download", is_flag=True, help="let torchvision fetch CIFAR-10 where it is missing")
_NULL = click.option("-0", "--null", is_flag=True, help="paths on standard input end in NUL, as of find -print0")
_EXCLUDE = click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="leave out of folders what has this name, '*.png', or path, "
    "'old/*'; repeatable"
)  # fmt: skip
_INCLUDE = click.option(
    "--include", multiple=True, metavar="PATTERN", help="take what would be left out of folders, '@eaDir'; repeatable"
)
_POSITIVE = click.IntRange(1)
_ID = click.IntRange(0, 2**63 - 1)
_RERANK_BY = click.option(
    "--rerank-by", default="values", show_default=True,
    help="values; directions: of the logits; asymmetric: values against codes; features: before the hash layer",
)  # fmt: skip


class _Group(click.Group):
    """Turns a user's mistake into one line and exit code 2."""

    def main(self, *args, standalone_mode=True, **options):
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # no letter of a name ends a run on an ASCII terminal
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: _say(f"note: {message}", err=True)
                status = super().main(*args, standalone_mode=False, **options)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "hashret"
            line = " ".join(error.format_message().split())
            _leave(f"{line} Try '{path} --help'." if is_main() else "")  # all processes have the same arguments
        except SaidElsewhereError:
            _leave("")
        except (click.ClickException, HashretError) as error:
            _leave(str(error))
        except (click.Abort, KeyboardInterrupt):
            _leave("interrupted; what was written stays", 130)
        except BrokenPipeError:  # hashret query ... | head
            with contextlib.suppress(OSError):
                sys.stdout.close()
            sys.exit(0)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            if not error.filename:
                raise
            _leave(f"cannot open {error.filename}: {error.strerror}")
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
                raise
            _leave("the memory of the device is full; lower --batch-size or --image-size")
        sys.exit(status if isinstance(status, int) else 0)


def _leave(line, status=2):
    if line:
        _say(f"hashret: {line}", err=True)
    sys.exit(status)


def _say(line, err=False):
    """Print a line that has names in it."""
    click.echo(shown(line), err=err)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main():
    """Image retrieval by learned binary codes.

    \b
    hashret train --data folder:photos      photographs -> model.safetensors
    hashret encode photos                   + model     -> codes/
    hashret build-index                     codes/      -> index/
    hashret query photo.jpg                 + index/    -> hits
    hashret evaluate codes-test             + index/    -> mAP

    Each verb finds what the one before it left in the working folder. `hashret demo` does all of it on
    handwritten digits.
    """


@main.command()
@click.option("--data", required=True, help="DIR, cifar10:DIR, list:FILE[,root=DIR] or a protocol, cifar10-1:DIR ...")
@click.option("--out", default="model.safetensors", show_default=True, help="checkpoint to write")
@click.option("--split", default="train", show_default=True, help="part of the data to learn from")
@click.option("--method", default="am-vggh", show_default=True, help="one of those that hashret methods lists")
@click.option("--bits", type=int, default=48, show_default=True, help="code length, 8 to 256")
@click.option("--image-size", type=int, default=224, show_default=True, help="pixels a side, a multiple of 32")
@click.option("--arch", default="vgg16", show_default=True, help="vgg16, vgg16_bn, vgg11 or vgg11_bn")
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, a .safetensors or .pth file, or none")
@click.option("--finetune", default="head", show_default=True, help="head: convolutions frozen; all: everything")
@click.option("--width", type=_POSITIVE, default=4096, show_default=True, help="nodes of the fully connected layers")
@click.option("--gate", default="unit", show_default=True, help="how CBAM's gates begin: unit, open or half")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="default: the method's own, else 0.5")
@click.option("--epochs", type=int, default=10, show_default=True)
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), help="default: the method's own, else 3e-4; 1e-4 for all"
)
@click.option(
    "--classifier-rate", type=click.FloatRange(0), help="of the classifier's lr; default: 1, several labels: 30"
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.01, show_default=True)
@click.option("--quantization", type=click.FloatRange(0), help="pulls values to 0 and 1; default: the method's own")
@click.option(
    "--pairs", type=click.FloatRange(0), help="weight of pairs in am-vggh+ and vggh+; default: by bits and labels"
)
@click.option("--balance", type=click.FloatRange(0), default=0.0, show_default=True, help="pulls bits to half ones")
@click.option("--smoothing", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="of the labels")
@click.option("--augment", default="crop-flip", show_default=True, help="none, crop or crop-flip, with --finetune all")
@click.option("--heldout", type=float, default=0.05, show_default=True, help="share of the images that picks the epoch")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_EXCLUDE
@_INCLUDE
@_DEVICE
@_PRECISION
@_CACHE
@_WORKERS
@_MAX_PIXELS
@_DOWNLOAD
@click.option("--resume", is_flag=True, help="go on with a run that was killed")
@_OVERWRITE
def train(**options):
    """Learn an encoder from labelled photographs.

    \b
    Example: hashret train --data cifar10:data --weights imagenet --bits 48
    """
    from .training import train

    record = train(**options)
    _say(f"{options['out']}: {record['bits']} bits, epoch {record['best_epoch']}, {record['seconds']:.0f} s")


@main.command()
def methods():
    """List the hashing methods with their papers.

    \b
    Example: hashret methods
    """
    from .methods import METHODS

    for method in METHODS.values():
        labels = "" if method.needs_labels else " Needs no labels."
        click.echo(f"{method.name:<8} {method.paper}.{labels}")


@main.command()
@click.argument("data")
@_MODEL
@click.option("--out", default="codes", show_default=True, help="folder of shards to write")
@_SPLIT
@_EXCLUDE
@_INCLUDE
@click.option("--shard-size", type=_POSITIVE, default=4096, show_default=True, help="photographs a shard")
@_DEVICE
@_PRECISION
@_CACHE
@click.option("--fill-cache", is_flag=True, help="keep the convolution features for further encoders")
@click.option("--features", is_flag=True, help="keep what the hash layer reads, too, for --rerank-by features")
@_WORKERS
@_MAX_PIXELS
@_DOWNLOAD
@_OVERWRITE
def encode(**options):
    """Encode photographs DATA (a folder, folder:DIR, cifar10:DIR or list:FILE) into shards of codes.

    Run again after a kill, it goes on where it stopped.

    \b
    Example: hashret encode photos
    """
    from .encoding import encode

    report = encode(**options)
    if report:
        counts = f"{report.encoded:,} encoded, {report.skipped:,} skipped"
        if report.passed_over:
            counts += f", {len(report.passed_over):,} passed over (named in passed_over.jsonl)"
        _say(f"{options['out']}: {counts}, {report.rate:.1f} images/s")


@main.command("build-index")
@click.option("--codes", multiple=True, default=("codes",), show_default=True, help="folder of shards; repeatable")
@click.option("--out", default="index", show_default=True, help="index folder to write")
@click.option("--no-values", "values", is_flag=True, default=True, flag_value=False, help="codes only: a small index")
@_OVERWRITE
def build_index(**options):
    """Build an index from folders of shards.

    \b
    Example: hashret build-index --codes codes --out index
    """
    from .index import build_index

    meta = build_index(**options)
    _say(f"{options['out']}: {meta['count']:,} photographs, {meta['bits']} bits")


@main.command()
@click.argument("photos", nargs=-1)
@_INDEX
@_MODEL
@click.option("-k", type=int, default=10, show_default=True, help="answers a photograph")
@click.option(
    "--candidates", type=int, help="nearest codes that are re-ranked; default: 1000, and all that tie with the nearest"
)
@click.option(
    "--recall", type=click.FloatRange(0, 1, min_open=True), help="choose the candidates for this share of hits"
)
@click.option("--no-rerank", "rerank", is_flag=True, default=True, flag_value=False, help="leave the Hamming order")
@_RERANK_BY
@click.option("--radius", type=click.IntRange(0), help="all within this many bits, instead of -k")
@click.option("--label", multiple=True, help="search among this class only; repeatable")
@click.option(
    "--path", multiple=True, metavar="PATTERN", help="search among these paths only, or by 'trips/*'; repeatable"
)
@click.option("--id", "ids", multiple=True, type=_ID, help="search among these ids only; repeatable")
@click.option("--exclude-self", is_flag=True, help="leave out the file that is asked for")
@click.option("--together", type=click.Choice(["mean", "union"]), help="take all PHOTOS as one query")
@_EXCLUDE
@_INCLUDE
@_VALUES
@_DEVICE
@_NULL
@click.option("--json", "as_json", is_flag=True, help="a JSON object a photograph and line")
@click.option("--grid", metavar="PNG", help="draw the hits into a picture")
@click.option("--html", metavar="HTML", help="write the hits as a page")
@click.option(
    "--no-maps",
    "maps",
    is_flag=True,
    default=True,
    flag_value=False,
    help="leave the maps of hashret explain out of the page",
)
@_MAX_PIXELS
def query(photos, index, model, device, values, exclude, include, null, as_json, grid, html, maps, **options):
    """Find the photographs most like PHOTOS (files, folders, or - for paths on standard input).

    \b
    Example: hashret query photo.jpg -k 10 --html hits.html
    """
    from . import explanation, pages, rendering
    from .search import Searcher, expand, query

    rendering.check_suffix(grid, ".png")
    rendering.check_suffix(html, ".html")
    unreadable = {}
    files = expand(_photos(photos, null), exclude, include, unreadable)
    searcher = Searcher(index, model, device, values=values)
    results = query(files, searcher=searcher, unreadable=unreadable, **options)
    _print(results, as_json)
    _print_unreadable("query", unreadable, as_json)
    if grid:
        rendering.grid(results, grid)
    if html:
        maps = maps and not options["together"]  # each hit's map is for the code of one query
        explained = explanation.explain_results(results, searcher.encoder) if maps else None
        pages.results_page(results, html, explained=explained)


@main.command()
@click.argument("photos", nargs=-1)
@_MODEL
@click.option("--out", default="explain.png", show_default=True, help="picture to write")
@click.option("--index", help="draw the hits of this index, too")
@click.option("-k", type=_POSITIVE, default=3, show_default=True, help="hits a photograph, with --index")
@_EXCLUDE
@_INCLUDE
@_DEVICE
@click.option("--json", "as_json", is_flag=True, help="print all numbers, a JSON object a photograph and line")
@_NULL
@_OVERWRITE
@_MAX_PIXELS
def explain(photos, as_json, null, **options):
    """Draw where the codes of PHOTOS (files, folders, or - for paths on standard input) come from.

    A row a photograph: CBAM's spatial gate over it, what each place adds to the bits, the channels that add most. With
    --index, a row a hit follows, with what its places add to the bits of the query.

    \b
    Example: hashret explain photo.jpg --index index --out map.png
    """
    from .explanation import explain, table

    unreadable = {}
    explained = explain(_photos(photos, null), unreadable=unreadable, **options)
    for one in explained if as_json else ():
        click.echo(to_json(one.as_dict()))
    _print_unreadable("path", unreadable, as_json)
    if not as_json:
        click.echo(table(explained))
        _say(options["out"])


@main.command()
@click.argument("index")
@click.argument("photos", nargs=-1, required=True)
@_MODEL
@_SPLIT
@_EXCLUDE
@_INCLUDE
@click.option("--again", is_flag=True, help="add also photographs whose file is in the index already")
@_DEVICE
@_WORKERS
@_MAX_PIXELS
def add(index, photos, **options):
    """Encode PHOTOS (files, folders, data sources) and add those that are new to INDEX.

    \b
    Example: hashret add index photos
    """
    from .search import add

    report = add(index, photos, **options)
    counts = f"{report.encoded:,} photographs added"
    counts += f", {report.skipped:,} unreadable" if report.skipped else ""
    counts += f", {len(report.passed_over):,} passed over" if report.passed_over else ""
    _say(f"{index}: {counts}")


@main.command()
@click.argument("index")
@click.option("--id", "ids", multiple=True, type=_ID, help="id of a photograph; repeatable")
@click.option(
    "--path", "paths", multiple=True, metavar="PATTERN", help="path of a photograph, else pattern as 'trips/*'"
)
@click.option("--gone", is_flag=True, help="those whose file is no longer in its folder")
@click.option("--yes", is_flag=True, help="with --gone: also where more than a tenth of the index would go")
def remove(index, ids, paths, gone, yes):
    """Remove photographs from INDEX by id or path. Other ids stay; the files are not touched.

    \b
    Example: hashret remove index --path 'photos/blurred/*'
    """
    from .engines import refuse_engine
    from .index import remove

    refuse_engine(index)
    if not ids and not paths and not gone:
        raise HashretError("say what to remove, with --id, --path or --gone")
    _say(f"{index}: {remove(index, ids, paths, gone, yes):,} photographs removed")


@main.command()
@click.argument("index")
def compact(index):
    """Merge what was added to INDEX, and free the space of what was removed.

    Searches go on meanwhile: for the background.

    \b
    Example: hashret compact index &
    """
    from .engines import refuse_engine
    from .index import compact

    refuse_engine(index)
    count, before, after = compact(index)
    _say(f"{index}: {count:,} photographs, {before:,} -> {after:,} bytes")


@main.command()
@click.argument("index")
@click.option("--radius", type=click.IntRange(0), help="bits that codes may differ in; default: a sixth of them")
@click.option("--by", default="pixels", show_default=True, help="pixels, features, directions, values or codes")
@click.option(
    "--distance", type=click.FloatRange(0), help="default: pixels 6, features 0.1, directions 0.2, values 0.3"
)
@click.option("--json", "as_json", is_flag=True, help="a JSON object a group and line")
@click.option("--html", metavar="HTML", help="write the groups as a page, with pictures")
@click.option("--move-to", metavar="FOLDER", help="say which photographs would be moved there: all but the kept ones")
@click.option("--yes", is_flag=True, help="with --move-to: move them")
@_MAX_PIXELS
def duplicates(index, as_json, html, move_to, yes, **options):
    """Find groups of near-duplicates in INDEX, and suggest which photograph of each to keep.

    Photographs whose codes differ in at most --radius bits are compared by --by, and are a pair within --distance. Of
    what pairs link, the photograph of most pixels is kept, then of most bytes, then of the lowest id, and the others
    of its group are each within --distance of it. By pixels, a copy that was enlarged is told by following from the
    smaller one, which is then kept; one that was sharpened as well, or saved as JPEG more than lightly, may not be.
    Animations and scans of several pages are copies where they have as many frames or pages, of which 16 at equal
    distances, with the first and the last, are compared. Two names of one file are one photograph.

    \b
    --by pixels      the files, shrunk to 8 x 8 pixels, in grey levels of 255: 4 for what was saved again or resized,
                     8 or more for shots of one moment as well. Not what was mirrored, or cropped by more than a hair.
    --by values      of the hash layer, or the directions of its logits: no file is read. For encoders that need no
                     labels, itq and lsh; one trained on classes says the same of thousands of photographs.
    --by features    what the hash layer reads (encode --features), scaled to unit length; better than values there
    --by codes       nothing else: all within the radius

    A larger radius finds copies that changed more, and takes longer. Look at the page before you move anything.
    Nothing is moved without --yes, nothing is ever deleted or overwritten, and moved.jsonl in the folder says what was
    where, for hashret restore.

    \b
    Example: hashret duplicates index --html duplicates.html
             hashret duplicates index --move-to aside --yes && hashret remove index --gone --yes
    """
    from . import pages, rendering
    from .near_duplicates import alike, duplicates

    rendering.check_suffix(html, ".html")
    if yes and not move_to:
        raise HashretError("--yes goes with --move-to FOLDER")
    groups = duplicates(index, **options)
    _print_groups(groups, as_json)
    if html:
        pages.duplicates_page(groups, html, {"index": index, "alike": alike(index, **options)})
    if move_to:
        _set_aside(groups, move_to, yes, index)


def _print_groups(groups, as_json):
    from .rendering import duplicates_table

    for number, group in enumerate(groups if as_json else (), 1):
        photographs = [photograph.as_dict() for photograph in group]
        click.echo(to_json({"group": number, "photographs": photographs}))
    if not as_json:
        click.echo(duplicates_table(groups) if groups else "no duplicates")


def _set_aside(groups, folder, yes, index):
    from .moving import set_aside

    moves = set_aside(groups, folder, yes)
    _print_moves(moves)
    moved = sum(move.to is not None for move in moves)
    if yes:
        _say(f"{folder}: {moved:,} photographs moved; hashret restore {folder} moves them back", err=True)
        _say(f"now run: hashret remove {index} --gone --yes", err=True)
    else:
        _say(f"{moved:,} photographs would be moved to {folder}; add --yes to move them", err=True)


def _print_moves(moves):
    for move in moves:
        _say(f"{shown_path(move.path)} -> {shown_path(move.to) if move.to else f'stays: {move.why}'}", err=True)


@main.command()
@click.argument("folder")
def restore(folder):
    """Move photographs that duplicates --move-to set aside in FOLDER back to where they were.

    \b
    Example: hashret restore aside
    """
    from .moving import restore

    moves = restore(folder)
    _print_moves(moves)
    _say(f"{folder}: {sum(move.to is not None for move in moves):,} photographs moved back")


@main.group()
def cache():
    """List and clear what train and encode --fill-cache keep of photographs."""


@cache.command("list")
@_CACHE
@click.option("--json", "as_json", is_flag=True, help="a JSON object a cache and line")
def list_caches(cache, as_json):
    """List the feature caches: name, photographs, size, days since it was written, image size, precision, source.

    \b
    Example: hashret cache list
    """
    from .features import caches
    from .rendering import caches_table

    found = caches(cache)
    for one in found if as_json else ():
        click.echo(to_json(one.as_dict()))
    if not as_json:
        click.echo(caches_table(found) if found else "no feature caches")


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_CACHE
@click.option("--yes", is_flag=True, help="clear all, where no NAME is given")
def clear_caches(names, cache, yes):
    """Remove the feature caches NAME, as hashret cache list has them, or all with --yes. Photographs stay.

    What was computed is computed again when it is needed.

    \b
    Example: hashret cache clear 0123456789abcdef0123
             hashret cache clear --yes
    """
    from .features import caches, clear_caches
    from .rendering import caches_table

    found = caches(cache)
    if not names and not yes:
        click.echo(caches_table(found) if found else "no feature caches", err=True)
        raise HashretError("name the feature caches to clear, as above, or clear all with --yes")
    names = set(names) or {one.name for one in found}
    freed = clear_caches(names, cache)
    _say(f"feature caches cleared: {len(names)}, {freed:,} bytes")


@main.command()
@click.argument("index")
@click.argument("to", metavar="ENGINE")
@click.option("--collection", metavar="NAME", help="collection or table, where ENGINE does not end in #NAME")
@click.option("--approximate", is_flag=True, help="for many millions: an approximate index, whose recall is measured")
@_OVERWRITE
def export(**options):
    """Copy INDEX into ENGINE: milvus:http://host:19530, milvus:file.db or postgresql://host/database.

    Run again after a kill, it goes on where it stopped. query, evaluate and serve search the copy by its name.

    \b
    Example: hashret export index milvus:http://localhost:19530#photos
             hashret query photo.jpg --index milvus:http://localhost:19530#photos
    """
    from .engines import export

    report = export(**options)
    recall = "" if report.recall is None else f", finds {report.recall:.2%} of the nearest 100"
    _say(f"{report.place}: {report.count:,} photographs, {report.written:,} written now{recall}")


def _photos(photos, null):
    named = [photo for photo in photos if photo != "-"]
    if "-" in photos:
        named += names_in(sys.stdin.buffer.read() if sys.stdin else b"", null)
    if not named:
        raise HashretError(f"name a photograph: hashret {click.get_current_context().info_name} photo.jpg")
    return named


def _print(results, as_json):
    from .rendering import table

    for path, hits in results:
        if as_json:
            said = {"candidates": hits.candidates, "ties_cut": hits.ties_cut}
            click.echo(to_json({"query": path, "hits": [hit.as_dict() for hit in hits]} | said))
        else:
            click.echo((f"{shown_path(path)}\n" if len(results) > 1 else "") + table(hits))


def _print_unreadable(key, unreadable, as_json):
    """What could not be read, for programs; for people there is a note of each."""
    for path, reason in unreadable.items() if as_json else ():
        click.echo(to_json({key: path, "hits": [], "error": reason}))


@main.command()
@click.argument("queries")
@_INDEX
@_MODEL
@_SPLIT
@_EXCLUDE
@_INCLUDE
@click.option("--candidates", type=int, default=1000, show_default=True, help="nearest codes that are re-ranked")
@_RERANK_BY
@click.option("-k", multiple=True, type=int, default=(1, 10, 100), show_default=True, help="of precision@k; repeatable")
@click.option("--topk", type=int, help="ranks that count for mAP, 0: all; default: the protocol's, else all")
@click.option("--index-order", is_flag=True, help="also mAP with ties in the order of the index")
@click.option("--protocol", help="name of the protocol to record")
@_VALUES
@_DEVICE
@click.option("--out", metavar="JSON", help="write the figures to a file, too")
@_MAX_PIXELS
def evaluate(**options):
    """Score QUERIES (a folder of shards, or photographs with labels) against an index.

    \b
    Example: hashret encode cifar10:data --split test --out codes-test && hashret evaluate codes-test
    """
    from .evaluation import evaluate

    click.echo(to_json(evaluate(**options), indent=2))


@main.command()
@click.argument("run", default=".")
@click.option("--out", default="report.html", show_default=True, help="page to write")
@click.option("--index", help="index folder, where it is not RUN/index")
@click.option("--queries", help="folder of the queries' shards, where it is not RUN/codes-test")
@click.option("--title", help="of the page; default: method, bits and data")
@_DEVICE
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON, too")
@_OVERWRITE
@_MAX_PIXELS
def report(as_json, **options):
    """Show a RUN on one page: training, retrieval, bits, classes, best and worst queries.

    RUN is the folder that the other verbs worked in, by default this one; or a checkpoint, an index, or the JSON of a
    benchmark. What is not there is left out.

    \b
    Example: hashret report hashret-demo --out report.html
    """
    from .run_report import report

    figures = report(**options)
    _say(to_json(figures.as_dict()) if as_json else f"{options['out']}: {figures}")


@main.command()
@click.argument("index", default="index")
@click.option("--model", help="checkpoint of the encoder; default: model.safetensors where there is one")
@_VALUES
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen at; 0.0.0.0 for all")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one")
@_DEVICE
@click.option("--max-upload", type=_POSITIVE, default=20, show_default=True, help="megabytes of an upload")
@click.option("--max-pixels", type=_POSITIVE, default=50, show_default=True, help="megapixels of an upload")
@click.option("--batch", type=_POSITIVE, default=32, show_default=True, help="uploads encoded together, at most")
def serve(**options):
    """Serve INDEX, a folder or a collection, to browsers and programs on this machine: a page, a JSON API, metrics.

    \b
    Example: hashret serve index --model model.safetensors
    """
    from .service import serve

    serve(**options)


@main.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
@click.option("--verify", is_flag=True, help="compare all files of an index with their checksums, however large it is")
def info(path, as_json, verify):
    """Describe a checkpoint, a folder of shards, a shard, an index, and say what of it was checked; or name what is
    passed over in a folder of photographs.

    \b
    Example: hashret info index
    """
    from .description import info

    found = info(path, verify or None)
    if as_json:
        click.echo(to_json(found, indent=2))
    passed_over = found.pop("passed_over") if found["kind"] == "photographs" else ()
    for item in passed_over if not as_json else ():
        _say(f"{item['path']}: {item['reason']}")
    for name, value in found.items() if not as_json else ():
        _say(f"{name:<20} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@main.command()
@click.option("--out", default="hashret-demo", show_default=True, help="folder to leave everything in")
@click.option("--bits", type=int, default=48, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_DEVICE
@_OVERWRITE
def demo(**options):
    """Train, encode, index, query and score handwritten digits: the whole way, with no download.

    \b
    Example: hashret demo --out hashret-demo
    """
    from .demo import demo

    demo(**options)
