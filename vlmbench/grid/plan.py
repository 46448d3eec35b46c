"""A grid looked up: what each cell is called, what has become of it, and what is still to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vlmbench.cell.naming import Name, Namer, label_of
from vlmbench.errors import UserError
from vlmbench.grid.cells import Grid, GridCell
from vlmbench.records.state import State, state_of


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a grid with its state.

    Attributes:
        cell: What is to be computed.
        name: Identity and directory; None where they cannot be known here.
        state: What has become of it; `not started` where it has no name.
        missing: Why it has no name: its data or weights are not on this machine.
    """

    cell: GridCell
    name: Name | None
    state: State
    missing: str = ""

    @property
    def label(self) -> str:
        """A short name for people."""
        return label_of(self.cell.config)


def plan(grid: Grid) -> list[PlannedCell]:
    """Look up every cell of a grid; nothing is run, downloaded or written."""
    namer = Namer()
    planned = []
    for cell in grid.cells:
        try:
            name = namer.name(cell.config)
        except UserError as error:
            planned.append(PlannedCell(cell, None, State("not started"), str(error)))
        else:
            planned.append(PlannedCell(cell, name, state_of(name.folder)))
    return planned


def counts(planned: Sequence[PlannedCell]) -> dict[str, int]:
    """Return how many cells are in each state."""
    return dict(Counter(cell.state.status for cell in planned))
