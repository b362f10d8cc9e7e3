"""How much each bit speaks for each class, as checkpoints keep it: a byte a bit, -127 to 127, as hexadecimal digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HashretError
from ..vectors import Vectors

KEY = "class_logits"  # of the metadata: {length of code: [digits of each class]}


def written(logits: npt.NDArray[Any]) -> list[str]:
    """Return what a checkpoint keeps of (classes, bits), each class on a scale of its own."""
    largest = np.abs(logits).max(axis=1, keepdims=True)
    scaled = np.divide(127 * logits, largest, out=np.zeros(logits.shape), where=largest > 0)
    return [row.tobytes().hex() for row in scaled.round().astype(np.int8)]


def kept(meta: Mapping[str, Any], bits: int) -> Vectors | None:
    """Return what a checkpoint keeps for codes of ``bits`` bits, float32 (classes, bits); None where it keeps nothing.

    Of classes that it keeps nothing of, all numbers are 0. These are the last classes of a checkpoint of an earlier
    hashret, which kept those up to the last one that a photograph had.

    Raises:
        HashretError: there are more classes, or other bits, than the encoder has.
    """
    rows: Sequence[str] | None = meta.get(KEY, {}).get(str(bits))
    if rows is None:
        return None
    logits = [np.frombuffer(bytes.fromhex(row), np.int8) for row in rows]
    if len(logits) > len(meta["classes"]) or any(len(row) != bits for row in logits):
        raise HashretError(f"the checkpoint is damaged: its {KEY} do not fit its classes and bits")
    known = np.zeros((len(meta["classes"]), bits), np.float32)
    known[: len(logits)] = logits
    return known
