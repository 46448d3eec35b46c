"""How far a download of many files is: one countdown for all of them, and a line a file where they are few."""

from __future__ import annotations

import sys
import time

from vlmbench.progress import Countdown
from vlmbench.weights.progress import amount

_FEW = 40  # files
_MIB = 2**20


def counted(files: int) -> str:
    """Return a number of files in words."""
    return f"{files:,} file{'s' * (files != 1)}"


class Meter:
    """Tells of one dataset, on stderr.

    Args:
        name: Of the dataset.
        files: How many there are to download.
        total: Bytes of all of them.
        done: Bytes that an interrupted run left.
    """

    def __init__(self, name: str, files: int, total: int, done: int) -> None:
        if files:
            left = f", {amount(done)} of them are here" if done else ""
            size = amount(total) if total else "an unknown amount"
            print(f"{name}: {size} to download in {counted(files)}{left}", file=sys.stderr, flush=True)
        self.few = files <= _FEW
        self.countdown = Countdown(f"Downloading {name} (MiB)", max(total // _MIB, 1), done // _MIB)
        self.before = 0
        self.done = done
        self.name, self.first, self.start = "", -1, 0.0

    def file(self, name: str, size: int) -> None:
        """Begin a file of `size` bytes."""
        self.name, self.first, self.start = name, -1, time.monotonic()

    def told(self, position: int) -> None:
        """So many bytes of the file are here."""
        if self.first < 0:
            self.first = position
            self.before = self.done - position
        self.done = self.before + position
        self.countdown.update(self.done // _MIB)

    def file_done(self, size: int) -> None:
        """End a file."""
        if not self.few:
            return
        self.countdown.clear()
        took = time.monotonic() - self.start
        if self.first < 0:
            note = ", was here"
        else:
            note = f", continued at {amount(self.first)}" if self.first else ""
            note += f", {amount((size - self.first) / took)}/s" if took > 0.5 else ""
        print(f"  {self.name}  {amount(size)}{note}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End all of them."""
        self.countdown.close()
