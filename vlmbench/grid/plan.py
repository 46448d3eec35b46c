"""A grid looked up: what each cell is called, what has become of it, what it will take, and what is still to do."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmbench.cell.naming import Name, Namer, label_of, nameless
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.grid.cells import Grid, GridCell
from vlmbench.grid.devices import Device
from vlmbench.grid.estimate import Estimate, estimate
from vlmbench.grid.measured import Measured
from vlmbench.grid.missing import Missing, fetch, missing_data, missing_else, missing_weights
from vlmbench.grid.workload import Rows, rows_of
from vlmbench.progress import Countdown
from vlmbench.records.state import State, state_of
from vlmbench.records.store import RecordError, read_record

NOT_STARTED = State("not started")
#: What a launch computes: all that is neither done nor at work elsewhere.
TO_DO = ("not started", "failed", "interrupted")
#: The directory of a cell: its label, which ends in the seed, and ten digits of its identity.
CELL = re.compile(r"(?P<stem>.+)-s(?P<seed>\d+)-(?P<digits>[0-9a-f]{10})")
#: Finished cells that are read for one estimate; more do not make it better.
_SAMPLES = 4


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a grid with its state.

    Attributes:
        cell: What is to be computed.
        name: Identity and directory; None where they cannot be known here.
        state: What has become of it; where it has no name, whether it has failed for that.
        estimate: What it takes; of a cell that is done, what such a cell takes.
        rows: Examples of its splits; None where nobody knows.
        missing: What it needs that is not on this machine.
    """

    cell: GridCell
    name: Name | None
    state: State
    estimate: Estimate
    rows: Rows | None
    missing: tuple[Missing, ...] = ()

    @property
    def label(self) -> str:
        """A short name for people."""
        return label_of(self.cell.config)

    @property
    def to_do(self) -> bool:
        """Whether a launch computes it."""
        return self.state.status in TO_DO


@dataclass(frozen=True)
class Looked:
    """A cell with its state alone.

    Attributes:
        cell: What is to be computed.
        name: Identity and directory; None where they cannot be known here.
        state: What has become of it.
        rows: Examples of its splits, where its domain is here.
        missing: What it needs that is not on this machine.
    """

    cell: GridCell
    name: Name | None
    state: State
    rows: Rows | None
    missing: tuple[Missing, ...]


class Folders:
    """The directories of cells, each task's listed once: asking for thousands that are not there takes a network file
    system as many round trips.
    """  # noqa: D205 - one sentence

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def names(self, parent: Path) -> frozenset[str]:
        """Return what lies in a directory, nothing where there is none."""
        if parent not in self._names:
            try:
                with os.scandir(parent) as entries:
                    self._names[parent] = frozenset(entry.name for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                self._names[parent] = frozenset()
        return self._names[parent]

    def state(self, folder: Path) -> State:
        """Return the state of the cell in a directory, which need not exist."""
        return state_of(folder) if folder.name in self.names(folder.parent) else NOT_STARTED

    def nameless(self, config: schema.CellConfig) -> State:
        """Return the state of a cell without a name: failed for want of one, or not started."""
        if not self.names(Path(config.output) / config.task.name):  # spares thousands of digests
            return NOT_STARTED
        state = self.state(nameless(config).folder)
        return state if state.status == "failed" else NOT_STARTED


def look_up(grid: Grid, folders: Folders | None = None) -> Iterator[Looked]:
    """Name every cell of a grid and see what has become of it; nothing is run, downloaded or written."""
    namer, folders, known = Namer(), folders or Folders(), dict[tuple[str, str, str], Missing]()
    progress = Countdown("Looking up cells", len(grid.cells))
    for done, cell in enumerate(grid.cells, start=1):
        config, missing, rows, name = cell.config, list[Missing](), None, None
        try:
            data = namer.data(config)
            count = data.examples
            rows = Rows(count["train"], count["val"], count["test"], data.labels)
        except UserError as error:
            key = ("domain", str(error), fetch(cell, "domain", config.domain.name))
            missing.append(known.get(key) or known.setdefault(key, missing_data(cell, str(error))))
        try:
            namer.weights(config)
        except UserError as error:
            key = ("model", str(error), fetch(cell, "model", config.model.name))
            missing.append(known.get(key) or known.setdefault(key, missing_weights(cell, str(error))))
        if not missing:
            name = namer.name(config)
            if cell.absent:  # neither data nor weights
                missing.append(missing_else(cell))
        state = folders.state(name.folder) if name else folders.nameless(config)
        yield Looked(cell, name, state, rows, tuple(missing))
        progress.update(done)
    progress.close()


def plan(grid: Grid, *, device: Device | None = None) -> list[PlannedCell]:
    """Look up every cell of a grid and estimate what it takes.

    Args:
        grid: The cells.
        device: What they run on, where their trainer leaves that open.
    """
    folders = Folders()
    measured = finished(grid, folders)
    return [
        PlannedCell(
            one.cell,
            one.name,
            one.state,
            estimate(one.cell.config, rows=one.rows, measured=measured, device=device),
            one.rows or rows_of(one.cell.config),
            one.missing,
        )
        for one in look_up(grid, folders)
    ]


def finished(grid: Grid, folders: Folders) -> Measured:
    """Return what finished cells took that lie where a grid's own do and share a model and a method with it.

    Of those that differ in seed or content alone a few are read.
    """
    wanted: dict[Path, set[str]] = {}
    for cell in grid.cells:
        config = cell.config
        label = label_of(config)
        shared = label[: label.index(f"-{config.domain.shown_name()}-s")]
        wanted.setdefault(Path(config.output) / config.task.name, set()).add(shared + "-")
    records = []
    for parent, prefixes in wanted.items():
        read: Counter[str] = Counter()
        for name in sorted(folders.names(parent)):
            found = CELL.fullmatch(name)
            if found is None or read[found["stem"]] >= _SAMPLES or not name.startswith(tuple(prefixes)):
                continue
            try:
                records.append(read_record(parent / name))
            except (RecordError, FileNotFoundError):
                continue  # not finished; what is wrong with a record its own cell tells
            read[found["stem"]] += 1
    return Measured(records)


def counts(planned: Sequence[PlannedCell | Looked]) -> dict[str, int]:
    """Return how many cells are in each state."""
    return dict(Counter(cell.state.status for cell in planned))
