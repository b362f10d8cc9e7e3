import json

import numpy as np
import pytest
from conftest import make_model, make_photos
from PIL import Image

from hashret import explain
from hashret.bits import binarize
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.explanation import contribution_caption, explain_results, table
from hashret.hits import Hit
from hashret.index import build_index
from hashret.models.checkpoint import load_encoder
from hashret.rendering import pictures
from hashret.search import Searcher


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three by three places: photographs, an encoder, and the index of the photographs in float32."""
    folder = tmp_path_factory.mktemp("explain")
    make_photos(folder / "photos", 2, seed=5)
    make_model(folder / "model.safetensors", image_size=96)
    encode(folder / "photos", folder / "model.safetensors", folder / "codes", precision="float32", workers=0)
    build_index(folder / "codes", folder / "index")
    return folder


def test_numbers_are_those_of_the_encoding(place, tmp_path):
    """In the precision of the index, whatever the processor's own."""
    photos = sorted((place / "photos").rglob("*.png"))[2:4]
    explained = explain(photos, place / "model.safetensors", tmp_path / "map.png", index=place / "index", k=2)
    searcher = Searcher(place / "index", place / "model.safetensors", "cpu")
    values = searcher.encode(photos)
    assert [one.path for one in explained] == [str(photo) for photo in photos]
    for one, row, answers in zip(explained, values, searcher.search_many(photos, k=2), strict=True):
        assert np.array_equal(one.attribution.hash_outputs, row)
        assert [hit for hit, _ in one.hits] == answers
        assert np.array_equal(one.hits[0][1].cells, one.attribution.cells)  # the photograph finds itself first
        hit, found = one.hits[1]
        assert np.array_equal(found.hash_outputs, searcher.encode([hit.path])[0])
        logits = np.log(found.hash_outputs / (1 - found.hash_outputs.astype(np.float64)))
        assert found.agreement == pytest.approx((logits * np.where(binarize(row), 1, -1)).sum(), rel=1e-2)


def test_the_picture_has_a_row_a_photograph_and_hit(place, tmp_path):
    photo = place / "photos" / "red" / "00.png"
    explain([photo], place / "model.safetensors", tmp_path / "map.png", index=place / "index", k=2)
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    gap, line = pictures._GAP, pictures.TILE + pictures._TEXT + pictures._GAP
    top = gap + pictures._HEAD
    assert picture.shape[1] == 7 * (pictures.TILE + gap) + 3 * gap
    for row in range(3):
        tile = picture[top + row * line :][: pictures.TILE]
        photo, gate, places = (tile[:, left : left + pictures.TILE] for left in (gap, 158, 296))
        assert np.ptp(photo.mean(axis=(0, 1))) > 50  # in colour
        assert np.ptp(gate, axis=2).max() < 12  # an untrained gate is flat, hence grey
        assert np.ptp(places, axis=2).max() > 60
    assert picture.shape[0] > top + 3 * line


def test_without_attention(place, tmp_path):
    model = make_model(tmp_path / "vggh.safetensors", image_size=96, attention=False)
    explained = explain([place / "photos"], model, tmp_path / "map.png", device="cpu")
    assert len(explained) == 6
    assert table(explained).splitlines()[-1] == "This encoder has no attention, hence no gates."
    assert Image.open(tmp_path / "map.png").size[0] == 6 * 138 + 30
    numbers = json.loads(json.dumps(explained[0].as_dict()))
    assert numbers["spatial_gate"] is numbers["channel_gate"] is None


def test_json_has_all_numbers(place, tmp_path):
    photo = place / "photos" / "blue" / "01.png"
    [one] = explain([photo], place / "model.safetensors", tmp_path / "map.png", index=place / "index", k=1)
    numbers = json.loads(json.dumps(one.as_dict()))
    assert (numbers["path"], len(numbers["code"]), len(numbers["channel_gate"])) == (str(photo), 24, 512)
    assert np.shape(numbers["contributions"]) == np.shape(numbers["spatial_gate"]) == (3, 3)
    assert numbers["code"] == "".join(str(int(value >= 0.5)) for value in one.attribution.hash_outputs)
    assert numbers["hits"][0]["rank"] == 1
    assert numbers["hits"][0]["contributions"] == numbers["contributions"]


def test_hits_whose_file_is_gone(place):
    photo = place / "photos" / "red" / "01.png"
    hits = [Hit(1, 0, str(photo), "red", 0, 0.0), Hit(2, 9, "/gone.png", "red", 3, None)]
    encoder = load_encoder(place / "model.safetensors", "cpu")
    [one] = explain_results([(photo, hits)], encoder)
    assert [found is None for _, found in one.hits] == [False, True]
    assert "cannot be read" in table([one])
    assert one.as_dict()["hits"][1]["path"] == "/gone.png"


def test_mistakes(place, tmp_path):
    model, photo = place / "model.safetensors", place / "photos" / "red" / "00.png"
    (tmp_path / "map.png").write_bytes(b"dear to somebody")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(HashretError, match="--overwrite"):
        explain([photo], model, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == b"dear to somebody"
    with pytest.raises(HashretError, match=r"cannot read .*text.jpg: not an image"):
        explain([tmp_path / "text.jpg"], model, tmp_path / "new.png")
    with pytest.raises(HashretError, match=r"should end in \.png"):
        explain([photo], model, tmp_path / "new.jpg")
    with pytest.raises(HashretError, match="240 rows"):
        explain([place / "photos"], model, tmp_path / "new.png", index=place / "index", k=39)
    assert not (tmp_path / "new.png").exists()
    explain([photo], model, tmp_path / "map.png", overwrite=True)
    assert Image.open(tmp_path / "map.png").format == "PNG"


@pytest.mark.parametrize(
    ("places", "caption"),
    [
        ([[1, 1], [1, 1]], ("half from 2 of 4", "0% taken away")),
        ([[6, 1], [1, -2]], ("half from 1 of 4", "25% taken away")),
        ([[4, 4], [1, -9]], ("half from 2 of 4", "100% taken away")),
        ([[-4, 0]], ("nothing added", "")),
    ],
)
def test_the_caption_counts_places(places, caption):
    assert contribution_caption(np.array(places, np.float32)) == caption
