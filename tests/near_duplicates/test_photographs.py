"""Copies among photographs that have no index: what is found, how it is named, and what is read."""

import json
import os
import shutil
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from hashret.bits import hamming
from hashret.cli import main
from hashret.data import open_data
from hashret.data.images import read_image
from hashret.errors import HashretError
from hashret.near_duplicates import code_pairs
from hashret.near_duplicates import photographs as photographs_module
from hashret.near_duplicates.alignment import fit, turned, turned_windows
from hashret.near_duplicates.groups import criterion, duplicates
from hashret.near_duplicates.picture_codes import content, query_codes, table_codes
from hashret.near_duplicates.pictures import Pictures, read_pictures

TURN = Image.Transpose


def photograph(seed, size=(120, 90)):
    """An image with structure at several scales, as photographs have it."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size[1], size[0], 3))
    for cells, weight in ((3, 60), (9, 25), (27, 12)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells + 1, 3), dtype=np.uint8))
        image += weight / 128 * (np.asarray(noise.resize(size, Image.Resampling.BICUBIC), float) - 128)
    return Image.fromarray((image + 128).clip(0, 255).astype(np.uint8))


def cropped(image):
    width, height = image.size
    return image.crop((width // 10, height // 20, width - width // 12, height - height // 10))


CHANGES = {
    "": lambda image: image,
    "mirrored": ImageOps.mirror,
    "flipped": ImageOps.flip,
    "upside down": lambda image: image.transpose(TURN.ROTATE_180),
    "turned left": lambda image: image.transpose(TURN.ROTATE_90),
    "turned right": lambda image: image.transpose(TURN.ROTATE_270),
    "mirrored, turned left": lambda image: ImageOps.mirror(image).transpose(TURN.ROTATE_90),
    "mirrored, turned right": lambda image: ImageOps.mirror(image).transpose(TURN.ROTATE_270),
    "cropped": cropped,
    "bordered": lambda image: ImageOps.expand(image, 9, "white"),
    "grey": ImageOps.grayscale,
    "darker": lambda image: image.point(lambda value: round(0.6 * value)),
    "mirrored, cropped, grey": lambda image: ImageOps.grayscale(cropped(ImageOps.mirror(image))),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A photograph for each change, saved well, and its copy, saved as a smaller file; two have none."""
    root = tmp_path_factory.mktemp("copies")
    for number, change in enumerate(CHANGES.values()):
        photograph(number).save(root / f"{number}.png")
        change(photograph(number)).save(root / f"{number}-copy.jpg", quality=80)
    for number in (100, 101):
        photograph(number).save(root / f"{number}.png")
    return root


def test_each_change_is_found_and_named(photos, tmp_path):
    groups = duplicates(photos, cache=tmp_path, workers=0)
    assert (groups.by, groups.radius, groups.distance) == ("details", 10, 0.75)
    found = {os.path.basename(kept.path): [os.path.basename(copy.path) for copy in copies] for kept, *copies in groups}
    assert found == {f"{number}.png": [f"{number}-copy.jpg"] for number in range(len(CHANGES))}
    assert [copy.change for _, copy in sorted(groups, key=lambda group: int(os.path.basename(group[0].path)[:-4]))] == [
        *CHANGES
    ]
    names = [os.path.relpath(copy.path, photos) for group in groups for copy in group]
    source = open_data(photos)
    assert [source.paths[copy.id] for group in groups for copy in group] == names
    assert all(copy.euclidean <= 0.75 and copy.hamming <= 10 for group in groups for copy in group)


def test_a_radius_and_a_distance_of_ones_own(photos, tmp_path):
    assert len(duplicates(photos, cache=tmp_path, workers=0, distance=0.001)) == 0
    by_codes = duplicates(photos, cache=tmp_path, by="codes", radius=2)
    assert by_codes.distance is None
    assert 8 <= len(by_codes) <= len(CHANGES)
    assert all(copy.euclidean is None for group in by_codes for copy in group)


def test_pictures_are_read_once(photos, tmp_path):
    mine = shutil.copytree(photos, tmp_path / "photos")
    before = duplicates(mine, cache=tmp_path / "cache", workers=0)

    def read(count):
        with patch("hashret.data.batches.read_image", side_effect=read_image) as reading:
            groups = duplicates(mine, cache=tmp_path / "cache", workers=0)
        assert reading.call_count == count
        return groups

    assert read(0) == before
    photograph(55).save(mine / "0-copy.jpg")  # which is no copy any more
    shutil.copy(mine / "101.png", mine / "101-copy.png")
    (mine / "1.png").write_bytes(b"no photograph")
    with pytest.warns(UserWarning, match=r"1 photographs cannot be read and are left out, as .*/1\.png"):
        kept = {os.path.basename(group[0].path) for group in read(3)}
    assert kept == {os.path.basename(group[0].path) for group in before} - {"0.png", "1.png"} | {"101-copy.png"}


def test_what_is_no_photograph_with_copies(tmp_path):
    with pytest.raises(HashretError, match="no images in"):
        duplicates(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(HashretError, match=r"none of the photographs of folder:.* can be read, as .*/empty\.jpg"):
        duplicates(tmp_path, cache=tmp_path / "cache", workers=0)
    with pytest.raises(HashretError, match="compared by details or codes, not by values"):
        duplicates(tmp_path, by="values")
    with pytest.raises(HashretError, match="split goes with photographs"):
        duplicates(tmp_path / "index", split="train")
    with pytest.raises(HashretError, match="no index at"):
        duplicates(tmp_path / "nowhere")
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    with pytest.raises(HashretError, match="has vectors, and no photographs"):
        duplicates(f"vectors:{tmp_path / 'x.npy'}")
    assert criterion(tmp_path) == "codes within 10 bits, details within 0.75"
    assert criterion(tmp_path, by="codes") == "codes within 4 bits"


def test_a_folder_called_train_is_an_ordinary_one(photos, tmp_path):
    (tmp_path / "train").mkdir()
    shutil.copy(photos / "0.png", tmp_path / "train")
    shutil.copy(photos / "0.png", tmp_path / "other.png")
    assert len(duplicates(tmp_path, cache=tmp_path / "cache", workers=0)) == 1
    with pytest.raises(HashretError, match="has no test/ folder"):
        duplicates(tmp_path, split="test")


def test_the_better_of_two_is_kept(tmp_path):
    image = photograph(0)
    image.save(tmp_path / "coloured.jpg", quality=60)
    ImageOps.grayscale(image).save(tmp_path / "grey.png")  # of more bytes
    ImageOps.expand(photograph(1), 10, "black").save(tmp_path / "bordered.png")  # of more pixels
    photograph(1).save(tmp_path / "plain.png")
    framed = ImageOps.expand(photograph(4), 4, "black")  # a border less, and much else
    framed.save(tmp_path / "framed.png")
    ImageOps.grayscale(cropped(framed)).save(tmp_path / "cropped.png")
    sharp = np.asarray(photograph(2), int) + np.random.default_rng(0).integers(-20, 21, (90, 120, 3))
    small = Image.fromarray(sharp.clip(0, 255).astype(np.uint8))
    small.save(tmp_path / "small.png")
    small.resize((240, 180), Image.Resampling.BICUBIC).save(tmp_path / "enlarged.png")
    kept = {os.path.basename(group[0].path) for group in duplicates(tmp_path, cache=tmp_path / "cache", workers=0)}
    assert kept == {"coloured.jpg", "plain.png", "framed.png", "small.png"}


def test_pictures_of_one_tone_and_of_one_structure(tmp_path):
    for name, colour in {"black": 0, "also-black": 0, "white": 255}.items():
        Image.new("RGB", (40, 30), (colour,) * 3).save(tmp_path / f"{name}.png")
    red = photograph(3)
    red.save(tmp_path / "red.png")
    Image.merge("RGB", red.split()[::-1]).save(tmp_path / "blue.png")  # of nearly the same luminance in places
    found = [
        [os.path.basename(copy.path) for copy in group]
        for group in duplicates(tmp_path, cache=tmp_path / "cache", workers=0)
    ]
    assert found == [["also-black.png", "black.png"]]


def test_many_shots_of_a_scene_are_compared_few_times(tmp_path):
    for number in range(24):
        image = np.asarray(photograph(5), int) + np.random.default_rng(number).integers(-3, 4, (90, 120, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    with (
        patch.object(photographs_module, "fit", side_effect=fit) as fitted,
        patch.object(photographs_module, "_PAIRS_AT_ONCE", 8),
    ):
        groups = duplicates(tmp_path, cache=tmp_path / "cache", workers=0)
    assert [len(group) for group in groups] == [24]
    assert sum(len(call.args[1].items) for call in fitted.call_args_list) < 150  # of 276 pairs, in several windows


def grey_of(image):
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR), np.float32)


def test_codes_outlast_turning_and_crops_are_asked_for():
    grey = np.stack([grey_of(photograph(number)) for number in range(20)])
    items = np.arange(20)
    asked = query_codes(items, grey, content(grey))
    for orientation in range(8):
        other = turned(grey, np.full(20, orientation, np.uint8))
        table = table_codes(items, other, content(other))
        for item in items:
            own = asked.codes[asked.items == item]
            assert hamming(own, table.codes[table.items == item]).min() <= 1
    crop = np.stack([grey_of(cropped(photograph(number))) for number in range(20)])
    table = table_codes(items, crop, content(crop))
    nearest = [hamming(asked.codes[asked.items == item], table.codes[table.items == item]).min() for item in items]
    assert max(nearest) <= 10


def test_borders_are_cut_off_to_a_fraction_of_a_pixel():
    image = photograph(0, (100, 100))
    grey = np.stack([grey_of(ImageOps.expand(image, (left, 7, 12, 0), "white")) for left in (0, 5, 20)])
    for window, left in zip(content(grey), (0, 5, 20), strict=True):
        expected = [7 / 107, 1, left / (112 + left), (100 + left) / (112 + left)]
        assert np.abs(window - expected).max() < 0.6 / 64
    plain = np.full((1, 64, 64), 9, np.float32)
    assert content(plain).tolist() == [[0, 1, 0, 1]]  # nothing but border is no border


def test_a_crop_is_laid_over_where_it_was_cut_out():
    image = photograph(7, (200, 200))
    box = (14, 4, 196, 190)
    pictures = [Pictures(grey_of(one)[None], np.zeros((1, 2, 16, 16), np.float32)) for one in (image, image.crop(box))]
    asked, found = query_codes(np.arange(1), pictures[0].grey, content(pictures[0].grey)), content(pictures[1].grey)
    table = table_codes(np.arange(1), pictures[1].grey, found)
    D = hamming(asked.codes, table.codes)
    best = np.array([np.unravel_index(D.argmin(), D.shape)])
    one, other = asked.take(best[:, 0]), table.take(best[:, 1])
    fitted = fit(pictures[0], one, pictures[1], other)
    assert fitted.distances[0] < 0.2
    stretch = (fitted.one[0, 1::2] - fitted.one[0, ::2]) / (fitted.other[0, 1::2] - fitted.other[0, ::2])
    low = fitted.one[0, ::2] - stretch * fitted.other[0, ::2]
    window = np.array([[low[0], low[0] + stretch[0], low[1], low[1] + stretch[1]]])
    expected = turned_windows(np.array([[4 / 200, 190 / 200, 14 / 200, 196 / 200]]), one.orientations)
    assert np.abs(window - expected).max() < 0.01


def test_pairs_between_two_sets_of_codes():
    rng = np.random.default_rng(0)
    queries, codes = (rng.integers(0, 256, (count, 2), dtype=np.uint8) for count in (70, 50))
    with patch.object(code_pairs, "_QUERIES", 32), patch.object(code_pairs, "_BLOCK", 16):
        parts = [np.stack(part, 1).tolist() for part in code_pairs.pairs_between(queries, codes, 4)]
    found = {tuple(pair) for part in parts for pair in part}
    D = hamming(queries, codes)
    assert found == {(i, j, D[i, j]) for i, j in zip(*np.nonzero(D <= 4), strict=True)}


def test_the_verb(photos, tmp_path, monkeypatch):
    mine = shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def hashret(*arguments):
        return CliRunner().invoke(main, [*arguments])

    shown = hashret("duplicates", "photos", "--exclude", "1*", "--workers", "0", "--html", "d.html").stdout.splitlines()
    assert shown[0].split()[-2:] == ["change", "path"]
    assert len(shown) == 1 + 2 * 9
    page = (tmp_path / "d.html").read_text()
    assert "details within 0.75" in page
    assert "upside down" in page
    assert "<dt>photographs</dt>" in page
    done = hashret("duplicates", "photos", "--json", "--move-to", "aside", "--yes")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(CHANGES)
    assert f"{len(CHANGES)} photographs moved" in done.stderr
    assert "remove" not in done.stderr
    assert sorted(os.listdir(mine)) == sorted([f"{n}.png" for n in (*range(len(CHANGES)), 100, 101)])
    assert hashret("duplicates", "photos").stdout == "no duplicates\n"
    assert hashret("restore", "aside").exit_code == 0
    assert len(os.listdir(mine)) == 2 * len(CHANGES) + 2
    wrong = hashret("duplicates", "photos", "--by", "pixels")
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1


def test_the_pictures_in_the_cache_are_luminance_and_colour(photos, tmp_path):
    source = open_data(photos)
    read = read_pictures(source, tmp_path, 0)
    pictures = read([3, 0])
    pixels = read_image(source.reference(3), 64).astype(float)
    assert np.abs(pictures.grey[0] - np.tensordot([0.299, 0.587, 0.114], pixels, 1)).max() < 0.1
    red = 0.713 * (pixels[0] - np.tensordot([0.299, 0.587, 0.114], pixels, 1))
    assert np.abs(pictures.colour[0, 1] - red.reshape(16, 4, 16, 4).mean((1, 3))).max() < 0.1
