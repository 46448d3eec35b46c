"""What has become of a cell, read from its directory without disturbing who works there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vlmbench.records.claim import LOCK
from vlmbench.records.lease import age, find_lease, judge
from vlmbench.records.store import RECORD, RecordError, read_record

Status = Literal["not started", "running", "done", "failed", "interrupted"]

CHECKPOINTS = "checkpoints"  # of an unfinished training; not needed once what trained is saved


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
        since: When it was begun, for a running or interrupted cell; when it ended, for one with a record. UTC, as in
            records; empty where it never was.
        resumable: Whether a checkpoint is there to go on from.
    """

    status: Status
    host: str = ""
    pid: int = 0
    beat: float = 0.0
    text: str = ""
    seconds: float = 0.0
    since: str = ""
    resumable: bool = False


def state_of(folder: Path) -> State:
    """Return the state of the cell in a directory, which need not exist.

    A record that cannot be read is the state `failed`, with a text that says so. A failed cell that somebody has
    launched again is running.
    """
    ended = _ended(folder)
    if ended is not None and ended.status == "done":
        return ended
    found = find_lease(folder / LOCK)
    resumable = any((folder / CHECKPOINTS).glob("*.ckpt"))
    lease = found.lease if found else None
    host, pid, since = (lease.host, lease.pid, utc(lease.taken)) if lease else ("", 0, "")
    if found is not None and judge(found) == "held":
        return State("running", host, pid, age(found), found.holder, since=since, resumable=resumable)
    if ended is not None:
        return replace(ended, host=ended.host or host, resumable=resumable)
    if found is None and not (folder / CHECKPOINTS).exists():
        return State("not started")
    text = "goes on from its last checkpoint" if resumable else "begins anew"
    return State("interrupted", host, pid, text=text, since=since, resumable=resumable)


def outcome(record: Mapping[str, Any]) -> str:
    """Return a record's outcome in a few words: the primary metric with its interval, or the error's first line."""
    if record["status"] != "done":
        error = record["error"]
        return f"{error['type']}: {(error['message'].splitlines() or [''])[0]}"
    name = record["primary_metric"]
    row = record["metrics"].get(name, {})
    if row.get("value") is None:
        return f"{name} undefined"
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row.get("low") is not None else ""
    return f"{name} {row['value']:.3f}{interval}"


def _ended(folder: Path) -> State | None:
    if not (folder / RECORD).exists():
        return None
    try:
        record = read_record(folder)
        done = record["status"] == "done"
        return State(
            "done" if done else "failed",
            host=record["environment"]["host"] if done else "",
            text=outcome(record),
            seconds=record["cost"]["seconds"]["total"] if done else _between(record["started"], record["finished"]),
            since=record["finished"],
        )
    except RecordError as error:
        return State("failed", text=f"damaged record: {error}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"damaged record: {folder / RECORD} lacks what it should hold ({error!r}). Delete it and launch again."
        return State("failed", text=text)


def _between(started: str, finished: str) -> float:
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()


def utc(seconds: float) -> str:
    """Return seconds since 1970 as records write times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
