"""One process at a time works in a cell's directory; the claim ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "cell.lock"


class ClaimedError(Exception):
    """Another process is at work in the directory; it is left alone."""


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold a directory while the block runs.

    The lock is the kernel's (`flock`), so that a killed process leaves none behind and its cell can be resumed.

    Raises:
        ClaimedError: Another process holds it; the message names the process and its host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise ClaimedError(
                f"{folder} is running elsewhere ({handle.read().strip() or 'unknown process'})."
            ) from error
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        handle.flush()
        yield
