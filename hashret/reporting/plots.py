"""The plots of a run's report: training, retrieval, bits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metrics import Floats
from .bits import BitStatistics
from .svg import FIRST, LINE, QUIET, SECOND, Plot, plot

_POSITIVE, _NEGATIVE = (47, 111, 208), (221, 107, 32)  # seen on white and on black, and apart by the colour-blind
_SQUARE = (4.6, 4.6)
_NAMED_BITS = 32  # that a heat map has room to number


def training_plots(record: dict[str, Any]) -> list[Plot]:
    """Plot loss and held-out mAP by epoch; no plots where there are no two epochs to draw."""
    epochs = [line for line in record.get("epochs_run", ()) if line["loss"] is not None]
    if len(epochs) < 2:
        return []
    xs, loss = [line["epoch"] for line in epochs], [line["loss"] for line in epochs]
    caption = f"Mean loss of the train images: {loss[0]:.4g} in epoch {xs[0]}, {loss[-1]:.4g} in epoch {xs[-1]}."
    plots = [plot("Loss by epoch", caption, partial(_draw_epochs, xs=xs, ys=loss, ylabel="loss"))]
    if all("heldout_map" in line for line in epochs):
        held, kept = [line["heldout_map"] for line in epochs], record["best_epoch"]
        of_kept, highest = held[xs.index(kept)], max(held)
        beside = "the highest" if of_kept == highest else f"where the highest is {highest:.4f}"
        caption = (
            f"mAP@all of the {record['heldout_images']:,} held-out train images, among other train images and among "
            f"each other. Epoch {kept} was kept, {of_kept:.4f}, {beside}."
        )
        draw = partial(_draw_epochs, xs=xs, ys=held, ylabel="held-out mAP", kept=kept)
        plots.append(plot("Held-out mAP by epoch", caption, draw))
    return plots


def _draw_epochs(axes: Any, xs: Sequence[int], ys: Sequence[float], ylabel: str, kept: int | None = None) -> None:
    axes.plot(xs, ys, color=FIRST, marker="o", markersize=3)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if kept is not None:
        _mark(axes, kept, "kept", 0.03, left=bool(kept > np.mean(xs)))


def _mark(axes: Any, x: float, name: str, height: float, left: bool) -> None:
    """Draw a vertical line at ``x`` with its name at one side, at a fraction of the height of the axes."""
    axes.axvline(x, color=SECOND, linestyle=":")
    offset, side = (-4, "right") if left else (4, "left")
    coordinates = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": side}
    axes.annotate(name, (x, height), (offset, 0), color=SECOND, **coordinates)


def curve_plot(hamming: dict[str, Any], bits: int) -> Plot:
    """Plot precision and recall within each radius."""
    precision, recall = hamming["curve"]["precision"], hamming["curve"]["recall"]
    radius = int(np.argmax(np.asarray(precision) * np.asarray(recall)))

    def draw(axes: Any) -> None:
        axes.plot(recall, precision, color=FIRST, marker="o", markersize=2.5)
        axes.plot(recall[2], precision[2], color=SECOND, marker="D", linestyle="none")
        axes.annotate("2 bits", (recall[2], precision[2]), (6, -11), textcoords="offset points", color=SECOND)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))

    caption = (
        f"Of all items within 0, 1, … {bits} bits of a query, mean over queries; one that finds nothing counts as "
        f"precision 0. Within 2 bits: precision {precision[2]:.3f}, recall {recall[2]:.3f}. Within {radius} bits: "
        f"precision {precision[radius]:.3f}, recall {recall[radius]:.3f}."
    )
    return plot("Precision and recall by Hamming radius", caption, draw)


def rank_plot(by_rank: dict[str, Any], candidates: int, rerank_by: str) -> Plot:
    """Plot precision at k, in Hamming order and re-ranked."""
    ks, plain, reranked = by_rank["k"], by_rank["hamming"], by_rank["reranked"]

    def draw(axes: Any) -> None:
        axes.plot(ks, plain, color=FIRST, label="by Hamming distance")
        axes.plot(ks, reranked, color=SECOND, linestyle="--", label="re-ranked")
        axes.set(xscale="log", xlabel="k, hits", ylabel="precision@k")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        low, high = min(plain + reranked), max(plain + reranked)
        axes.set_ylim(max(0, low - 0.05), min(1.01, high + 0.05))
        axes.legend()

    caption = (
        f"Share of the first k hits that are relevant: at k = {ks[0]}, {plain[0]:.3f}, re-ranked {reranked[0]:.3f}; at "
        f"k = {ks[-1]:,}, {plain[-1]:.3f} and {reranked[-1]:.3f}. Re-ranked: the {candidates:,} nearest by {rerank_by}."
    )
    return plot("Precision by number of hits", caption, draw)


def query_plot(ap: Floats) -> Plot:
    """Plot a histogram of the queries by average precision."""

    def draw(axes: Any) -> None:
        axes.hist(ap, np.linspace(0, 1, 21), color=FIRST)
        _mark(axes, ap.mean(), "mAP", 0.94, left=ap.mean() > 0.5)
        axes.set(xlabel="average precision", ylabel="queries", xlim=(0, 1))

    caption = (
        f"Of {len(ap):,} queries, {100 * np.mean(ap < 0.1):.1f}% have an average precision below 0.1, "
        f"{100 * np.mean(ap >= 0.9):.1f}% of 0.9 or more. Median {np.median(ap):.3f}, mean {ap.mean():.4f}."
    )
    return plot("Queries by average precision", caption, draw)


def distance_plot(distances: dict[str, Any]) -> Plot:
    """Plot histograms of relevant and irrelevant pairs by Hamming distance."""
    relevant, irrelevant = (np.asarray(distances[name], float) for name in ("alike", "unlike"))
    xs = np.arange(len(relevant))

    def draw(axes: Any) -> None:
        curves = (("relevant", relevant, FIRST, "-"), ("irrelevant", irrelevant, SECOND, "--"))
        for name, pairs, colour, style in curves:
            percent, edges = 100 * pairs / max(1, pairs.sum()), np.append(xs, len(xs)) - 0.5
            axes.stairs(percent, edges, color=colour, linestyle=style, linewidth=1.6, label=name)
            axes.stairs(percent, edges, color=colour, fill=True, alpha=0.18)
        axes.set(xlabel="Hamming distance, bits", ylabel="share of the pairs, %")
        axes.legend()

    counts = f"{int(relevant.sum()):,} relevant and {int(irrelevant.sum()):,} irrelevant"
    caption = f"All {counts} pairs of a query and a database item. "
    if relevant.sum() and irrelevant.sum():
        caption += (
            f"Means: {distances['mean_alike']:.1f} and {distances['mean_unlike']:.1f} bits. A relevant pair is nearer "
            f"than an irrelevant one with probability {distances['separation']:.3f} (equal distances counted half)."
        )
    return plot("Distances of relevant and irrelevant pairs", caption, draw)


def bit_plot(statistics: BitStatistics, dropped: dict[str, Any] | None) -> Plot:
    """Plot share of ones, information and lost mAP, bit by bit: what there is of them, below each other."""
    bits = np.arange(len(statistics.ones))
    strips: list[tuple[str, npt.ArrayLike, Floats | None]] = [("share of ones", statistics.ones, None)]
    if statistics.information is not None:
        told = "the class" if statistics.told is None else "a label"
        strips.append((f"information\non {told}", statistics.information, None))
    if dropped:
        strips.append(("mAP lost\nwithout it", dropped["lost"], 2 * np.array(dropped["error"], float)))

    def draw(axes: Any) -> None:
        axes = np.atleast_1d(axes)
        for axis, (label, heights, whiskers) in zip(axes, strips, strict=True):
            axis.bar(bits, heights, color=FIRST, width=0.75)
            if whiskers is not None:
                axis.errorbar(bits, heights, whiskers, fmt="none", ecolor=QUIET, elinewidth=0.7)
                axis.axhline(0, color=QUIET, linewidth=0.6)
            axis.set_ylabel(label)
            axis.grid(axis="x", visible=False)
        axes[0].axhline(0.5, color=SECOND, linestyle=":", linewidth=1.2)
        axes[0].set_ylim(0, 1)
        axes[-1].set(xlabel="bit", xlim=(-0.7, len(bits) - 0.3))

    return plot("Bit by bit", _bit_caption(statistics, dropped), draw, _SQUARE, len(strips), sharex=True)


def _bit_caption(statistics: BitStatistics, dropped: dict[str, Any] | None) -> str:
    ones, information = statistics.ones, statistics.information
    caption = f"Share of ones in the database: {ones.min():.2f} to {ones.max():.2f}. "
    if information is not None:
        what = "the class" if statistics.told is None else "the label that it tells most of"
        caption += f"Mutual information with {what}: {information.min():.2f} to {information.max():.2f} bits. "
    if dropped:
        lost, sample = dropped["lost"], f" drawn with seed {dropped['seed']}" if dropped["sampled"] else ""
        caption += (
            f"mAP lost without the bit: {min(lost):+.4f} to {max(lost):+.4f}, on {dropped['queries']:,} queries"
            f"{sample}; whiskers are two standard errors."
        )
    return caption


def correlation_plot(correlation: Floats) -> Plot:
    """Plot the correlations of the bits as a heat map, in an order that puts similar bits side by side."""
    order = order_by_similarity(correlation)
    sorted_ = correlation[np.ix_(order, order)]
    others = np.abs(correlation[~np.eye(len(order), dtype=bool)])
    caption = (
        f"Pearson correlation of each two bits, similar ones side by side; without its sign {others.mean():.2f} on "
        f"average, {others.max():.2f} at most."
    )

    def draw(axes: Any) -> None:
        count = len(order)
        axes.imshow(_tinted(sorted_), interpolation="none")
        axes.grid(visible=False)
        if count <= _NAMED_BITS:
            axes.set_xticks(range(count), order, rotation=90, fontsize=min(8, 200 / count))
            axes.set_yticks(range(count), order, fontsize=min(8, 200 / count))
        else:
            axes.set(xticks=(), yticks=())
        axes.tick_params(length=0)
        axes.set(xlabel="bit", ylabel="bit")
        bar = axes.inset_axes((1.03, 0, 0.035, 1))
        bar.imshow(_tinted(np.linspace(1, -1, 201)[:, None]), extent=(0, 1, -1, 1), aspect="auto")
        bar.set(xticks=(), yticks=(-1, -0.5, 0, 0.5, 1))
        bar.yaxis.tick_right()
        bar.grid(visible=False)
        for edge in bar.spines.values():
            edge.set(visible=True, color=LINE)

    return plot("Correlation of the bits", caption, draw, (4.6, 4.1))


def _tinted(correlation: Floats) -> npt.NDArray[np.uint8]:
    """Return numbers from -1 to 1 as RGBA: blue above zero, orange below, the fainter the nearer to zero."""
    rgb = np.where(correlation[..., None] >= 0, _POSITIVE, _NEGATIVE)
    rgba = np.concatenate([rgb, 255 * np.abs(correlation[..., None])], axis=-1)
    return rgba.round().astype(np.uint8)


def order_by_similarity(correlation: Floats) -> npt.NDArray[np.int64]:
    """Return an order of the bits, (bits,), that puts similar ones side by side.

    The order is that of the angles of the two leading eigenvectors, from the widest gap on: Friendly, "Corrgrams:
    exploratory displays for correlation matrices", The American Statistician 56, 2002.
    """
    _, vectors = np.linalg.eigh(correlation)
    angle = np.arctan2(vectors[:, -2], vectors[:, -1])
    order = np.argsort(angle)
    gaps = np.diff(angle[order], append=angle[order[0]] + 2 * np.pi)
    return np.roll(order, -int(gaps.argmax()) - 1)
