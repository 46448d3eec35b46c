"""What is known of a cell without starting it: its name, whether it is done, and who else is at work on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmbench.cell.naming import Name, Namer, label_of
from vlmbench.cell.recorded import up_to_date
from vlmbench.cell.told import summary
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.grid.outcome import LISTED, Outcome
from vlmbench.records.state import State, state_of
from vlmbench.records.store import RECORD, read_record

#: Seconds between two looks at cells that others hold, and between two lines about them.
LOOK, SAY = 2.0, 60.0


@dataclass
class Known:
    """A cell of a launch.

    Attributes:
        index: Its position in the list that was launched.
        config: The cell.
        name: What it is called; None where its data or weights are not here, so that its process finds out why.
        stamp: Of its record when the launch began, by which one that another process wrote since is known.
    """

    index: int
    config: schema.CellConfig
    name: Name | None
    stamp: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """A short name for people."""
        return label_of(self.config)

    @property
    def folder(self) -> str:
        """Its directory, empty where that is not known."""
        return str(self.name.folder) if self.name else ""


def look_up(configs: Sequence[schema.CellConfig]) -> tuple[list[Known], dict[int, int]]:
    """Name cells; nothing is downloaded and torch is not imported.

    Returns:
        Each cell once, and for each repetition the position of the cell that it repeats.
    """
    namer, first, cells, same = Namer(), dict[str, int](), list[Known](), dict[int, int]()
    for index, config in enumerate(configs):
        try:
            name = namer.name(config)
        except UserError:
            name = None
        key = str(name.folder.resolve()) if name else repr(config)
        if key in first:
            same[index] = first[key]
            continue
        first[key] = index
        cells.append(Known(index, config, name, _stamp(name.folder) if name else None))
    return cells, same


def _stamp(folder: Path) -> tuple[int, int] | None:
    try:
        found = (folder / RECORD).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def settled(cell: Known) -> Outcome | None:
    """Return how a cell has ended without this launch: done, or failed since the launch began; None if it is to run.

    A record that failed before is no reason to leave the cell alone: to launch it again is how one tries again. Nor is
    a done one that says less than is asked of it now.
    """
    if cell.name is None or (stamp := _stamp(cell.name.folder)) is None:
        return None
    try:
        record = read_record(cell.name.folder)
    except UserError:
        return None  # its process says what is wrong with it
    if up_to_date(cell.config, cell.name.folder) or (record["status"] != "done" and stamp != cell.stamp):
        return Outcome(cell.label, record["status"], summary(record), cell.folder, skipped=True)
    return None


def holder(cell: Known) -> State | None:
    """Return the state of a cell that another process is at work on; None where nobody is."""
    state = state_of(cell.name.folder) if cell.name else None
    return state if state and state.status == "running" else None


class Waiting:
    """Lines about cells that are waited for, now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def say(self, cells: Sequence[Known]) -> None:
        """Say whom is waited for, if it is time for another line."""
        if not cells or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAY
        print(f"waiting for {len(cells)} cells that other processes are at work on", flush=True)
        for cell in cells[:LISTED]:
            state = holder(cell)
            said = f"{state.text} since {state.since}, heard of {state.beat:.0f} s ago" if state else "ended just now"
            print(f"  {cell.label}  {said}", flush=True)
