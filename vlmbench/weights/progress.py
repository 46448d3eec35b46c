"""How far a download is: a bar with bytes, rate and time left on a terminal, one line a file in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from vlmbench.weights.source import Source


def amount(count: float) -> str:
    """Return a number of bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


class TransferProgress:
    """Tells of one source at a time, on stderr."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.name, self.size, self.seen, self.first, self.start = "", 0, 0, 0, 0.0

    def begin(self, source: Source, total: int) -> None:
        """Say what follows."""
        if total:
            print(f"{source.name}: {amount(total)} to download", file=sys.stderr, flush=True)
        if sys.stderr.isatty() and total:
            from huggingface_hub.utils import tqdm

            self.bar = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, dynamic_ncols=True)

    def file(self, name: str, size: int) -> None:
        """Begin a file, and end the one before it."""
        self._line()
        self.name, self.size, self.seen, self.first, self.start = name, size, 0, -1, time.monotonic()
        if self.bar is not None:
            self.bar.set_description(name[-32:])

    def told(self, position: int) -> None:
        """Move to so many bytes of the file."""
        if self.first < 0:
            self.first = position
            if position and self.bar is not None:  # what an interrupted download left took no time now
                self.bar.initial += position
        if self.bar is not None:
            self.bar.update(position - self.seen)
        self.seen = position

    def end(self) -> None:
        """End the last file."""
        self._line()
        self.name = ""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self) -> None:
        if not self.name or self.bar is not None or (self.size and self.seen < self.size):
            return
        took = time.monotonic() - self.start
        rate = f", {amount((self.seen - self.first) / took)}/s" if took > 0.5 and self.first < self.seen else ""
        resumed = f", continued at {amount(self.first)}" if self.first > 0 else ""
        print(f"  {self.name}  {amount(self.seen)}  {took:.1f} s{rate}{resumed}", file=sys.stderr, flush=True)
