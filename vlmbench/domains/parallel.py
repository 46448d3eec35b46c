"""One function over many images, in threads, with a progress line when it takes long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO, TypeVar

T = TypeVar("T")

_CHUNK = 256
_QUIET_SECONDS = 2.0
#: Between two updates: of one line on a terminal, of lines in a log file.
_PERIODS = {True: 0.5, False: 15.0}


def over_images(function: Callable[[str], T], keys: Sequence[str], doing: str) -> list[T]:
    """Return `[function(key) for key in keys]`, computed in threads: decoders release the interpreter lock.

    Args:
        function: Called once a key; must be safe in threads.
        keys: Image keys.
        doing: What is being done, for the progress line on stderr.

    Raises:
        Exception: Whatever `function` raises.
    """
    results: list[T] = []
    progress = _Progress(doing, len(keys), sys.stderr)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(keys), _CHUNK):  # in chunks: a queue of 200,000 futures costs memory for nothing
            results.extend(pool.map(function, keys[start : start + _CHUNK]))
            progress.update(len(results))
    progress.close()
    return results


class _Progress:
    """A line such as `Reading images: 512 of 1,415, 3 s left`, first shown after two seconds."""

    def __init__(self, doing: str, total: int, stream: TextIO) -> None:
        self.doing, self.total, self.stream = doing, total, stream
        self.start = time.monotonic()
        self.period = _PERIODS[stream.isatty()]
        self.next = self.start + _QUIET_SECONDS
        self.shown = False

    def update(self, done: int) -> None:
        now = time.monotonic()
        if now < self.next or done == self.total:
            return
        self.next, self.shown = now + self.period, True
        left = (now - self.start) / done * (self.total - done)
        self._write(f"{self.doing}: {done:,} of {self.total:,}, {left:,.0f} s left")

    def close(self) -> None:
        if self.shown:
            self._write(f"{self.doing}: {self.total:,} in {time.monotonic() - self.start:,.0f} s")
            if self.stream.isatty():
                self.stream.write("\n")

    def _write(self, text: str) -> None:
        self.stream.write(f"\r{text}\x1b[K" if self.stream.isatty() else f"{text}\n")
        self.stream.flush()
