"""The paper's tables, run anew: methods x bits x seeds of one protocol, all on the same data, features and metrics.

    python -m benchmarks.run.tables --protocol cifar10-1 --data DIR --weights FILE --work runs/tables --jobs 2

Each run trains, encodes database and queries, builds an index and scores it, through the functions behind the verbs,
and leaves one JSON under results/tables/. What has its JSON is not run again, and a killed run goes on after its last
epoch: run the same command again. Convolution features are computed once and shared. `pages/tables.py` makes the
tables and plots from the JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.lib import common
from hashret.methods import METHODS

LENGTHS = (12, 24, 32, 48)  # also those of the nested trainings whose JSON does not name any
SEVERAL_SEEDS = ("am-vggh+", "vggh+", "am-vggh", "vggh")
WEIGHTS = {  # under ../shared/weights
    "vgg16": "vgg16_imagenet_features.safetensors", "efficientnet_lite0": "efficientnet_lite0_imagenet.safetensors",
}  # fmt: skip
ALL_BY_DIRECTIONS = 10**8  # queries times items that are all compared by directions at most, which takes minutes
# Rows of the ablation: what each changes in AM-VGGH as it stands.
ABLATIONS = {
    "gates-open": {"gate": "open"},
    "gates-half": {"gate": "half"},
    "quantization": {"quantization": 0.2},
    "balance": {"balance": 0.2},
    "smoothing": {"smoothing": 0.1},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", required=True, help="cifar10-1, cifar10-2, corel5k-21 or nuswide-21")
    parser.add_argument("--data", type=Path, required=True, help="folder of the protocol's photographs")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", help="default: the shared ones of the backbone")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the runs leave behind")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--bits", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), help="AM-VGGH and VGGH; others: the first")
    parser.add_argument("--ablations", nargs="*", choices=ABLATIONS, help="rows of the ablation instead; none: all")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--finetune", default="head")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--epochs", type=int, help="default: the method's own")
    parser.add_argument("--nested", action="store_true", help="train all --bits at once instead, as prefixes of a code")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--backbone-lr", type=float)
    parser.add_argument("--views", type=int, default=0, help="as for hashret train, with --finetune head or last:N")
    parser.add_argument("--augment", help="as for hashret train, with --finetune all or --views")
    parser.add_argument("--dither", action="store_true", help="as for hashret train")
    parser.add_argument("--smoothing", type=float, help="of the methods that take it")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes of each run")
    parser.add_argument("--keep", action="store_true", help="keep checkpoints, codes and indexes")
    common.add_results(parser, common.RESULTS / "tables")
    options = parser.parse_args()
    options.weights = options.weights or str(common.shared() / "weights" / WEIGHTS[options.backbone])
    todo = [spec for spec in plan(options) if not are_there(options, spec)]
    print(f"{len(todo)} runs to do", flush=True)
    spawn = multiprocessing.get_context("spawn")
    if todo and options.finetune == "head":
        filling = spawn.Process(target=fill_cache, args=(options,))
        filling.start()
        filling.join()
        if filling.exitcode:
            raise SystemExit("the convolution features could not be computed")
    workers = ProcessPoolExecutor(
        options.jobs, mp_context=spawn, max_tasks_per_child=1, initializer=end_with_parent
    )  # a process a run, so that its peak memory is its own
    with workers as pool:
        runs = {pool.submit(run, options, spec): spec for spec in todo}
        for number, done in enumerate(as_completed(runs), 1):
            print(f"[{number}/{len(todo)}] {done.result()}", flush=True)


def end_with_parent():
    """End this process as soon as the one that started it ends, which may be killed.

    It would go on otherwise, for hours, beside the run that goes on in its place.
    """

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def fill_cache(options):
    """Compute the convolution features of all photographs with every core, before runs share the cores."""
    from hashret.data import open_data
    from hashret.models.backbones import get_backbone
    from hashret.models.encoder import pick_device, pick_precision
    from hashret.models.weights import load_backbone
    from hashret.training.feed import FeatureFeed

    end_with_parent()
    device, started = pick_device("auto"), time.perf_counter()
    layers, architecture = load_backbone(options.weights, options.backbone), get_backbone(options.backbone)
    precision = pick_precision(None, "auto", device, architecture)  # that of the runs, which read what is cached here
    for part in ("train", "database", "test"):
        source = open_data(f"{options.protocol}:{options.data}", part)
        FeatureFeed(source, layers, architecture, options.image_size, precision, device)
    print(f"convolution features: {time.perf_counter() - started:.0f} s", flush=True)


def plan(options):
    """What to run: (method, bits, seed, name of the ablation or None), the methods with several seeds last.

    Of a nested training, bits are all of its lengths.
    """
    if options.ablations is not None:
        rows = options.ablations or ABLATIONS
        return [
            ("am-vggh", bits, seed, row) for seed, bits, row in itertools.product(options.seeds, options.bits, rows)
        ]
    if options.nested:
        lengths, name = tuple(sorted(options.bits)), "nested-dither" if options.dither else "nested"
        return [(method, lengths, seed, name) for seed, method in itertools.product(options.seeds, options.methods)]
    name = "dither" if options.dither else None
    first = [(m, b, options.seeds[0], name) for m, b in itertools.product(options.methods, options.bits)]
    again = [m for m in options.methods if m in SEVERAL_SEEDS]
    return first + [(m, b, s, name) for s, m, b in itertools.product(options.seeds[1:], again, options.bits)]


def results_of(options, spec):
    """The file of a run's result, by the length of code."""
    method, bits, seed, ablation = spec
    lengths = bits if isinstance(bits, tuple) else (bits,)
    return {b: options.results / f"{name_of(options, (method, b, seed, ablation))}.json" for b in lengths}


def are_there(options, spec):
    """Whether a run has left all its results.

    Raises:
        SystemExit: there is a result of that name which another command left, by a setting that names do not have.
    """
    present = [path for path in results_of(options, spec).values() if path.exists()]
    asked = {}
    if not METHODS[spec[0]].fitted:
        asked = {"width": options.width, "epochs": options.epochs, "batch_size": options.batch_size, "lr": options.lr}
        asked |= {"backbone_lr": options.backbone_lr, "smoothing": options.smoothing, "augment": options.augment}
    for path in present:
        result = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(spec[1], tuple):
            lengths = {"lengths": result.get("lengths", [*LENGTHS])}
            common.check_settings(path, lengths, {"lengths": spec[1]})
        settings = result["training"] | result
        for name, value in asked.items():
            if value is not None and settings.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise SystemExit(
                    f"{path} is of {option} {settings.get(name)}, not {value}: ask for that, or name other --results"
                )
    return len(present) == len(results_of(options, spec))


def name_of(options, spec):
    """Name of a run."""
    method, bits, seed, ablation = spec
    bits = bits[-1] if isinstance(bits, tuple) else bits
    network = "" if options.backbone == "vgg16" else f"_{options.backbone}"
    trained = options.finetune.replace(":", "-") + (f"-views-{options.views}" if options.views else "")
    name = f"{options.protocol}_{options.image_size}px{network}_{trained}_{method}_{bits}b_seed{seed}"
    return f"{name}_{ablation}" if ablation else name


def run(options, spec):
    """One run, from photographs to its JSON; returns a line that says what came out."""
    import faiss
    import torch

    from hashret import build_index, encode, evaluate, open_index, train
    from hashret.files import read_json
    from hashret.names import to_json

    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    method, bits, seed, ablation = spec
    name = name_of(options, spec)
    work = options.work / name
    work.mkdir(parents=True, exist_ok=True)
    data, seconds = f"{options.protocol}:{options.data}", {}

    def timed(step, function, *args, **keywords):
        started = time.perf_counter()
        result = function(*args, **keywords)
        seconds[step] = round(time.perf_counter() - started, 1)
        return result

    unfinished = (work / ".model.safetensors.training/state.pt").exists()
    settings = {"bits": bits, "method": method, "seed": seed, "image_size": options.image_size, "width": options.width}
    settings |= {"epochs": options.epochs, "batch_size": options.batch_size, "finetune": options.finetune}
    settings |= {"backbone": options.backbone} | ABLATIONS.get(ablation, {}) | {"dither": options.dither}
    chosen = {"lr": options.lr, "backbone_lr": options.backbone_lr, "smoothing": options.smoothing}
    settings |= {"views": options.views, "augment": options.augment}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    model, index = work / "model.safetensors", work / "index"
    trained, wanted = work / "trained.json", to_json(settings | {"commit": common.commit()})
    if trained.exists() and trained.read_text() == wanted:  # by a process that was killed afterwards
        training = read_json(model.with_suffix(".json"), "training record")
        seconds["train"] = training["seconds"]
    else:
        training = timed(
            "train", train, data, model, weights=options.weights, workers=options.workers, resume=unfinished,
            overwrite=not unfinished, **settings,
        )  # fmt: skip
        if unfinished:  # this process did only the rest
            seconds["train"] = training["seconds"]
        trained.write_text(wanted)
    frozen = options.finetune == "head"
    for part in ("database", "test"):
        timed(
            f"encode {part}", encode, data, model, work / part, split=part, fill_cache=frozen, workers=options.workers,
            overwrite=True,
        )  # fmt: skip
    timed("build-index", build_index, work / "database", index, overwrite=True)
    whole = len(open_index(index))
    keep = ("quantization", "pairs", "balance", "smoothing", "gate", "dropout", "lr", "backbone_lr", "weight_decay")
    keep += (
        "dither_spread",
        "augment",
        "views",
        "precision",
        "heldout",
        "best_epoch",
        "train_images",
        "heldout_images",
        "epochs_run",
    )
    maps, nested = [], {"lengths": bits} if isinstance(bits, tuple) else {}
    for length, path in results_of(options, spec).items():
        asked = {"queries": work / "test", "index": index, "bits": length}
        by_values = asked | {"rerank_by": "values"}  # as in the paper
        metrics = timed("evaluate", evaluate, **by_values, index_order=True, k=(1, 10, 100)).as_dict()
        at_1000 = evaluate(**by_values, topk=1000)
        directions = None
        if whole * metrics["queries"] <= ALL_BY_DIRECTIONS:
            directions = evaluate(**asked, candidates=whole, rerank_by="directions").as_dict()["reranked"]
        maps.append(f"{metrics['hamming']['map']:.4f}")
        common.save(
            path.stem,
            {
                "protocol": options.protocol, "backbone": options.backbone,
                "method": method, "bits": length, "seed": seed, "ablation": ablation, **nested,
                "split_sha256": metrics["split_sha256"], "image_size": options.image_size, "width": options.width,
                "finetune": options.finetune, "epochs": training["epochs"], "batch_size": options.batch_size,
                "threads": threads, "seconds": seconds, "peak_memory_mb": peak_memory(),
                "training": {key: training[key] for key in keep}, "metrics": metrics,
                "map_at_1000": at_1000.hamming.map, "all_by_directions": directions,
                "bits_used": bits_used(work / "database", work / "test", length),
            },
            options.results,
        )  # fmt: skip
    if not options.keep:
        shutil.rmtree(work)
    return f"{name}: mAP {', '.join(maps)}, {sum(seconds.values()):.0f} s"


def bits_used(database, queries, bits):
    """What the bits of codes are worth: how many uncorrelated ones vary as much, and the mAP of a half of them.

    ``effective`` is the participation ratio, see `BitStatistics`; ``half_map`` the mAP@all of every second bit, and of
    the others, expected over ties.
    """
    from hashret.bits import pack, unpack
    from hashret.metrics import average_precision, count_by_distance
    from hashret.reporting.bits import bit_statistics
    from hashret.shards import ShardFolder

    items, asked = (ShardFolder(folder).load().shortened(bits) for folder in (database, queries))
    asked = asked.as_queries()
    statistics = bit_statistics(items.codes, bits, items.labels)
    halves = []
    for first in (0, 1):
        xq, xb = (pack(unpack(shard.codes, bits)[:, first::2]) for shard in (asked, items))
        counts = count_by_distance(xq, xb, asked.labels, items.labels, len(range(first, bits, 2)))
        halves.append(float(average_precision(counts).mean()))
    return {
        "effective": round(statistics.effective, 2), "distinct": statistics.distinct,
        "rare": len(statistics.rare), "copies": len(statistics.copies), "half_map": halves,
    }  # fmt: skip


def peak_memory():
    """Most memory this process held, in MB, and of the GPU where there is one."""
    import torch

    peak = {"process": common.peak_memory()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() // 2**20
    return peak


if __name__ == "__main__":
    main()
