"""A folder that is watched is followed by its index."""

import shutil
import sys
import threading
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_photo, make_photos

import hashret
from hashret.cli import main
from hashret.errors import HashretError


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 4, seed=3)


def test_what_changes_is_taken_up(photos, model, tmp_path):
    pytest.importorskip("watchfiles", reason="needs hashret[watch]")
    stop = threading.Event()
    reports = hashret.watch(photos, stop=stop, index=photos / "own" / "index", model=model, workers=0)
    assert next(reports).new == 12
    make_photo(photos / "red" / "later.png", "red", np.random.default_rng(1))
    assert next(reports).new == 1
    (photos / "red").rename(photos / "crimson")
    assert next(reports).moved == 5
    beside = make_photo(photos / "own" / "index-holidays" / "new.png", "red", np.random.default_rng(2))
    assert next(reports).new == 1
    beside.unlink()
    assert next(reports).gone == 1
    photos.rename(tmp_path / "away")  # as a disk that goes; the watched folder has no name meanwhile
    (tmp_path / "away").rename(photos)
    (photos / "blue" / "00.png").unlink()
    report = next(reports)
    assert (report.gone, report.unchanged) == (1, 12)
    stop.set()
    assert list(reports) == []


def test_a_warning_is_given_once(photos, model):
    pytest.importorskip("watchfiles", reason="needs hashret[watch]")
    (photos / "bad.jpg").write_bytes(b"no picture")
    reports = hashret.watch(photos, model=model, workers=0)
    with pytest.warns(UserWarning, match=r"cannot read .*bad\.jpg"):
        next(reports)
    shutil.copy(photos / "red" / "00.png", photos / "copy.png")
    with warnings.catch_warnings(action="error"):
        assert next(reports).new == 1
    reports.close()


def test_mistakes_are_told_at_once(photos, model, monkeypatch):
    with pytest.raises(HashretError, match="no such folder"):
        next(hashret.watch(photos / "missing", model=model))
    done = CliRunner().invoke(main, ["sync", str(photos), "--watch", "--dry-run"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = CliRunner().invoke(main, ["sync", str(photos), "--watch"])
    assert done.exit_code == 2
    assert "watching needs watchfiles; pip install 'hashret[watch]'" in done.stderr
