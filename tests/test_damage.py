"""Damaged and hostile files, given to the verbs that read them: see `tests/damage`."""

import json
import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def test_verbs_answer_or_refuse_whatever_is_done_to_their_files(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TOP), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.damage", "--cases=150", "--seed=1", f"--out={tmp_path / 'out.json'}"]
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
    assert (tmp_path / "out.json").exists(), done.stderr
    outcomes = json.loads((tmp_path / "out.json").read_text())
    assert outcomes["failures"] == [], done.stdout
    assert outcomes["answers"]["refused"] > 60  # that it does damage
    assert set(outcomes["faults"].values()) == {0}


def test_a_fault_is_seen(tmp_path):
    """The harness reports what it is there for: tracebacks, signals, hangs, files touched, lines."""
    from damage.sandbox import Sandbox

    sandbox = Sandbox.__new__(Sandbox)
    sandbox.top, sandbox.case, sandbox.pristine = tmp_path, tmp_path / "case", tmp_path / "pristine"
    for folder in (sandbox.case, sandbox.pristine):
        (folder / "outside").mkdir(parents=True)
        (folder / "outside" / "victim").write_text("dear")
    (sandbox.case / "work").mkdir()
    sandbox.resident, sandbox.before = 10**6, sandbox._snapshot()

    def faults(code):
        program = "import os, sys, signal, time\n" + code
        status, _, growth = sandbox._forked(lambda: exec(program, {"case": sandbox.case}), 1)
        return " ".join(sandbox._faults(status, sandbox._text("stderr"), growth))

    assert faults("print('fine'); sys.exit(0)") == ""
    assert faults("print('hashret: no', file=sys.stderr); sys.exit(2)") == ""
    assert "a traceback: ZeroDivisionError" in faults("1 / 0")
    assert "signal SIGTERM" in faults("os.kill(os.getpid(), signal.SIGTERM)")
    assert "a hang" in faults("time.sleep(60)")
    assert "exit code 3" in faults("sys.exit(3)")
    assert "2 lines" in faults("print('hashret: no\\nand no', file=sys.stderr); sys.exit(2)")
    assert "touched outside" in faults("(case / 'outside' / 'victim').write_text('gone')")
