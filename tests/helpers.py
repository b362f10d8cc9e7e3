"""Running hashret in a process of its own, and killing it."""

import os
import signal
import subprocess
import sys
import time


def start(code, **environment):
    """Run Python code in a new process group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(*arguments, processes=2):
    """Run hashret in several processes of a core each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "hashret", *arguments]
    return subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )


def kill_when(process, ready, limit=120):
    """SIGKILL a process and its children as soon as ``ready()`` is true; False if it ended before."""
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        if ready():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    assert process.poll() is not None, "the process neither got ready nor ended"
    return False


def tree_bytes(folder):
    """Every file below a folder with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
