"""Running hashret in processes of their own, and killing them."""

import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import torch
from click.testing import CliRunner

from hashret.cli import main


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


def run_page(page, folder, monkeypatch):
    """Run the examples of a page in docs/, one after the other: -> names of its Python, and what its commands print."""
    monkeypatch.chdir(folder)
    names, said = {}, []
    for language, block in re.findall(r"```(python|sh)\n(.*?)```", page, re.S):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            _, *arguments = shlex.split(line, comments=True)
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, (line, done.output)
            said.append(done.stdout)
    return names, said


def torchrun(*arguments, processes=2, launcher="torch.distributed.run -m hashret"):
    """Start hashret in several processes of a core each, as a user would."""
    module, *options = launcher.split()
    command = [sys.executable, "-m", module, f"--nproc-per-node={processes}", *options, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def together(function, processes, *arguments, **options):
    """Call a function in each of several processes that are one group: -> what each returned or raised, in order.

    They are forked from a server that has imported torch already. One that was killed has returned its exit code.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "hashret.training.start", "hashret.encoding"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        group = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = context.Process(target=_one_of, args=(theirs, group, function, arguments, options))
        process.start()
        theirs.close()
        running.append((process, ours))
    return [_result(process, ours) for process, ours in running]


def _one_of(connection, group, function, arguments, options):
    os.environ |= {name: str(value) for name, value in group.items()}
    torch.set_num_threads(1)
    try:
        result = function(*arguments, **options)
    except Exception as error:
        result = error
    connection.send(result)


def _result(process, connection):
    try:
        result = connection.recv() if connection.poll(100) else "still running"
        process.kill()
    except EOFError:
        process.join()
        result = process.exitcode
    return result


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
