"""Deep pixels to 8 bits: which of the values of 10 to 32 bits, or of floats, are black and white.

A file of 16 bits a value may hold 12, at their lower end, and say nothing of it. The range is what the file declares;
else it is read off the picture, by one rule for all formats, so that the same picture gives the same pixels whatever
it is stored in. docs/pictures.md states the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]  # pixels of any number type, of any shape

_DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, scanners and microscopes
# 8 and 16 bits are scaled up to 16 and 32 by shifting them, or by repeating them: all values are multiples of one of
# these, for values up to which the white of that type is assumed.
_SCALED_UP = {2**16 - 1: (256, 257), 2**32 - 1: (65_536, 65_537)}
_FAINT = 1 / 16  # floats up to this are not meant to lie between 0 and 1
_NO_VALUE = 1e37  # in size; what stands for a missing value is larger
_SAMPLES = 2**14  # values of a strip by which outliers are told
_TAIL = 0.1  # per cent of the values at either end


@dataclass(frozen=True)
class Declared:
    """What a file says of its values.

    Attributes:
        white, black: these values; ``white`` is None where the file does not say.
        limits: smallest and largest value of a signed type; None for other types.
        missing: the value that stands for none.
        inverted: whether low values are bright.
    """

    white: float | None = None
    black: float = 0
    limits: tuple[int, int] | None = None
    missing: float | None = None
    inverted: bool = False


class Levels:
    """Sees all values of a picture, in strips, and then turns them into 8 bits."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.least, self.most = float(np.inf), float(-np.inf)
        self.whole = True
        self.factors = {factor for factors in _SCALED_UP.values() for factor in factors}
        self.samples: list[Values] = []

    def see(self, values: Values) -> None:
        """Take note of some of the values, an array of any shape."""
        values = values.ravel()
        if values.dtype.kind == "f" or self.declared.missing is not None:
            values = values[_is_value(values, self.declared.missing)]
        if not values.size:
            return
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))
        self.whole = self.whole and (values.dtype.kind != "f" or bool((values == np.floor(values)).all()))
        if self.whole and self.factors and values.any():
            numbers = values if values.dtype.kind == "f" else values.astype(np.int64)
            self.factors = {factor for factor in self.factors if not (numbers % factor).any()}
        self.samples.append(values[:: -(-values.size // _SAMPLES)].copy())

    def bounds(self) -> tuple[float, float]:
        """Return the values of black and of white."""
        least, most, declared = self.least, self.most, self.declared
        if most < least:  # not one value
            return 0, 1
        if declared.white is not None and declared.black <= least and most <= declared.white:
            return declared.black, declared.white
        if least < 0:
            return self._signed(least, most)
        if self.samples[0].dtype.kind == "f" and _FAINT < most <= 1:
            return 0, 1
        return (0, self._whole_white(most)) if self.whole and most < 2**32 else self._own(0, most)

    def to_bytes(self, values: Values) -> npt.NDArray[np.uint8]:
        """Turn values of any shape into uint8 of that shape; missing ones become black."""
        if values.dtype == np.uint16 and values.size > 2**16:
            return np.asarray(self._table[values], np.uint8)
        black, white = self.bounds()
        scaled = (values.astype(np.float64) - black) * (255 / (white - black or 1))
        if self.declared.inverted:
            scaled = 255 - scaled
        scaled[~_is_value(values, self.declared.missing) & ~np.isinf(values)] = 0
        rounded: npt.NDArray[np.float64] = np.rint(scaled.clip(0, 255))
        return rounded.astype(np.uint8)

    @cached_property
    def _table(self) -> npt.NDArray[np.uint8]:
        return self.to_bytes(np.arange(2**16, dtype=np.uint16))

    def _signed(self, least: float, most: float) -> tuple[float, float]:
        """Return bounds with values below zero: the whole type where a quarter of it is there, as of photographs."""
        limits = self.declared.limits
        if limits and (limits[1] < 256 or 4 * (most - least) > limits[1] - limits[0]):
            return limits
        return self._own(least, most)

    def _whole_white(self, most: float) -> float:
        """Return the white of whole numbers up to ``most``: of the depth they were scaled to, else of the smallest."""
        for white, factors in _SCALED_UP.items():
            if most <= white and most > 255 and self.factors.intersection(factors):
                return white
        depths: tuple[int, ...] = _DEPTHS
        if self.declared.limits:
            own = self.declared.limits[1].bit_length()
            depths = (*(depth for depth in depths if depth < own), min(own, 16))
        fitting = [2**depth - 1 for depth in depths if most < 2**depth]
        return fitting[0] if fitting else self._own(0, most)[1]

    def _own(self, least: float, most: float) -> tuple[float, float]:
        """Return the smallest and largest value, or nearly, where a few values lie far beyond all others."""
        low, high = np.percentile(np.concatenate(self.samples), (_TAIL, 100 - _TAIL)).tolist()
        low = low if least < 0 else 0
        far = 3 * (high - low)
        if not far > 0:
            return least, most
        return low if least < low - far else least, high if most > high + far else most


def _is_value(values: Values, missing: float | None) -> npt.NDArray[np.bool_]:
    """Return which values are numbers of a picture, and stand for no missing one."""
    kept = np.ones(values.shape, bool) if values.dtype.kind != "f" else np.abs(values) < _NO_VALUE
    return kept if missing is None else kept & (values != missing)
