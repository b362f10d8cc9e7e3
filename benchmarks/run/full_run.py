"""The main job on real CIFAR-10, verb by verb as a user types them: train, encode, build-index, query, evaluate.

    python -m benchmarks.run.full_run --image-size 64 --width 2048 --work runs/64

Resumable: run it again after a kill, with the same options. The result names each command with its wall time; $DATA is
CIFAR-10 as class folders, unpacked from the shared archive into --work/.. once, and $WEIGHTS the shared ImageNet
weights.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from benchmarks.lib import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything the run leaves")
    parser.add_argument(
        "--data", type=Path, help="CIFAR-10 as class folders; default: unpacked from the shared archive"
    )
    parser.add_argument("--weights", type=Path, default=common.shared() / "weights/vgg16_imagenet_features.safetensors")
    parser.add_argument("--method", default="am-vggh")
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--finetune", default="head")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--extra", default="", help="further options of hashret train, as one string")
    common.add_results(parser)
    options = parser.parse_args()
    data = options.data or unpack(options.work.parent / "cifar10")
    options.work.mkdir(parents=True, exist_ok=True)
    run = Steps(options.work, {"$DATA": str(data.resolve()), "$WEIGHTS": str(options.weights.resolve())})
    name = f"cifar10-2_{options.method}_{options.bits}b_{options.image_size}px_{options.finetune}_seed{options.seed}"
    train = f"train --data cifar10:$DATA --weights $WEIGHTS --method {options.method} --bits {options.bits} "
    train += f"--image-size {options.image_size} --finetune {options.finetune} --width {options.width} "
    train += f"--epochs {options.epochs} --seed {options.seed} {options.extra}"
    evaluate = f"evaluate codes-test --candidates {options.candidates} --protocol cifar10-2 --out metrics.json"
    check_commands(options.results / f"{name}.json", {"train": train.strip(), "evaluate": evaluate})
    unfinished = (options.work / ".model.safetensors.training/state.pt").exists()
    run.step("train", train.strip(), "model.safetensors", " --resume" if unfinished else " --overwrite")
    run.step("encode train", "encode cifar10:$DATA --split train --fill-cache", "codes/skipped.jsonl")
    run.step(
        "encode test", "encode cifar10:$DATA --split test --out codes-test --fill-cache", "codes-test/skipped.jsonl"
    )
    run.step("build-index", "build-index", "index/index.json")
    photo = sorted((data / "test" / "horse").iterdir())[0]
    run.step("query", f"query $DATA/test/horse/{photo.name} --html query.html --grid query.png", "query.png")
    run.step("evaluate", evaluate, "metrics.json")
    record = json.loads((options.work / "model.json").read_text())
    metrics = json.loads((options.work / "metrics.json").read_text())
    common.save(
        name,
        {
            "protocol": "cifar10-2: 10,000 test images query the 50,000 train images; alike if of one class; mAP@all",
            "steps": run.steps,
            "training": {k: v for k, v in record.items() if k not in ("data", "weights")},
            "metrics": metrics,
        },
        options.results,
    )


def check_commands(path, commands):
    """Stop where there is a result of that name by other commands: names have neither width nor epochs."""
    if path.exists():
        steps = json.loads(path.read_text())["steps"]
        recorded = {name: step["command"] for name, step in steps.items()}
        common.check_settings(path, recorded, {name: f"hashret {command}" for name, command in commands.items()})


class Steps:
    """Runs verbs in a folder and keeps in `steps.json` what each took; one whose product is there is not run again.

    What ``names`` stand for is kept beside it: a folder that other options or other files have left is refused.
    """

    def __init__(self, work, names):
        self.work, self.names, self.file = work, names, work / "steps.json"
        self.steps = json.loads(self.file.read_text()) if self.file.exists() else {}
        stored = work / "names.json"
        if stored.exists() and json.loads(stored.read_text()) != names:
            sys.exit(f"{work} is a run on other files ({stored}): name another --work")
        stored.write_text(json.dumps(names, indent=2))

    def step(self, name, command, product, once=""):
        if name in self.steps and (done := self.steps[name]["command"]) != f"hashret {command}":
            sys.exit(f"{self.work} has run {done!r}, not 'hashret {command}': name another --work")
        if name in self.steps and (self.work / product).exists():
            return
        print(f"== hashret {command}{once}", flush=True)
        words = shlex.split(command + once)
        for short, path in self.names.items():
            words = [word.replace(short, path) for word in words]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "hashret", *words], cwd=self.work, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - started
        print(done.stdout)
        if done.returncode:
            sys.exit(done.returncode)
        earlier = self.steps.get(name, {}).get("seconds", 0) if "--resume" in once else 0
        last = done.stdout.strip().splitlines()[-1]
        self.steps[name] = {
            "command": f"hashret {command}",
            "seconds": round(seconds + earlier, 1),
            "commit": common.commit(),
        }
        if name.startswith("encode"):
            self.steps[name]["says"] = last
        self.file.write_text(json.dumps(self.steps, indent=2))


def unpack(folder):
    """CIFAR-10 from the shared archive, once."""
    if not (folder / "test").is_dir():
        print(f"unpacking CIFAR-10 into {folder}")
        with tarfile.open(common.shared() / "data/cifar10-png.tar") as archive:
            archive.extractall(folder, filter="data")
    return folder


if __name__ == "__main__":
    main()
