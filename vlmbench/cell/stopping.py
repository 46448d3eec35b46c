"""A cell that is asked to stop: SIGUSR2 and SIGTERM end it so that the same command goes on where it was.

Outside training everything on disk is whole at any time, and the cell ends at once. Training is `deferred`: it looks at
the request between optimiser steps, saves, and then ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later
SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
REPEAT_SECONDS = 1.0  # a launcher and its process group may both pass on the same signal


class Interrupted(SystemExit):
    """The cell was asked to stop and has; it is no failure, and nobody who catches failures should record it.

    A process that lets it pass ends with `EXIT_STATUS`.

    Args:
        reason: The signal, or whatever else asked.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(EXIT_STATUS)
        self.reason = reason

    def __str__(self) -> str:
        return f"asked to stop ({self.reason}); the same command goes on where it stopped"


@dataclass
class _Request:
    reason: str = ""
    since: float = 0.0
    deferred: int = 0
    process: int = 0
    taken: dict[int, Any] = field(default_factory=dict)


_request = _Request()


@contextmanager
def stoppable() -> Iterator[None]:
    """Take the signals while the block runs; may be nested.

    A launcher with handlers of its own for them keeps these and calls `request`. SIGINT stays as it is, and is put back
    after the block: Lightning ignores it from the first Ctrl-C on, and so would this process and all that it starts.
    """
    outermost = not _request.process
    if outermost:
        _request.process, _request.reason = os.getpid(), ""
        if threading.current_thread() is threading.main_thread():
            free = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
            _request.taken = {number: signal.signal(number, _handle) for number in free}
            if (own := signal.getsignal(signal.SIGINT)) is not None:  # None: not of Python, which cannot put it back
                _request.taken[signal.SIGINT] = own
    try:
        yield
    finally:
        if outermost:
            for number, handler in _request.taken.items():
                signal.signal(number, handler)
            _request.process, _request.taken, _request.reason = 0, {}, ""


def request(reason: str) -> None:
    """Ask the cell of this process to stop: at once, or where training is at work when its step is done.

    Raises:
        Interrupted: Nothing defers it.
    """
    if _request.reason:
        return
    _request.reason, _request.since = reason, time.monotonic()
    if not _request.deferred:
        end()


def asked() -> str:
    """Return what asked the cell to stop, empty where nothing has."""
    return _request.reason


def end() -> NoReturn:
    """End the cell.

    Raises:
        Interrupted: Always.
    """
    raise Interrupted(_request.reason or "another process of the cell was")


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block look at `asked` by itself instead of being torn out of whatever it does.

    Raises:
        Interrupted: The block is done, and a request came meanwhile.
    """
    _request.deferred += 1
    try:
        yield
    finally:
        _request.deferred -= 1
    if _request.reason:
        end()


def _handle(number: int, _: Any) -> None:
    if os.getpid() != _request.process:
        # In a loader's worker: what concerns the cell is its parent's, but to be ended by it must work.
        if number == signal.SIGTERM:
            _end_by(number)
        return
    if _request.reason and time.monotonic() - _request.since > REPEAT_SECONDS:
        _end_by(number)
    request(signal.Signals(number).name)


def _end_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
