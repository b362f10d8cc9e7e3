import re

import pytest
from conftest import make_model

from hashret.explanation import explain_results
from hashret.hits import Hit
from hashret.models.checkpoint import load_encoder
from hashret.rendering.pages import results_page
from hashret.search import query


def test_page_is_self_contained_and_escaped(photos, index_folder, model, tmp_path):
    [(path, hits)] = query([photos / "test" / "red" / "00.png"], index_folder, model, k=6)
    evil = Hit(9, 9, "/gone/<script>.png", "<b>bold</b>", 3, None)
    facts = {"mAP": "0.9 < 1"}
    results_page([(path, [*hits, evil])], tmp_path / "page.html", "a & b", facts, truth=["red"])
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/webp;base64,") == 7
    assert not re.search(r'src="(?!data:)|href="(?!file:)', text)
    assert "<script" not in text
    assert "&lt;b&gt;bold" in text
    assert "&lt;script&gt;.png: no such file" in text
    assert "0.9 &lt; 1" in text
    assert "<title>a &amp; b</title>" in text


@pytest.mark.parametrize("attention", [True, False])
def test_a_page_with_maps(photos, index_folder, model, tmp_path, attention):
    results = query([photos / "test" / "red" / name for name in ("00.png", "01.png")], index_folder, model, k=3)
    results[0][1].append(Hit(4, 9, "/gone.png", "red", 3, None))
    encoder = load_encoder(model if attention else make_model(tmp_path / "vggh.safetensors", attention=False), "cpu")
    explained = explain_results(results, encoder)
    results_page(results, tmp_path / "page.html", explained=explained)
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert not re.search(r'src="(?!data:)|href="(?!file:|#)', text)
    assert text.count('class="map cells"') == 8  # two queries, six hits that are there
    assert text.count('class="map gate"') == text.count(">gate ") == (8 if attention else 0)
    assert len(re.findall('type="radio"', text)) == (3 if attention else 2)
    results_page(results, tmp_path / "plain.html")
    assert "radio" not in (tmp_path / "plain.html").read_text()
