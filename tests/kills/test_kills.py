"""Kills, full disks and power losses at every system call that changes files, for every verb that writes.

A sample of the calls is taken, always the same; with HASHRET_EVERY_CALL=1 all of them, which takes half an hour.
"""

import os
import random
import shutil
import sys

import pytest
from cases import CASES
from power import Disk, is_temporary
from runs import FAIL, FULL, KILL, TEAR, Subject, Warm

EVERY = bool(os.environ.get("HASHRET_EVERY_CALL"))
CONTROL = "replaced by a copy"  # what must be noticed


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("calls are stopped by seccomp on Linux alone")
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler (cc) to build what stops the calls")
    pytest.importorskip("sklearn", reason="needs hashret[demo]")
    pytest.importorskip("matplotlib", reason="needs hashret[report]")
    warm = Warm(tmp_path_factory.mktemp("kills"))
    if not warm.can_watch():
        pytest.skip("the system installs no seccomp filter here")
    yield warm
    warm.close()


@pytest.fixture(scope="module", params=[name for name in CASES if name != CONTROL])
def subject(request, warm):
    return Subject(warm, request.param)


def some(points, most, first=()):
    """All points, or as many as are tried each time: some of the first ones, and of the others."""
    if EVERY:
        return points
    chance = random.Random(len(points))
    chosen = chance.sample(sorted(first), min(len(first), (most + 1) // 2))
    others = [point for point in points if point not in chosen]
    return chosen + chance.sample(others, min(len(others), most - len(chosen)))


def around_renames(subject):
    """Kills just before something appears under its name, and just after."""
    places = {
        number + step
        for number, call, result, _, other in subject.trace
        if call in ("rename", "exchange") and not result and not is_temporary(os.path.relpath(other, subject.warm.root))
        for step in (0, 1)
    }
    return {point for point in subject.points() if point[0] == KILL and point[1] in places}


def check(subject, stop, points):
    """Fail with all problems of the runs that are stopped at some points, each below its call."""
    problems = [[subject.called(number), *lines] for mode, number in points if (lines := stop(mode, number))]
    if problems:
        pytest.fail("\n    ".join(line for lines in problems for line in lines), pytrace=False)


def test_a_kill_at_any_call_leaves_the_old_state_or_the_new(subject):
    """The same command then ends as an unbroken run does, and leaves nothing else behind."""
    assert not subject.touched(subject.trace)
    points = list(subject.points())
    assert len(points) > 3
    check(subject, subject.stopped, some(points, 3 if subject.calls < 500 else 1, around_renames(subject)))


def test_nothing_counts_on_what_a_power_loss_could_take(subject):
    dangers = Disk(subject.before).dangers(subject.trace, subject.warm.root)
    assert not dangers, "\n".join(dangers[:20])


def test_a_full_disk_or_a_fault_is_one_line_and_leaves_the_old_state_or_the_new(subject):
    calls = [number for number, call, result, *_ in subject.trace if number and call != "failed"]
    points = [(mode, number) for number in calls for mode in (FULL, FAIL)]
    check(subject, subject.failed, some(points, 2 if subject.calls < 500 else 1))


def test_a_verb_that_writes_in_place_is_noticed(warm):
    subject = Subject(warm, CONTROL)
    assert any(subject.stopped(*point) for point in subject.points() if point[0] == TEAR)
    assert Disk(subject.before).dangers(subject.trace, warm.root)
