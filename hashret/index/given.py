"""`codes:FILE`: packed codes that others made, indexed as they are.

Files are those of `hashret.data.embeddings`, with ids, labels and paths beside them. Codes are packed as numpy's
packbits packs them, as sentence-transformers' "ubinary" does, or as its "binary", whose bytes are 128 less and so are
of int8. faiss has the bits of a byte the other way round (``order=little``), which no Hamming distance shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bits import MIN_BITS, MOST_BITS, Codes, code_width, unpack
from ..errors import HashretError
from ..files import identity
from ..shards import Shard, encode_paths

HELP = "codes:FILE[::NAME][,bits=N][,order=little][,ids=FILE][,labels=FILE][,paths=FILE]"
ENCODER = "codes that others made"  # in the place of an encoder's fingerprint
_PREFIX = "codes:"


def is_code_file(name: Any) -> bool:
    """Whether a name is one of packed codes, ``codes:FILE``."""
    return isinstance(name, str) and name.startswith(_PREFIX)


def packed(array: npt.ArrayLike, bits: int | None = None, order: str = "big") -> Codes:
    """Return packed codes (n, w), or one (w,), of uint8, or int8 with an offset of 128, as hashret has them.

    Args:
        array: the codes.
        bits: length of the codes; None for all bits of their bytes.
        order: "big" where the first bit of a byte is its highest, as in numpy, "little" where it is its lowest.

    Raises:
        HashretError: no such array, or ones behind the last bit.
    """
    given = np.atleast_2d(np.asarray(array))
    if given.dtype not in (np.uint8, np.int8) or given.ndim != 2:
        raise HashretError(f"packed codes are bytes, uint8 or int8 (n, width), not {given.dtype} {given.shape}")
    if order not in ("big", "little"):
        raise HashretError(f"the order of the bits is big or little, not {order}")
    codes: Codes = (given.astype(np.int16) + 128).astype(np.uint8) if given.dtype == np.int8 else given
    if order == "little":
        codes = np.packbits(np.unpackbits(codes, axis=1, bitorder="little"), axis=1)
    bits = 8 * codes.shape[1] if bits is None else bits
    if not MIN_BITS <= bits <= MOST_BITS or code_width(bits) != codes.shape[1]:
        raise HashretError(f"codes of {codes.shape[1]} bytes do not have {bits} bits, of {MIN_BITS} to {MOST_BITS}")
    if bits % 8 and (codes[:, -1] & (0xFF >> bits % 8)).any():
        raise HashretError(f"there are ones behind the {bits} bits of a code")
    return np.ascontiguousarray(codes)


class CodeFile:
    """Packed codes in a file, as what a folder of shards is to an index: `hashret.shards.ShardFolder`.

    Attributes:
        folder: the name, ``codes:FILE``.
        given_bits: length of the codes as the name has it, None where it says nothing of it.
        manifest: bits, classes, and what else shards say.

    Raises:
        HashretError: no such file, or no packed codes in it.
    """

    def __init__(self, name: str) -> None:
        from ..data.embeddings import open_vectors
        from ..data.source import SourceRequest

        plain = re.sub(r",(bits|order)=[^,]*", "", name.removeprefix(_PREFIX))
        options = dict(re.findall(r",(bits|order)=([^,]*)", name))
        self.folder, self.source = name, open_vectors(SourceRequest(name, plain))
        if not options.get("bits", "8").isdecimal():
            raise HashretError(f"bits={options['bits']} is no number of bits")
        self.given_bits = int(options["bits"]) if "bits" in options else None
        self.bits = 8 * self.source.width if self.given_bits is None else self.given_bits
        self.order = options.get("order", "big")
        packed(self.source.numbers[slice(0, 1)], self.bits, self.order)
        self.manifest: dict[str, Any] = {
            "bits": self.bits, "encoder": ENCODER, "precision": "float32", "image_size": 1, "rerank_by": "asymmetric",
            "shards": 1, "classes": list(self.source.classes), "protocol": None,
        }  # fmt: skip
        if self.source.ids is not None:
            self.manifest["own_ids"] = True

    @property
    def identity(self) -> tuple[object, str]:
        """What two names of one array have in common: the file, see `hashret.files.identity`, and the array in it."""
        array = self.source.named_after().removeprefix(os.path.abspath(self.source.root))
        return identity(self.source.root), array

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Shard]:
        """Yield the codes in blocks; there are no hash outputs."""
        from ..data.embeddings import ROWS_AT_ONCE

        for start in range(0, len(self), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(self)))
            yield Shard(
                packed(self.source.numbers[rows], self.bits, self.order),
                np.zeros((len(rows), 0), np.float32),
                rows if self.source.ids is None else self.source.ids[rows],
                encode_paths([self.source.reference(row) for row in rows.tolist()]),
                None if self.source.labels is None else self.source.labels[rows],
            )

    def codes(self) -> Codes:
        """Return all codes, packed uint8 (n, w)."""
        return np.concatenate([np.zeros((0, self.source.width), np.uint8), *(block.codes for block in self)])

    def load(self) -> Shard:
        """Return all as one `Shard`, whose hash outputs are the bits."""
        codes = self.codes()
        ids = np.arange(len(self)) if self.source.ids is None else self.source.ids
        paths = encode_paths(self.source)
        return Shard(codes, unpack(codes, self.bits).astype(np.float32), ids, paths, self.source.labels)

    def optional_columns(self) -> set[str]:
        """Return the names of the optional columns."""
        return set() if self.source.labels is None else {"labels"}

    def label_dimensions(self) -> int:
        """Return 0 without labels, 1 where each code has one, 2 where it has several."""
        return 0 if self.source.labels is None else self.source.labels.ndim

    def features_type(self) -> None:
        """Return None: codes have no features."""

    def paths(self) -> Iterator[np.bytes_]:
        """Yield the name of each code as it is stored."""
        yield from encode_paths(self.source)
