"""Progress of long work, on stderr: a bar in a terminal, a line every 15 seconds elsewhere, nothing inside `quieted`.

Notes about the work go to ``logging.getLogger("hashret")``, which the command line shows on stderr.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .distributed import is_main

if TYPE_CHECKING:
    from tqdm import tqdm

P = ParamSpec("P")
T = TypeVar("T")
_quiet = ContextVar("hashret_quiet", default=False)
_REDRAW, _WRITE = 0.2, 15  # seconds between two drawings of the bar, and between two lines
_WORTH_A_LINE = 2  # seconds of work from which on its last line is kept


def is_quiet() -> bool:
    """Whether progress is switched off here: inside `quieted`, and in every process of a run but the main one."""
    return _quiet.get() or not is_main()


@contextmanager
def quieted(quiet: bool = True) -> Iterator[None]:
    """Show no progress of the work inside the ``with`` block. With False nothing changes."""
    before = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(before)


def takes_quiet(function: Callable[P, T]) -> Callable[P, T]:
    """Let a public function still be called with ``quiet=True``, which warns that `quieted` has taken its place."""

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> T:
        quiet = bool(options.pop("quiet", False))
        if quiet:
            text = f"{function.__name__}(quiet=True) is now: with hashret.quieted()"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        with quieted(quiet):
            return function(*args, **options)

    return called


class Progress:
    """Counts work done and shows the count, the rate and the time left.

    Args:
        what: name of the work, "encoding".
        total: how much there is, in ``unit``.
        unit: what is counted, in the plural.
        done: how much an earlier run finished; it does not count into the rate.
    """

    def __init__(self, what: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.first = done, done
        self.start = self.shown = time.monotonic()
        self.tty = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None

    @property
    def due(self) -> bool:
        """Whether the next `add` shows something, for callers whose note is costly to make."""
        return not is_quiet() and time.monotonic() - self.shown >= (_REDRAW if self.tty else _WRITE)

    @property
    def seconds(self) -> float:
        """Seconds since the start of this run."""
        return time.monotonic() - self.start

    def add(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more; ``note`` stands at the end of the line."""
        self.done += n
        if self.due:
            self.shown = time.monotonic()
            self._show(note)

    def close(self) -> None:
        """Show the final count, where the work took long enough for it to be of use."""
        kept = self.seconds > _WORTH_A_LINE
        if kept and not is_quiet():
            self._show("")
        if self._bar is not None:
            self._bar.leave = kept
            self._bar.close()

    def _show(self, note: str) -> None:
        if self.tty:
            self._draw(note)
            return
        rate = (self.done - self.first) / max(self.seconds, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        line = f"{self.what}: {self.done:,}/{self.total:,} {self.unit}, {rate:.3g}/s"
        line += f", {clock(left)} left" if self.done < self.total else f", {clock(self.seconds)}"
        print(line + (f"  {note}" if note else ""), file=sys.stderr, flush=True)

    def _draw(self, note: str) -> None:
        if self._bar is None:
            from tqdm import tqdm  # 50 ms, which short work never pays

            tqdm.monitor_interval = 0  # this class redraws often enough without tqdm's thread
            tqdm.set_lock(threading.RLock())  # its own makes a semaphore between processes, too
            self._bar = tqdm(
                desc=self.what, total=self.total, initial=self.first, unit=f" {self.unit}", dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]",
            )  # fmt: skip
            self._bar.start_t -= self.seconds
        self._bar.n = self.done
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.refresh()


def write_line(line: str) -> None:
    """Write a line to stderr, above the bar where one is drawn."""
    bars = sys.modules.get("tqdm")
    if bars and bars.tqdm._instances:
        bars.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Return seconds as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
