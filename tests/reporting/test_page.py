"""The report of a run: its figures against plain rankings, the page, and what a user may get wrong."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_model, make_photos

import hashret
from hashret.bits import binarize, hamming, pack, unpack
from hashret.cli import main
from hashret.data import open_data
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.evaluation import evaluate
from hashret.files import read_json, write_json
from hashret.index import build_index, open_index, remove
from hashret.models.checkpoint import read_meta
from hashret.reporting.page import report
from hashret.reporting.run import find_run
from hashret.shards import ShardFolder, write_shard
from hashret.training.settings import TrainReport

QUIET = {"device": "cpu"}


def training_record(model, **changes):
    """A record as `hashret train` writes it, of two epochs."""
    epochs = [{"epoch": n, "loss": 2.0 / n, "lr": 1e-4, "heldout_map": 0.4 + n / 10, "seconds": 1.5} for n in (1, 2)]
    meta = read_meta(model)
    record = {name: meta[name] for name in meta.keys() - TrainReport.options_in(meta).keys()}
    record |= {"data": "folder:/home/someone/<photos>", "train_images": 30, "heldout_images": 6}
    return record | {"epochs_run": epochs, "best_epoch": 2, "seconds": 3.0, "hashret": "0.1.0"} | changes


def encode_as_trained(data, model, out, split=None, seed=0):
    """Shards of photographs with the values of an encoder that mostly knows the class, as that of `model` does not."""
    encode(data, model, out, split=split, workers=0)
    rng, folder = np.random.default_rng(seed), ShardFolder(out)
    rows = folder.load()
    labels = rows.labels if rows.labels.ndim == 2 else np.eye(3)[rows.labels]
    centres = np.random.default_rng(9).normal(size=(labels.shape[1], 24))
    logits = labels @ centres + rng.normal(size=(len(rows), 24))
    rows.hash_outputs = (1 / (1 + np.exp(-2 * logits))).astype(np.float32)
    rows.codes = pack(binarize(rows.hash_outputs))
    shape = {name: folder.manifest[name] for name in ("bits", "encoder", "image_size")}
    write_shard(folder.shard_path(0), rows, first_id=0, **shape)
    assert folder.manifest["shards"] == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos, model):
    """What the five verbs leave: model, record, codes, index and queries."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copy(model, folder / "model.safetensors")
    write_json(folder / "model.json", training_record(model))
    encode_as_trained(photos, model, folder / "codes", "train")
    build_index(folder / "codes", folder / "index")
    encode_as_trained(photos, model, folder / "codes-test", "test", seed=1)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory, model):
    """The same of photographs with several labels, one class of which has no query."""
    folder = tmp_path_factory.mktemp("several")
    make_photos(folder / "images", 4, 0)
    flags = {"red": "1 0 1 0", "green": "0 1 1 0", "blue": "1 1 0 0"}
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(4)]
    (folder / "database.txt").write_text("\n".join([*lines, "images/red/00.png 0 0 0 1"]))
    (folder / "test.txt").write_text("\n".join([lines[0], lines[4], lines[8]]))
    encode_as_trained(f"list:{folder}/database.txt", model, folder / "codes")
    encode_as_trained(f"list:{folder}/test.txt", model, folder / "codes-test", seed=1)
    build_index(folder / "codes", folder / "index")
    return folder


def text_of(page):
    """What a reader sees of a page, and its whole source."""
    source = page.read_text()
    body = re.sub(r"<style>.*?</style>", "", source, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split()), source


def test_figures_are_those_of_evaluate_and_of_plain_counting(run, tmp_path):
    found = report(run, tmp_path / "report.html", **QUIET)
    recorded = evaluate(run / "codes-test", run / "index", device="cpu").as_dict()
    times = {"hamming_seconds", "seconds"}
    assert {k: v for k, v in found.metrics.items() if k not in times} == {
        k: v for k, v in recorded.items() if k not in times
    }
    index, queries = open_index(run / "index", "cpu"), ShardFolder(run / "codes-test").load()
    D = hamming(queries.codes, index.codes())
    alike = queries.labels[:, None] == np.asarray(index.labels)
    assert found.distances["alike"] == np.bincount(D[alike], minlength=25).tolist()
    assert found.distances["unlike"] == np.bincount(D[~alike], minlength=25).tolist()
    assert found.distances["mean_alike"] == pytest.approx(D[alike].mean())
    assert found.ap.mean() == pytest.approx(found.metrics["hamming"]["map"])
    assert found.by_rank["k"][0] == 1
    assert found.by_rank["hamming"][0] == pytest.approx(found.metrics["hamming"]["precision_at"]["1"])
    assert found.by_rank["reranked"][0] == pytest.approx(found.metrics["reranked"]["precision_at"]["1"])
    assert found.by_rank["hamming"][-1] == pytest.approx(1 / 3)  # of all items, a third is of the class
    assert found.codes.ones == pytest.approx(unpack(index.codes(), 24).mean(axis=0))
    assert found.photographs == 36
    assert (found.dropped["queries"], found.dropped["sampled"]) == (12, False)
    assert found.dropped["map"] == pytest.approx(found.metrics["hamming"]["map"])
    by_class = [found.ap[queries.labels == label].mean() for label in range(3)]
    assert found.classes["map"] == pytest.approx(by_class)
    assert found.classes["queries"] == [4, 4, 4]
    assert np.sum(found.classes["confusion"], axis=1) == pytest.approx(1)
    assert found.best[0].ap == pytest.approx(found.ap.max())
    assert found.worst[0].ap == pytest.approx(min(found.ap))
    for example in (*found.best, *found.worst):
        assert all(hit.good == (hit.label == example.label) for hit in example.answers)
        assert [hit.euclidean for hit in example.answers] == sorted(hit.euclidean for hit in example.answers)


def test_the_page_is_self_contained_escaped_and_whole(run, tmp_path):
    assert hashret.report is report
    report(run, tmp_path / "report.html", title="<b>mine</b>", **QUIET)
    text, source = text_of(tmp_path / "report.html")
    assert not re.search(r'(src|href|xlink:href)="(?!data:|#)', source)
    assert not re.search(r"url\((?!#)|@import|<script|<link", source)
    assert "<title>&lt;b&gt;mine&lt;/b&gt;</title>" in source
    assert "&lt;photos&gt;" in source
    assert "/home/someone" not in source  # whose folders these are is nobody else's business
    for id in re.findall(r'href="#(\w+)"', source):
        assert source.count(f'id="{id}"') == 1
    assert re.findall(r'<h2 id="(\w+)"', source) == ["training", "retrieval", "bits", "classes", "queries"]
    assert source.count("<svg") == 8
    assert source.count("data:image/webp") == 9 * source.count('class="row example"')
    assert "Left out:" not in source
    assert "✗" in text
    assert "am-vggh, vgg11, 32 px" in text
    assert len(source) < 1_500_000


def test_settings_are_shown_with_the_options_of_the_method(run, tmp_path):
    for name in ("model.safetensors", "index", "codes-test"):
        (tmp_path / name).symlink_to(run / name)
    record = training_record(run / "model.safetensors", dither=True, dither_spread=0.75, views=2, margin=0.3)
    write_json(tmp_path / "model.json", record)
    report(tmp_path, tmp_path / "report.html", **QUIET)
    text, _ = text_of(tmp_path / "report.html")
    for shown in ("views 2", "dither yes", "dither spread 0.75", "margin 0.3"):
        assert shown in text


def test_several_labels(several, tmp_path):
    found = report(several, tmp_path / "report.html", **QUIET)
    assert found.classes["several"]
    assert found.classes["queries"] == [2, 2, 2, 0]
    assert found.classes["confusion"][3] == [None] * 4
    assert found.classes["map"][3] is None
    assert found.codes.told is not None
    text, _ = text_of(tmp_path / "report.html")
    assert "are relevant to each other when they share one" in text
    json.dumps(found.as_dict(), allow_nan=False)


def test_more_classes_than_a_page_is_wide_are_listed(run, tmp_path, monkeypatch):
    monkeypatch.setattr("hashret.reporting.page._WIDE", 2)
    report(run, tmp_path / "report.html", **QUIET)
    assert 'class="matrix' not in (tmp_path / "report.html").read_text()
    assert "of its kind among the 36 nearest" in text_of(tmp_path / "report.html")[0]


def test_the_recorded_way_of_scoring_is_taken_up(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    out = folder / "metrics.json"
    evaluate(
        folder / "codes-test", folder / "index", candidates=5, rerank_by="directions", topk=7, protocol="toy", out=out,
        device="cpu",
    )  # fmt: skip
    found = report(folder, tmp_path / "report.html", **QUIET)
    recorded = read_json(out, "figures")
    for name in ("candidates", "rerank_by", "map_at", "protocol", "hamming", "reranked"):
        assert found.metrics[name] == recorded[name]
    write_json(out, recorded | {"encoder": "another", "candidates": 6})
    assert report(folder, tmp_path / "report.html", overwrite=True, **QUIET).metrics["candidates"] == 36


def test_removed_photographs_and_an_index_without_values(run, tmp_path):
    build_index(run / "codes", tmp_path / "index", values=False)
    remove(tmp_path / "index", ids=range(12))
    found = report(run, tmp_path / "report.html", index=tmp_path / "index", **QUIET)
    assert found.photographs == 24
    assert found.metrics["rerank_by"] == "asymmetric"
    assert found.classes["map"][0] == 0  # nothing is like blue any longer
    labels = {example.label for example in (*found.best, *found.worst)}
    assert labels == {"green", "red"}
    assert {hit.label for example in found.best for hit in example.answers} <= {"green", "red"}


@pytest.mark.parametrize(
    ("there", "sections", "wanted"),
    [
        (["model.safetensors", "model.json"], ["training", "retrieval"], ["build-index", "codes-test"]),
        (["model.safetensors"], ["training", "retrieval"], ["hashret train", "build-index"]),
        (["index"], ["training", "retrieval", "bits"], ["hashret train --data DATA", "codes-test"]),
        (["model.json", "index"], ["training", "retrieval", "bits"], ["codes-test"]),
    ],
)
def test_what_is_not_there_is_left_out_with_the_command_for_it(run, tmp_path, there, sections, wanted):
    (tmp_path / "run").mkdir()
    for name in there:
        (shutil.copytree if (run / name).is_dir() else shutil.copy)(run / name, tmp_path / "run" / name)
    report(tmp_path / "run", tmp_path / "report.html", **QUIET)
    source = (tmp_path / "report.html").read_text()
    assert re.findall(r'<h2 id="(\w+)"', source) == sections
    for command in wanted:
        assert command in source
    assert ("training" in re.findall(r'href="#(\w+)"', source)) == ("model.json" in there)


def test_photographs_without_labels(photos, model, tmp_path):
    encode(photos / "test" / "red", model, tmp_path / "codes-test", workers=0)
    build_index(tmp_path / "codes-test", tmp_path / "index")
    found = report(tmp_path, tmp_path / "report.html", **QUIET)
    assert found.codes.information is None
    assert found.metrics is None
    assert "have no labels" in (tmp_path / "report.html").read_text()


def test_a_method_that_is_fitted_has_no_curve(run, tmp_path):
    fitted = [{"epoch": 1, "loss": None, "heldout_map": 0.25, "seconds": 0.1}]
    record = training_record(run / "model.safetensors", epochs_run=fitted, best_epoch=1, method="itq")
    write_json(tmp_path / "model.json", record)
    report(tmp_path / "model.json", tmp_path / "report.html", **QUIET)
    assert "fitted at once, without epochs; held-out mAP 0.2500" in text_of(tmp_path / "report.html")[0]


def test_a_result_of_a_benchmark(run, tmp_path):
    metrics = evaluate(run / "codes-test", run / "index", device="cpu").as_dict()
    record = training_record(run / "model.safetensors")
    result = {
        "benchmark": "toy", "commit": "abc", "date": "2026-01-01", "machine": "a <machine>", "protocol": "cifar10-1",
        "method": record.pop("method"), "bits": record.pop("bits"), "seed": record.pop("seed") + 7,
        "image_size": record.pop("image_size"),
        "seconds": {"train": 2.5}, "training": record, "metrics": metrics,
    }  # fmt: skip
    write_json(tmp_path / "toy.json", result)
    found = report(tmp_path / "toy.json", tmp_path / "report.html", **QUIET)
    assert found.metrics == metrics
    text, source = text_of(tmp_path / "report.html")
    assert source.count("<svg") == 3
    for words in ("am-vggh, 24 bits, cifar10-1", "a &lt;machine&gt;", "2026-01-01", "train 2.5", "seed 7 commit abc"):
        assert words in text
    assert "Left out:" not in text
    write_json(tmp_path / "metrics.json", metrics)
    assert find_run(tmp_path / "metrics.json").metrics == metrics
    for name in ("queries_without_relevant", "database_without_label"):
        write_json(tmp_path / "metrics.json", metrics | {name: "text"})
        assert find_run(tmp_path / "metrics.json").metrics is None


def test_names_of_a_folder_that_has_only_another_checkpoint(run, tmp_path):
    shutil.copy(run / "model.safetensors", tmp_path / "dpsh.safetensors")
    shutil.copy(run / "model.json", tmp_path / "dpsh.json")
    shutil.copytree(run / "codes-test", tmp_path / "test")
    found = find_run(tmp_path)
    assert found.record["best_epoch"] == 2
    assert found.queries == tmp_path / "test"
    assert found.index is None
    assert find_run(tmp_path / "dpsh.safetensors").record == found.record


def test_files_of_the_same_names_that_are_something_else_are_passed_over(run, tmp_path):
    shutil.copy(run / "model.json", tmp_path)
    write_json(tmp_path / "metrics.json", {"accuracy": 1})
    write_json(tmp_path / "steps.json", {"first": "walk"})
    found = find_run(tmp_path)
    assert (found.metrics, found.steps) == (None, {})


def test_one_query_and_the_first_epoch(run, tmp_path, photos, model):
    write_json(tmp_path / "model.json", training_record(model, best_epoch=1))
    shutil.copytree(run / "index", tmp_path / "index")
    encode_as_trained(open_data(photos, "test").subset([11]), model, tmp_path / "codes-test")
    found = report(tmp_path, tmp_path / "report.html", **QUIET)
    assert found.dropped["error"] == [None] * 24
    assert (len(found.best), len(found.worst)) == (1, 0)
    assert found.classes["map"] == [None, None, pytest.approx(found.metrics["hamming"]["map"])]
    json.dumps(found.as_dict(), allow_nan=False)


def invoke(*arguments):
    done = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert done.exit_code in (0, 2), done.output
    return done


def test_the_verb(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    out = tmp_path / "report.html"
    done = invoke("--out", out)
    assert done.exit_code == 0
    assert re.fullmatch(rf"{out}: mAP 0\.\d{{4}}, \d+\.\d effective bits of 24\n", done.stdout)
    done = invoke("--out", out, "--overwrite", "--json")
    figures = json.loads(done.stdout)
    assert figures["bits"]["photographs"] == 36
    assert len(figures["ap"]) == 12
    assert done.stderr.startswith(f"{out}: mAP 0.")


def test_without_matplotlib_nothing_is_computed(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke(run, "--out", tmp_path / "report.html")
    assert done.exit_code == 2
    assert "pip install 'hashret[report]'" in done.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such run"),
        (["{tmp}"], "nothing of a run"),
        (["{run}/codes-test"], "is a folder of shards"),
        (["{run}", "--index", "{tmp}"], "no index"),
        (["{run}", "--queries", "nowhere"], "no such folder of shards"),
        (["{run}", "--queries", "{tmp}"], "codes.json is missing"),
        (["{run}", "--out", "{tmp}/report.png"], "should end in .html"),
        (["{run}", "--out", "{tmp}/there.html"], "--overwrite"),
        (["{tmp}/there.html"], "neither a folder, nor a checkpoint"),
        (["{tmp}/list.json"], "not a JSON object"),
        (["{tmp}/broken.safetensors"], "damaged"),
        (["{tmp}/foreign.json"], "no training record"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(run, tmp_path, arguments, words):
    folder = tmp_path / "empty"
    folder.mkdir()
    write_json(folder / "list.json", [])
    write_json(folder / "foreign.json", {"epochs_run": []})
    (folder / "broken.safetensors").write_text("x")
    (folder / "there.html").write_text("mine")
    before = sorted(folder.iterdir())
    filled = [argument.format(run=run, tmp=folder) for argument in arguments]
    done = invoke(*filled, *([] if "--out" in filled else ["--out", str(folder / "new.html")]))
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(folder.iterdir()) == before
    assert (folder / "there.html").read_text() == "mine"


def test_parts_of_another_encoder_are_refused(run, tmp_path, photos):
    other = make_model(tmp_path / "other.safetensors", seed=5)
    encode(photos, other, tmp_path / "codes", split="train", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    with pytest.raises(HashretError, match="by another encoder"):
        report(run, tmp_path / "report.html", index=tmp_path / "index", **QUIET)
    with pytest.raises(HashretError, match="different encoders"):
        report(run, tmp_path / "report.html", queries=tmp_path / "codes", **QUIET)
    assert not (tmp_path / "report.html").exists()


def test_bits_are_dropped_on_a_sample_where_it_would_take_long(run, tmp_path, monkeypatch):
    monkeypatch.setattr("hashret.reporting.figures._PAIRS", 1)
    monkeypatch.setattr("hashret.reporting.figures._LEAST_SAMPLE", 5)
    dropped = [report(run, tmp_path / f"{n}.html", **QUIET).dropped for n in range(2)]
    assert dropped[0] == dropped[1]
    assert (dropped[0]["queries"], dropped[0]["sampled"]) == (5, True)
    assert "on 5 queries drawn with seed 0" in text_of(tmp_path / "0.html")[0]


def test_the_record_of_another_training_is_left_out(run, tmp_path):
    """As a training leaves it that is killed when it replaces a checkpoint."""
    shutil.copy(run / "model.safetensors", tmp_path / "model.safetensors")
    record = training_record(run / "model.safetensors")
    write_json(tmp_path / "model.json", record)
    assert "epochs_run" in find_run(tmp_path).record
    write_json(tmp_path / "model.json", record | {"fingerprint": "of another"})
    with pytest.warns(UserWarning, match="record of another training"):
        assert "epochs_run" not in find_run(tmp_path).record


@pytest.mark.parametrize("name", ["quantization", "classifier_rate", "width", "dither"])
def test_a_setting_that_is_no_plain_value_is_refused(run, tmp_path, name):
    write_json(tmp_path / "model.json", training_record(run / "model.safetensors", **{name: {"of": [1]}}))
    with pytest.raises(HashretError, match=name):
        find_run(tmp_path / "model.json")
