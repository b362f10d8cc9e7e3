"""What Pillow does not say of a file, or stumbles over: PNG chunks, JPEG segments, the size of a JPEG XL picture."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import IO

from .formats import has_plugin, reason_passed_over
from .references import Readable

_PNG = b"\x89PNG\r\n\x1a\n"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MOST_BYTES = 2**30  # of a file that is copied without what Pillow stumbles over
_ADOBE, _JFIF, _EXIF = 0xEE, 0xE0, 0xE1
_JXL_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height, by their number less 1


@contextlib.contextmanager
def opened(file: Readable | IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a path or a stream as a stream from its beginning; what was a stream stays open."""
    if not isinstance(file, str | os.PathLike):
        file.seek(0)
        yield file
    else:
        with open(file, "rb") as stream:
            yield stream


def unread_kind(file: Readable) -> str | None:
    """Return why a picture is not read that is one by its first bytes, in one line; None for other files."""
    with opened(file) as stream:
        head = stream.read(32)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF that is damaged, or of a kind that is not read, as colours in floats or camera raw"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "damaged HEIC" if has_plugin("HEIF") else reason_passed_over("a.heic")
    if head[:2] == b"\xff\x0a" or head[4:8] == b"JXL ":
        return "damaged JPEG XL" if has_plugin("JXL") else reason_passed_over("a.jxl")
    return None


def without_extras(file: Readable) -> Iterator[io.BytesIO]:
    """Yield copies of a PNG or JPEG without what is not its pixels: texts, colour profiles, thumbnails, indexes.

    Pillow refuses a picture whose texts are too long when decompressed, or whose checksum of a comment is wrong, while
    its pixels are whole. The pixels are copied as they are, so that what is truncated stays so.
    """
    with opened(file) as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        return
    if data.startswith(_PNG):
        frames = (b"acTL", b"fcTL", b"fdAT")
        for chunks in ((b"tRNS", b"eXIf", *frames), (b"tRNS", b"eXIf"), ()):
            yield io.BytesIO(_png_pixels(data, chunks))
    elif data.startswith(b"\xff\xd8\xff"):
        for markers in ((_ADOBE, _JFIF, _EXIF), (_ADOBE,)):
            yield io.BytesIO(_jpeg_pixels(data, markers))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk of a PNG as its kind and where it starts and ends, checksum included."""
    start = len(_PNG)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + 12 + length
        start += 12 + length


def _png_pixels(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """Return a PNG with no chunks but those of its pixels, and the ``kept`` ones where their checksum is right."""
    chunks = [_PNG]
    for kind, start, end in _png_chunks(data):
        critical = not kind[0] & 0x20
        checked = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if critical or (kind in kept and checked):
            chunks.append(data[start:end])
    return b"".join(chunks)


def _jpeg_pixels(data: bytes, kept: tuple[int, ...]) -> bytes:
    """Return a JPEG with no application segments but ``kept``, and no comments."""
    segments, start = [data[:2]], 2
    while start + 4 <= len(data):
        if data[start] != 0xFF or data[start + 1] == 0xDA:  # not a marker, or where the pixels begin
            break
        marker, end = data[start + 1], start + 2
        if marker == 0xFF:  # padding
            start += 1
            continue
        if marker != 0x01 and not 0xD0 <= marker <= 0xD7:  # all other markers have a length
            end += int.from_bytes(data[end : end + 2], "big")
        short = marker == _ADOBE and end - start < 16  # cut off, and ignored by libjpeg
        if (marker in kept and not short) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            segments.append(data[start:end])
        start = end
    return b"".join([*segments, data[start:]])


def significant_bits(file: IO[bytes]) -> int | None:
    """Return the largest number of significant bits of a channel that a PNG's sBIT chunk names, None without one."""
    with opened(file) as stream:
        head = stream.read(2**16)
    for kind, start, end in _png_chunks(head) if head.startswith(_PNG) else ():
        if kind == b"sBIT" and end <= len(head):
            return max(head[start + 8 : end - 4], default=None)
        if kind in (b"PLTE", b"IDAT"):  # it stands before these
            break
    return None


def jpeg_2000_bits(file: IO[bytes]) -> int | None:
    """Return the bits of the first channel of a JPEG 2000 picture, None where its header is not found."""
    with opened(file) as stream:
        head = stream.read(2**16)
    start = head.find(b"\xff\x4f\xff\x51")  # the codestream and its SIZ segment, whose 39th byte says it
    return (head[start + 42] & 0x7F) + 1 if 0 <= start < len(head) - 42 else None


def jpeg_xl_size(file: Readable) -> tuple[int, int] | None:
    """Read the size of a JPEG XL picture from its header, since its plugin decodes when it opens; None for others."""
    with opened(file) as stream:
        head = stream.read(2**16)
    if head[4:8] == b"JXL ":
        head = _jpeg_xl_codestream(head)
    if head[:2] != b"\xff\x0a":
        return None
    bits = int.from_bytes(head[2:16], "little")

    def take(count: int) -> int:
        nonlocal bits
        taken, bits = bits & ((1 << count) - 1), bits >> count
        return taken

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _jpeg_xl_codestream(head: bytes) -> bytes:
    """Return the beginning of the codestream within the boxes of a JPEG XL file."""
    start = 0
    while start + 16 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, start)
        content = start + 8
        if length == 1:  # a length of 64 bits follows
            (length,) = struct.unpack_from(">Q", head, content)
            content += 8
        if kind == b"jxlc":
            return head[content:]
        if kind == b"jxlp":  # a part of it, behind the part's number
            return head[content + 4 :]
        if length < content - start:  # 0: up to the end of the file
            break
        start += length
    return b""
