"""How far long work has come and how long it will still take, on one line of a terminal or a few of a log."""

from __future__ import annotations

import sys
import time

_QUIET_SECONDS = 2.0
#: Of all steps, those after which the time that is left can be told: the first take longer, for imports.
_KNOWN = 0.05
#: Between two updates: of one line on a terminal, of lines in a log file.
_PERIODS = {True: 0.5, False: 15.0}


class Countdown:
    """A line on stderr such as `Reading images: 512 of 1,415, 3 s left`, first shown after two seconds.

    Args:
        doing: What is being done.
        total: Steps of the whole work.
        done: Steps done before, by an interrupted run.
    """

    def __init__(self, doing: str, total: int, done: int = 0) -> None:
        self.doing, self.total, self.first = doing, total, done
        self.stream = sys.stderr
        self.start = time.monotonic()
        self.period = _PERIODS[self.stream.isatty()]
        self.next = self.start + _QUIET_SECONDS
        self.shown = False

    def update(self, done: int) -> None:
        """Show that `done` steps are done, if it is time for a new line."""
        now = time.monotonic()
        if now < self.next or done >= self.total or done <= self.first:
            return
        self.next, self.shown = now + self.period, True
        left = (now - self.start) / (done - self.first) * (self.total - done)
        told = f", {left:,.0f} s left" if done - self.first >= _KNOWN * (self.total - self.first) else ""
        self._write(f"{self.doing}: {done:,} of {self.total:,}{told}")

    def close(self) -> None:
        """Show how long it took, where it took long."""
        if self.shown:
            self._write(f"{self.doing}: {self.total:,} in {time.monotonic() - self.start:,.0f} s")
            if self.stream.isatty():
                self.stream.write("\n")

    def clear(self) -> None:
        """Make room for a line of someone else's, which also tells how far the work is."""
        self.next = time.monotonic() + self.period
        if self.shown and self.stream.isatty():
            self.stream.write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self.stream.write(f"\r{text}\x1b[K" if self.stream.isatty() else f"{text}\n")
        self.stream.flush()
