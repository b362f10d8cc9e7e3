import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hashret.bits import pack
from hashret.errors import HashretError
from hashret.reporting import plots
from hashret.reporting.bits import bit_statistics
from hashret.reporting.svg import FIRST, check_matplotlib, plot


def draw(axes):
    axes.plot([0, 1.23456], [0.00012345, 1], color=FIRST, label="a < b & c", marker="o")
    axes.set(yticks=[0.123456], yticklabels=["0.123456"], xlabel="k, hits")
    axes.legend()


def test_a_plot_is_one_element_that_takes_the_pages_colours():
    found = plot('Loss "by" epoch', "caption", draw)
    svg = str(found.svg)
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'Loss "by" epoch'
    texts = [text.text.strip() for text in root.iter("text")]
    assert {"a < b & c", "k, hits", "0.123456"} <= set(texts)  # no digit of a text is cut
    assert "var(--accent)" in svg
    assert "currentColor" in svg
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", svg)
    assert "font-family" not in svg
    assert "<style" not in svg


def test_plots_of_one_page_share_no_ids():
    plots = [plot(title, "", draw).svg for title in ("one", "two")]
    ids = [set(re.findall(r'id="([^"]*)"', svg)) for svg in plots]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip(plots, ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= own


def test_the_users_style_is_left_out_and_kept():
    import matplotlib

    with matplotlib.rc_context({"axes.grid": False, "lines.linewidth": 9.0}):
        changed = plot("one", "", draw).svg
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert changed == plot("one", "", draw).svg


def test_without_matplotlib_there_is_a_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HashretError, match=r"pip install 'hashret\[report\]'"):
        check_matplotlib()


def test_an_order_by_similarity_brings_groups_together():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat([0, 1, 2], 5))
    rows = (rng.random((2000, 3)) < 0.5)[:, groups] ^ (rng.random((2000, 15)) < 0.05)
    order = plots.order_by_similarity(bit_statistics(pack(rows), 15).correlation)
    assert sorted(order) == list(range(15))
    sides = np.count_nonzero(np.diff(groups[order]))
    assert sides <= 3  # two, or three where the cut goes through a group


def test_captions_say_what_the_curves_show():
    record = {"heldout_images": 250, "best_epoch": 2, "epochs_run": [
        {"epoch": 1, "loss": 2.0, "heldout_map": 0.5}, {"epoch": 2, "loss": 1.25, "heldout_map": 0.75}]}  # fmt: skip
    loss, held = plots.training_plots(record)
    assert "2 in epoch 1, 1.25 in epoch 2" in loss.caption
    assert "250 held-out" in held.caption
    assert "Epoch 2 was kept, 0.7500, the highest." in held.caption
    earlier = plots.training_plots(record | {"best_epoch": 1})[1]
    assert "Epoch 1 was kept, 0.5000, where the highest is 0.7500." in earlier.caption
    assert plots.training_plots({"epochs_run": [{"epoch": 1, "loss": None}]}) == []
    bare = [{"epoch": n, "loss": 1.0} for n in (1, 2)]  # --heldout 0
    assert len(plots.training_plots({"epochs_run": bare})) == 1
    curve = {"curve": {"precision": [1.0, 0.9, 0.8, 0.2], "recall": [0.1, 0.2, 0.7, 1.0]}}
    assert "Within 2 bits: precision 0.800, recall 0.700" in plots.curve_plot(curve, 3).caption
    distances = {"alike": [3, 1], "unlike": [0, 4], "mean_alike": 0.25, "mean_unlike": 1.0, "separation": 0.875}
    assert "4 relevant and 4 irrelevant" in plots.distance_plot(distances).caption
    assert "0.875" in plots.distance_plot(distances).caption
