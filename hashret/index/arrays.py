"""Arrays of a segment, mapped from `.npy` files that are not trusted.

A header is compared with what `index.json` leads one to expect, and never evaluated; the size of the file must be what
the header says. What indices an array holds is checked where they are used (see `hashret.index.distinct`): reading all
of them at each opening would take longer than a search.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HashretError
from .blocks import ROWS_AT_ONCE

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{3})', 'fortran_order': False, 'shape': \((\d{1,18},|\d{1,18}(?:, \d{1,18})+)\)(?:, |,)?\}\s*"
)


def damaged(folder: Path, name: str, why: str) -> HashretError:
    """Return the error of a file of an index that is not as it was written."""
    return HashretError(f"the index {folder} is damaged: {name} {why}; build it again")


def map_array(path: Path, *kinds: tuple[str, tuple[int | None, ...]]) -> NDArray[Any]:
    """Map an `.npy` file, read-only.

    Args:
        path: of the file.
        kinds: what the array may be: pairs of the type ("<f4") and the shape, in which None is any length.

    Raises:
        HashretError: the array is none of these, or the file of another size than its header says.
        FileNotFoundError: no such file.
    """
    with open(path, "rb") as file:
        head = file.read(10)
        start = 10 + int.from_bytes(head[8:], "little")
        match = _HEADER.fullmatch(file.read(start - 10)) if head.startswith(_MAGIC) else None
        size = file.seek(0, 2)
    if match:
        dtype, lengths = match[1].decode("latin-1"), tuple(map(int, match[2].rstrip(b",").split(b", ")))
        item_bytes = int(dtype[2]) if dtype[2].isdigit() else 0
        expected = start + item_bytes * int(np.prod(lengths, dtype=object))
        for kind, shape in kinds:
            fits = len(shape) == len(lengths) and all(a in (None, b) for a, b in zip(shape, lengths, strict=True))
            if fits and kind == dtype and size == expected and expected > start:
                return np.memmap(path, kind, "r", start, lengths)
    names = [f"{kind} ({', '.join('any' if n is None else str(n) for n in shape)})" for kind, shape in kinds]
    raise damaged(path.parent.parent, path.name, f"is no array {' or '.join(names)}")


def ascends(array: NDArray[np.integer[Any]], low: int, high: int, strictly: bool = False) -> bool:
    """Whether whole numbers ascend, from ``low`` or more to ``high`` or less; read a block at a time."""
    last = low - strictly
    for start in range(0, len(array), ROWS_AT_ONCE):
        block = np.asarray(array[start : start + ROWS_AT_ONCE])
        steps = block[1:] > block[:-1] if strictly else block[1:] >= block[:-1]
        if block[0] < last + strictly or not steps.all():
            return False
        last = int(block[-1])
    return last <= high
