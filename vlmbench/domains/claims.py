"""Work shared between processes: each claims some of what is to be made while it makes it.

Only to share the work: without claims the results would be the same, and some of them would be made twice.
"""

from __future__ import annotations

import fcntl
import random
from collections.abc import Generator, Sequence
from pathlib import Path

_SHELVES = 256  # what is claimed: keys by their first byte, each by a lock on one byte of a file


def claimed(path: Path, keys: Sequence[bytes], about: int) -> Generator[list[bytes]]:
    """Yield keys, some at a time, that no other process is given before the next are asked for.

    What others are at work on comes last, once they are done or dead.

    Args:
        path: A file that all of them name; made where it is missing.
        keys: Distinct and not empty, their first byte as good as random.
        about: How many to yield at a time; more where one shelf holds more.

    Raises:
        OSError: The file cannot be written or locked.
    """
    shelves: dict[int, list[bytes]] = {}
    for key in keys:
        shelves.setdefault(key[0] % _SHELVES, []).append(key)
    order = list(shelves)
    random.SystemRandom().shuffle(order)  # processes that begin at the same time begin apart
    with path.open("ab") as file:
        while order:
            taken: list[int] = []
            for shelf in order:
                if sum(len(shelves[one]) for one in taken) >= about:
                    break
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shelf)
                except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two
                    continue
                taken.append(shelf)
            if not taken:
                fcntl.lockf(file, fcntl.LOCK_EX, 1, order[0])
                taken = order[:1]
            order = [shelf for shelf in order if shelf not in taken]
            yield [key for shelf in taken for key in shelves[shelf]]
            for shelf in taken:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, shelf)
