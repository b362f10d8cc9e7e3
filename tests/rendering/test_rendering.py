import numpy as np
import pytest
from PIL import Image

from hashret.errors import HashretError
from hashret.rendering import pictures, text
from hashret.search import query


@pytest.fixture(scope="module")
def results(photos, index_folder, model):
    return query([photos / "test" / "red" / "00.png", photos / "test" / "blue" / "01.png"], index_folder, model, k=6)


def test_grid_shows_every_query_and_hit(results, tmp_path):
    pictures.grid(results, tmp_path / "grid.png", truth=["red", "blue"])
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    tile, gap = pictures.TILE, pictures._GAP
    cell, line = tile + gap, tile + pictures._TEXT + gap
    assert picture.shape == (2 * line + gap, 7 * cell + 3 * gap, 3)
    for row, (_, hits) in enumerate(results):
        top = gap + row * line
        for place, hit in enumerate(hits, 1):
            left = 2 * gap + place * cell
            shown = picture[top : top + tile, left : left + tile]
            leading = ("red", "green", "blue")[shown.mean(axis=(0, 1)).argmax()]
            assert leading == hit.label
            frame = picture[top - 2, left + 5]
            good = hit.label == ("red", "blue")[row]
            assert (frame[1] > frame[0]) == good


def test_a_grid_says_where_nothing_was_found(results, tmp_path):
    pictures.grid([(results[0][0], [])], tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("L"))
    assert picture.shape[1] == 2 * (pictures.TILE + pictures._GAP) + 3 * pictures._GAP
    instead = picture[:, 2 * pictures._GAP + pictures.TILE + pictures._GAP :]
    assert (instead < 100).sum() > 50  # letters


def test_a_grid_is_not_written_over_a_photograph_of_it(results, tmp_path):
    hit = results[1][1][2].path
    (tmp_path / "link.png").symlink_to(hit)
    with open(hit, "rb") as file:
        before = file.read()
    for out in (results[0][0], tmp_path / "link.png"):
        with pytest.raises(HashretError, match="is one of the photographs"):
            pictures.grid(results, out)
    with open(hit, "rb") as file:
        assert file.read() == before
    assert (tmp_path / "link.png").is_symlink()


def test_table_has_a_line_a_hit(results):
    lines = text.table(results[0][1]).splitlines()
    assert lines[0].split() == ["rank", "similar", "hamming", "euclidean", "label", "path"]
    assert len(lines) == 7
    first = results[0][1][0]
    distances = [str(first.hamming), f"{first.euclidean:.3g}"]
    assert lines[1].split()[:6] == ["1", str(first.similarity), "%", *distances, first.label]


def test_a_picture_does_not_overwrite_a_photograph():
    with pytest.raises(HashretError, match=r"should end in \.png"):
        pictures.check_suffix("photo.jpg", ".png")
    pictures.check_suffix(None, ".png")
