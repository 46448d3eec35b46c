"""A grid as it goes: counts, the cells at work with their last words, and when it will be done."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vlmbench.grid.facts import STATES
from vlmbench.grid.plan import Folders, PlannedCell
from vlmbench.grid.show import duration, state_line
from vlmbench.records.state import State

PERIOD = 2.0
_LOG_TAIL = 8192
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class At:
    """A cell at work.

    Attributes:
        label: Its name for people.
        host: Where, with the process.
        age: Seconds since it was begun; None where nobody knows.
        beat: Seconds since its last sign of life.
        log: The last line of its log.
    """

    label: str
    host: str
    age: float | None
    beat: float
    log: str


@dataclass(frozen=True)
class Seen:
    """A grid at one moment.

    Attributes:
        name: Of the sweep.
        states: Cells by state.
        running: The cells at work.
        left: Seconds until all is done if it goes on as it does; None where nothing runs or nobody knows.
    """

    name: str
    states: dict[str, int]
    running: tuple[At, ...]
    left: float | None

    @property
    def finished(self) -> bool:
        """Whether every cell is done."""
        return self.states["done"] == sum(self.states.values())


class Watcher:
    """Looks at the cells of a grid again and again; at those that are done only once.

    Args:
        name: Of the sweep.
        planned: Its cells as they were looked up.
    """

    def __init__(self, name: str, planned: Sequence[PlannedCell]) -> None:
        self.name = name
        self.planned = planned
        self._states = [one.state for one in planned]

    def look(self) -> Seen:
        """Return what is to be seen now."""
        folders = Folders()
        for index, one in enumerate(self.planned):
            if one.name is not None and self._states[index].status != "done":
                self._states[index] = folders.state(one.name.folder)
        pairs = list(zip(self.planned, self._states, strict=True))
        counted = {status: sum(state.status == status for _, state in pairs) for status in STATES}
        running = [_at(one, state) for one, state in pairs if state.status == "running"]
        return Seen(self.name, counted, tuple(running), _left(pairs))


def _at(one: PlannedCell, state: State) -> At:
    assert one.name is not None  # noqa: S101 - who has no directory does not run
    host = f"{state.host}:{state.pid}" if state.host else "?"
    return At(one.label, host, age_of(state), state.beat, last_line(one.name.folder / "log.txt"))


def age_of(state: State) -> float | None:
    """Return the seconds since a cell was begun."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(state.since)).total_seconds())
    except ValueError:
        return None


def _left(pairs: Sequence[tuple[PlannedCell, State]]) -> float | None:
    """Return the seconds that are left: what estimates say, corrected by how finished cells compare with theirs."""
    running = [(one, state) for one, state in pairs if state.status == "running"]
    known = [(one, state) for one, state in pairs if one.estimate.basis != "unknown"]
    if not running or len(known) < len(pairs):
        return None
    ratios = [state.seconds / one.estimate.seconds for one, state in known if state.status == "done" and state.seconds]
    pace = median(ratios) if ratios else 1.0
    left = sum(one.estimate.seconds * pace for one, state in pairs if state.status in ("not started", "interrupted"))
    left += sum(max(0.0, one.estimate.seconds * pace - (age_of(state) or 0.0)) for one, state in running)
    return left / len(running)


def last_line(log: Path) -> str:
    """Return the last line of a log that says anything, "" where there is none; of a rewritten line its last state."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - _LOG_TAIL))
            text = handle.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [_CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")


def plain(seen: Seen) -> str:
    """Return what is seen in lines: counts, then one a cell at work."""
    left = f", about {duration(seen.left)} left" if seen.left is not None else ""
    lines = [f"{seen.name}: {state_line(seen.states)}{left}"]
    for at in seen.running:
        age = f"{duration(at.age)}, " if at.age is not None else ""
        lines.append(f"  running {at.label}  {at.host}  {age}heartbeat {duration(at.beat)} ago  {at.log}".rstrip())
    return "\n".join(lines)


def table(seen: Seen) -> Group:
    """Return what is seen as a table of a terminal."""
    rows = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, options in (
        ("running", {"no_wrap": True}),
        ("host", {"no_wrap": True}),
        ("for", {"justify": "right", "no_wrap": True}),
        ("heartbeat", {"justify": "right", "no_wrap": True}),
        ("last line", {"no_wrap": True, "overflow": "ellipsis", "ratio": 1}),
    ):
        rows.add_column(name, **options)
    for at in seen.running:
        age = duration(at.age) if at.age is not None else "?"
        # Labels and logs hold brackets, which rich would take for its own markup.
        rows.add_row(Text(at.label), Text(at.host), age, duration(at.beat), Text(at.log))
    left = f"   about {duration(seen.left)} left" if seen.left is not None else ""
    head = Text(f"{seen.name}   {state_line(seen.states)}{left}", style="bold")
    return (
        Group(head, "", rows, Text("q ends", style="dim")) if seen.running else Group(head, Text("q ends", style="dim"))
    )


def watch(watcher: Watcher, *, once: bool = False) -> None:
    """Show a grid until every cell is done, or q or Ctrl-C.

    Args:
        watcher: What looks.
        once: Print what is seen and end.
    """
    if once:
        print(plain(watcher.look()))
    elif sys.stdout.isatty():
        _live(watcher)
    else:
        _lines(watcher)


def _lines(watcher: Watcher) -> None:
    before = None
    while True:
        seen = watcher.look()
        if seen.states != before:  # for a log that people read later: what has changed, not the time
            print(plain(seen), flush=True)
        before = seen.states
        if seen.finished:
            return
        time.sleep(PERIOD)


def _live(watcher: Watcher) -> None:
    seen = watcher.look()
    with _keys() as pressed, Live(table(seen), console=Console(), auto_refresh=False, transient=True) as live:
        while not seen.finished and not pressed(PERIOD):
            seen = watcher.look()
            live.update(table(seen), refresh=True)
    print(plain(seen))


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits for a key and tells whether it was q; without a keyboard it only waits."""
    if not sys.stdin.isatty():

        def waited(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield waited
        return
    import termios
    import tty

    saved = termios.tcgetattr(sys.stdin)

    def pressed(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(ready) and os.read(sys.stdin.fileno(), 64).lower().startswith(b"q")

    try:
        tty.setcbreak(sys.stdin)
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)
