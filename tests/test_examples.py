"""The examples of README and docs: each command is parsed, and those that need neither network nor weights are run."""

import functools
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import make_photo, make_photos
from numpy.random import default_rng

import hashret
from hashret.cli import main

TOP = Path(__file__).parents[1]
PAGES = {page.stem: page for page in (TOP / "README.md", *sorted((TOP / "docs").glob("*.md")))}
RUN = ("README", "start", "photographs", "living-index", "duplicates", "encoders", "sync")  # vectors, words: own tests
# What is parsed alone: it waits for requests or changes, needs another data set, or another program to talk to.
ALONE = re.compile(r"hashret serve|--watch|cifar10|milvus:|postgresql:|vectors:|--vector |photos-index")


def commands(text):
    """The commands of a page, of which several may stand in a line: lists of words."""
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words:
                end = next((n for n, word in enumerate(words) if word in ("&&", "|", "&", ";")), len(words))
                yield words[:end]
                words = words[end + 1 :]


def examples(text):
    """The commands of hashret, without the name of the program."""
    for words in commands(text):
        if words[:1] == ["hashret"]:
            yield words[1:]
        elif "hashret.launch" in words:  # whose own options come before the verb
            yield words[next(n for n, word in enumerate(words) if word in main.commands) :]


def parse(words):
    """Parse the words of a command as the command line does, and run nothing."""
    group, context = main, click.Context(main, info_name="hashret")
    while isinstance(group, click.Group):
        name, group, words = group.resolve_command(context, words)
        context = click.Context(group, parent=context, info_name=name)
    with context:
        group.parse_args(context, list(words))


@pytest.mark.parametrize("page", PAGES)
def test_each_command_is_one(page):
    for words in examples(PAGES[page].read_text(encoding="utf-8")):
        if words != ["count", "index"] and "--help" not in words:  # count is the verb that docs/extend.md adds
            parse(words)


def test_pages_have_commands():
    found = {page for page in PAGES if any(examples(PAGES[page].read_text(encoding="utf-8")))}
    assert {*RUN, "index", "vectors", "words", "serve", "engines", "paper", "gpus", "scale"} <= found
    assert {words[0] for page in PAGES.values() for words in examples(page.read_text(encoding="utf-8"))} > {
        "train",
        "sync",
    }


def test_the_container_serves_what_its_page_says():
    made = (TOP / "Dockerfile").read_text(encoding="utf-8")
    page = PAGES["container"].read_text(encoding="utf-8")
    inside = [json.loads(made.partition("\nCMD ")[2]), *map(shlex.split, re.findall(r"docker run … ([^`]+)`", page))]
    assert len(inside) == 3
    for words in inside:
        parse(words[1:])
        assert words[3:5] == ["--host", "0.0.0.0"]  # else nobody outside the container gets an answer
    [port] = [option.default for option in main.commands["serve"].params if option.name == "port"]
    assert f"EXPOSE {port}\n" in made
    assert f"--publish 127.0.0.1:{port}:{port} " in page
    assert f"{inside[0][2]}:ro" in page


@pytest.fixture
def workplace(tmp_path, photos, model, weights, monkeypatch):
    """A folder with what the examples name, in which training takes a moment: -> options for each verb."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(photos, "photos")
    for folder in ("holidays", "Pictures"):
        make_photos(Path(folder), 12, seed=3)
    shutil.copy("photos/train/red/00.png", "photos/train/red/copy.png")
    for name in ("photo.jpg", "one.jpg", "two.jpg", "Pictures/photo.jpg"):
        make_photo(Path(name), "red", default_rng(len(name)))
    small = {"backbone": "vgg11", "weights": weights, "image_size": 32, "epochs": 1, "workers": 0}
    monkeypatch.setattr(hashret, "train", functools.partial(hashret.train, **small))
    monkeypatch.setattr(hashret, "sync", functools.partial(hashret.sync, model=model, workers=0))
    options = [word for name, value in small.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return {"train": options, "sync": ["--model", str(model)], "encode": ["--workers", "0"], "add": ["--workers", "0"]}


@pytest.fixture
def with_index(workplace, model):
    """The same, where the verbs have run already, over photographs that are not split."""
    shutil.rmtree("photos")
    make_photos(Path("photos"), 8, seed=1)
    shutil.copy("photos/red/00.png", "photos/red/copy.png")
    shutil.copy(model, "model.safetensors")
    hashret.encode("photos", "model.safetensors", "codes", workers=0)
    hashret.build_index("codes", "index")
    make_photos(Path("photos/old"), 1, seed=4)


@pytest.mark.parametrize("page", RUN)
def test_the_commands_run(page, workplace, monkeypatch, request):
    if page in ("living-index", "duplicates"):
        request.getfixturevalue("with_index")
    text = PAGES[page].read_text(encoding="utf-8")
    for words in commands(text):
        words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in words]
        if words[:1] == ["cd"]:
            monkeypatch.chdir(words[1])
        if words[:1] != ["hashret"] or ALONE.search(shlex.join(words).replace("'", "")):
            continue
        _, verb, *rest = words
        outputs = [Path(rest[rest.index("--out") + 1])] if "--out" in rest else []
        done = CliRunner().invoke(main, [verb, *rest, *workplace.get(verb, [])], catch_exceptions=False)
        assert done.exit_code == 0, (words, done.output)
        assert all(path.exists() for path in outputs)


def test_the_commands_of_a_papers_table_run(workplace, monkeypatch):
    """Over a folder with the three sets of a protocol, in the place of CIFAR-10."""
    shutil.copytree("photos/train", "photos/database")
    text = PAGES["paper"].read_text(encoding="utf-8").replace("cifar10-1:data", "photos")
    for verb, *rest in examples(text):
        done = CliRunner().invoke(main, [verb, *rest, *workplace.get(verb, [])], catch_exceptions=False)
        assert done.exit_code == 0, (verb, rest, done.output)
    assert json.loads(done.stdout)["ap"]


@pytest.mark.parametrize("page", ["README", "python"])
def test_the_python_runs(page, workplace, capsys):
    [block] = re.findall(r"```python\n(.*?)```", PAGES[page].read_text(encoding="utf-8"), re.S)
    exec(block.replace('"cat"', '"red"').replace("trips/*", "*/red/*"), {})
    assert {"README": "Pictures/", "python": "photos/train/"}[page] in capsys.readouterr().out
