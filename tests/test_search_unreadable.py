"""A broken photograph among many: the others are answered, and the broken one is named."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner
from conftest import make_photos

from hashret.adding import add
from hashret.cli import main
from hashret.data.images import UnreadableImage, image_size, open_rgb, read_image
from hashret.errors import HashretError
from hashret.evaluation import evaluate
from hashret.explanation import explain
from hashret.queries import expand
from hashret.search import Searcher, query


@pytest.fixture(scope="module")
def place(tmp_path_factory, model, index_folder):
    """Six photographs, the second of them broken, an empty folder and a pipe; model and index."""
    root = tmp_path_factory.mktemp("unreadable")
    make_photos(root / "photos", 2, 9)
    (root / "photos" / "blue" / "01.png").write_bytes(b"no picture")
    shutil.copy(model, root / "model.safetensors")
    shutil.copytree(index_folder, root / "index")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe.jpg")
    (root / "link.jpg").symlink_to("nowhere.jpg")
    return root


@pytest.fixture
def run(place, monkeypatch):
    """Run hashret in that folder: -> exit code, standard output, standard error."""
    monkeypatch.chdir(place)

    def hashret(*arguments, stdin=None):
        done = CliRunner().invoke(main, list(arguments), input=stdin)
        assert "Traceback" not in done.output
        return done.exit_code, done.stdout, done.stderr

    return hashret


BROKEN = "photos/blue/01.png"


@pytest.mark.parametrize("options", [[], ["--radius", "3"], ["--exclude-self"], ["--no-rerank"]])
def test_the_others_of_a_folder_are_answered(run, options):
    code, output, errors = run("query", "photos", "--json", *options)
    assert code == 0
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["query"] for answer in answers] == [
        f"photos/{name}.png" for name in ("blue/00", "blue/01", "green/00", "green/01", "red/00", "red/01")
    ]
    assert answers[1] == {"query": BROKEN, "hits": [], "error": "not an image, or of an unknown format"}
    assert errors == f"note: cannot read {BROKEN}: not an image, or of an unknown format\n"


def test_the_answers_are_those_without_the_broken_one(place, run):
    files = expand(["photos"])
    searcher = Searcher("index", "model.safetensors", "cpu")
    unreadable = {}
    answers = searcher.search_many(files, 3, unreadable=unreadable)
    assert list(unreadable) == [BROKEN]
    assert [answer is None for answer in answers] == [file == BROKEN for file in files]
    good = [file for file in files if file != BROKEN]
    assert [answer for answer in answers if answer] == searcher.search_many(good, 3)
    with pytest.raises(HashretError, match=r"cannot read photos/blue/01.png"):
        searcher.search_many(files, 3)
    for by in ("mean", "union"):
        together = searcher.search_together(good, 3, by=by)
        with pytest.warns(UserWarning, match="cannot read"):
            assert query(["photos"], searcher=searcher, k=3, together=by) == [("photos/blue/00.png", together)]


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ([BROKEN], f"cannot read {BROKEN}: not an image, or of an unknown format"),
        ([BROKEN, BROKEN], f"cannot read {BROKEN}"),
        (["none.jpg"], "no such file: none.jpg"),
        (["none.jpg", BROKEN], "cannot read none.jpg: no such file, nor 1 other"),
        (["none.jpg", BROKEN, "pipe.jpg"], "cannot read none.jpg: no such file, nor 2 others"),
        (["pipe.jpg"], "a pipe, socket or device, no file: pipe.jpg"),
        (["link.jpg"], "linking to nothing: link.jpg"),
        (["empty"], "no images in this folder: empty"),
    ],
)
@pytest.mark.parametrize("verb", ["query", "explain"])
def test_where_nothing_can_be_read_the_exit_code_says_so(run, verb, named, reason):
    code, output, errors = run(verb, *named)
    assert (code, output) == (2, "")
    assert reason in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("verb", "key"), [("query", "query"), ("explain", "path")])
def test_json_has_a_line_for_each_also_where_nothing_can_be_read(run, verb, key):
    broken = {key: BROKEN, "hits": [], "error": "not an image, or of an unknown format"}
    missing = {key: "none.jpg", "hits": [], "error": "no such file"}
    for named in ([missing], [broken], [missing, broken]):
        code, output, errors = run(verb, *(line[key] for line in named), "--json")
        assert code == 2
        assert [json.loads(line) for line in output.splitlines()] == named
        assert len(errors.splitlines()) == 1
    code, output, _ = run(verb, "none.jpg", "photos/red/00.png", "--index", "none", "--json")
    assert (code, output) == (2, "")  # another mistake, of which nothing is known about the second


def test_paths_on_standard_input_of_which_some_are_missing(run):
    again = "photos/red/00.png"
    stdin = f"none.jpg\n{again}\npipe.jpg\n{again}\n{BROKEN}\nempty\n"
    code, output, errors = run("query", "-", "--json", stdin=stdin)
    assert code == 0
    answers = [json.loads(line) for line in output.splitlines()]
    assert [(answer["query"], answer.get("error")) for answer in answers] == [
        ("none.jpg", "no such file"),
        ("photos/red/00.png", None),
        ("pipe.jpg", "a pipe, socket or device, no file"),
        ("photos/red/00.png", None),
        (BROKEN, "not an image, or of an unknown format"),
        ("empty", "no images in this folder"),
    ]
    assert len(errors.splitlines()) == 4


@pytest.mark.parametrize("verb", ["query", "explain"])
def test_a_photograph_on_standard_input_is_one_line(run, place, verb):
    code, output, errors = run(verb, "-", stdin=(place / "photos" / "red" / "00.png").read_bytes())
    assert (code, output) == (2, "")
    line = "standard input has paths, one a line, and no photograph; name a photograph by its path"
    assert errors == f"hashret: {line}; -0 takes paths that end in NUL\n"


def test_one_answer_for_several_stands_where_the_first_of_them_was_named(run):
    named = ["none.jpg", "photos/red/00.png", BROKEN, "photos/blue/00.png"]
    _, output, _ = run("query", *named, "--together", "mean", "--json")
    assert [json.loads(line)["query"] for line in output.splitlines()] == named[:3]


@pytest.mark.parametrize(
    ("name", "reason"), [("pipe.jpg", "pipe, socket or device"), ("empty", "a folder, not a file")]
)
def test_only_files_are_opened(place, name, reason):
    for read in (read_image, lambda file, size: open_rgb(file), lambda file, size: image_size(file)):
        with pytest.raises(UnreadableImage, match=reason):
            read(place / name, 32)
    assert image_size(place / "photos" / "red" / "00.png") == (40, 40)


def test_explain_draws_the_others(run, tmp_path):
    code, output, errors = run(
        "explain", "photos", "--json", "--index", "index", "-k", "1", "--out", f"{tmp_path}/m.png"
    )
    assert code == 0
    assert (tmp_path / "m.png").exists()
    answers = [json.loads(line) for line in output.splitlines()]
    assert ["error" in answer for answer in answers] == [False, True, *[False] * 4]
    assert answers[1]["path"] == BROKEN
    assert f"note: cannot read {BROKEN}" in errors
    with pytest.warns(UserWarning, match="cannot read"):
        assert len(explain(["photos"], out=tmp_path / "p.png", exclude=["red"])) == 3


def test_add_names_what_it_cannot_read(place, run, tmp_path):
    shutil.copytree(place / "index", tmp_path / "index")
    code, output, errors = run("add", f"{tmp_path}/index", "photos", "--workers", "0")
    assert code == 0
    assert "5 photographs added, 1 unreadable" in output
    assert f"note: cannot read {place / BROKEN}: not an image" in errors
    before = (tmp_path / "index" / "index.json").read_bytes()
    code, output, errors = run("add", f"{tmp_path}/index", BROKEN, "--workers", "0")
    assert (code, output) == (2, "")
    assert "cannot read" in errors
    assert (tmp_path / "index" / "index.json").read_bytes() == before
    with pytest.raises(HashretError, match="pipe, socket or device"):
        add(tmp_path / "index", "pipe.jpg")


def test_evaluate_says_how_many_queries_it_left_out(place, run):
    with pytest.warns(UserWarning, match=r"1 of 6 queries cannot be read and are left out, as .*blue/01.png: not an"):
        figures = evaluate(place / "photos").as_dict()
    assert figures["queries"] == 5
