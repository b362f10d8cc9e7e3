"""Every kind of picture that people's folders hold."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from hashret.data.containers import jpeg_xl_size
from hashret.data.formats import formats, is_image_name, plugin_formats, reason_passed_over
from hashret.data.images import (
    PADDING,
    UnreadableImage,
    fit,
    image_size,
    may_be_read_now,
    open_rgb,
    read_image,
    resized,
)
from hashret.errors import HashretError


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


def stripes(width, height):
    """Red, green and blue in equal parts along the longer side."""
    image = Image.new("RGB", (width, height))
    for number, colour in enumerate(("#ff0000", "#00ff00", "#0000ff")):
        box = [number * width // 3, 0, width, height] if width > height else [0, number * height // 3, width, height]
        image.paste(colour, tuple(box))
    return image


@pytest.mark.parametrize("size", [(90, 30), (30, 90)])
def test_ways_to_make_a_square(tmp_path, size):
    stripes(*size).save(tmp_path / "a.png")
    across = (0, 1) if size[0] > size[1] else (1, 0)  # so that the stripes stand side by side
    squeezed, cropped, padded = (
        read_image(tmp_path / "a.png", 30, resize=how).transpose(0, *(1 + side for side in across))
        for how in ("squeeze", "crop", "pad")
    )
    assert squeezed[:, 15, [3, 15, 27]].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert (cropped == np.array([0, 255, 0])[:, None, None]).all()
    assert padded[:, 15, [3, 15, 27]].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert padded[:, [4, 25], 15].T.tolist() == [list(PADDING)] * 2
    assert (padded[:, 10:20] != np.array(PADDING)[:, None, None]).any(axis=0).all()


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
    monkeypatch.setattr("hashret.data.formats.find_spec", lambda name: None)
    with pytest.raises(UnreadableImage, match=r"install hashret\[(heic|jxl)\]"):
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


# Deep pixels. `levels` is a picture of 8 bits from black to white; every container of it must give the same pixels.


@pytest.fixture(scope="module")
def levels():
    x, y = np.meshgrid(np.arange(32), np.arange(24))
    return ((x * 8 + y * 5) % 256).astype(np.uint8) | np.where((x + y) == 0, 255, 0).astype(np.uint8)


def png(values, bits=16, chunks=()):
    """A PNG of big-endian values, (h, w) or (h, w, channels), with ``chunks`` (kind, data) before the pixels."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts))


def png_chunk(kind, data, checksum=None):
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def tiff(values, order="<", format=1, photometric=1, planes=1, compressed=False, tags=()):
    """A TIFF of (h, w) or (h, w, 3) values in a byte order; ``format`` 1 unsigned, 2 signed, 3 floats."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    values = values.astype(values.dtype.newbyteorder(order))
    strips = [values[..., c].tobytes() for c in range(channels)] if planes == 2 else [values.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    bits, compression = 8 * values.dtype.itemsize, 8 if compressed else 1
    entries = {256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * channels), 259: ("H", [compression])}
    entries |= {262: ("H", [photometric]), 277: ("H", [channels]), 278: ("I", [height]), 284: ("H", [planes])}
    entries |= {339: ("H", [format] * channels), 279: ("I", [len(strip) for strip in strips]), **dict(tags)}
    entries[273] = ("I", [0] * len(strips))
    types, behind, data = {"H": 3, "I": 4, "f": 11, "s": 2}, 8 + 2 + 12 * len(entries) + 4, b""

    def packed(kind, content):
        return content if kind == "s" else struct.pack(f"{order}{len(content)}{kind}", *content)

    start = behind + sum(len(packed(*entry)) for entry in entries.values() if len(packed(*entry)) > 4)
    entries[273] = ("I", [start + sum(map(len, strips[:n])) for n in range(len(strips))])
    directory = struct.pack(order + "H", len(entries))
    for tag, (kind, content) in sorted(entries.items()):
        made = packed(kind, content)
        where = made.ljust(4, b"\0") if len(made) <= 4 else struct.pack(order + "I", behind + len(data))
        data += made if len(made) > 4 else b""
        directory += struct.pack(order + "HHI", tag, types[kind], len(content)) + where
    magic = b"II*\0" if order == "<" else b"MM\0*"
    parts = [magic, struct.pack(order + "I", 8), directory, bytes(4), data, *strips]
    return io.BytesIO(b"".join(parts))


def pgm(values, white):
    height, width = values.shape
    return io.BytesIO(f"P5 {width} {height} {white}\n".encode() + values.astype(">u2").tobytes())


def deep_containers(levels):
    """Files of one picture in many depths: -> dict of their names and files."""
    share = levels / 255
    of = {bits: np.rint(share * (2**bits - 1)) for bits in (10, 12, 14, 16, 31, 32)}
    u2, u4, i2, i4, f4, f8 = np.uint16, np.uint32, np.int16, np.int32, np.float32, np.float64
    files = {f"png of {bits} bits": png(of[bits].astype(u2)) for bits in (10, 12, 14, 16)}
    files |= {
        "png of 8 bits shifted by 8": png(levels.astype(u2) << 8),
        "png of 12 bits, sBIT": png(of[12].astype(u2), chunks=[(b"sBIT", b"\x0c")]),
        "png with alpha, 12 bits": png(np.dstack([of[12], np.full_like(share, 65535)])),
        "png in colour, 12 bits": png(np.dstack([of[12]] * 3)),
        "png in colour, 16 bits": png(np.dstack([of[16]] * 3)),
        "png in colour with alpha of 12 bits": png(np.dstack([of[12]] * 3 + [np.full_like(share, 4095)])),
        "pgm of 4095": pgm(of[12], 4095),
        "pgm of 65535, 12 bits": pgm(of[12], 65535),
        "pfm": io.BytesIO(b"Pf\n32 24\n-1.0\n" + share[::-1].astype("<f4").tobytes()),
        "jp2 of 16 bits": saved(Image.fromarray(of[16].astype(u2)), "JPEG2000"),
        "jp2 of 12 bits in 16": saved(Image.fromarray(of[12].astype(u2)), "JPEG2000"),
    }
    for order in "<>":
        for compressed in (False, True):
            some = {"order": order, "compressed": compressed}
            made = {
                "16 bits": tiff(of[16].astype(u2), **some),
                "12 bits": tiff(of[12].astype(u2), **some),
                "16 bits, white is 0": tiff((65535 - of[16]).astype(u2), photometric=0, **some),
                "16 bits signed": tiff((of[16] - 32768).astype(i2), format=2, **some),
                "16 bits signed, none below 0": tiff(np.rint(share * 32767).astype(i2), format=2, **some),
                "8 bits signed": tiff((levels.astype(int) - 128).astype(np.int8), format=2, **some),
                "32 bits": tiff(of[32].astype(u4), **some),
                "12 of 32 bits": tiff(of[12].astype(u4), **some),
                "32 bits signed": tiff(of[31].astype(i4), format=2, **some),
                "floats to 1": tiff(share.astype(f4), format=3, **some),
                "floats to 255": tiff(levels.astype(f4), format=3, **some),
                "floats to 4000": tiff((share * 4000).astype(f4), format=3, **some),
                "floats from -1": tiff((share * 2 - 1).astype(f4), format=3, **some),
                "double floats": tiff(share.astype(f8), format=3, **some),
                "colour, 12 bits": tiff(np.dstack([of[12]] * 3).astype(u2), photometric=2, **some),
                "colour in planes": tiff(np.dstack([of[16]] * 3).astype(u2), photometric=2, planes=2, **some),
            }
            files |= {f"tiff {order} {compressed} {name}": file for name, file in made.items()}
    return files


def test_a_deep_picture_has_the_same_pixels_in_every_container(levels):
    wrong = {}
    for name, file in deep_containers(levels).items():
        found = np.asarray(open_rgb(file), int)
        difference = np.abs(found - levels[..., None]).max()
        if difference > 1:
            wrong[name] = difference
    assert not wrong


def test_the_range_that_a_file_declares_counts(levels):
    dark = (levels // 8).astype(np.uint16)  # to 31 of 255
    twelve = np.rint(dark / 255 * 4095).astype(np.uint16)
    for file in (
        png(twelve, chunks=[(b"sBIT", b"\x0c")]),
        pgm(twelve, 4095),
        tiff(twelve, tags=[(281, ("H", [4095]))]),
        tiff((dark / 255).astype(np.float32), format=3, tags=[(341, ("f", [1.0]))]),
        tiff((dark / 255 * 300 - 100).astype(np.float32), format=3, tags=[(340, ("f", [-100])), (341, ("f", [200]))]),
        png(dark * 257),  # all multiples of 257: 8 bits that were scaled up
    ):
        assert np.abs(np.asarray(open_rgb(file), int) - dark[..., None]).max() <= 1


def test_floats_without_a_value_and_a_few_far_beyond_the_others(levels):
    values = (levels / 255 * 500).astype(np.float32)
    values[3, 5:9] = np.nan, np.inf, -np.inf, -9999
    wanted = levels.copy()
    wanted[3, 5:9] = 0, 255, 0, 0
    found = np.asarray(open_rgb(tiff(values, format=3, tags=[(42113, ("s", b"-9999\0"))])), int)
    assert np.abs(found - wanted[..., None]).max() <= 1
    large = np.tile(levels, (8, 8)).astype(np.float32) + np.float32(0.5)
    large[0, 0] = 1e9
    assert np.asarray(open_rgb(tiff(large, format=3))).std() > 60
    for constant in (0, 1, 7.5, np.nan, -3):
        assert open_rgb(tiff(np.full((4, 4), constant, np.float32), format=3)).size == (4, 4)


def test_large_deep_pictures_are_converted_in_strips(levels, monkeypatch):
    files = deep_containers(levels)
    names = ["png of 12 bits", "png in colour with alpha of 12 bits", "tiff < True floats to 4000"]
    whole = [np.asarray(open_rgb(files[name])) for name in names]
    monkeypatch.setattr("hashret.data.pixels._STRIP", 100)
    assert all(np.array_equal(np.asarray(open_rgb(files[name])), one) for name, one in zip(names, whole, strict=True))


def as_before(picture, turn=None):
    """8-bit pictures as they have always been converted: codes on disk stay those of their photographs."""
    picture = picture.transpose(turn) if turn is not None else picture
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("RGB")


@pytest.mark.parametrize("strip", [2**20, 300])
def test_pictures_of_8_bits_keep_their_pixels_bit_for_bit(gradient, strip, monkeypatch):
    monkeypatch.setattr("hashret.data.pixels._STRIP", strip)
    alpha = gradient.convert("L").rotate(180)
    exif = Image.Exif()
    exif[0x0112] = 8
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "LAB"):
        for format in ("PNG", "TIFF", "JPEG", "GIF", "WEBP", "BMP"):
            picture = gradient.convert(mode)
            if "A" in mode and mode != "LAB":
                picture.putalpha(alpha)
            for options in ({}, {"exif": exif}):
                try:
                    file = saved(picture, format, **options)
                except (OSError, KeyError, ValueError):  # no such mode in this format
                    continue
                with Image.open(file) as stored:
                    stored.load()
                    turn = Image.Transpose.ROTATE_90 if stored.getexif().get(0x0112) == 8 else None
                    wanted = np.asarray(as_before(stored, turn))
                assert np.array_equal(np.asarray(open_rgb(file)), wanted), (mode, format, options)


@pytest.mark.parametrize("colour", [255, 235])
def test_white_drawings_on_transparent_ground_are_seen(colour):
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 18:22] = pixels[18:22, 10:30] = (colour, colour, colour, 255)
    white = np.asarray(open_rgb(png(pixels, 8)))
    assert white[20, 20].min() == colour
    assert white[0, 0].max() == 0
    pixels[..., :3] //= 4
    dark = np.asarray(open_rgb(png(pixels, 8)))
    assert dark[20, 20].max() < 64
    assert dark[0, 0].min() == 255
    pixels[..., :3] = 255  # a white page with a hole too small to matter
    pixels[..., 3] = 255
    pixels[:3, :3] = 0
    assert np.asarray(open_rgb(png(pixels, 8)))[0, 0].min() == 255


def test_a_transparent_value_of_16_bits():
    values = np.full((8, 8), 40_000)
    values[2] = 1_000
    found = np.asarray(open_rgb(png(values, chunks=[(b"tRNS", struct.pack(">H", 1_000))])))
    assert found[2].min() == 255
    assert 150 < found[0].max() < 160
    colours = np.dstack([values] * 3)
    found = np.asarray(open_rgb(png(colours, chunks=[(b"tRNS", struct.pack(">3H", *[1_000] * 3))])))
    assert found[2].min() == 255
    assert 150 < found[0].max() < 160


# Pictures whose pixels are whole.


def odd_pngs(pixels):
    """PNGs of these pixels with chunks that Pillow stumbles over."""
    long = zlib.compress(b"a" * 2**21)
    chunks = {
        "a compressed text too long": (b"zTXt", b"Comment\0\0" + long),
        "an international text too long": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long),
        "a text compressed in no known way": (b"zTXt", b"Comment\0\7" + long),
        "a profile too long": (b"iCCP", b"sRGB\0\0" + long),
        "a profile compressed in no known way": (b"iCCP", b"sRGB\0\7" + long),
        "a wrong checksum": (b"tEXt", b"Comment\0hello", 7),
        "a gamma cut off": (b"gAMA", b"\0"),
        "a broken Exif": (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"),
        "an animation of no frames": (b"acTL", b"\0\0"),
        "a transparent colour cut off": (b"tRNS", b""),
    }
    found = {name: png(pixels, 8, [chunk]) for name, chunk in chunks.items()}
    behind = png(pixels, 8).getvalue()
    text = b"".join(png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2**20)) for _ in range(65))
    found["texts behind the pixels, too long together"] = io.BytesIO(behind[:-12] + text + behind[-12:])
    return found


def odd_jpegs(jpeg):
    """JPEGs with segments that are damaged, before and behind the same pixels."""

    def segment(marker, content):
        return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]

    return {
        "a broken Exif": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\1"),
        "no TIFF in Exif": segment(0xE1, b"Exif\0\0nothing"),
        "a broken profile": segment(0xE2, b"ICC_PROFILE\0\7"),
        "a profile of no parts": segment(0xE2, b"ICC_PROFILE\0"),
        "a broken index of pictures": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\1\0\4\0\0\0\2\0\0\0\0"),
        "no index of pictures": segment(0xE2, b"MPF\0nothing"),
        "a broken IPTC": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\xff" + b"8BIM\4\4\0\0\xff\xff\xff\xff"),
        "a resolution cut off": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\2\0\0"),
        "a short Adobe marker": segment(0xEE, b"Adobe"),
        "bytes behind": jpeg + b"garbage" * 1000,
    }


def test_damage_beside_the_pixels_does_no_harm(gradient):
    pixels = np.asarray(gradient)
    jpeg = saved(gradient, "JPEG").getvalue()
    wanted = np.asarray(open_rgb(io.BytesIO(jpeg)))
    for name, file in odd_pngs(pixels).items():
        assert np.array_equal(np.asarray(open_rgb(file)), pixels), name
    for name, data in odd_jpegs(jpeg).items():
        assert np.array_equal(np.asarray(open_rgb(io.BytesIO(data))), wanted), name
    gif = saved(gradient, "GIF").getvalue()
    assert np.array_equal(
        np.asarray(open_rgb(io.BytesIO(gif + b"garbage" * 99))), np.asarray(open_rgb(io.BytesIO(gif)))
    )


def test_damage_beside_the_pixels_is_read_from_a_path_and_keeps_what_is_truncated_so(tmp_path, gradient):
    file = odd_pngs(np.asarray(gradient))["a compressed text too long"].getvalue()
    (tmp_path / "a.png").write_bytes(file)
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.png")), np.asarray(gradient))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    whole = odd_pngs(noise)["a compressed text too long"].getvalue()
    with pytest.raises(UnreadableImage):
        open_rgb(io.BytesIO(whole[: len(whole) - 4000]))
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = saved(gradient, "PNG", exif=exif).getvalue()
    broken = turned[:33] + png_chunk(b"tEXt", b"Comment\0hello", 7) + turned[33:]
    assert np.array_equal(np.asarray(open_rgb(io.BytesIO(broken))), np.asarray(gradient)[::-1, ::-1])


# Sizes.


def plain_png(width, height, colour=0):
    """A black PNG of 8 bits, grey (0), RGB (2) or RGBA (6), of few bytes."""
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour])
    squeezed = zlib.compressobj(1)
    rows = b"".join(squeezed.compress(row * min(1000, height - top)) for top in range(0, height, 1000))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", rows + squeezed.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


PEAK = """
import resource, sys
from hashret.data.images import UnreadableImage, read_image
from PIL import Image, PngImagePlugin
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    result = read_image(sys.argv[1], 224).shape
except UnreadableImage as error:
    result = error
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, result)
"""


def peak(path):
    """Megabytes that reading a file takes in a process of its own, and what came of it."""
    made = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True).stdout
    megabytes, _, result = made.strip().partition(" ")
    return int(megabytes), result


@pytest.mark.parametrize(
    ("width", "height", "colour", "most"),
    [(1, 990_000, 2, 60), (1_600, 1_600, 6, 60), (1, 49_999_999, 0, 10), (1, 178_956_969, 0, 10)],
)
def test_memory_is_bounded_by_pixels_and_sides(tmp_path, width, height, colour, most):
    data = plain_png(width, height, colour) if height < 10**6 else bomb_png(width, height)
    (tmp_path / "a.png").write_bytes(data)
    megabytes, result = peak(tmp_path / "a.png")
    assert megabytes < most
    wanted = "(3, 224, 224)" if height < 10**6 else f"too large: 1x{height} pixels, limit 1000000 a side"
    assert result == wanted


def test_a_jpeg_xl_is_refused_before_it_is_decoded(gradient, monkeypatch):
    pytest.importorskip("pillow_jxl")
    sizes = [(48, 32), (40, 64), (256, 256), (300, 200), (257, 1), (3, 700)]
    for size in sizes:
        for container in (False, True):
            file = saved(gradient.resize(size), "JXL", use_container=container)
            assert jpeg_xl_size(file) == size
    monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.Decoder", None)  # which decodes as soon as it opens
    with pytest.raises(UnreadableImage, match="too large: 3x700 pixels, limit 1000"):
        open_rgb(file, max_pixels=1000)


def test_the_limit_can_be_raised_and_its_message_says_how(gradient, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(plain_png(1500, 1000))
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "1")
    with pytest.raises(UnreadableImage, match="1500x1000 pixels, limit 1000000; --max-pixels 2 ") as caught:
        read_image(tmp_path / "a.png", 32)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "2")
    assert read_image(tmp_path / "a.png", 32).shape == (3, 32, 32)
    assert image_size(tmp_path / "a.png") == (1500, 1000)
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "many")
    with pytest.raises(HashretError, match="HASHRET_MAX_PIXELS is a whole number of megapixels"):
        read_image(tmp_path / "a.png", 32)
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "400")  # beyond what Pillow itself would open
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # and afterwards what it was
    assert image_size(io.BytesIO(bomb_png(19_000, 20_000))) == (19_000, 20_000)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 700)])
def test_resizing_of_extreme_shapes(size, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    wanted = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR), int)
    assert np.array_equal(np.asarray(resized(picture, (224, 224), Image.Resampling.BILINEAR)), wanted)
    monkeypatch.setattr("hashret.data.images._SMALL", 1000)
    found = np.asarray(resized(picture, (224, 224), Image.Resampling.BILINEAR), int)
    assert np.abs(found - wanted).max() <= 1
    assert min(fit(size, 160)) >= 1
    assert max(fit(size, 160)) == 160


def test_what_the_file_says_of_its_orientation(gradient):
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = saved(gradient, "JPEG", exif=exif, quality=95)
    upright = np.asarray(open_rgb(jpeg), int)
    assert upright.shape == (48, 32, 3)
    turned = exif.tobytes()
    for format in ("AVIF", "HEIF"):
        if format in (*formats(), *plugin_formats()):
            file = saved(gradient, format, exif=turned, quality=95)
            assert np.abs(np.asarray(open_rgb(file), int) - upright).mean() < 4


def test_a_picture_that_is_not_read_says_what_it_is(gradient, levels, monkeypatch):
    colours = tiff(np.dstack([levels / 255] * 3).astype(np.float32), format=3, photometric=2)
    with pytest.raises(UnreadableImage, match="colours in floats"):
        open_rgb(colours)
    heic = io.BytesIO(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setattr("hashret.data.formats.find_spec", lambda name: None)
    with pytest.raises(UnreadableImage, match=r"HEIC: install hashret\[heic\]"):
        open_rgb(heic)
    monkeypatch.setattr("hashret.data.formats.find_spec", lambda name: name)
    with pytest.raises(UnreadableImage, match="damaged HEIC"):
        open_rgb(heic)


def test_reasons_that_lie_not_in_the_content_may_pass(monkeypatch):
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "2")
    reasons = {
        "too large: 1000x2000 pixels, limit 1000000; --max-pixels 2 (megapixels) would read it": True,
        "too large: 1001x2000 pixels, limit 1000000; --max-pixels 3 (megapixels) would read it": False,
        "too large: 2000000x1 pixels, limit 1000000 a side": False,
        "too large for the memory that is free": True,
        "Input/output error": True,
        "no such file": True,
        "image file is truncated (3 bytes not processed)": False,
        "not an image, or of an unknown format": False,
        "empty file": False,
    }
    assert {reason: may_be_read_now(reason) for reason in reasons} == reasons
    for there in (False, True):
        monkeypatch.setattr("hashret.data.formats.find_spec", lambda module, there=there: there or None)
        assert (
            may_be_read_now("HEIC: install hashret[heic]") is may_be_read_now("JPEG XL: install hashret[jxl]") is there
        )
