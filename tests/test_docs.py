"""The documentation site is built without a warning, and says what there is to say of every verb and public name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hashret
from hashret.cli import main
from hashret.index.rerank import CHOICES

TOP = Path(__file__).parents[1]
NEEDED = ("sphinx", "furo", "myst_parser", "sphinx_click", "sphinx_copybutton", "sphinx_design", "fastapi")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as tools/docs does: some 15 seconds."""
    for name in NEEDED:
        pytest.importorskip(name, reason=f"the documentation needs {name}: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs")
    options = ["-W", "--keep-going", "--quiet", "-d", folder / "trees", "-c", "docs"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, options), ".", str(folder / "site")],
        cwd=TOP, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "site"


def ids(page):
    return set(re.findall(r' id="([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_verb_and_every_public_name_is_in_the_reference(site):
    assert {f"hashret-{verb}" for verb in main.commands} <= ids(site / "docs" / "cli.html")
    public = {name for name in hashret.__all__ if not name.startswith("_")}
    assert {f"hashret.{name}" for name in public} <= ids(site / "docs" / "python.html")


def test_help_lists_what_is_registered_and_links_nothing(site):
    page = (site / "docs" / "cli.html").read_text(encoding="utf-8")
    article = page.split('<article role="main"')[1]
    assert "{}" not in article
    assert "mailto:" not in article
    assert "cifar10-1:DIR" in article
    assert "milvus:http://host:19530" in article


def test_no_page_asks_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'(?:src|<link[^>]* href)="(?:https?:)?//', text), page


def test_every_page_of_the_sidebar_has_a_title_of_its_own(site):
    sidebar = (site / "docs" / "index.html").read_text(encoding="utf-8").split('class="sidebar-tree"')[1]
    titles = re.findall(r'class="reference internal" href="[^"]*">([^<]+)<', sidebar.split("</div>")[0])
    assert len(titles) > 30
    assert len(set(titles)) == len(titles)


def test_the_top_leads_to_the_first_page(site):
    assert 'href="docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_every_verb_that_prints_json_is_on_its_page():
    page = (TOP / "docs" / "json.md").read_text(encoding="utf-8")
    for verb, command in main.commands.items():
        if any("--json" in option.opts for option in command.params):
            assert f"| `{verb} --json` |" in page, verb


def test_every_rerank_is_explained():
    rows = re.findall(r"^\| (`.*`) \| .* \|$", (TOP / "docs" / "two-stages.md").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`([a-z]+)`", " ".join(row.split(" | ")[0] for row in rows))) == set(CHOICES)
