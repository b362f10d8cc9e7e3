"""What is said of the work while it goes on, on stderr: a progress line with the rate and the time left, and notes."""

from __future__ import annotations

import sys
import time


class Progress:
    """Count work done; on a terminal the line is redrawn, elsewhere a line is written now and then.

    ``total`` in ``unit``; ``done`` what an earlier run left finished, not counted into the rate.
    """

    def __init__(self, what, total, unit="images", done=0, quiet=False):
        self.what, self.total, self.unit, self.quiet = what, total, unit, quiet
        self.done, self.first = done, done
        self.start = self.shown = time.monotonic()
        self.tty = sys.stderr.isatty()

    @property
    def due(self):
        """Whether the next `add` writes, for callers whose note costs something."""
        return not self.quiet and time.monotonic() - self.shown >= (0.2 if self.tty else 15)

    def add(self, n=1, note=""):
        """Count ``n`` more; ``note`` stands at the end of the line."""
        self.done += n
        if self.due:
            self.shown = time.monotonic()
            self._write(note)

    def close(self):
        """Write the last line, where the work took long enough for one to be of use."""
        if self.seconds > 2:
            self._write("")
            if self.tty and not self.quiet:
                sys.stderr.write("\n")

    @property
    def seconds(self):
        """Since the start of this run."""
        return time.monotonic() - self.start

    @property
    def rate(self):
        """Units a second in this run."""
        return (self.done - self.first) / max(self.seconds, 1e-9)

    def _write(self, note):
        if self.quiet:
            return
        left = (self.total - self.done) / self.rate if self.done > self.first else 0
        line = f"{self.what}: {self.done:,}/{self.total:,} {self.unit}, {self.rate:.3g}/s"
        line += f", {clock(left)} left" if self.done < self.total else f", {clock(self.seconds)}"
        line += f"  {note}" if note else ""
        sys.stderr.write(f"\r\033[K{line}" if self.tty else line + "\n")
        sys.stderr.flush()


def note(line):
    """Write a line about the work to stderr: what stands on stdout is the result alone."""
    print(line, file=sys.stderr, flush=True)


def clock(seconds):
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
