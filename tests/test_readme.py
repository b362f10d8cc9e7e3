"""Figures of README and docs are those of the JSON files, and their examples name things that exist."""

import re
from pathlib import Path

import hashret
from benchmarks.pages import attention, damage, duplicates, gpu, readme, scale, similarity, sync, tables, vectors, words
from hashret.cli import main

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
OF_OTHERS = (
    "torchrun --nproc-per-node --nnodes --rdzv-backend --rdzv-endpoint",
    "tests.damage --processes --cases",
    "docker --build-arg --tag --rm --publish --volume",
    "pip --extra-index-url",
)
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_tables_are_made_of_the_results():
    again = "run: python -m benchmarks.pages"
    for path in readme.PAGES:
        text = path.read_text(encoding="utf-8")
        assert readme.page(text) == text, again
    assert "| am-vggh | 48 |" in TEXT
    assert re.search(r"\| am-vggh \| 0\.\d{3}[^|]* / 0\.797 \|", README)
    for name in readme.SECTIONS:
        assert TEXT.count(f"<!-- {name} -->") == TEXT.count(f"<!-- /{name} -->") == 1
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
    text = similarity.PAGE.read_text(encoding="utf-8")
    assert similarity.page(text) == text, again
    text = duplicates.PAGE.read_text(encoding="utf-8")
    assert duplicates.page(text) == text, again
    assert attention.page() == attention.PAGE.read_text(encoding="utf-8"), again
    assert gpu.page(gpu.load()) == gpu.PAGE.read_text(encoding="utf-8"), again
    assert words.page() == words.PAGE.read_text(encoding="utf-8"), again


def test_the_table_of_benchmarks_names_every_one_and_files_that_exist():
    page = (TOP / "benchmarks" / "README.md").read_text(encoding="utf-8")
    there = {path.stem for path in (TOP / "benchmarks" / "run").glob("*.py")}
    assert set(re.findall(r"^\| `run\.(\w+)`", page, re.M)) == there
    for pattern in re.findall(r"`(results/[^`]+\.json)`", page):
        assert list((TOP / "benchmarks").glob(pattern)), pattern


def test_the_readme_is_a_door():
    assert len(README.splitlines()) <= 130


def test_names_of_the_examples_exist():
    names = set(re.findall(r"(?<!python_)hashret\.(\w+)\(", TEXT))
    assert {"train", "encode", "build_index", "Searcher"} <= names <= set(hashret.__all__)


def test_options_of_the_text_exist():
    known = {option for command in main.commands.values() for p in command.params for option in p.opts} | {"--help"}
    known |= set(re.findall(r"--[a-z-]+", " ".join(OF_OTHERS)))
    named = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"python -m benchmarks.*|</?!--|<!-- .*? -->", "", TEXT))
    )
    assert named <= known, named - known


def test_pictures_and_links_are_there():
    for page in (*TOP.glob("*.md"), *(TOP / "benchmarks").glob("*.md"), *(TOP / "docs").glob("*.md")):
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
