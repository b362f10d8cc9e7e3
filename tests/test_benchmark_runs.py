"""`benchmarks.run`: small runs come to their end, and what other settings left is not taken for a run's own."""

import json
import re
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba")

from benchmarks.lib import common, planting
from benchmarks.pages import scale
from benchmarks.run import exact_fuzz, features, full_run, gpu, index_life, latency, rerank, tables
from hashret.index import changes


def started(monkeypatch, module, *arguments):
    """Run a benchmark as if it were started with these arguments."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.mark.parametrize("streamed", [(), ("--stream",)])
def test_the_life_of_an_index_is_measured_of_few_photographs_too(tmp_path, monkeypatch, streamed):
    monkeypatch.setattr(changes, "ShardFolder", changes.ShardFolder)  # which a streamed build replaces

    def in_this_process(options, step):
        return {"peak_memory_mb": 1} | (getattr(index_life, step)(options.work) if step else {})

    monkeypatch.setattr(index_life, "run", in_this_process)
    options = ("--items", "300", "--no-values", "--steps", "build", "append", "remove", *streamed)
    started(monkeypatch, index_life, "--work", tmp_path / "work", "--results", tmp_path, *options)
    result = json.loads((tmp_path / "life_300_codes.json").read_text())
    assert (result["append"]["photographs"], result["remove"]["photographs"]) == (1000, 30)
    assert result["streamed"] == (not list((tmp_path / "work" / "shards").glob("*.h5")))


def test_what_a_step_says_of_a_failure_is_shown(capfd):
    with pytest.raises(SystemExit, match="ended with 1"):
        index_life.printed([sys.executable, "-c", "import sys; sys.exit('no such index')"])
    assert "no such index" in capfd.readouterr().err


def test_the_names_of_lives_are_those_that_the_page_knows():
    names = {path.stem for path in scale.RESULTS.glob("life_*.json")}
    for name in names:
        run = scale.load(name)
        assert index_life.default_name(Namespace(**run)) == name
    assert index_life.default_name(Namespace(items=9, bits=48, flips=0.5, values=True)) == "life_9_uniform-values"
    assert "uniform-values" in scale.KINDS
    assert index_life.default_name(Namespace(items=9, bits=64, flips=0.5, values=True)) is None


def test_the_memory_of_a_process_is_not_that_of_its_parent():
    held = np.ones(2**25)  # 256 MB
    code = "from benchmarks.lib.common import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], cwd=common.TOP, capture_output=True, text=True, check=True)
    assert held.nbytes >> 20 <= common.peak_memory()
    assert int(done.stdout) < held.nbytes >> 20


def test_exact_engines_are_compared_over_drawn_indexes(tmp_path, monkeypatch):
    saved = {}
    monkeypatch.setattr(common, "save", lambda name, result, *folder: saved.update(result))
    started(monkeypatch, exact_fuzz, "--queries", 500)
    assert saved["queries"] == saved["by_engine"]["tables"] == 500
    assert 0 < saved["by_engine"]["tables within a budget"] <= 500


def test_every_benchmark_takes_another_folder_for_its_json():
    for path in (common.TOP / "benchmarks" / "run").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "common.save(" in text:
            assert "common.add_results(" in text, path.name
            assert "options.results" in text or "results)" in text, path.name


def test_a_result_by_other_settings_is_refused_in_one_line(tmp_path):
    common.check_settings(tmp_path, {"epochs": 9, "bits": [12, 24]}, {"epochs": 9, "bits": (12, 24), "unknown": 1})
    with pytest.raises(SystemExit, match="is of image size 96, not 224: ask for that, or name other --results"):
        common.check_settings(tmp_path, {"image_size": 96}, {"image_size": 224})


def test_lines_that_others_added_keep_where_they_were_made(tmp_path):
    path = tmp_path / "lines.json"
    assert common.kept(path, "runs") == []
    known = {"commit": "1", "date": "2026-01-01", "machine": "a"}
    path.write_text(json.dumps(known | {"benchmark": "lines", "runs": [{"seed": 0}, {"seed": 1, "commit": "0"}]}))
    assert common.kept(path, "runs") == [known | {"seed": 0}, known | {"seed": 1, "commit": "0"}]


def test_a_rerank_is_added_to_those_of_its_protocol(tmp_path):
    for run, protocol, score in (("a", "p", 1), ("b", "p", 2), ("c", "q", 3), ("a", "p", 4)):
        rerank.add({"run": run, "protocol": protocol, "arch": "vgg16", "map": score}, tmp_path)
    found = {path.stem: json.loads(path.read_text())["runs"] for path in tmp_path.glob("*.json")}
    assert {name: [(run["run"], run["map"]) for run in runs] for name, runs in found.items()} == {
        "rerank_p": [("b", 2), ("a", 4)], "rerank_q": [("c", 3)],
    }  # fmt: skip


def test_a_work_folder_of_other_options_is_refused(tmp_path):
    """Steps that were run already are told apart by their commands, and the files that they read by their paths."""
    (tmp_path / "steps.json").write_text(json.dumps({"train": {"command": "hashret train --epochs 8"}}))
    (tmp_path / "model").touch()
    run = full_run.Steps(tmp_path, {"$DATA": "/a"})
    run.step("train", "train --epochs 8", "model")  # is not run again
    with pytest.raises(SystemExit, match="name another --work"):
        run.step("train", "train --epochs 9", "model")
    with pytest.raises(SystemExit, match="on other files"):
        full_run.Steps(tmp_path, {"$DATA": "/b"})


def test_the_committed_full_runs_are_not_replaced_by_runs_of_other_options():
    path = common.RESULTS / "cifar10-2_am-vggh_48b_64px_head_seed0.json"
    train = json.loads(path.read_text())["steps"]["train"]["command"].removeprefix("hashret ")
    full_run.check_commands(path, {"train": train})
    with pytest.raises(SystemExit, match="is of train"):
        full_run.check_commands(path, {"train": train.replace("--epochs 8", "--epochs 1")})


def gpu_options(folder, **others):
    return Namespace(results=folder, device="cpu", batch=[1, 32], k=[100], rounds=3, seconds=1.5, most=2, **others)


def test_cells_of_a_gpu_are_of_one_machine_and_one_commit(tmp_path, monkeypatch):
    done = {"device": "cpu", "rounds": 3, "machine": "a", "commit": "1", "cells": [{"batch": 1, "k": 100}]}
    (tmp_path / "learned_9_48b.json").write_text(json.dumps(done))
    monkeypatch.setattr(common, "machine", lambda: "a")
    monkeypatch.setattr(common, "commit", lambda: "1")
    options = gpu_options(tmp_path)
    assert gpu.begun((9, 48, "learned"), options) == (done["cells"], [(32, 100)])
    assert gpu.begun((9, 48, "random"), options) == ([], [(1, 100), (32, 100)])
    monkeypatch.setattr(common, "commit", lambda: "2")
    with pytest.raises(SystemExit, match="is of commit 1, not 2"):
        gpu.begun((9, 48, "learned"), options)
    options.batch = [1]
    assert gpu.begun((9, 48, "learned"), options)[1] == []
    options.rounds = 4
    with pytest.raises(SystemExit, match="is of rounds 3, not 4"):
        gpu.begun((9, 48, "learned"), options)


def test_the_baseline_of_a_gpu_is_measured_however_slow_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "floor", lambda codes, device: 1)
    monkeypatch.setattr(gpu, "compare", lambda *arguments: None)
    saved = {}
    monkeypatch.setattr(common, "save", lambda name, result, folder: saved.update(result))
    result = {"items": 300, "bits": 48, "flips": 0.5, "cells": [], "bandwidth": {"sum": 1}}
    options = gpu_options(tmp_path)
    options.most, options.rounds, options.seconds = 0, 1, 0
    gpu.measure("random_300_48b", result, [(1, 100), (32, 100)], float("inf"), options)
    first, second = saved["cells"]
    assert set(second["engines"]) == {gpu.BASELINE} < set(first["engines"])
    assert second["ratio_to"] == gpu.BASELINE


def latency_options(**others):
    same = {"threads": [1], "batch": [1, 1000], "k": [1, 10, 100, 1000], "rounds": 5, "seconds": 30.0}
    same |= {"engines": None, "jitter": 0.3, "overwrite": False, "results": common.RESULTS / "exact"}
    return Namespace(**same | others)


@pytest.mark.parametrize("other", [{"batch": [1]}, {"k": [100]}, {"threads": [1, 2]}, {"seconds": 20}, {"rounds": 3}])
def test_a_latency_by_other_options_is_not_taken_for_measured(other):
    name = "random_10000000_48b"
    assert latency.is_measured(name, latency_options())
    assert not latency.is_measured(name, latency_options(overwrite=True))
    assert not latency.is_measured("random_7_48b", latency_options())
    with pytest.raises(SystemExit, match="name other --results"):
        latency.is_measured(name, latency_options(**other))
    itq = latency_options(batch=[1], seconds=20, jitter=0.1)
    with pytest.raises(SystemExit, match=r"is of jitter 0\.3, not 0\.1"):
        latency.is_measured("itq-cifar10-lite0_1000000_64b", itq)


def test_features_are_read_as_they_were_written(tmp_path):
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", features)
    np.savez(tmp_path / "a.npz", base=features, asked=features[:1])
    for name in ("a.npy", "a.npz"):
        assert np.array_equal(latency.read_features(tmp_path / name), features)


def test_a_nested_training_of_other_lengths_is_not_taken_for_done(tmp_path):
    options = Namespace(
        results=tmp_path, protocol="cifar10-1", image_size=224, backbone="vgg16", finetune="head", views=0
    )
    options.__dict__.update(dict.fromkeys(("epochs", "lr", "backbone_lr", "smoothing", "augment")))
    options.width, options.batch_size = 1024, 128
    spec = ("csq", (12, 48), 0, "nested")
    saved = {"training": {}, "width": 1024, "batch_size": 128}
    for path in tables.results_of(options, spec).values():
        path.write_text(json.dumps(saved | {"lengths": [12, 48]}))
    assert tables.are_there(options, spec)
    with pytest.raises(SystemExit, match=r"is of lengths \[12, 48\], not \[12, 24, 48\]"):
        tables.are_there(options, ("csq", (12, 24, 48), 0, "nested"))
    for path in tables.results_of(options, spec).values():
        path.write_text(json.dumps(saved))  # as those before lengths were named
    with pytest.raises(SystemExit, match=r"is of lengths \[12, 24, 32, 48\], not"):
        tables.are_there(options, spec)


def test_the_committed_nested_trainings_are_of_the_lengths_that_are_taken_for_theirs():
    lengths = {}
    for path in (common.RESULTS / "tables").glob("*_nested*.json"):
        run = json.loads(path.read_text())
        lengths.setdefault(re.sub(r"_\d+b_", "_", path.stem), set()).add(run["bits"])
        assert run.get("lengths", [*tables.LENGTHS]) == [*tables.LENGTHS]
    assert set(map(frozenset, lengths.values())) == {frozenset(tables.LENGTHS)}


def test_copies_are_planted_anew_of_other_photographs_or_kinds(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), "red" if name == "a" else "blue").save(tmp_path / name / "0.png")

    def planted(name, *kinds):
        data = Namespace(file=lambda row: tmp_path / name / f"{row}.png")
        planting.plant(data, np.array([0]), tmp_path / "out", {kind: planting.KINDS[kind] for kind in kinds})
        made = {path.parent.name: path.read_bytes() for path in (tmp_path / "out").glob("*/*.png")}
        return made, (tmp_path / "out" / "done").stat().st_mtime_ns

    first = planted("a", "exact")
    assert planted("a", "exact") == first
    assert planted("b", "exact")[0] == {"exact": (tmp_path / "b" / "0.png").read_bytes()} != first[0]
    assert set(planted("b", "exact", "mirrored")[0]) == {"exact", "mirrored"}


def test_vectors_are_named_after_their_data():
    named, other = Namespace(protocol={"name": "cifar10-1"}), Namespace(protocol=None)
    assert features.name_of("cifar10-1:data", named) == "cifar10-1"
    assert features.name_of("list:corel5k/corel5k_374", other) == "list corel5k_374"
