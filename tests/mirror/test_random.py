"""A short run of the benchmark that changes photographs at random and kills `hashret sync`."""

import json
import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_random_changes_and_kills(tmp_path):
    """It takes about ten seconds: each round encodes all photographs once more to compare."""
    asked = ["--work", str(tmp_path / "work"), "--changes", "15", "--seed", "5", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run.sync_random", *asked],
        cwd=TOP, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "sync_random.json").read_text())
    assert figures["encoded though in the index"] == 0
    assert figures["contents encoded"] >= 45
    assert figures.get("killed", 0) + figures.get("killed too late", 0) > 0  # which of them, the machine decides
