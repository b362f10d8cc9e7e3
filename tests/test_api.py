"""The public names of hashret: the stub that editors read, what is loaded, and what is installed agree."""

import ast
import configparser
import inspect
import re
from pathlib import Path

import click
import pytest

import hashret
from hashret.cli import main
from hashret.data import SOURCES
from hashret.index.rerank import CHOICES
from hashret.models.backbone import GATES, RESIZES
from hashret.near_duplicates.distances import DISTANCES
from hashret.precision import FORMATS, RUNTIMES
from hashret.results import Result, WasDict
from hashret.search import TOGETHER
from hashret.vectors import METRICS

PACKAGE = Path(hashret.__file__).parent
TOP = PACKAGE.parent


def stub_names() -> list[str]:
    """The names that ``__init__.pyi`` gives out."""
    nodes = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    aliases = [alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.name == alias.asname for alias in aliases)  # what is not given out again is private in a stub
    return ["__version__"] + sorted(alias.name for alias in aliases)


def test_the_stub_has_the_public_names():
    assert stub_names() == hashret.__all__
    assert set(dir(hashret)) == set(hashret.__all__)
    named = {"query", "Hit", "HitList", "Index", "Encoder", "EncodeReport", "HashretError", "Searcher", "train"}
    assert named <= set(hashret.__all__)


@pytest.mark.parametrize("name", hashret.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(hashret, name)
    assert name == "__version__" or value.__doc__


@pytest.mark.parametrize("name", sorted(name for name in hashret.__all__ if name[0].islower()))
def test_what_a_verb_returns_is_public(name):
    returned = str(inspect.signature(getattr(hashret, name)).return_annotation)
    classes = set(re.findall(r"[A-Z]\w+", returned)) - {"None", "Any", "Iterator"}
    assert classes <= set(hashret.__all__)
    for one in classes:  # and so is what its fields hold
        fields = " ".join(map(str, vars(getattr(hashret, one)).get("__annotations__", {}).values()))
        results = {cls.__name__ for cls in Result.__subclasses__() + WasDict.__subclasses__()}
        assert results & set(re.findall(r"[A-Z]\w+", fields)) <= set(hashret.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError):
        hashret.never_was_there  # noqa: B018


def test_stub_and_marker_of_types_are_installed():
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    for name in setup["options.package_data"]["hashret"].split(", "):
        assert (PACKAGE / name).is_file()
    assert "py.typed" in setup["options.package_data"]["hashret"]


# What the command line alone does with a result: print it as JSON, draw it, move the photographs.
COMMAND_LINE_ALONE = {"as_json", "null", "grid", "html", "maps", "move_to", "opened", "yes", "watch"}
PYTHON_ALONE = {"searcher", "unreadable"}


@pytest.mark.parametrize("verb", sorted(set(main.commands) - {"methods", "backbones", "demo", "cache"}))
def test_the_options_of_a_verb_are_the_keywords_of_its_function(verb):
    options = {param.name for param in main.commands[verb].params if param.expose_value}
    keywords = set(inspect.signature(getattr(hashret, verb.replace("-", "_"))).parameters)
    assert options - keywords <= COMMAND_LINE_ALONE
    assert keywords - options <= PYTHON_ALONE


def test_help_lists_the_sources_of_the_registry():
    data = next(param for param in main.commands["train"].params if param.name == "data")
    _, text = data.get_help_record(main.make_context("hashret", ["train"], resilient_parsing=True))
    assert all(source.help in text for source in SOURCES.values())


def options_of(command, context):
    """All options of a command and its verbs, each with the context that it is shown in."""
    for param in command.params:
        if isinstance(param, click.Option):
            yield param, context
    for name, verb in getattr(command, "commands", {}).items():
        yield from options_of(verb, click.Context(verb, parent=context, info_name=name))


def test_help_says_of_every_option_what_it_takes():
    shown = {}
    for option, context in options_of(main, click.Context(main, info_name="hashret")):
        shown[f"{context.command_path} {option.opts[-1]}"] = option.make_metavar(context)
    assert {name for name, metavar in shown.items() if metavar == "TEXT"} == {
        "hashret query --text",
        "hashret report --title",
    }


@pytest.mark.parametrize(
    ("verb", "option", "choices"),
    [
        ("query", "rerank_by", ("auto", *CHOICES)),
        ("evaluate", "rerank_by", ("auto", *CHOICES)),
        ("train", "gate", GATES),
        ("train", "resize", RESIZES),
        ("train", "metric", METRICS),
        ("train", "runtime", ("auto", *RUNTIMES)),
        ("train", "precision", FORMATS),
        ("query", "together", TOGETHER),
        ("duplicates", "by", (*DISTANCES, "details", "codes")),
    ],
)
def test_choices_are_those_of_the_functions(verb, option, choices):
    [found] = [param for param in main.commands[verb].params if param.name == option]
    assert sorted(found.type.choices) == sorted(choices)
