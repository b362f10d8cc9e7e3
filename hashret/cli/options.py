"""Options that several verbs have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from ..errors import warn
from ..precision import RUNTIMES
from ..progress import quieted

Verb = TypeVar("Verb", bound=Callable[..., Any])


def for_decoders(context: click.Context, _option: click.Parameter, megapixels: int | None) -> None:
    """Hand ``--max-pixels`` on to all that read photographs, decoding processes among them, by the environment."""
    before = os.environ.get("HASHRET_MAX_PIXELS", "")
    if megapixels and str(megapixels) != before:
        os.environ["HASHRET_MAX_PIXELS"] = str(megapixels)
        context.call_on_close(lambda: os.environ.update({"HASHRET_MAX_PIXELS": before}))


def _be_quiet(context: click.Context, _option: click.Parameter, quiet: bool) -> None:
    if quiet:
        from .notes import notes

        context.with_resource(notes("WARNING"))
        context.with_resource(quieted())


def _say_more(context: click.Context, _option: click.Parameter, verbose: bool) -> None:
    if verbose:
        from .notes import notes

        context.with_resource(notes("DEBUG"))


def talk(verb: Verb) -> Verb:
    """Give a verb --quiet and --verbose, which take effect while the options are parsed."""
    quiet = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="show no progress and no notes"
    )
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_say_more, help="show more notes"
    )
    return quiet(verbose(verb))


class WithOldNames(click.Command):
    """A verb some of whose options had other names once, which still work, and warn."""

    def __init__(self, *arguments: Any, old_names: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.old_names = old_names

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Parse arguments as click does, once the old names in them are replaced."""
        for number, argument in enumerate(arguments):
            name, equals, value = argument.partition("=")
            if name in self.old_names:
                warn(f"the option {name} is now {self.old_names[name]}")
                arguments[number] = self.old_names[name] + equals + value
        return super().parse_args(context, arguments)


class ListedOption(click.Option):
    """An option whose help lists a registry, in the place of ``{}``; the registry is imported for --help alone."""

    def __init__(self, *declarations: Any, names: Callable[[], Iterable[str]], **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.names = names

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        """Return the option and its help, as click shows them."""
        self.help = (self.help or "").replace("{}", ", ".join(self.names()))
        return super().get_help_record(context)


class ListedCommand(click.Command):
    """A verb whose help lists a registry, as a `ListedOption` does."""

    def __init__(self, *arguments: Any, names: Callable[[], Iterable[str]], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.names = names

    def format_help_text(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help without the options."""
        self.help = (self.help or "").replace("{}", ", ".join(self.names()))
        super().format_help_text(context, formatter)


def backbones() -> Iterable[str]:
    """Return the names of the backbones."""
    from ..models.backbones import BACKBONES

    return BACKBONES


def methods() -> Iterable[str]:
    """Return the names of the hashing methods."""
    from ..methods import METHODS

    return METHODS


def sources() -> Iterable[str]:
    """Return the forms of the names of data sources."""
    from ..data import SOURCES

    return [source.help for source in SOURCES.values()]


def engines() -> Iterable[str]:
    """Return addresses of engines, as examples."""
    from ..addresses import KINDS

    return [example for kind in KINDS.values() for example in kind.examples]


def by_name(_context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Turn the texts NAME=VALUE of an option into a dict."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter("must be NAME=VALUE", param=option)
    return {name: value for name, _, value in pairs}


def index_named(context: click.Context, _argument: click.Parameter, index: str | None) -> None:
    """Take an index that is named without ``--index``, as it may be where there is nothing else to name."""
    if index is not None:
        name_index(context, index)


def name_index(context: click.Context, index: str) -> None:
    """Take a name as that of the index. Raises click.UsageError where ``--index`` names one, too."""
    if context.params.get("index") is not None:
        raise click.UsageError(f"the index is named twice: {context.params['index']} and {index}", context)
    context.params["index"] = index


MODEL = click.option(
    "--model", metavar="FILE", default="model.safetensors", show_default=True, envvar="HASHRET_MODEL",
    help="checkpoint of the encoder; HASHRET_MODEL names another default",
)  # fmt: skip
MODEL_OF_INDEX = click.option(
    "--model", metavar="FILE",
    help="checkpoint of the encoder; default: HASHRET_MODEL, the one beside the index, or model.safetensors",
)  # fmt: skip
_FOUND = "default: HASHRET_INDEX, index, or what hashret sync made in this folder or one above"
INDEX = click.option(  # eager, so that its value is there when arguments are looked at
    "--index", metavar="INDEX", cls=ListedOption, names=engines, is_eager=True,
    help=f"index folder, or a collection, ENGINE#NAME, of an engine: {{}}; {_FOUND}",
)  # fmt: skip
INDEX_FOLDER = click.option("--index", metavar="INDEX", is_eager=True, help=f"index folder; {_FOUND}")
INDEX_ARGUMENT = click.argument("named", metavar="[INDEX]", required=False, expose_value=False, callback=index_named)
VALUES = click.option("--values", metavar="INDEX", help="with a collection: take values from the index it is a copy of")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="print what was done as a JSON object")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
SPLIT = click.option("--split", metavar="[train|database|test]", help="part of the data, where they are split")
OVERWRITE = click.option("--overwrite", is_flag=True, help="replace what is there")
PRECISION = click.option("--precision", type=click.Choice(["bfloat16", "float32"]), help="default: what is fast here")
RUNTIME = click.option(
    "--runtime", type=click.Choice(["auto", *RUNTIMES]), default="auto", show_default=True,
    help="what runs the backbone; auto: OpenVINO, where it is installed and the backbone gains by it",
)  # fmt: skip
CACHE = click.option(
    "--cache", metavar="FOLDER", help="folder of feature caches; default: HASHRET_CACHE or ~/.cache/hashret"
)
WORKERS = click.option("--workers", type=click.IntRange(0), help="decoding processes; default: one a core")
MAX_PIXELS = click.option(
    "--max-pixels", type=click.IntRange(1), metavar="MEGAPIXELS", envvar="HASHRET_MAX_PIXELS", expose_value=False,
    callback=for_decoders, help="of a photograph, about 8 MB of memory each; default: 178, or HASHRET_MAX_PIXELS",
)  # fmt: skip
DOWNLOAD = click.option("--download", is_flag=True, help="let torchvision fetch CIFAR-10 where it is missing")
NULL = click.option("-0", "--null", is_flag=True, help="paths on standard input end in NUL, as of find -print0")
EXCLUDE = click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="leave out of folders what has this name, '*.png', or path, "
    "'old/*'; repeatable"
)  # fmt: skip
INCLUDE = click.option(
    "--include", multiple=True, metavar="PATTERN", help="take what would be left out of folders, '@eaDir'; repeatable"
)


class Lengths(click.ParamType):  # type: ignore[type-arg]  # generic in later releases of click alone
    """Lengths of code with commas between."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> list[int]:
        """Return the numbers, or say what they must be."""
        if isinstance(value, list):
            return value
        try:
            return [int(length) for length in str(value).split(",")]
        except ValueError:
            self.fail("must be a whole number, or several with commas between", param, context)


LENGTHS = Lengths()
POSITIVE = click.IntRange(1)
ID = click.IntRange(0, 2**63 - 1)
RERANK_BY = click.option(
    "--rerank-by", default="auto", show_default=True,
    # as hashret.index.rerank has them, whose import takes long
    type=click.Choice(["auto", "directions", "values", "asymmetric", "features", "cosine", "euclidean"]),
    help="values; directions: of the logits; asymmetric: values against codes; features: before the hash layer; cosine "
    "or euclidean: of features or vectors; auto: directions, or as vectors that need no labels were encoded",
)  # fmt: skip
