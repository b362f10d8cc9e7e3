"""How a backbone computes: the number format, and the library that runs it. Nothing here imports torch.

Both decide codes whose hash outputs lie near the threshold, so shards, indexes and feature caches record them in one
word: "bfloat16", or "bfloat16/openvino" where it is not torch that runs the backbone.
"""

from __future__ import annotations

from typing import NamedTuple

from .errors import HashretError

FORMATS = ("bfloat16", "float32")
RUNTIMES = ("torch", "openvino")
PRECISIONS = (*FORMATS, *(f"{number_format}/openvino" for number_format in FORMATS))


class Precision(NamedTuple):
    """A recorded word in its parts: one of `FORMATS` and one of `RUNTIMES`."""

    number_format: str
    runtime: str

    @classmethod
    def of(cls, recorded: str) -> Precision:
        """Read a recorded word.

        Raises:
            HashretError: it is none of `PRECISIONS`.
        """
        if recorded not in PRECISIONS:
            raise HashretError(f"no precision {recorded!r}; there are {', '.join(PRECISIONS)}")
        number_format, _, runtime = recorded.partition("/")
        return cls(number_format, runtime or "torch")

    def __str__(self) -> str:
        """Return the word that is recorded."""
        return self.number_format if self.runtime == "torch" else f"{self.number_format}/{self.runtime}"
