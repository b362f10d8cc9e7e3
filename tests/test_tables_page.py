"""Pages of tables: which runs their brackets compare, and which columns and pictures they have."""

import json

import pytest

from benchmarks.pages import attention, gpu, tables


def run(ablation, score, seed=0, epochs=10, **training):
    """What the page reads of a run of 48 bits."""
    return {
        "method": "csq", "bits": 48, "seed": seed, "ablation": ablation, "epochs": epochs, "width": 64,
        "batch_size": 32, "training": {"lr": 1e-3, "dither_spread": 0.5} | training,
        "metrics": {"hamming": {"map": score}}, "bits_used": {"distinct": 9},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "cell"),
    [
        ({}, "0.850 (+0.050)"), ({"seed": 1}, "0.850"), ({"epochs": 11}, "0.850"), ({"lr": 2e-3}, "0.850"),
        ({"smoothing": 0.1}, "0.850"), ({"views": 4}, "0.850"),
    ],
)  # fmt: skip
def test_a_dither_is_compared_with_the_same_training_alone(other, cell):
    runs = [run("dither", 0.85), run(None, 0.8, **other)]
    assert tables.dither_table(runs).splitlines()[-1] == f"| csq | {cell} | 0.5 | 9 |"


def test_nested_lengths_are_compared_with_a_training_for_each_by_seed():
    runs = [run("nested", 0.85), run("nested", 0.87, seed=1), run(None, 0.8, epochs=20), run(None, 0.8, seed=2)]
    assert tables.nested_table(runs).splitlines()[-1] == "| csq | 0.860 ± 0.014 (2) (+0.050) |"


def test_lengths_that_no_run_has_take_no_column_and_one_run_no_picture():
    runs = [run(None, 0.8), run(None, 0.9, seed=1), run("dither", 0.95)]
    assert tables.main_table(None, runs[:2]).splitlines() == [
        "| method | 48 bits |", "| --- | --- |", "| csq | 0.850 ± 0.071 (2) |",
    ]  # fmt: skip
    assert not tables.has_picture(runs)
    assert tables.has_picture([*runs, run(None, 0.7) | {"bits": 24}])


def test_a_training_that_was_resumed_took_as_long_as_its_epochs():
    resumed = {"seconds": {"train": 20.0}, "training": {"epochs_run": [{"seconds": 30.0}, {"seconds": 31.0}]}}
    whole = {"seconds": {"train": 70.0}, "training": resumed["training"]}
    fitted = {"seconds": {"train": 5.0}, "training": {"epochs_run": []}}
    assert [tables.training_seconds(run) for run in (resumed, whole, fitted)] == [61, 70, 5]


def test_a_rerank_is_shown_beside_the_runs_of_its_backbone(tmp_path, monkeypatch):
    figures = {"precision_at": {"10": 0.5}, "map": 0.25}
    run = {"method": "csq", "bits": 48, "seed": 0, "image_size": 96, "finetune": "head", "hamming": figures}
    run["reranked"] = {by: {"100": figures} for by in ("values", "directions")}
    runs = [run | {"commit": "1"}, run | {"arch": "efficientnet_lite0", "seed": 7, "commit": "2"}]
    result = {"commit": "3", "date": "2026-01-01", "machine": "a", "runs": runs}
    (tmp_path / "rerank_cifar10-1.json").write_text(json.dumps(result))
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "tables")
    assert "Seed 0. Machine: a. Commit 1." in tables.rerank_table(("cifar10-1", 96, "head", "vgg16"))
    assert "Seed 7. Machine: a. Commit 2." in tables.rerank_table(("cifar10-1", 96, "head", "efficientnet_lite0"))


def test_gates_are_compared_at_one_length_of_code():
    runs = [
        {"method": "vggh", "variant": variant, "bits": bits, "seed": 0, "map": score, "precision_at": {"10": score}}
        for bits, variant, score in ((12, "none", 0.1), (12, "7x7", 0.2), (48, "none", 0.5), (48, "7x7", 0.55))
    ]
    study = {"benchmark": "corel5k-21_x", "image_size": 224, "width": 512, "epochs": 10, "finetune": "head"}
    study |= {"commit": "1", "date": "2026-01-01", "machine": "a", "runs": runs}
    short, long = map(attention.by_variants, attention.by_length(study))
    assert "| 7x7 | +10.0 (one seed) | +10.0 (one seed) |" in short
    assert "12 bits" in short
    assert "| 7x7 | +5.0 (one seed) | +5.0 (one seed) |" in long
    assert "48 bits" in long


def test_a_gpu_is_shown_without_an_engine_that_was_too_slow():
    cells = [
        {"batch": 1000, "k": 100, "engines": {"hashret-cpu": {"ms": {"p50": 2.0}}, "resident": {"ms": {"p50": 1.0}}}}
    ]
    run = {"data": "random", "items": 9, "bits": 48, "grouped": False, "codes_held": 9, "floor_ms": 1, "cells": cells}
    assert gpu.section(run).splitlines()[-1] == "| 1000 | 100 |  |  | 1 | 2 |  |  |"
    assert "a path through the card is the fastest of all in 1:" in gpu.shown([run])
    assert "sooner than what hashret has on the card in 0." in gpu.shown([run])
