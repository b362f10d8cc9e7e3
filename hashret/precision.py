"""How a backbone computes: the number format, and the library that runs it. Nothing here imports torch.

Both decide codes whose hash outputs lie near the threshold, so shards, indexes and feature caches record them in one
word: "bfloat16", or "bfloat16/openvino" where it is not torch that runs the backbone, or "bfloat16/openvino-whole"
where it is not torch that runs the head, either.
"""

from __future__ import annotations

from typing import NamedTuple

from .errors import HashretError

FORMATS = ("bfloat16", "float32")
RUNTIMES = ("torch", "openvino")
_WHOLE = "-whole"
PRECISIONS = (*FORMATS, *(f"{form}/openvino{whole}" for whole in ("", _WHOLE) for form in FORMATS))


class Precision(NamedTuple):
    """A recorded word in its parts: one of `FORMATS`, one of `RUNTIMES`, and whether that runs the head, too."""

    number_format: str
    runtime: str
    whole: bool = False

    @classmethod
    def of(cls, recorded: str) -> Precision:
        """Read a recorded word.

        Raises:
            HashretError: it is none of `PRECISIONS`.
        """
        if recorded not in PRECISIONS:
            raise HashretError(f"no precision {recorded!r}; there are {', '.join(PRECISIONS)}")
        number_format, _, runtime = recorded.partition("/")
        return cls(number_format, runtime.removesuffix(_WHOLE) or "torch", runtime.endswith(_WHOLE))

    @property
    def of_backbone(self) -> str:
        """The word for what the backbone alone computes in, by which feature maps are cached."""
        return str(self._replace(whole=False))

    def __str__(self) -> str:
        """Return the word that is recorded."""
        runtime = f"/{self.runtime}{_WHOLE if self.whole else ''}"
        return self.number_format if self.runtime == "torch" else self.number_format + runtime
