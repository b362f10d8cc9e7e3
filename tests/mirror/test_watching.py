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
from hashret.mirror import watching
from hashret.mirror.syncing import SyncReport


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


def report(new):
    return SyncReport(
        "index", "model.safetensors", photographs=12, unchanged=12 - new, new=new, changed=0, moved=0, gone=0, held=0,
        out_of_reach=0, encoded=new, unreadable=(), passed_over=(), trained=False, dry_run=False, seconds=0.1,
    )  # fmt: skip


def test_whatever_makes_a_later_sync_fail_is_a_warning_and_the_next_is_tried(photos, monkeypatch):
    pytest.importorskip("watchfiles", reason="needs hashret[watch]")
    outcomes = iter([report(12), RuntimeError("out of\nmemory"), OSError(5, "Input/output error"), report(1)])

    def sync(*_):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(watching, "_AT_LEAST", 0)  # a sync at every look
    monkeypatch.setattr(watching, "sync", sync)
    reports = hashret.watch(photos)
    assert next(reports).new == 12
    with pytest.warns(UserWarning, match="sync failed") as told:
        assert next(reports).new == 1
    lines = ["sync failed: RuntimeError: out of memory", "sync failed: OSError: [Errno 5] Input/output error"]
    assert [str(warning.message) for warning in told] == lines
    reports.close()
    outcomes = iter([RuntimeError("at once")])
    with pytest.raises(RuntimeError, match="at once"):
        next(hashret.watch(photos))


def test_a_folder_that_cannot_be_watched_is_a_mistake(photos, monkeypatch):
    watchfiles = pytest.importorskip("watchfiles", reason="needs hashret[watch]")

    def watch(*_, **__):
        yield set()
        raise OSError("too many watches")

    monkeypatch.setattr(watchfiles, "watch", watch)
    monkeypatch.setattr(watching, "sync", lambda *_: report(12))
    reports = hashret.watch(photos)
    assert next(reports).new == 12
    with pytest.raises(HashretError, match=r"cannot watch .*: too many watches; or set WATCHFILES_FORCE_POLLING=1"):
        next(reports)


def test_mistakes_are_told_at_once(photos, model, monkeypatch):
    with pytest.raises(HashretError, match="no such folder"):
        next(hashret.watch(photos / "missing", model=model))
    done = CliRunner().invoke(main, ["sync", str(photos), "--watch", "--dry-run"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = CliRunner().invoke(main, ["sync", str(photos), "--watch"])
    assert done.exit_code == 2
    assert "watching needs watchfiles; pip install 'hashret[watch]'" in done.stderr
