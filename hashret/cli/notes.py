"""Notes about the work, which modules give to ``logging.getLogger("hashret")``, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..names import shown
from ..progress import write_line

LOGGER = logging.getLogger("hashret")


class _Notes(logging.Handler):
    """Writes each note as a line, above the progress bar where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        write_line(shown(self.format(record)))


@contextmanager
def notes(level: str) -> Iterator[None]:
    """Show the notes of this level and above inside the ``with`` block."""
    before, handler = LOGGER.level, _Notes()
    LOGGER.setLevel(level)
    if not any(isinstance(other, _Notes) for other in LOGGER.handlers):
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
