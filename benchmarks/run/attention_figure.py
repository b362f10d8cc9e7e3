"""Where AM-VGGH and VGGH look: docs/attention.webp, and how much their gates and maps say, on CIFAR-10.

    python -m benchmarks.run.attention_figure RUN [RUN ...] --data DIR

RUN is a folder with model.safetensors, of an encoder trained on `cifar10-1`; where it has index/, of the train set, it
is drawn, too: for the first test photograph of every second class. The measures are means over the first --photos test
photographs of each class. Writes results/attention_cifar10-1_{SIZE}px.json.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from benchmarks.lib import common
from hashret.bits import binarize
from hashret.data import open_data, read_image
from hashret.explanation import attribution_tiles, concentration, explain_results
from hashret.models.attribution import attribute
from hashret.models.checkpoint import load_encoder
from hashret.rendering import heatmaps
from hashret.rendering.pictures import QUERY, Tile, hit_caption, hit_frame, letterbox, open_small, sheet, thumbnail
from hashret.search import Searcher

HITS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, help="CIFAR-10 as class folders")
    parser.add_argument("--photos", type=int, default=20, help="measured photographs a class")
    parser.add_argument("--out", type=Path, default=common.TOP / "docs" / "attention.webp")
    common.add_results(parser)
    options = parser.parse_args()
    source = open_data(f"cifar10-1:{options.data}", "test")
    draw([run for run in options.runs if (run / "index").exists()], first_of_classes(source, 1)[::2], options.out)
    files = first_of_classes(source, options.photos)
    measured, cells = [], {}
    for run in options.runs:
        encoder = load_encoder(run / "model.safetensors")
        figures, cells[run.name] = measure(encoder, files)
        print(run.name, figures, flush=True)
        meta = {name: encoder.meta[name] for name in ("method", "bits", "image_size", "width", "gate", "seed")}
        measured.append({"run": run.name, **meta, "precision": encoder.compute_dtype, **figures})
    alike = {f"{a}, {b}": correlation(cells[a], cells[b]) for a, b in combinations(cells, 2)}
    size = encoder.image_size
    common.save(
        f"attention_cifar10-1_{size}px",
        {"protocol": source.protocol, "photographs": len(files), "runs": measured, "maps_correlate": alike},
        options.results,
    )


def first_of_classes(source, n):
    """Files of the first ``n`` photographs of each class, in the order of the source."""
    return [str(source.file(row)) for label in range(10) for row in np.flatnonzero(source.labels == label)[:n]]


def draw(runs, queries, out):
    """A row a query: the photograph, then of each run its gate, its contributions and its hits with theirs."""
    rows = [[Tile(thumbnail(path), (Path(path).parent.name, "query"), QUERY)] for path in queries]
    heads = ["photograph"]
    for run in runs:
        searcher = Searcher(run / "index", run / "model.safetensors")
        name = searcher.encoder.meta["method"].upper()
        results = list(zip(queries, searcher.search_many(queries, HITS), strict=True))
        explained = explain_results(results, searcher.encoder)
        gates = explained[0].attribution.spatial is not None
        heads += [f"{name}: gate"] * gates + [f"{name}: bits", f"{name}: hits", *[""] * (HITS - 1)]
        for row, one in zip(rows, explained, strict=True):
            row += attribution_tiles(open_small(one.path), one.attribution)[: 1 + gates]
            label = Path(one.path).parent.name
            row += [hit_tile(hit, attribution, label) for hit, attribution in one.hits]
    cells = len(explained[0].attribution.cells)
    note = f"Maps of {cells} x {cells} cells, enlarged smoothly; over a hit: what its cells add to the query's bits."
    picture = sheet(rows, heads, heatmaps.legend(["spatial gate", "adds to the bits"], note))
    picture.save(out, quality=88, method=6)
    print(f"-> {out}")


def hit_tile(hit, attribution, label):
    levels = heatmaps.contribution_levels(attribution.cells)
    return Tile(letterbox(heatmaps.overlay(open_small(hit.path), levels)), hit_caption(hit), hit_frame(hit, label))


def measure(encoder, files):
    """Measures of an encoder's gates and maps: -> dict, and the contributions float32 (n, h, w)."""
    images = np.stack([read_image(path, encoder.image_size) for path in files])
    found = attribute(encoder, encoder.backbone(images), k=512)
    codes = binarize(np.stack([one.hash_outputs for one in found]))
    cells = np.stack([one.cells for one in found])
    gates = None if found[0].spatial is None else np.stack([one.spatial for one in found])
    orders = {"most": -cells, "least": cells, "random": np.random.default_rng(0).random(cells.shape)}
    figures = {}
    if gates is not None:
        orders |= {"highest gate": -gates, "lowest gate": gates}
        figures = {
            "spatial_gate": range_of(gates.reshape(len(gates), -1)),
            "channel_gate": range_of(np.stack([one.channel for one in found])),
            "gate_and_contributions_correlate": correlation(gates, cells),
        }
    half, taken = np.mean([concentration(one) for one in cells], axis=0)
    figures |= {
        "places": cells[0].size,
        "places_that_add_half": float(half),
        "share_taken_away": float(taken),
        "added_up_of_agreement": float(np.mean([one.cells.sum() / one.agreement for one in found])),
        "left_out_correlates": correlation(cells, np.stack([lost(encoder, one) for one in found])),
        "bits_changed_by_painting_a_quarter": {
            name: float((binarize(encoder.hash_outputs(painted(images, order))) != codes).sum(axis=1).mean())
            for name, order in orders.items()
        },
    }
    return figures, cells


def range_of(gates):
    """Means over photographs (n, m) of a gate's smallest, mean and largest number, and of how it varies in each."""
    return {
        "least": float(gates.min(axis=1).mean()),
        "mean": float(gates.mean()),
        "largest": float(gates.max(axis=1).mean()),
        "deviation_over_mean": float((gates.std(axis=1) / gates.mean(axis=1)).mean()),
    }


def correlation(a, b):
    """Pearson's correlation over the cells of a photograph, mean over photographs."""
    return float(np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]))


def lost(encoder, one):
    """What the agreement loses where each cell in turn is left out, by running the head again: float32 (h, w)."""
    activations = torch.from_numpy(one.activations[one.strongest.argsort()])
    h, w = one.cells.shape
    without = activations.repeat(h * w, 1, 1, 1)
    for cell in range(h * w):
        without[cell, :, cell // w, cell % w] = 0
    with torch.inference_mode():
        logits = encoder.head.read(without.to(encoder.device)).logits.cpu().numpy()
    return one.agreement - (logits * np.where(binarize(one.hash_outputs), 1, -1)).sum(axis=1).reshape(h, w)


def painted(images, order):
    """Images (n, 3, s, s) with the quarter of cells that is least in ``order`` (n, h, w) in the mean colour."""
    images, (n, h, w) = images.copy(), order.shape
    side = images.shape[-1] // h
    for image, cells in zip(images, order.reshape(n, -1), strict=True):
        mean = image.mean(axis=(1, 2)).astype(np.uint8)[:, None, None]
        for cell in np.argsort(cells, kind="stable")[: h * w // 4]:
            y, x = cell // w * side, cell % w * side
            image[:, y : y + side, x : x + side] = mean
    return images


if __name__ == "__main__":
    main()
