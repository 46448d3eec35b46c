"""A multirun from its points to its exit status."""

from __future__ import annotations

import sys

from vlmbench.config.sweeping import Sweep
from vlmbench.grid.cells import grid_of
from vlmbench.grid.outcome import Outcome, told


def run_sweep(sweep: Sweep) -> int:
    """Launch every cell of a sweep that is not done; returns the exit status: 0 if all are done in the end."""
    grid = grid_of(sweep)
    for left_out in grid.impossible:
        print(f"left out: {' '.join(left_out.overrides)}: {left_out.reason}", file=sys.stderr)
    if not grid.cells:
        return 2
    if not hasattr(sweep.launcher, "launch_cells"):  # of Hydra, or of another plugin: one job a cell
        jobs = sweep.launcher.launch([cell.overrides for cell in grid.cells], initial_job_idx=0)
        return int(any(job.status.name != "COMPLETED" for job in jobs))
    outcomes: list[Outcome] = list(sweep.launcher.launch_cells([cell.config for cell in grid.cells]))
    return told(outcomes)
