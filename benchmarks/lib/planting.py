"""Copies of photographs, changed in ways that copies are, planted for what finds copies to find."""

from __future__ import annotations

import json
import shutil

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def resized(*sides):
    """Resized by each factor in turn."""

    def change(image):
        for side in sides:
            image = image.resize([round(length * side) for length in image.size], Image.Resampling.BICUBIC)
        return image

    return change


def cropped(left, top=None, right=None, bottom=None):
    """Without a share of the width or height at each edge; of one share alone, at all edges."""
    edges = (left, top, right, bottom) if top is not None else (left,) * 4

    def change(image):
        left, top, right, bottom = (round(share * length) for share, length in zip(edges, image.size * 2, strict=True))
        return image.crop((left, top, image.width - right, image.height - bottom))

    return change


def cropped_at_random(image):
    """Without a tenth of the width or height, at most, at each edge."""
    seed = int(np.asarray(image, np.int64).sum())
    return cropped(*(np.random.default_rng(seed).random(4) / 10))(image)


def bordered(share, colour):
    """In a border whose width is a share of the longer side."""
    return lambda image: ImageOps.expand(image, round(share * max(image.size)), colour)


def turned(way):
    """Turned or mirrored in a way of Pillow's."""
    return lambda image: image.transpose(Image.Transpose[way])


def grey(image):
    """In grey."""
    return image.convert("L").convert("RGB")


def brightened(factor):
    """Brighter or darker by a factor."""
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def in_turn(*changes):
    """Changed by each in turn."""

    def change(image):
        for one in changes:
            image = one(image)
        return image

    return change


def plain(image):
    """As it is."""
    return image


# How each is changed, and the quality of the JPEG that it is saved as, None for a PNG. Exact copies are not saved anew.
KINDS = {
    "exact": None,
    "resized to 3/4": (resized(0.75), None),
    "resized to 3/2 and back": (resized(1.5, 2 / 3), None),
    "resized to 2": (resized(2), None),
    "JPEG 90": (plain, 90),
    "JPEG 70": (plain, 70),
    "JPEG 50": (plain, 50),
    "cropped by 1/32": (cropped(1 / 32), None),
    "cropped by 1/16": (cropped(1 / 16), None),
    "mirrored": (turned("FLIP_LEFT_RIGHT"), None),
}
FURTHER_KINDS = {
    "resized to 1/2": (resized(0.5), 90),
    "JPEG 20": (plain, 20),
    "cropped by 1/10": (cropped(0.1), 90),
    "cropped by 1/10 at the left": (cropped(0.1, 0, 0, 0), 90),
    "cropped by up to 1/10 at each edge": (cropped_at_random, 90),
    "upside down": (turned("ROTATE_180"), 90),
    "turned left": (turned("ROTATE_90"), 90),
    "turned right": (turned("ROTATE_270"), 90),
    "grey": (grey, 90),
    "brighter by 1.3": (brightened(1.3), 90),
    "darker by 0.7": (brightened(0.7), 90),
    "more contrast, by 1.4": (lambda image: ImageEnhance.Contrast(image).enhance(1.4), 90),
    "white border of 5%": (bordered(0.05, "white"), 90),
    "black border of 10%": (bordered(0.1, "black"), 90),
    "bars above and below": (lambda image: ImageOps.expand(image, (0, round(0.12 * image.height)), "black"), 90),
    "mirrored, cropped by 1/10 at the left, JPEG 70": (in_turn(turned("FLIP_LEFT_RIGHT"), cropped(0.1, 0, 0, 0)), 70),
    "turned left, grey, JPEG 70": (in_turn(turned("ROTATE_90"), grey), 70),
    "white border of 5%, resized to 1/2, JPEG 70": (in_turn(bordered(0.05, "white"), resized(0.5)), 70),
}


def folder_of(kind):
    """Return the name of the folder with the copies of a kind."""
    return kind.replace("/", "-")


def plant(data, sources, folder, kinds):
    """Write a copy of each kind of each source, ``folder/KIND/ROW.*``, once.

    ``folder/done`` names kinds and photographs; where these are others, all that is in the folder is written anew.

    Args:
        data: a source of photographs that are files.
        sources: rows of the photographs to copy.
        kinds: as `KINDS`.
    """
    files = {int(row): data.file(row) for row in sources}
    planted = json.dumps({"kinds": [*kinds], "files": {row: str(file) for row, file in files.items()}})
    if (folder / "done").exists() and (folder / "done").read_text() == planted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for kind, how in kinds.items():
        (folder / folder_of(kind)).mkdir(parents=True)
        for row, file in files.items():
            path = folder / folder_of(kind) / f"{row}{file.suffix}"
            if how is None:
                shutil.copy(file, path)
                continue
            change, quality = how
            with Image.open(file) as image:
                copy = change(image.convert("RGB"))
            if quality is None:
                copy.save(path.with_suffix(".png"))
            else:
                copy.save(path.with_suffix(".jpg"), quality=quality)
    (folder / "done").write_text(planted)
