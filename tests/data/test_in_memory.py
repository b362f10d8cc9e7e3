"""Photographs as programs have them, as Pillow images, arrays and open files, wherever the Python API takes one."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageOps

import hashret
from hashret import HashretError, Searcher, load_encoder
from hashret.data import read_image
from hashret.data.in_memory import photographs


@pytest.fixture
def photo(photos):
    return photos / "test" / "red" / "00.png"


def forms(path):
    """One photograph in every form, by name."""
    picture = Image.open(path).convert("RGB")
    content = path.read_bytes()
    used = io.BytesIO(content)
    used.read()
    return {
        "text": str(path),
        "path": path,
        "picture": picture,
        "opened": Image.open(path),
        "array": np.asarray(picture),
        "file": open(path, "rb"),
        "bytes": io.BytesIO(content),
        "read to its end": used,
        "no seek": Once(content),
    }


class Once:
    """What can be read once, as the answer of a server."""

    def __init__(self, content):
        self.content = content

    def seekable(self):
        return False

    def read(self):
        content, self.content = self.content, b""
        return content


@pytest.mark.parametrize("form", ["text", "path", "picture", "opened", "array", "file",
                                                               "bytes", "read to its end", "no seek"])  # fmt: skip
def test_every_form_is_the_same_photograph_everywhere(form, photo, photos, model, index_folder, tmp_path):
    other = photos / "test" / "green" / "00.png"

    def given():
        return forms(photo)[form]

    encoder, searcher = load_encoder(model, "cpu"), Searcher(index_folder, model, "cpu")
    expected = searcher.search(photo, 5)
    assert np.array_equal(read_image(given(), 32), read_image(photo, 32))
    assert np.array_equal(encoder.encode(given()), searcher.encode([photo]))
    assert np.array_equal(encoder.encode([given(), other]), searcher.encode([photo, other]))
    assert np.array_equal(searcher.encode([given()]), searcher.encode([photo]))
    assert searcher.search(given(), 5) == expected
    assert searcher.search_many([other, given()], 5)[1] == expected
    assert searcher.search_together([given()], 5) == expected
    assert list(searcher.within(given(), 6)) == list(searcher.within(photo, 6))
    for asked in (given(), [given()]):
        [answer] = hashret.query(asked, searcher=searcher, k=5)
        assert answer.hits == expected
    [answer] = hashret.query(given(), searcher=searcher, radius=6)
    assert answer.hits == list(searcher.within(photo, 6))
    compared = hashret.compare(given(), other, model, device="cpu")
    assert compared.hamming == hashret.compare(photo, other, model, device="cpu").hamming
    [one] = hashret.explain(given(), model, tmp_path / "one.png", device="cpu")
    [same] = hashret.explain(photo, model, tmp_path / "same.png", device="cpu")
    assert np.array_equal(one.attribution.cells, same.attribution.cells)
    if form not in ("text", "path"):
        drawn, expected = (Image.open(tmp_path / name) for name in ("one.png", "same.png"))
        assert drawn.crop((0, 24, 160, 160)).tobytes() == expected.crop((0, 24, 160, 160)).tobytes()


def test_what_they_are_called(photo, model, index_folder):
    named = {form: str(photographs(given)[0]) for form, given in forms(photo).items()}
    of_file = dict.fromkeys(("text", "path", "opened", "file"), str(photo))
    assert named == dict.fromkeys(named, "photograph 1") | of_file
    pixels = np.asarray(Image.open(photo))
    answers = hashret.query([pixels, photo, pixels], index_folder, model, device="cpu")
    assert [answer.path for answer in answers] == ["photograph 1", str(photo), "photograph 3"]
    assert answers[0].hits == answers[1].hits


def test_an_image_of_a_file_is_not_found_by_itself(photos, model, index_folder):
    indexed = photos / "train" / "red" / "00.png"
    searcher = Searcher(index_folder, model, "cpu")
    with Image.open(indexed) as image:
        found = searcher.search(image, 5, exclude_self=True)
    assert found == searcher.search(indexed, 5, exclude_self=True)
    assert str(indexed) not in {hit.path for hit in found}


def test_an_image_is_turned_and_left_as_it_is(tmp_path):
    wide = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "turned.png", exif=exif)
    expected = read_image(tmp_path / "turned.png", 16)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(read_image(image, 16), expected)
        assert image.size == (40, 20)
        assert np.array_equal(read_image(ImageOps.exif_transpose(image), 16), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "I;16", "F"])
def test_other_modes_are_read_as_from_a_file(mode, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    picture = picture.convert("L").convert("I").convert(mode) if mode in ("I;16", "F") else picture.convert(mode)
    picture.save(tmp_path / "picture.tif")
    assert np.array_equal(read_image(picture, 16), read_image(tmp_path / "picture.tif", 16))


def test_arrays(photo):
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    grey = pixels[..., 0]
    assert np.array_equal(read_image(grey, 16), read_image(np.stack([grey] * 3, axis=-1), 16))
    assert np.array_equal(read_image(grey[..., None], 16), read_image(grey, 16))
    assert len(photographs(np.stack([pixels, pixels]))) == 2
    opaque = np.concatenate([pixels, np.full((*grey.shape, 1), 255, np.uint8)], axis=-1)
    assert np.array_equal(read_image(opaque, 16), read_image(pixels, 16))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array of float32, 4x4x3, is no photograph: .* uint8, height x width"),
        (np.zeros((3, 5, 5), np.uint8), r"an array of uint8, 3x5x5, is no photograph"),
        (np.zeros((4, 0, 3), np.uint8), r"an array of uint8, 4x0x3, is no photograph"),
        (np.zeros((), np.uint8), r"an array of uint8, no, is no photograph"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], r"an array of uint8, 2x4x4x3, is no photograph"),
        (b"\xff\xd8", r"a photograph is a path, a Pillow image, .*, not bytes; wrap it in io.BytesIO"),
        (5, r"a photograph is .*, not int"),
        ([None], r"a photograph is .*, not NoneType"),
        (io.StringIO("text"), r"gives str, not bytes; open it in binary, with mode 'rb'"),
    ],
)
def test_what_is_no_photograph_is_one_line(wrong, line, model, index_folder):
    for call in (
        lambda: Searcher(index_folder, model, "cpu").search_many(wrong),
        lambda: hashret.query(wrong, index_folder, model, device="cpu"),
        lambda: hashret.explain(wrong, model, device="cpu"),
    ):
        with pytest.raises(HashretError, match=line) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(photo, model, index_folder, tmp_path):
    closed = open(photo, "rb")
    closed.close()
    with Image.open(photo) as image:
        pass  # which closes its file, before a pixel was read
    torn = Image.open(io.BytesIO(photo.read_bytes()[:400]))
    searcher = Searcher(index_folder, model, "cpu")
    for wrong, line in [
        (closed, "cannot read the open file of a photograph: .*closed"),
        (open(tmp_path / "new", "wb"), "cannot read the open file of a photograph"),
        (image, r"cannot read .*00\.png: damaged or closed"),
        (torn, r"cannot read photograph 1: damaged or closed"),
        (io.BytesIO(), "cannot read photograph 1: empty file"),
        (io.BytesIO(b"no picture"), "cannot read photograph 1: not an image"),
    ]:
        with pytest.raises(HashretError, match=line):
            searcher.search(wrong)
    unreadable = {}
    answers = searcher.search_many([torn, photo], unreadable=unreadable)
    assert answers[0] is None
    assert answers[1]
    assert list(unreadable) == ["photograph 1"]


def test_too_large_an_image(photo, monkeypatch):
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "1")
    with pytest.raises(hashret.data.UnreadableImage, match="too large: 1001x1000 pixels"):
        read_image(np.zeros((1000, 1001), np.uint8), 16)


def test_shards_and_indexes_keep_files_alone(photo, model, index_folder, tmp_path):
    image = Image.open(photo)
    for given in (image, [photo, image], io.BytesIO(photo.read_bytes())):
        for call in (
            lambda given=given: hashret.encode(given, model, tmp_path / "codes", workers=0),
            lambda given=given: hashret.add(index_folder, given, model, workers=0),
        ):
            with pytest.raises(HashretError, match=r"name photographs by their files, .*; save it to a file"):
                call()
    with pytest.raises(HashretError, match="data are a name, files, an array of vectors or a source, not dict"):
        hashret.encode({}, model, tmp_path / "codes")
    assert hashret.encode([photo, str(photo)], model, tmp_path / "codes", workers=0).encoded == 2
    with pytest.raises(HashretError, match=r"no such file: .*gone\.png"):
        hashret.encode([photo, photo.with_name("gone.png")], model, tmp_path / "other", workers=0)
    with pytest.raises(HashretError, match="the list of files is empty"):
        hashret.encode([], model, tmp_path / "other", workers=0)


def test_paths_are_read_while_another_thread_imports_pillow(photo, monkeypatch):
    """The module is there then, but is empty; a service that begins reads its first pictures by many threads."""
    monkeypatch.setitem(sys.modules, "PIL.Image", types.ModuleType("PIL.Image"))
    assert photographs([photo]) == [str(photo)]
