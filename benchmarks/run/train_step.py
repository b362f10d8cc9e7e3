"""What a step of training costs on a CPU, as `hashret train` does it and as torch does it by default, interleaved.

    python -m benchmarks.run.train_step --threads 2

Photographs are random and of 224 px, since neither time nor memory depends on what they show. CPU seconds stand beside
the time of the clock, which other processes change. Steps are forward, backward and AdamW, in bfloat16.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from contextlib import nullcontext

import torch

from benchmarks.lib import common
from hashret.models.network import HashNet
from hashret.training.cpu import fast_training

CASES = {  # name: backbone, stages that train (None for all), photographs in a batch, options of the head
    "vgg16 head": ("vgg16", 0, 256, {"width": 4096}),
    "efficientnet_lite0 last:2": ("efficientnet_lite0", 2, 64, {"width": 2048, "pooled": 1280}),
    "efficientnet_lite0 last:3": ("efficientnet_lite0", 3, 64, {"width": 2048, "pooled": 1280}),
    "efficientnet_lite0 all": ("efficientnet_lite0", None, 64, {"width": 2048, "pooled": 1280}),
    "vgg16 all": ("vgg16", None, 16, {"width": 4096}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[*CASES], choices=[*CASES])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of a round, after one that is not counted")
    common.add_results(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {"threads": options.threads, "rounds": options.rounds, "steps": options.steps, "seed": 0, "cases": {}}
    for name in options.cases:
        result["cases"][name] = case = measured(name, options)
        least = {way: min(figures["cpu_s"]) for way, figures in case.items()}
        print(f"{name}: {least}, {least['torch'] / least['hashret']:.2f} times the CPU seconds", flush=True)
        common.save("train_step", result, options.results)


def measured(name, options):
    """Seconds of a step, of each round, by the way it is done."""
    backbone, stages, batch, head = CASES[name]
    torch.manual_seed(0)
    net = HashNet(48, 10, 224, backbone, attention=False, centred=True, **head).to(memory_format=torch.channels_last)
    frozen, trained = net.divided(stages)
    inputs = torch.randint(0, 255, (batch, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        if frozen is not None:
            inputs = torch.cat([frozen(net.architecture.normalize(some)).float() for some in inputs.split(16)])
    inputs = inputs.clone()
    optimizer = torch.optim.AdamW(trained.train().parameters(), lr=1e-4, fused=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            output = trained(inputs)
        loss = output.logits.square().mean() + output.scores.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    ways = {"torch": nullcontext, "hashret": lambda: fast_training(trained)}
    seconds = {way: {"cpu_s": [], "clock_s": [], "images_per_second": []} for way in ways}
    for _ in range(options.rounds):
        for way, context in ways.items():
            with context():
                step()
                started, spent = time.perf_counter(), cpu_seconds()
                for _ in range(options.steps):
                    step()
                clock, cpu = time.perf_counter() - started, cpu_seconds() - spent
            figures = seconds[way]
            figures["cpu_s"].append(round(cpu / options.steps, 3))
            figures["clock_s"].append(round(clock / options.steps, 3))
            figures["images_per_second"].append(round(batch * options.steps / clock, 1))
    return seconds


def cpu_seconds():
    """Seconds that the processors have worked for this process, in it or for it in the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
