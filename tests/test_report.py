import re

import numpy as np
import pytest
from PIL import Image

from hashret import report
from hashret.errors import HashretError
from hashret.search import Hit, query


@pytest.fixture(scope="module")
def results(photos, index_folder, model):
    return query([photos / "test" / "red" / "00.png", photos / "test" / "blue" / "01.png"], index_folder, model, k=6)


def test_grid_shows_every_query_and_hit(results, tmp_path):
    report.grid(results, tmp_path / "grid.png", truth=["red", "blue"])
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    tile, cell, line = report._TILE, report._TILE + report._GAP, report._TILE + report._TEXT + report._GAP
    assert picture.shape == (2 * line + report._GAP, 7 * cell + 3 * report._GAP, 3)
    for row, (_, hits) in enumerate(results):
        top = report._GAP + row * line
        for place, hit in enumerate(hits, 1):
            left = 2 * report._GAP + place * cell
            shown = picture[top : top + tile, left : left + tile]
            leading = ("red", "green", "blue")[shown.mean(axis=(0, 1)).argmax()]
            assert leading == hit.label
            frame = picture[top - 2, left + 5]
            good = hit.label == ("red", "blue")[row]
            assert (frame[1] > frame[0]) == good


def test_page_is_self_contained_and_escaped(results, tmp_path):
    path, hits = results[0]
    evil = Hit(9, 9, "/gone/<script>.png", "<b>bold</b>", 3, None)
    facts = {"mAP": "0.9 < 1"}
    report.page([(path, [*hits, evil])], tmp_path / "page.html", "a & b", facts, truth=["red"])
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/webp;base64,") == 8
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "&lt;b&gt;bold" in text
    assert "0.9 &lt; 1" in text
    assert "<title>a &amp; b</title>" in text


def test_table_has_a_line_a_hit(results):
    lines = report.table(results[0][1]).splitlines()
    assert lines[0].split() == ["rank", "hamming", "euclidean", "label", "path"]
    assert len(lines) == 7
    first = results[0][1][0]
    assert lines[1].split()[:4] == ["1", str(first.hamming), f"{first.euclidean:.3g}", first.label]


def test_a_picture_does_not_overwrite_a_photograph():
    with pytest.raises(HashretError, match=r"should end in \.png"):
        report.check_suffix("photo.jpg", ".png")
    report.check_suffix(None, ".png")
