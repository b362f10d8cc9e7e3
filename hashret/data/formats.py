"""Which files are pictures by their name, which of them can be read here, and why the others cannot.

Pillow reads the formats of `FORMATS`. HEIC and JPEG XL are read by plugins of Pillow, where they are installed.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from importlib.util import find_spec

# .mpo and .jps are JPEGs that hold several pictures, of which the first is read.
_SUFFIXES = (
    ".jpg .jpeg .jpe .jfif .jfi .jif .mpo .jps .png .apng .bmp .dib .gif .webp .tif .tiff .btf "
    ".ppm .pgm .pbm .pnm .pfm .jp2 .j2k .j2c .jpc .jpf .jpx .avif .avifs"
)
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
# Pillow's names of them. It knows more, but hands PostScript, for one, to another program, whatever the file's name.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Layouts of grey TIFFs that Pillow can decode and does not know: 16 bits with white as 0, 32 unsigned bits, and 64-bit
# floats. By byte order, photometric interpretation, sample format, fill order, bits and extra samples.
_TIFF_LAYOUTS = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"II", 1, (3,), 1, (64,), ()): ("F", "F;64F"),
    (b"MM", 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
}

_HEIC = (".heic", ".heif", ".hif", ".heics", ".heifs")
_PLUGINS = {"HEIF": ("pillow_heif", "heic"), "JXL": ("pillow_jxl", "jxl")}  # module, and hashret's extra for it
_BY_PLUGIN = {**dict.fromkeys(_HEIC, "HEIF"), ".jxl": "JXL"}
READABLE_SUFFIXES = IMAGE_SUFFIXES | _BY_PLUGIN.keys()  # here, or where the plugins are installed
_RAW = (
    ".3fr .ari .arw .bay .cap .cr2 .cr3 .crw .dcr .dcs .dng .drf .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef "
    ".nrw .orf .pef .ptx .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f"
)
_OTHERS = {
    "camera raw: export it as JPEG or TIFF": _RAW,
    "a drawing program's own file: export it as PNG": ".psd .psb .xcf .kra .ora .clip .afphoto .procreate .sketch",
    "a vector drawing or a document: export it as PNG": ".svg .svgz .eps .ps .ai .pdf .wmf .emf .cdr .djvu .djv",
    "a video: export a frame as JPEG": ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .3gp .3g2 .mts .m2ts .wmv .flv .ogv",
    "a format that hashret does not read: export it as PNG or TIFF": (
        ".tga .ico .icns .cur .pcx .dcx .sgi .rgb .ras .xbm .xpm .xwd .qoi .dds .exr .hdr .fit .fits .dcm .jxr .wdp "
        ".hdp .jls .bpg .cin .dpx .pict .pct .pcd .iff .msp .fpx"
    ),
}
_REASONS = {suffix: reason for reason, suffixes in _OTHERS.items() for suffix in suffixes.split()}


def is_image_name(name: str) -> bool:
    """Whether a file name ends like that of an image that can be read here."""
    suffix = _suffix(name)
    return suffix in IMAGE_SUFFIXES or (suffix in _BY_PLUGIN and has_plugin(_BY_PLUGIN[suffix]))


def reason_passed_over(name: str) -> str | None:
    """Return why a file with the name of a picture cannot be read here, in one line: "HEIC: install hashret[heic]".

    None for a name that `is_image_name` takes, and for one that is not a picture's.
    """
    suffix = _suffix(name)
    if suffix in _BY_PLUGIN and not has_plugin(_BY_PLUGIN[suffix]):
        return _missing(_BY_PLUGIN[suffix])
    return _REASONS.get(suffix)


def _missing(format: str) -> str:
    """Return what to do where the plugin for Pillow's format "HEIF" or "JXL" is missing."""
    return f"{'JPEG XL' if format == 'JXL' else 'HEIC'}: install hashret[{_PLUGINS[format][1]}]"


def missing_plugin(reason: str) -> str | None:
    """Return the format, "HEIF" or "JXL", for whose plugin a reason of `reason_passed_over` asks; None for others."""
    return next((format for format in _PLUGINS if reason == _missing(format)), None)


def has_plugin(format: str) -> bool:
    """Whether the plugin for Pillow's format "HEIF" or "JXL" is installed; it is not imported."""
    return find_spec(_PLUGINS[format][0]) is not None


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that it reads itself: AVIF and others are not in every Pillow."""
    from PIL import Image, TiffImagePlugin

    Image.init()
    for layout, modes in _TIFF_LAYOUTS.items():
        TiffImagePlugin.OPEN_INFO.setdefault(layout, modes)
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def plugin_formats() -> tuple[str, ...]:
    """Load the plugins that are installed: -> Pillow's names of their formats."""
    from PIL import Image

    with contextlib.suppress(ImportError):  # not there, or a library that it needs is not
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401  (it registers itself)
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
