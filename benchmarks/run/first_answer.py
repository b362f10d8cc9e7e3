"""From nothing to the first answer: pip install, `hashret sync` of a folder of photographs, `hashret query` of one.

    python -m benchmarks.run.first_answer --photos corel5k/images --weights efficientnet_lite0_imagenet.safetensors
    python -m benchmarks.run.first_answer --install "by default=." --install "with torch 2.13=. torch==2.13.0" …

--install names a way to install hashret, and the arguments of pip, behind variables of its environment. Each is
installed into a virtual environment of its own, without pip's cache, and its disk space measured. Then, in rounds that
alternate between the ways, the photographs are linked into a fresh folder, and the two commands run with a home and
caches that nothing has been in: `hashret sync PHOTOS --weights FILE`, `hashret query PHOTO`. The photograph must come
first among the answers. --weights stands for the one download that sync makes, which is therefore not in the times. The
load of the machine is recorded around each step, as others may be at work on it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lib import common

EXTRAS = "'.[fast,serve,openvino]'"
WAYS = (
    f"without CUDA=HASHRET_CPU=1 --extra-index-url https://download.pytorch.org/whl/cpu {EXTRAS}",
    f"with CUDA={EXTRAS}",
)
NAMED = ("torch", "torchvision", "faiss-cpu", "faiss-gpu", "openvino")
KEPT = ("LANG", "LC_ALL", "PATH", "TMPDIR")  # of the environment


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs, which is not changed")
    parser.add_argument("--weights", type=Path, required=True, help="of efficientnet_lite0")
    parser.add_argument("--install", action="append", metavar="NAME=ARGUMENTS", help=f"default: {WAYS}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="an empty folder on the disk of the photographs")
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness; below 0, others' work comes behind")
    common.add_results(parser)
    options = parser.parse_args()
    niceness = os.nice(options.nice)
    ways = dict(way.split("=", 1) for way in options.install or WAYS)
    work = Path(tempfile.mkdtemp(prefix="first-answer-", dir=options.work))
    try:
        results = {name: install(work / name, arguments) for name, arguments in ways.items()}
        for _ in range(options.rounds):
            for name in ways:
                results[name]["rounds"].append(first_answer(work / name, options.photos, options.weights.resolve()))
                print(name, results[name]["rounds"][-1], flush=True)
    finally:
        shutil.rmtree(work)
    photographs = sum(1 for path in options.photos.rglob("*") if path.is_file())
    setting = {"photographs": photographs, "nice": niceness, "seed": 0}  # that of hashret sync
    common.save("first_answer", setting | {"ways": results}, options.results)


def install(folder, arguments):
    """Make a virtual environment and install hashret into it: what that took."""
    folder.mkdir()
    words = shlex.split(arguments)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    pip = [folder / "env" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    steps = [
        [sys.executable, "-m", "venv", folder / "env"],
        [*pip, *(word for word in words if word.partition("=")[0] not in variables)],
    ]
    timed = timing(
        lambda: [subprocess.run(step, check=True, cwd=common.TOP, env=os.environ | variables) for step in steps]
    )
    files = [path for path in (folder / "env").rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_blocks for path in files) * 512 / 1e6
    asked = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    packages = subprocess.check_output([folder / "env" / "bin" / "python", "-c", asked], text=True).split()
    named = [
        package for package in packages if package.split("==")[0] in ("torch", "faiss-cpu", "faiss-gpu", "openvino")
    ]
    result = {"arguments": arguments, "install": timed, "megabytes": round(megabytes), "packages": named, "rounds": []}
    print(folder.name, result, flush=True)
    return result


def first_answer(folder, photos, weights):
    """Run the two commands as somebody who has just installed hashret would: what each took."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        home, mine = Path(fresh, "home"), Path(fresh, "photos")
        home.mkdir()
        shutil.copytree(photos, mine, copy_function=os.link)
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"HOME": str(home)}
        hashret = folder / "env" / "bin" / "hashret"

        def run(*arguments):
            done = subprocess.run([hashret, *arguments], cwd=mine, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        sync = timing(lambda: run("sync", mine, "--weights", weights))
        photo = min(path.name for path in mine.iterdir() if path.is_file())
        answer = []
        query = timing(lambda: answer.append(run("query", photo)))
        assert answer[0].splitlines()[1].endswith(photo), answer
        return {"sync": sync, "query": query}


def timing(work):
    """Seconds that work took, of them CPU time of its processes, and the machine's load before and after it."""
    load, before, started = os.getloadavg()[0], os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "load": loads}


if __name__ == "__main__":
    main()
