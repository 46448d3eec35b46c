"""One function over many images, in threads, with a progress line when it takes long."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vlmbench.progress import Countdown

K = TypeVar("K")
T = TypeVar("T")

_CHUNK = 2048
#: Keys that a thread takes at a time: looking for a file takes less time than handing it to a thread.
_BATCH = 16


def over_images(function: Callable[[K], T], keys: Sequence[K], doing: str) -> list[T]:
    """Return `[function(key) for key in keys]`, computed in threads: decoders release the interpreter lock.

    Args:
        function: Called once a key; must be safe in threads.
        keys: Image keys.
        doing: What is being done, for the progress line on stderr; empty shows none.

    Raises:
        Exception: Whatever `function` raises.
    """

    def some(batch: Sequence[K]) -> list[T]:
        return [function(key) for key in batch]

    results: list[T] = []
    progress = Countdown(doing, len(keys))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(keys), _CHUNK):  # in chunks: a queue of 200,000 futures costs memory for nothing
            stop = min(start + _CHUNK, len(keys))
            for batch in pool.map(some, [keys[i : min(i + _BATCH, stop)] for i in range(start, stop, _BATCH)]):
                results.extend(batch)
                if doing:
                    progress.update(len(results))
    progress.close()
    return results
