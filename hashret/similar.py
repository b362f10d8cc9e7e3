"""How similar photographs are in words that need no bits: what `compare`, each hit and the page say, and ``least``."""

from __future__ import annotations

from .errors import HashretError

LEVELS = {"somewhat": 25, "similar": 50, "very": 75, "same": 100}  # percent, of the words that ``least`` takes
_IN_WORDS = {"somewhat": "somewhat similar", "very": "very similar", "same": "fully similar"}


def similarity(hamming: int, bits: int) -> int:
    """Return how similar codes are in percent: 100 where they are equal, 0 from half of the bits on, as by chance.

    Codes that differ are similar by 99 at most, however many bits they have: 100 says that they are the same.
    """
    return min(99 if hamming else 100, max(0, round(100 * (1 - 2 * hamming / bits))))


def level_in_words(word: str) -> str:
    """Return what a reader is told of a word of `LEVELS`: "very similar"."""
    return _IN_WORDS.get(word, word)


def least_percent(least: str | float) -> float:
    """Return the percent that a word of `LEVELS` stands for, or that a number or its text, "60" or "60 %", is.

    Raises:
        HashretError: another word, or a number beyond 0 to 100.
    """
    if isinstance(least, str) and least.strip().lower() in LEVELS:
        return LEVELS[least.strip().lower()]
    try:
        percent = float(least.strip().removesuffix("%") if isinstance(least, str) else least)
    except (TypeError, ValueError):
        percent = -1
    if not 0 <= percent <= 100:
        words = ", ".join(f"{word} ({level} %)" for word, level in LEVELS.items())
        raise HashretError(f"the least similarity is one of {words}, or a number from 0 to 100, not {least!r}")
    return percent


def bits_within(least: str | float, bits: int) -> int:
    """Return the most bits in which codes differ that are at least so similar; ``least`` as of `least_percent`."""
    percent = least_percent(least)
    return max(hamming for hamming in range(bits + 1) if similarity(hamming, bits) >= percent)


def nothing_so_similar(least: str | float, nearest: int | None) -> str:
    """Return the line for a query all of whose hits are less similar than ``least``.

    Args:
        least: as of `least_percent`.
        nearest: the similarity of the nearest photograph, in percent.
    """
    percent = least_percent(least)
    word = next((word for word, level in LEVELS.items() if level == percent), None)
    wanted = f"{level_in_words(word)} ({percent:g} %)" if word else f"{percent:g} % similar"
    line = f"no photograph is at least {wanted}"
    return line if nearest is None else f"{line}; the nearest is {nearest} % similar"
