import re

from hashret.pages import results_page
from hashret.search import Hit, query


def test_page_is_self_contained_and_escaped(photos, index_folder, model, tmp_path):
    [(path, hits)] = query([photos / "test" / "red" / "00.png"], index_folder, model, k=6)
    evil = Hit(9, 9, "/gone/<script>.png", "<b>bold</b>", 3, None)
    facts = {"mAP": "0.9 < 1"}
    results_page([(path, [*hits, evil])], tmp_path / "page.html", "a & b", facts, truth=["red"])
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/webp;base64,") == 8
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "&lt;b&gt;bold" in text
    assert "0.9 &lt; 1" in text
    assert "<title>a &amp; b</title>" in text
