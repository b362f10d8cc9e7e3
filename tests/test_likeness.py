"""What photographs are compared by."""

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.index import append, build_index, open_index
from hashret.index.rerank import directions
from hashret.likeness import vectors


@pytest.fixture(scope="module")
def index(tmp_path_factory, photos, model):
    """Two segments of the test photographs, with features."""
    root = tmp_path_factory.mktemp("likeness")
    encode(photos, model, root / "codes", split="test", features=True, workers=0, quiet=True)
    build_index(root / "codes", root / "index")
    append(root / "index", root / "codes")
    return open_index(root / "index", "cpu")


def test_what_the_index_keeps(index):
    rows = np.array([0, 3, 11, 12, 20, 23])
    assert len(index.segments) == 2
    assert np.array_equal(vectors(index, rows, "values"), index.values[rows])
    assert np.array_equal(vectors(index, rows, "directions"), directions(index.values[rows]))
    features = np.concatenate([segment.features for segment in index.segments])[rows]
    assert np.allclose(vectors(index, rows, "features"), features / np.linalg.norm(features, axis=1, keepdims=True))
    assert vectors(index, rows, "codes") is None
    with pytest.raises(HashretError, match="not by colours"):
        vectors(index, rows, "colours")


def test_pixels_are_means_of_the_photograph_and_distances_grey_levels(index, tmp_path):
    rows = np.arange(12)
    x = vectors(index, rows, "pixels")
    assert (x.shape, x.dtype) == ((12, 192), np.float32)
    pixels = np.asarray(Image.open(index.path(5)).convert("RGB"), float)  # 40 x 40
    means = pixels.reshape(8, 5, 8, 5, 3).mean(axis=(1, 3))
    assert np.abs(x[5].reshape(8, 8, 3) * np.sqrt(192) - means).max() < 1  # rounded twice, to grey levels

    class Shades:
        def path(self, row):
            return str(tmp_path / f"{row}.png")

    for row, shade in enumerate([100, 130]):
        Image.new("RGB", (31 + row, 17), (shade,) * 3).save(Shades().path(row))
    one, other, gone = vectors(Shades(), np.arange(3), "pixels")
    assert np.linalg.norm(one - other) == pytest.approx(30)
    assert np.isnan(gone).all()


def test_reading_leaves_the_filters_of_warnings(index, photos):
    before = warnings.filters.copy()
    vectors(index, np.tile(np.arange(12), 50), "pixels")
    assert warnings.filters == before


def test_a_large_jpeg_read_at_a_smaller_scale_looks_the_same(tmp_path, index):
    rng = np.random.default_rng(0)
    pattern = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    pattern.save(tmp_path / "0.jpg", quality=95)
    pattern.save(tmp_path / "1.png")
    shutil.copy(tmp_path / "1.png", tmp_path / "2.png")

    class Two:
        def path(self, row):
            return str(next(tmp_path.glob(f"{row}.*")))

    jpeg, png, same = vectors(Two(), np.arange(3), "pixels")
    assert np.linalg.norm(jpeg - png) < 2
    assert np.array_equal(png, same)
