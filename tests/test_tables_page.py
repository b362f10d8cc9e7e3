"""`benchmarks.pages.tables`: which runs its brackets compare, and which columns and pictures it has."""

import pytest

from benchmarks.pages import tables


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
