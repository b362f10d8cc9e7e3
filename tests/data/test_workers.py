"""Decoding processes end with the process that they decode for, and none is waited for."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos
from helpers import start

from hashret.data import batches as batches_module
from hashret.data import open_data
from hashret.data.batches import batches
from hashret.training.feed import Augment


def decode_none_but_the_first(folder, row, image):
    if row:
        (folder / str(os.getpid())).touch()
        threading.Event().wait()
    return image


def have_ended(pids):
    """Whether none of some processes is there, but as a zombie that nobody has asked for."""
    try:
        return all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z" for pid in pids)
    except (FileNotFoundError, ProcessLookupError):
        return have_ended([pid for pid in pids if Path(f"/proc/{pid}").exists()])


def wait_until(condition, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_process_that_uses_a_gpu_is_not_copied_and_decodes_the_same(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos", 2, 0)
    (tmp_path / "photos" / "broken.png").touch()
    source, rows = open_data(tmp_path / "photos"), [[0, 5], [6], [1, 2]]
    plain = list(batches(source, 32, rows, 2))
    augmented = list(batches(source, 32, rows, 2, Augment("crop-flip", 32, (0, 1))))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert batches_module._context().get_start_method() == "forkserver"
    for copied, others in (
        (plain, batches(source, 32, rows, 2)),
        (augmented, batches(source, 32, rows, 2, Augment("crop-flip", 32, (0, 1)))),
    ):
        for one, other in zip(copied, others, strict=True):
            assert np.array_equal(one.images, other.images)
            assert (one.rows.tolist(), one.skipped) == (other.rows.tolist(), other.skipped)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("on_gpu", [False, True])
def test_decoding_processes_do_not_outlive_the_one_that_is_killed(tmp_path, on_gpu):
    make_photos(tmp_path / "photos", 2, 0)
    (tmp_path / "pids").mkdir()
    tests = Path(__file__).parents[1]
    process = start(
        f"import sys; sys.path.insert(0, {str(tests)!r}); from data.test_workers import *; "
        f"torch.cuda.is_initialized = lambda: {on_gpu}; "
        f"transform = partial(decode_none_but_the_first, Path({str(tmp_path / 'pids')!r})); "
        f"list(batches(open_data({str(tmp_path / 'photos')!r}), 32, [[1], [2], [3], [4]], 2, transform))"
    )
    try:
        assert wait_until(lambda: len(os.listdir(tmp_path / "pids")) == 2)
        pids = [int(name) for name in os.listdir(tmp_path / "pids")]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: have_ended(pids), 20)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.filterwarnings("error:This DataLoader will create")
def test_an_interrupted_run_waits_for_no_decoding_process(tmp_path, monkeypatch, capfd):
    make_photos(tmp_path / "photos", 2, 0)
    (tmp_path / "pids").mkdir()
    before = set(multiprocessing.active_children())
    transform = partial(decode_none_but_the_first, tmp_path / "pids")
    decoded = batches(open_data(tmp_path / "photos"), 32, [[0], *([row] for row in range(1, 6))], 8, transform)
    assert next(decoded).rows.tolist() == [0]
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 8  # of which several are told at a time
    assert wait_until(lambda: os.listdir(tmp_path / "pids"))
    join, in_vain = multiprocessing.process.BaseProcess.join, []

    def join_and_look(process, timeout=None):
        join(process, timeout)
        in_vain.append(process.is_alive())

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "join", join_and_look)
    capfd.readouterr()
    decoded.close()
    del decoded
    assert in_vain
    assert not any(in_vain)
    assert not any(worker.is_alive() for worker in workers)
    assert capfd.readouterr().err == ""
