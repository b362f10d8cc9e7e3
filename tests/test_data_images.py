"""Every kind of picture that people's folders hold."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hashret.data.formats import is_image_name, reason_passed_over
from hashret.data.images import UnreadableImage, open_rgb, read_image


@pytest.fixture
def gradient():
    """48 x 32 pixels, red growing to the right, green downward."""
    x, y = np.meshgrid(np.arange(48) * 5, np.arange(32) * 7)
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=2).astype(np.uint8))


def test_rgb_is_resized_to_the_square(tmp_path, gradient):
    gradient.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 32)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    wanted = np.asarray(gradient.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(pixels, wanted)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "I", "F"])
def test_other_modes_look_the_same(tmp_path, gradient, mode):
    grey = np.asarray(gradient.convert("L"))
    wanted, path = gradient, tmp_path / "a.tiff"
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
        wanted = gradient.convert("L").convert("RGB")
        path = tmp_path / "a.png"
    elif mode in ("I", "F"):
        picture = Image.fromarray(grey.astype(np.int32 if mode == "I" else np.float32))
        wanted = gradient.convert("L").convert("RGB")
    else:
        picture = gradient.convert(mode)
        wanted = picture.convert("RGB")
    picture.save(path)
    difference = np.abs(np.asarray(open_rgb(path), int) - np.asarray(wanted, int))
    assert difference.max() <= 1


def test_a_cmyk_jpeg(tmp_path, gradient):
    gradient.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    difference = np.abs(np.asarray(open_rgb(tmp_path / "a.jpg"), int) - np.asarray(gradient, int))
    assert difference.mean() < 8


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 32) == 255).all()
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "b.png", transparency=0)
    assert (read_image(tmp_path / "b.png", 32) == 255).all()


def test_exif_rotation_is_applied(tmp_path, gradient):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    gradient.save(tmp_path / "a.png", exif=exif)
    upright = gradient.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.png")), np.asarray(upright))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pixels = read_image(tmp_path / "a.gif", 32)
    assert pixels[0].min() > 240
    assert pixels[1:].max() < 10


def test_a_large_jpeg_is_decoded_smaller_but_not_too_small(tmp_path):
    Image.effect_noise((1600, 1200), 50).convert("RGB").save(tmp_path / "a.jpg")
    assert min(open_rgb(tmp_path / "a.jpg", at_least=64).size) >= 128
    assert open_rgb(tmp_path / "a.jpg").size == (1600, 1200)
    assert read_image(tmp_path / "a.jpg", 64).shape == (3, 64, 64)


def bomb_png(width, height):
    """A PNG that says it has width x height pixels and holds none of them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def broken_files(gradient):
    buffer = io.BytesIO()
    gradient.resize((400, 400)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    gradient.save(buffer, "PNG")
    png = buffer.getvalue()
    return {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"this is no picture", "not an image"),
        "bomb.png": (bomb_png(60_000, 60_000), "too large"),
        "bomb-below-pillows-own.png": (bomb_png(13_500, 13_300), "too large"),
        "crc.png": (png[:20] + b"\xff" + png[21:], ""),
    }


@pytest.mark.parametrize("name", [*broken_files(Image.new("RGB", (8, 8)))])
def test_what_cannot_be_read_says_why_in_one_line(tmp_path, gradient, name):
    content, reason = broken_files(gradient)[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / name, 32)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UnreadableImage, match="no such file"):
        read_image(tmp_path / "none.png", 32)
    with pytest.raises(UnreadableImage):
        read_image(tmp_path, 32)


def test_a_picture_in_memory_is_read_as_from_a_file(tmp_path, gradient):
    gradient.resize((400, 400)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    assert np.array_equal(read_image(io.BytesIO(data), 32), read_image(tmp_path / "a.jpg", 32))
    for wrong, reason in (
        (b"", "empty file"),
        (data[: len(data) * 2 // 3], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_image(io.BytesIO(wrong), 32)
    with pytest.raises(UnreadableImage, match="too large: 400x400 pixels, limit 1000"):
        read_image(io.BytesIO(data), 32, max_pixels=1000)


def test_formats_that_another_program_would_read_are_refused(tmp_path, gradient):
    gradient.save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="not an image, or of an unknown format"):
        open_rgb(tmp_path / "a.jpg")


def saved(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(("format", "module"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_heic_and_jpeg_xl_are_read_by_their_plugins(format, module, gradient, monkeypatch):
    plugin = pytest.importorskip(module)
    if format == "HEIF":
        plugin.register_heif_opener()
    difference = np.abs(np.asarray(open_rgb(saved(gradient, format)), int) - np.asarray(gradient, int))
    assert difference.mean() < 4
    monkeypatch.setattr("hashret.data.images.plugin_formats", lambda: ())
    with pytest.raises(UnreadableImage, match="not an image, or of an unknown format"):
        open_rgb(saved(gradient, format))


def test_several_pictures_in_a_jpeg_are_read_as_the_first(tmp_path, gradient):
    gradient.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[gradient.rotate(180)], quality=95)
    difference = np.abs(np.asarray(open_rgb(tmp_path / "a.mpo"), int) - np.asarray(gradient, int))
    assert difference.mean() < 8


def test_names_of_pictures_that_are_read_and_why_others_are_not(monkeypatch):
    for name in ("a.jpg", "A.JFIF", "a.mpo", "a.apng", "a.j2k", "a.TIFF"):
        assert is_image_name(name), name
        assert reason_passed_over(name) is None
    reasons = {
        "IMG.CR3": "camera raw",
        "a.psd": "drawing program",
        "a.svg": "vector",
        "a.MOV": "video",
        "a.exr": "export",
    }
    for name, reason in reasons.items():
        assert not is_image_name(name), name
        assert reason in reason_passed_over(name)
    assert reason_passed_over("notes.txt") is None
    plugins = {"pillow_heif": "a.HEIC", "pillow_jxl": "a.jxl"}
    monkeypatch.setattr("hashret.data.formats.find_spec", lambda name: None)
    assert [reason_passed_over(name) for name in plugins.values()] == [
        "HEIC: install hashret[heic]",
        "JPEG XL: install hashret[jxl]",
    ]
    assert not any(map(is_image_name, plugins.values()))
    monkeypatch.setattr("hashret.data.formats.find_spec", lambda name: name)
    assert all(map(is_image_name, plugins.values()))
