"""Runs of hashret that are stopped at a system call, and what must hold afterwards."""

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

from cases import CASES

HERE = Path(__file__).parent
COUNT, KILL, TEAR, FULL, FAIL = range(5)


def end(said):
    """The last that a run printed."""
    return said["stderr"].strip()[-600:]


class Warm:
    """The process of `warm.py`; methods of its `Server` are called as if they were here."""

    def __init__(self, base):
        library = base / "trap.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "trap.c"], check=True)
        path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.root = base / "root"
        (base / "numba").mkdir(mode=0o700)  # which the first verb to search would make, outside of what is its own
        self.process = subprocess.Popen(
            [sys.executable, HERE / "warm.py", library, base],
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "NUMBA_CACHE_DIR": str(base / "numba")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __getattr__(self, name):
        def call(*arguments):
            pickle.dump((name, *arguments), self.process.stdin)
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)

        return call

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Subject:
    """A case, prepared: its state before, after an unbroken run, and that run's trace of system calls."""

    def __init__(self, warm, name):
        self.warm, self.name, self.case = warm, name, CASES[name]
        code, said, _ = warm.make(name)
        assert code == 0, said
        self.old = self.seen()
        self.before = warm.tree(name)
        code, said, self.trace = self.run()
        assert code == 0, said
        self.new, self.after = self.seen(), warm.tree(name)
        self.calls = max(number for number, *_ in self.trace)

    def run(self, mode=COUNT, at=0, argv=None):
        return self.warm.run(self.name, argv or self.case.argv, mode, at)

    def seen(self):
        code, said, view = self.warm.view(self.name)
        assert code == 0, f"what is there does not open: {end(said)}"
        return view

    def points(self):
        """Numbers of the calls, with the way to be stopped there: killed before it or, where it writes, amid it."""
        for number, call, result, *_ in self.trace:
            if number and not result:
                yield KILL, number
                if call == "write":
                    yield TEAR, number

    def called(self, number):
        """A call of the unbroken run in words."""
        call, *paths = next((call, *paths) for one, call, _, *paths in self.trace if one == number)
        return " ".join([f"{number}: {call}", *(os.path.relpath(path, self.warm.root) for path in paths if path)])

    def stopped(self, mode, at):
        """Problems after a run that was stopped, and then repeated: a list of lines, empty where there are none."""
        self.warm.reset()
        code, said, trace = self.run(mode, at)
        problems = []
        if code not in (0, -9):
            return [f"exit code {code}: {end(said)}"]
        problems += self.touched(trace)
        try:
            view = self.seen()
        except AssertionError as error:
            return [*problems, str(error)]
        if view not in (self.old, self.new) and not self.case.between(view, self.old, self.new):
            problems.append(f"neither old nor new: {view}")
        done = view == self.new
        for argv in self.case.again or (self.case.argv,):
            code, said, trace = self.run(argv=argv)
            if code == 0:
                break
        if "Traceback" in said["stderr"] or code not in (0, 2) or (code == 2 and not done):
            problems.append(f"again: exit code {code}: {end(said)}")
        try:
            view = self.seen()
        except AssertionError as error:
            return [*problems, f"again: {error}"]
        if view != self.new:
            problems.append(f"again: other than the new: {view}")
        return problems + self.left(code, said)

    def left(self, code, said):
        after = self.warm.tree(self.name)
        wrong = {path for path in after.keys() | self.after.keys() if after.get(path, 0) != self.after.get(path, 0)}
        if code:  # as nothing is left to do: an empty folder does no harm
            wrong = {path for path in wrong if after.get(path) or self.after.get(path)}
        return [f"again (exit code {code}: {end(said)}): other than unbroken: {sorted(wrong)}"] if wrong else []

    def touched(self, trace):
        """What was changed and is not the verb's."""
        wrong = set()
        failed = {number for number, call, *_ in [*trace, *self.trace] if call == "failed"}
        for number, call, _, *paths in trace:
            for path in filter(None, paths) if number not in failed and call not in ("fsync", "sync") else ():
                if not number or not self.is_output(os.path.relpath(path, self.warm.root)):
                    wrong.add(f"{call} {path}")
        return [f"touched: {sorted(wrong)}"] if wrong else []

    def is_output(self, path):
        for output in self.case.outputs:
            folder, name = os.path.split(output)
            inside = os.path.relpath(path, folder or ".").split(os.sep)[0]
            if inside == name or (inside.startswith(".") and inside.lstrip(".").startswith(f"{name}.")):
                return True
        return False

    def failed(self, mode, at):
        """Problems after a run of which a call was refused: one line, exit code 2, the old state or the new one."""
        self.warm.reset()
        code, said, trace = self.run(mode, at)
        problems = self.touched(trace)
        lines = [line for line in said["stderr"].splitlines() if "hashret: " in line]
        view = None
        with contextlib.suppress(AssertionError):
            view = self.seen()
        if code == 0 and view == self.new:
            return problems
        if code != 2 or len(lines) != 1 or "Traceback" in said["stderr"]:
            problems.append(f"exit code {code}: {end(said)}")
        try:
            view = self.seen()
        except AssertionError as error:
            return [*problems, str(error)]
        if view not in (self.old, self.new) and not self.case.between(view, self.old, self.new):
            problems.append(f"neither old nor new: {view}")
        return problems
