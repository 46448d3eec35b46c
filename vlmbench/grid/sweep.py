"""A multirun from its points to its exit status."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from vlmbench.cell.naming import Namer, label_of
from vlmbench.config.sweeping import Sweep
from vlmbench.errors import UserError
from vlmbench.grid.cells import Grid, GridCell, grid_of
from vlmbench.grid.outcome import Outcome, told
from vlmbench.records.state import state_of


def run_sweep(sweep: Sweep) -> int:
    """Launch every cell of a sweep that is not done; returns the exit status: 0 if all are done in the end."""
    if sweep.search is not None:
        from vlmbench.grid.search import run_search

        return run_search(sweep)
    grid = grid_of(sweep, absent=True)
    for left_out in grid.impossible:
        print(f"left out: {' '.join(left_out.overrides)}: {left_out.reason}", file=sys.stderr)
    cells, absent = launchable(grid)
    if not cells:
        return 2
    if not hasattr(sweep.launcher, "launch_cells"):  # of Hydra, or of another plugin: one job a cell
        jobs = sweep.launcher.launch([cell.overrides for cell in cells], initial_job_idx=0)
        return int(bool(absent) or any(job.status.name != "COMPLETED" for job in jobs))
    outcomes: list[Outcome] = list(sweep.launcher.launch_cells([cell.config for cell in cells]))
    return told([*outcomes, *absent])


def launchable(grid: Grid) -> tuple[list[GridCell], list[Outcome]]:
    """Return the cells that this machine can compute, and how the others end; why is said once for all of a kind.

    What was done before counts as computed, though its key or data be gone.
    """
    missing = [cell for cell in grid.cells if cell.absent]
    done = _done(missing)
    away = [cell for cell in missing if id(cell) not in done]
    for reason, count in Counter(cell.absent for cell in away).items():
        print(f"left out, {count} of {len(grid.cells)} cells: {reason}", file=sys.stderr)
    here = [cell for cell in grid.cells if not cell.absent or id(cell) in done]
    return here, [Outcome(label_of(cell.config), "absent", "left out: not on this machine") for cell in away]


def _done(cells: Sequence[GridCell]) -> set[int]:
    namer, done = Namer(), set()
    for cell in cells:
        try:
            folder = namer.name(cell.config).folder
        except UserError:  # without data or weights it has no name, and nobody can tell
            continue
        if state_of(folder).status == "done":
            done.add(id(cell))
    return done
