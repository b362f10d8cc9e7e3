"""Arrays of a segment, mapped from `.npy` files that are not trusted.

A header is compared with what `index.json` leads one to expect, and never evaluated; the size of the file must be what
the header says. What indices an array holds is checked where they are used (see `hashret.index.distinct`): reading all
of them at each opening would take longer than a search.
"""

from __future__ import annotations

import re

import numpy as np

from ..errors import HashretError

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{3})', 'fortran_order': False, 'shape': \((\d{1,18},|\d{1,18}(?:, \d{1,18})+)\)(?:, |,)?\}\s*"
)


def damaged(folder, name, why):
    """The error of a file of an index that is not as it was written."""
    return HashretError(f"the index {folder} is damaged: {name} {why}; build it again")


def map_array(path, *kinds):
    """Map an `.npy` file: -> memory map, read-only.

    Args:
        kinds: what it may be: pairs of the type ("<f4") and the shape, in which None is any length.

    Raises:
        HashretError: it is none of these, or of another size than it says.
        FileNotFoundError: no such file.
    """
    with open(path, "rb") as file:
        head = file.read(10)
        start = 10 + int.from_bytes(head[8:], "little")
        match = _HEADER.fullmatch(file.read(start - 10)) if head.startswith(_MAGIC) else None
        size = file.seek(0, 2)
    if match:
        found = match[1].decode("latin-1"), tuple(int(length) for length in match[2].rstrip(b",").split(b", "))
        bytes_of_row = int(found[0][2]) if found[0][2].isdigit() else 0
        for kind, shape in kinds:
            fits = len(shape) == len(found[1]) and all(a in (None, b) for a, b in zip(shape, found[1], strict=True))
            expected = start + bytes_of_row * int(np.prod(found[1], dtype=object))
            if fits and kind == found[0] and size == expected and expected > start:
                return np.memmap(path, kind, "r", start, found[1])
    wanted = " or ".join(
        f"{kind} ({', '.join('any' if n is None else str(n) for n in shape)})" for kind, shape in kinds
    )
    raise damaged(path.parent.parent, path.name, f"is no array {wanted}")


def ascends(array, low, high, strictly=False, block=2**18):
    """Whether whole numbers ascend, from ``low`` or more to ``high`` or less; read a block at a time."""
    last = low - strictly
    for start in range(0, len(array), block):
        some = np.asarray(array[start : start + block])
        steps = some[1:] > some[:-1] if strictly else some[1:] >= some[:-1]
        if some[0] < last + strictly or not steps.all():
            return False
        last = int(some[-1])
    return last <= high
