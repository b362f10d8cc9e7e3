"""Where an index and its encoder are looked for when nobody names them.

`hashret sync PHOTOS` keeps both in a folder ``.hashret`` among the photographs, and whatever searches finds them from
any folder below, as git finds its repository.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import HashretError
from .files import StrPath, read_text
from .names import from_json

OWN_FOLDER = ".hashret"  # in a folder of photographs, never itself taken for photographs
LOG_OF_MOVES = "moved.jsonl"  # in a folder that hashret duplicates moved photographs to, passed over among others
INDEX, MODEL = "index", "model.safetensors"
NO_WORKING_FOLDER = "the working folder is no longer there; change into one that is"
MAKE_ONE = "make one with hashret sync PHOTOS or hashret build-index, or name one with --index"  # where there is none


def own_index(photos: StrPath) -> Path:
    """Return where the index of a folder of photographs lies, unless the user names another place."""
    return Path(photos) / OWN_FOLDER / INDEX


def find_index(index: StrPath | None = None) -> StrPath:
    """Return the index that is meant.

    Args:
        index: as the user names it: an index, an engine's collection, or a folder of photographs with an index of its
            own. None for what HASHRET_INDEX names, ``index`` in the working folder, or that of the first folder of
            photographs from there upwards that has one.

    Raises:
        HashretError: the working folder is no longer there.
    """
    named = os.environ.get("HASHRET_INDEX", "") if index is None else index
    if named:
        return own_index(named) if not is_index(named) and is_index(own_index(named)) else named
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise HashretError(NO_WORKING_FOLDER) from None
    found = (own_index(folder) for folder in (here, *here.parents) if is_index(own_index(folder)))
    return INDEX if is_index(INDEX) else next(found, INDEX)


def is_index(folder: StrPath) -> bool:
    """Return whether a folder is that of an index, also of a damaged one.

    Other programs, as those of web galleries, write an `index.json`, too. The folder is theirs where it says nothing
    that hashret's says, and no segment lies beside it.
    """
    path = Path(folder) / "index.json"
    return path.is_file() and (not _is_of_others(path) or any(Path(folder).glob("*/hamming.faiss")))


def _is_of_others(path: Path) -> bool:
    """Return whether an `index.json` is whole, and lacks what an index says of itself."""
    try:
        content = from_json(read_text(path))
    except (OSError, ValueError):
        return False
    return not (isinstance(content, dict) and {"bits", "encoder"} <= content.keys())
