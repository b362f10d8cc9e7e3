"""Verbs that make an encoder and its codes: train, methods, encode, demo."""

from __future__ import annotations

from typing import Any

import click

from . import options as shared
from .group import main
from .output import tell


@main.command(cls=shared.WithOldNames, old_names={"--arch": "--backbone"})
@click.option(
    "--data", metavar="DATA", cls=shared.ListedOption, names=shared.sources, required=True, help="a folder, or: {}"
)
@click.option("--out", metavar="FILE", default="model.safetensors", show_default=True, help="checkpoint to write")
@click.option(
    "--split", metavar="[train|database|test]", default="train", show_default=True,
    help="part of the data to learn from, where they are split",
)  # fmt: skip
@click.option(
    "--method", metavar="METHOD", cls=shared.ListedOption, names=shared.methods, default="auto", show_default=True,
    help="{}; hashret methods says more of them; auto: hashnet, or without labels itq",
)  # fmt: skip
@click.option(
    "--bits",
    type=shared.LENGTHS,
    default="48",
    show_default=True,
    help="code length, 8 to 256; or several, 12,24,48: the first bits of a code are then codes, too",
)
@click.option(
    "--backbone", metavar="BACKBONE", cls=shared.ListedOption, names=shared.backbones, default="auto",
    show_default=True,
    help="{}, timm:NAME, clip:NAME, or package.module:function; hashret backbones says more of them; auto: vgg16 for "
    "the methods of the paper, else efficientnet_lite0",
)  # fmt: skip
@click.option(
    "--weights", metavar="[pretrained|FILE|none]", default="pretrained", show_default=True,
    help="what the backbone starts from; FILE is a .safetensors or a .pth",
)  # fmt: skip
@click.option("--image-size", type=shared.POSITIVE, help="pixels a side; default: the backbone's own, mostly 224")
@click.option(
    "--resize", type=click.Choice(["squeeze", "crop", "pad"]),
    help="how photographs become squares; crop takes the middle; default: the backbone's own, mostly squeeze",
)  # fmt: skip
@click.option(
    "--finetune",
    metavar="[head|last:N|all]",
    default="head",
    show_default=True,
    help="head: the backbone frozen; last:N: all but its last N stages frozen; all: everything trains",
)
@click.option(
    "--width", type=shared.POSITIVE, help="nodes of the connected layers; default: 4096, or 2048 where pooled"
)
@click.option(
    "--gate", type=click.Choice(["unit", "open", "half"]), default="unit", show_default=True,
    help="how CBAM's gates begin",
)  # fmt: skip
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="default: the method's own, else 0.5")
@click.option("--epochs", type=int, help="default: the method's own, else 10")
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), help="default: the method's own, else 3e-4; 1e-4 for last:N, all"
)
@click.option(
    "--backbone-lr",
    type=click.FloatRange(0, min_open=True),
    help="of the stages that last:N or all train; default: --lr",
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.01, show_default=True)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=shared.by_name,
    help="an option of the method, as hashret methods lists them; repeatable",
)
@click.option("--classifier-rate", type=float, help="as --option classifier_rate=VALUE")
@click.option("--quantization", type=float, help="as --option quantization=VALUE")
@click.option("--pairs", type=float, help="as --option pairs=VALUE")
@click.option("--balance", type=float, help="as --option balance=VALUE")
@click.option("--smoothing", type=float, help="as --option smoothing=VALUE")
@click.option(
    "--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True,
    help="of vectors: what nearest means",
)  # fmt: skip
@click.option(
    "--augment", type=click.Choice(["none", "crop", "crop-flip", "shift", "shift-flip"]),
    help="how photographs are changed at random, with --finetune all or --views; default: crop-flip",
)  # fmt: skip
@click.option(
    "--views",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="augmented views of each photograph, cached for --finetune head or last:N",
)
@click.option(
    "--dither",
    is_flag=True,
    help="give bits of what is searched thresholds of their own, as far as helps held-out images",
)
@click.option("--heldout", type=float, default=0.05, show_default=True, help="share of the images that picks the epoch")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@shared.EXCLUDE
@shared.INCLUDE
@shared.DEVICE
@shared.PRECISION
@shared.RUNTIME
@shared.CACHE
@shared.WORKERS
@shared.MAX_PIXELS
@shared.DOWNLOAD
@click.option("--resume", is_flag=True, help="go on with a run that was killed")
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def train(as_json: bool, **options: Any) -> None:
    """Learn an encoder from photographs, with labels or without.

    \b
    Example: hashret train --data cifar10:data --bits 48
    """
    from ..training.start import train

    report = train(**options)
    line = f"{options['out']}: {report.bits} bits, epoch {report.best_epoch}, {report.seconds:.0f} s"
    tell(report, line, as_json)


@main.command()
def methods() -> None:
    """List the hashing methods with their papers and options.

    \b
    Example: hashret methods
    """
    from ..methods import METHODS

    takers: dict[str, list[str]] = {}
    width = max(map(len, METHODS))
    for method in METHODS.values():
        labels = "" if method.needs_labels else " Needs no labels."
        click.echo(f"{method.name:<{width}} {method.paper}.{labels}")
        for option in method.options:
            several = "" if option.several_labels is None else f", several labels {option.several_labels:g}"
            line = f"--option {option.name}={option.default:g}{several}: {option.help}"
            takers.setdefault(line, []).append(method.name)
    click.echo("\nOptions, with their defaults, and the methods that take them:")
    for line, names in takers.items():
        click.echo(f"  {line} ({', '.join(names)})")


@main.command()
def backbones() -> None:
    """List the networks that turn photographs into feature maps.

    \b
    Example: hashret backbones
    """
    from ..models.backbones import BACKBONES

    click.echo(f"{'name':<20} {'channels':>8} {'stride':>6} {'pixels':>6} {'download':>9}")
    for backbone in BACKBONES.values():
        size = f"{backbone.megabytes:.0f} MB" if backbone.pretrained and backbone.megabytes else "-"
        line = f"{backbone.name:<20} {backbone.channels:>8} {backbone.stride:>6} {backbone.image_size:>6} {size:>9}"
        click.echo(line + (f"  pip install 'hashret[{backbone.extra}]'" if backbone.extra else ""))
    click.echo("timm:NAME            any network of timm (pip install 'hashret[timm]')")
    click.echo("clip:NAME            any of open_clip, which takes texts, too (pip install 'hashret[clip]')")
    click.echo("package.module:name  a function of yours that returns layers, or a hashret.models.backbones.Backbone")


@main.command(cls=shared.ListedCommand, names=shared.sources)
@click.argument("data")
@shared.MODEL
@click.option("--out", metavar="FOLDER", default="codes", show_default=True, help="folder of shards to write")
@shared.SPLIT
@shared.EXCLUDE
@shared.INCLUDE
@click.option("--shard-size", type=shared.POSITIVE, default=4096, show_default=True, help="photographs a shard")
@shared.DEVICE
@shared.PRECISION
@shared.RUNTIME
@shared.CACHE
@click.option("--fill-cache", is_flag=True, help="keep the convolution features for further encoders")
@click.option(
    "--vectors", type=click.Choice(["float32", "float16", "none"]),
    help="what is kept of vectors to re-rank by; default: as they came, or float32",
)  # fmt: skip
@click.option("--features", is_flag=True, help="keep what the hash layer reads, too, for --rerank-by features")
@shared.WORKERS
@shared.MAX_PIXELS
@shared.DOWNLOAD
@shared.OVERWRITE
@shared.AS_JSON
@shared.talk
def encode(as_json: bool, **options: Any) -> None:
    """Encode photographs DATA into shards of codes.

    DATA is a folder, or one of: {}. Run again after a kill, it goes on where it stopped.

    \b
    Example: hashret encode photos
    """
    from ..encoding import encode

    report = encode(**options)
    if report:
        counts = f"{report.encoded:,} encoded, {report.skipped:,} skipped"
        if report.passed_over:
            counts += f", {len(report.passed_over):,} passed over (named in passed_over.jsonl)"
        tell(report, f"{options['out']}: {counts}, {report.rate:.1f} images/s", as_json)


@main.command()
@click.option(
    "--out", metavar="FOLDER", default="hashret-demo", show_default=True, help="folder to leave everything in"
)
@click.option("--bits", type=click.IntRange(8, 256), default=48, show_default=True, help="length of the codes")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@shared.DEVICE
@shared.OVERWRITE
@shared.talk
def demo(**options: Any) -> None:
    """Train, encode, index, query and score handwritten digits: the whole way, with no download.

    \b
    Example: hashret demo --out hashret-demo
    """
    from ..demo import demo

    demo(**options)
