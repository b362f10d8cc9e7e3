"""The page of `query --html`: names, links, what is missing, and what the command says of it."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from conftest import make_model

from hashret.cli import main
from hashret.encoding import encode
from hashret.index import build_index


@pytest.fixture(scope="module")
def own(photos, tmp_path_factory):
    """An index of photographs that a test may move away, one of which has a name of odd letters."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(photos / "train", folder / "photos")
    (folder / "photos" / "red" / "00.png").rename(folder / "photos" / "red" / 'a "b" <i>#1?.png')
    make_model(folder / "model.safetensors")
    encode(folder / "photos", folder / "model.safetensors", folder / "codes", workers=0)
    build_index(folder / "codes", folder / "index")
    return folder


@pytest.fixture(autouse=True)
def there(own, monkeypatch):
    monkeypatch.chdir(own)


def query(*arguments):
    done = CliRunner().invoke(main, ["query", *map(str, arguments), "--html", "hits.html", "--no-maps"])
    assert done.exit_code == 0, done.output
    return done, Path("hits.html").read_text()


def links(text):
    return re.findall(r'href="([^"]*)"', text)


def test_names_and_links_of_hits(photos):
    done, text = query(photos / "test" / "red" / "00.png", "-k", 36)
    assert done.stderr.splitlines()[-1] == "hits.html: 36 hits of 1 query"
    files = {Path(unquote(urlsplit(link).path)) for link in links(text)}
    assert all(urlsplit(link).scheme == "file" for link in links(text))
    assert files == {photos / "test" / "red" / "00.png", *(Path.cwd() / "photos").rglob("*.png")}
    assert all(file.is_file() for file in files)
    assert "a &#34;b&#34; &lt;i&gt;#1?.png" in text
    assert text.count("% similar<br>") == 36
    assert "36 photographs" in text
    assert 'class="contents"' not in text  # of a single query


def test_what_is_missing_is_named(photos):
    gone = Path("photos/blue/03.png")
    gone.rename("03.png")
    try:
        _, text = query(photos / "test" / "blue" / "00.png", "-k", 36)
    finally:
        Path("03.png").rename(gone)
    assert text.count("03.png: no such file</span>") == 1
    assert gone.absolute().as_uri() not in links(text)
    assert text.count("<img") == 36


def test_several_queries_on_one_page(photos):
    files = [photos / "test" / "red" / "00.png", "nothing.png", photos / "test" / "blue" / "01.png"]
    done, text = query(*files, "-k", 2)
    assert done.stderr.splitlines()[-1] == "hits.html: 4 hits of 2 queries"
    assert [link for link in links(text) if link.startswith("#")] == ["#query-1", "#query-2"]
    assert text.index('id="query-1"') < text.index("red/00.png</a></h2>") < text.index('id="query-2"')
    assert "nothing.png cannot be read, and has no answer: no such file" in text


def test_a_line_where_nothing_was_found():
    done, text = query("--words", "blue", "--words", "green", "--least", 30)
    assert done.stderr.splitlines()[-1] == "hits.html: 10 hits of 2 queries"
    line = "no photograph is at least 30 % similar; the nearest is 8 % similar: photos/"
    assert text.count(f'<p class="nothing">{line}') == done.stdout.count(f"\n{line}") == 1
    assert links(text)[:2] == ["#query-1", "#query-2"]


def test_nothing_else_is_printed_for_programs(photos):
    done, _ = query(photos / "test" / "red" / "00.png", "--json", "--grid", "hits.png")
    assert len(json.loads(done.stdout)["hits"]) == 10
    written = [f"hits.{end}: 10 hits of 1 query" for end in ("png", "html")]
    assert done.stderr.splitlines()[-2:] == written
    quiet, _ = query(photos / "test" / "red" / "00.png", "--quiet")
    assert quiet.stderr == ""


def test_vectors_have_no_picture(tmp_path, monkeypatch):
    np = pytest.importorskip("numpy")
    monkeypatch.chdir(tmp_path)
    np.savez("vectors.npz", vectors=np.random.default_rng(0).random((40, 8), np.float32))
    for arguments in (["train", "--data", "vectors:vectors.npz", "--bits", 8], ["encode", "vectors:vectors.npz"]):
        assert CliRunner().invoke(main, [*map(str, arguments), "--quiet"]).exit_code == 0
    assert CliRunner().invoke(main, ["build-index"]).exit_code == 0
    _, text = query("--vector", "vectors.npz", "-k", 1)
    assert text.count("is a vector, no picture</span>") == 80
    assert not [link for link in links(text) if not link.startswith("#")]
