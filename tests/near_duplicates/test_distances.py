"""What photographs are compared by."""

import io
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.index import append, build_index, open_index
from hashret.index.rerank import directions
from hashret.near_duplicates.distances import is_enlarged, pages, same_pages, vectors


@pytest.fixture(scope="module")
def index(tmp_path_factory, photos, model):
    """Two segments of the test photographs, with features."""
    root = tmp_path_factory.mktemp("likeness")
    encode(photos, model, root / "codes", split="test", features=True, workers=0)
    build_index(root / "codes", root / "index")
    append(root / "index", root / "codes")
    return open_index(root / "index", "cpu")


def test_what_the_index_keeps(index):
    rows = np.array([0, 3, 11, 12, 20, 23])
    assert len(index.segments) == 2
    assert np.array_equal(vectors(index, rows, "values"), index.hash_outputs[rows])
    assert np.array_equal(vectors(index, rows, "directions"), directions(index.hash_outputs[rows]))
    features = np.concatenate([segment.fc_features for segment in index.segments])[rows]
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


@pytest.fixture(scope="module")
def detailed():
    """A picture that is as rough at every scale, as photographs are, sharp and blurred."""
    rng = np.random.default_rng(3)
    y, x = np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(192), indexing="ij")
    spectrum = np.fft.fft2(rng.normal(size=(3, 128, 192))) / np.maximum(np.hypot(y, x), 1 / 192)
    pixels = np.fft.ifft2(spectrum).real
    sharp = Image.fromarray((128 + 45 * pixels / pixels.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    return {"sharp": sharp, "blurred": sharp.filter(ImageFilter.GaussianBlur(1.5))}


def saved(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality) if quality else image.save(file, "PNG")
    return file


@pytest.mark.parametrize("way", ["NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS"])
def test_what_was_enlarged_is_told_from_what_was_shrunk(detailed, way):
    way = Image.Resampling[way]
    for kind, image in detailed.items():
        original = saved(image, 0)
        for factor in (0.4, 0.8):
            small = image.resize([round(factor * side) for side in image.size], way)
            for of, quality in ((original, 0), (original, 60), (saved(image, 75), 90)):
                assert not is_enlarged(of, saved(small, quality)), (kind, factor, quality)
    original = saved(detailed["sharp"], 0)
    for factor in (2,) if way == Image.Resampling.BOX else (1.3, 2):
        size = [round(factor * side) for side in detailed["sharp"].size]
        for quality in (0,) if way in (Image.Resampling.NEAREST, Image.Resampling.BOX) else (0, 95):
            assert is_enlarged(saved(detailed["sharp"].resize(size, way), quality), original), (factor, quality)
    assert not is_enlarged(io.BytesIO(b"no picture"), original)


def animation(path, shades, **options):
    """Frames, or pages, of a grey level each."""
    first, *others = (Image.new("RGB", (16, 12), (shade, shade // 2, 0)) for shade in shades)
    first.save(path, save_all=True, append_images=others, **options)
    return pages(path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_frames_and_pages_count(tmp_path, suffix):
    lossless = {"lossless": True} if suffix == "webp" else {}
    one = animation(tmp_path / f"a.{suffix}", range(0, 200, 5), **lossless)
    assert one[0] == 40
    assert one[1].shape == (16, 192)
    shades = np.linalg.norm(one[1], axis=1)
    assert (np.diff(shades) > 3).all()
    assert same_pages(one, animation(tmp_path / f"b.{suffix}", range(1, 201, 5), **lossless))
    assert not same_pages(one, animation(tmp_path / f"c.{suffix}", [*range(0, 195, 5), 255], **lossless))
    assert not same_pages(one, animation(tmp_path / f"d.{suffix}", range(0, 205, 5), **lossless))
    still = animation(tmp_path / f"e.{suffix}", [0])
    assert still == (1, None)
    assert not same_pages(one, still)
    assert same_pages(still, still)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    if suffix == "gif":
        (tmp_path / "cut.gif").write_bytes(whole[:-200])
        cut = pages(tmp_path / "cut.gif")
        assert not same_pages(cut, cut) or cut[0] < 40


def test_frames_count_also_where_a_text_is_what_pillow_refuses(tmp_path):
    """Else such a picture would have no size, and the smaller of its copies would be kept."""
    wanted = animation(tmp_path / "plain.png", range(0, 200, 50))
    text = PngInfo()
    text.add_text("Comment", "a" * 2**21, zip=True)
    count, shown = animation(tmp_path / "long.png", range(0, 200, 50), pnginfo=text)
    with pytest.raises(ValueError, match="too large"):
        Image.open(tmp_path / "long.png")
    assert count == wanted[0] == 4
    assert (shown == wanted[1]).all()


def test_previews_and_masks_in_a_tiff_are_no_pages_of_it(tmp_path):
    large, small = Image.new("L", (64, 64), 9), Image.new("L", (8, 8), 9)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    large.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    assert pages(tmp_path / "a.tif") == (1, None)


def test_an_animation_that_takes_too_long_to_look_through_is_a_copy_of_none(tmp_path, monkeypatch):
    monkeypatch.setattr("hashret.data.pages._MOST_PIXELS", 16 * 12 * 4)
    long, short = (animation(tmp_path / f"{count}.gif", range(0, 20 * count, 20)) for count in (6, 5))
    assert (long, short[0]) == ((6, None), 5)
    assert not same_pages(long, long)
    assert same_pages(short, short)
