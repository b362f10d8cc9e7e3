"""Pictures of every odd kind through the verbs: none stops a picture, page or thumbnail of the others."""

import io

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_model
from data.test_images import bomb_png, plain_png
from PIL import Image

from hashret.cli import main
from hashret.encoding import encode
from hashret.index import build_index
from hashret.rendering import pictures


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of odd pictures, an index of them, and a model: -> the folder that holds them."""
    root = tmp_path_factory.mktemp("odd")
    folder = root / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    plain.resize((1, 600)).save(folder / "tall.png")
    plain.resize((600, 1)).save(folder / "wide.png")
    plain.resize((1, 1)).save(folder / "dot.png")
    plain.resize((2, 3000)).save(folder / "very-tall.png")
    plain.convert("L").save(folder / "grey.jfif", "JPEG")
    plain.convert("CMYK").save(folder / "cmyk.jpg", icc_profile=b"no profile")
    plain.convert("LAB").save(folder / "lab.tif")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 16).save(folder / "deep.png")
    Image.fromarray(noise[..., 0].astype(np.float32) / 255).save(folder / "floats.tiff")
    Image.fromarray(np.dstack([noise, noise[..., 0]])).save(folder / "see-through.png")
    plain.convert("LA").save(folder / "la.png")
    (folder / "truncated.png").write_bytes((folder / "see-through.png").read_bytes()[:5000])
    (folder / "bomb.png").write_bytes(bomb_png(1, 49_999_999))
    (folder / "empty.png").touch()
    make_model(root / "model.safetensors")
    report = encode(str(folder), root / "model.safetensors", root / "codes", workers=0)
    assert (report.encoded, report.skipped) == (11, 3)
    build_index(root / "codes", root / "index")
    return root


def run(odd, *arguments):
    options = ["--model", str(odd / "model.safetensors"), "--index", str(odd / "index")]
    result = CliRunner().invoke(main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    return result


def test_pages_and_pictures_of_hits_show_them_all(odd, tmp_path):
    page, grid, maps = tmp_path / "hits.html", tmp_path / "hits.png", tmp_path / "maps.png"
    (odd / "photos" / "dot.png").rename(odd / "dot.png")  # a hit that is gone
    try:
        tall, wide = (str(odd / "photos" / name) for name in ("tall.png", "wide.png"))
        run(odd, "query", tall, "-k", "11", "--html", str(page), "--grid", str(grid))
        assert page.read_text().count("data:image/webp") >= 12
        assert Image.open(grid).size[0] > 11 * pictures.TILE
        run(odd, "explain", wide, "-k", "11", "--out", str(maps))
        assert Image.open(maps).size[1] > 12 * pictures.TILE
    finally:
        (odd / "dot.png").rename(odd / "photos" / "dot.png")


def test_thumbnails_are_of_their_size(odd):
    thumbnails = pytest.importorskip("hashret.service.thumbnails", reason="needs hashret[serve]")
    for path in sorted((odd / "photos").iterdir()):
        tile = pictures.thumbnail(path)
        assert tile.size == (pictures.TILE, pictures.TILE), path.name
        if path.name in ("truncated.png", "bomb.png", "empty.png"):
            assert tile.getcolors() == [(pictures.TILE**2, (0xBB, 0xBB, 0xBB))]
            continue
        assert max(pictures.open_small(path).size) == pictures.TILE
        with Image.open(io.BytesIO(thumbnails.thumbnail(path, 96))) as small:
            assert 1 <= max(small.size) <= 96
            assert "icc_profile" not in small.info  # that of CMYK says nothing of RGB


def test_max_pixels_reaches_the_decoding_processes(odd, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "panorama.png").write_bytes(plain_png(1500, 1000))
    Image.effect_noise((500, 500), 90).save(folder / "small.png")
    arguments = ["encode", str(folder), "--model", str(odd / "model.safetensors"), "--workers", "1", "--overwrite"]
    arguments += ["--out", str(tmp_path / "codes")]
    for limit, encoded in (("1", "1 encoded, 1 "), ("2", "2 encoded, 0 ")):
        result = CliRunner().invoke(main, [*arguments, "--max-pixels", limit])
        assert encoded in result.output
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "1")
    assert "1 encoded" in CliRunner().invoke(main, arguments).output
    assert "--max-pixels 2 " in (tmp_path / "codes" / "skipped.jsonl").read_text()
