"""Queries: the photographs that a search is asked with, by path or in memory, and what an encoder gives for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bits import HashOutputs
from .data import VectorSource, warn_passed_over
from .data.images import UnreadableImage, read_image
from .data.in_memory import Held, Photo, photographs
from .data.references import kind_of
from .data.walk import LINKED_TO_NOTHING, SPECIAL, summary, walk
from .errors import HashretError, NothingRead, warn
from .files import StrPath
from .models.metadata import Described
from .vectors import Vectors

Photos = Photo | Sequence[Photo] | VectorSource  # queries: photographs, or vectors or `Asked`, whose items are names


class QueryOutputs(NamedTuple):
    """What the encoder gives for the photographs of a query that could be read.

    ``numbers`` say which of the photographs these are, ``hash_outputs`` float32 (n, bits), and ``fc_features``
    float32 (n, width) what the hash layer reads, where the re-rank compares that, else None.
    """

    numbers: list[int]
    hash_outputs: HashOutputs
    fc_features: Vectors | None

    def nth(self, n: int) -> QueryOutputs:
        """Return the outputs of the n-th of these photographs, from 0, as a query of its own."""
        features = None if self.fc_features is None else self.fc_features[n : n + 1]
        return QueryOutputs([self.numbers[n]], self.hash_outputs[n : n + 1], features)


class Asked(list[str]):
    """Queries that are no photographs, by name, with the ``outputs`` to search by."""

    def __init__(self, names: Iterable[str], outputs: QueryOutputs) -> None:
        super().__init__(names)
        self.outputs = outputs


def as_named(photos: Photos) -> Sequence[str | Held] | VectorSource:
    """Return queries as a sequence, whose items are paths, or have the names of the queries by ``str``."""
    return photos if isinstance(photos, VectorSource | Asked) else photographs(photos)


def expand(
    photos: Photo | Iterable[Photo],
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    unreadable: dict[str, str] | None = None,
) -> list[str | Held]:
    """Return the photographs of a list in which a folder stands for the images below it.

    Args:
        photos: paths of files and folders, and photographs in memory, see `hashret.data.in_memory.photographs`.
        exclude, include: patterns of what is left out of folders and what is not, see `hashret.data.walk.walk`.
        unreadable: a dict, to which what is missing is added, with the reason.

    Raises:
        HashretError: one of them is missing or no file, or a folder holds no image; with ``unreadable``, all of them.
    """
    return existing(expand_in_order(photos, exclude, include), unreadable)


def expand_in_order(
    photos: Photo | Iterable[Photo], exclude: Sequence[str] = (), include: Sequence[str] = ()
) -> list[tuple[str | Held, str | None]]:
    """Return what `expand` does, each with None, and where it was named also what is missing, with the reason."""
    expanded: list[tuple[str | Held, str | None]] = []
    for photo in photographs(photos):
        if isinstance(photo, Held):
            expanded.append((photo, None))
            continue
        inside, reason = _inside(photo, exclude, include)
        expanded += [(str(photo), reason)] if reason else [(file, None) for file in inside]
    return expanded


def existing(
    expanded: Sequence[tuple[str | Held, str | None]], unreadable: dict[str, str] | None = None
) -> list[str | Held]:
    """Return those of `expand_in_order` that are not missing; ``unreadable`` and what is raised are as of `expand`."""
    files = [photo for photo, reason in expanded if not reason]
    missing = {str(photo): reason for photo, reason in expanded if reason}
    if unreadable is not None:
        unreadable.update(missing)
    if missing and (unreadable is None or not files):
        named, reason = next(iter(missing.items()))
        raise (HashretError if files else NothingRead)(f"{reason}: {named}")
    return files


def _inside(photo: StrPath, exclude: Sequence[str], include: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the image files that a path stands for, and why there are none."""
    path = Path(photo)
    if kind_of(photo):
        return [str(photo)], None
    if path.is_dir():
        inside, passed_over = walk(path, exclude, include)
        if inside:
            warn_passed_over(path, passed_over)
            return [str(path / name) for name in inside], None
        return [], "no images in this folder" + (f" ({summary(passed_over)})" if passed_over else "")
    if path.is_file():
        return [str(path)], None
    if path.exists():
        return [], f"a {SPECIAL}, no file"
    return [], LINKED_TO_NOTHING if path.is_symlink() else "no such file"


def read_query(photo: Photo, encoder: Described, unreadable: dict[str, str] | None = None) -> NDArray[np.uint8] | None:
    """Return one photograph as uint8 (3, size, size), as its encoder wants it.

    One that cannot be read is an error, or, where a dict ``unreadable`` is given, added to it with the reason, and
    None.
    """
    try:
        return read_image(photo, encoder.image_size, resize=encoder.resize)
    except UnreadableImage as error:
        if unreadable is None:
            raise HashretError(f"cannot read {photo}: {error}") from None
        unreadable[str(photo)] = str(error)
        return None


def nothing_read(unreadable: dict[str, str]) -> NothingRead:
    """Return the error to raise where no photograph could be read."""
    photo, reason = next(iter(unreadable.items()))
    count = len(unreadable) - 1
    others = f", nor {count:,} other{'s' if count > 1 else ''}" if count else ""
    return NothingRead(f"cannot read {photo}: {reason}{others}")


def warn_unreadable(unreadable: dict[str, str]) -> None:
    """Warn of each photograph of a dict from paths to reasons."""
    for photo, reason in unreadable.items():
        warn(f"cannot read {photo}: {reason}")
