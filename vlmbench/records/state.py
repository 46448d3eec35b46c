"""What has become of a cell, read from its directory without disturbing who works there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlmbench.records.claim import LOCK
from vlmbench.records.store import RECORD, read_record

Status = Literal["not started", "running", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class State:
    """A cell's state.

    Attributes:
        status: `interrupted` is a cell that was begun, has no record, and that nobody works on.
        host: Where it runs or was last at work; empty where it never was.
        pid: The process there, 0 where it never was.
        beat: Seconds since the last sign of life of a running cell.
        text: For people: the result, the error's first line, or where it runs.
        seconds: What a finished cell took, from its record.
    """

    status: Status
    host: str = ""
    pid: int = 0
    beat: float = 0.0
    text: str = ""
    seconds: float = 0.0


def state_of(folder: Path) -> State:
    """Return the state of the cell in a directory, which need not exist.

    Raises:
        RecordError: A record that is there cannot be read.
    """
    if (folder / RECORD).exists():
        record = read_record(folder)
        return State("done" if record["status"] == "done" else "failed")
    return State("interrupted" if (folder / LOCK).exists() else "not started")
