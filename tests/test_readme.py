"""The README's figures are those of the JSON files, and its examples name things that exist."""

import re
from pathlib import Path

import hashret
from benchmarks.pages import damage, duplicates, readme, scale, sync, tables, vectors, words
from hashret.cli import main

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")


def test_tables_are_made_of_the_results():
    again = "run: python -m benchmarks.pages"
    assert readme.page(README) == README, again
    assert "| am-vggh | 48 |" in README
    text = tables.FIGURES.read_text(encoding="utf-8")
    assert tables.figures_page(text) == text, again
    assert tables.page(tables.load()) == tables.PAGE.read_text(encoding="utf-8"), again
    assert vectors.page(vectors.load()) == vectors.PAGE.read_text(encoding="utf-8"), again
    text = scale.PAGE.read_text(encoding="utf-8")
    assert scale.page(text) == text, again
    text = damage.PAGE.read_text(encoding="utf-8")
    assert damage.page(text) == text, again
    text = sync.PAGE.read_text(encoding="utf-8")
    assert sync.page(text) == text, again
    text = duplicates.PAGE.read_text(encoding="utf-8")
    assert duplicates.page(text) == text, again
    assert words.page() == words.PAGE.read_text(encoding="utf-8"), again


def test_the_table_of_benchmarks_names_every_one_and_files_that_exist():
    page = (TOP / "benchmarks" / "README.md").read_text(encoding="utf-8")
    there = {path.stem for path in (TOP / "benchmarks" / "run").glob("*.py")}
    assert set(re.findall(r"^\| `run\.(\w+)`", page, re.M)) == there
    for pattern in re.findall(r"`(results/[^`]+\.json)`", page):
        assert list((TOP / "benchmarks").glob(pattern)), pattern


def test_verbs_and_names_of_the_examples_exist():
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    verbs = set(re.findall(r"^hashret ([a-z-]+)", blocks, re.M))
    assert {"train", "encode", "build-index", "query", "evaluate"} <= verbs <= set(main.commands)
    names = set(re.findall(r"hashret\.(\w+)\(", README))
    assert {"train", "encode", "build_index", "Searcher"} <= names <= set(hashret.__all__)


def test_options_of_the_examples_exist():
    known = {option for command in main.commands.values() for p in command.params for option in p.opts} | {"--help"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--nproc-per-node"}
    assert named <= known, named - known


def test_pictures_and_links_are_there():
    for page in (TOP / "README.md", *(TOP / "benchmarks").glob("*.md"), *(TOP / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target


def test_each_promise_about_files_names_a_test_that_exists():
    page = (TOP / "docs" / "your-files.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    assert page.count("::test_") == len(named)
    for file, test in named:
        found = list((TOP / "tests").rglob(file))
        assert len(found) == 1, file
        assert f"\ndef {test}(" in found[0].read_text(encoding="utf-8"), test
