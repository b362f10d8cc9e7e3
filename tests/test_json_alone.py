"""Whoever asks a verb for JSON finds nothing else on standard output, whatever there is to say beside it."""

import json
import shutil

import click
import pytest
from click.testing import CliRunner

from hashret.cli import main

VERBS = {  # in this order: each may rest on those before it
    "train": "train --data photos --method vggh --backbone vgg11 --weights none --finetune all --image-size 32 "
    "--bits 8 --width 8 --epochs 1 --batch-size 8 --workers 0 --out own.safetensors --json",
    "encode": "encode photos/train --out codes --workers 0 --json",
    "build-index": "build-index --out built --json",
    "add": "add built photos/test/red/01.png broken.png --workers 0 --json",
    "remove": "remove built --id 0 --json",
    "compact": "compact built --json",
    "relocate": "relocate built --root photos --json",
    "export": "export built milvus:file.db#photos --json",
    "compare": "compare photos/test/red/00.png photos/test/blue/00.png --json",
    "evaluate": "evaluate photos/test -k 1 --candidates 2 --out figures.json --protocol p",
    "query": "query photos/test/red/00.png photos/test/blue/00.png broken.png --grid g.png --html h.html --json",
    "explain": "explain photos/test/red/00.png broken.png --index index --out maps.png --json",
    "duplicates": "duplicates index --by values --distance 1 --html d.html --move-to aside --json",
    "report": "report . --queries codes-test --out r.html --json",
    "info": "info index --json",
    "cache list": "cache list --json",
    "sync": "sync photos --index own/index --model model.safetensors --workers 0 --json",
}


def json_verbs(group=main, prefix=""):
    """Verbs that print JSON: those with --json, and evaluate."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from json_verbs(command, f"{name} ")
        elif name == "evaluate" or any("--json" in option.opts for option in command.params):
            yield prefix + name


def run(line):
    return CliRunner().invoke(main, line.split())


@pytest.fixture(scope="module")
def workplace(photos, model, index_folder, tmp_path_factory):
    """A folder in which the verbs have run, with cached convolution features and a photograph without a label."""
    place = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("HASHRET_CACHE", str(place / "cache"))
        shutil.copy(model, "model.safetensors")
        shutil.copytree(photos, "photos")
        shutil.copytree(index_folder, "index")
        (place / "broken.png").write_bytes(b"no picture")
        for line in (
            "encode photos/test --out codes-test --workers 0 --fill-cache",
            "add index photos/test/red/00.png --workers 0",
        ):
            done = run(line)
            assert done.exit_code == 0, done.output
        yield place


def test_all_verbs_that_print_json_are_here():
    assert set(json_verbs()) == set(VERBS)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("verb", VERBS)
def test_json_alone(workplace, monkeypatch, verb):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HASHRET_CACHE", str(workplace / "cache"))
    if verb in ("report", "export"):
        pytest.importorskip({"report": "matplotlib", "export": "pymilvus"}[verb])
    done = run(VERBS[verb])
    assert done.exit_code == 0, done.output
    if verb in ("evaluate", "report", "info"):
        assert isinstance(json.loads(done.stdout), dict)
    else:
        lines = done.stdout.split("\n")
        assert lines.pop() == ""
        assert lines
        assert all(isinstance(json.loads(line), dict) for line in lines)
    said = {"evaluate": "12 of 12 photographs have cached", "query": "cannot read broken.png"}
    assert said.get(verb, "") in done.stderr


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("query photos/test/red/00.png --grid folder.png", "folder.png"),
        ("query photos/test/red/00.png --html folder.html", "folder.html"),
        ("duplicates index --html broken.png/d.html", "broken.png/d.html"),
        ("evaluate codes-test --out folder.png", "folder.png"),
    ],
)
def test_outputs_are_tried_before_the_work(workplace, monkeypatch, line, name):
    def computed(*_, **__):
        raise AssertionError("computed first")

    monkeypatch.chdir(workplace)
    for folder in ("folder.png", "folder.html"):
        (workplace / folder).mkdir(exist_ok=True)
    for place in (
        "hashret.search.Searcher",
        "hashret.near_duplicates.groups.duplicates",
        "hashret.evaluation.open_evaluation_set",
    ):
        monkeypatch.setattr(place, computed)
    done = run(line)
    assert done.exit_code == 2, done.output
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
