"""What each command of `python -m vlmbench.grid` does with a sweep."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from vlmbench.cell.naming import nameless
from vlmbench.config.faults import ConfigError
from vlmbench.config.sweeping import Sweep
from vlmbench.grid.cells import Grid, grid_of
from vlmbench.grid.devices import Device, named
from vlmbench.grid.facts import SCHEMA, cell, facts, states
from vlmbench.grid.options import Asked
from vlmbench.grid.plan import PlannedCell, look_up
from vlmbench.grid.plan import plan as planned_cells
from vlmbench.grid.show import cell_lines, duration, plan_text, search_line, state_line, status_grid, status_lines


def plan(asked: Asked, sweep: Sweep) -> int:
    """Tell what a grid is and costs."""
    device = _device(asked)
    grid, planned, trials, search = _looked(sweep, device)
    rows = [cell(one, asked.flags) for one in planned] if asked.cells else []
    if asked.cells and not asked.json:
        print(cell_lines(rows))
        return 0
    told = facts(grid, planned, device, asked.flags, trials)
    if search is not None:
        told["search"] = search
    print(json.dumps(told | ({"cells": rows} if asked.cells else {}), indent=1) if asked.json else plan_text(told))
    return 0


def status(asked: Asked, sweep: Sweep) -> int:
    """Tell what has become of every cell."""
    grid, planned, _, search = _looked(sweep)
    rows = [cell(one, asked.flags) for one in planned]
    if asked.json:
        told = {"schema": SCHEMA, "sweep": grid.name, "states": states(planned), "cells": rows}
        print(json.dumps(told | ({} if search is None else {"search": search}), indent=1))
        return 0
    print(status_lines(rows) if asked.cells else status_grid(rows))
    if search is not None:
        print(search_line(search))
    took = sum(row["seconds"] for row in rows if row["basis"] == "record")
    ran = f", {duration(took)} of computing" if took else ""
    print(f"{grid.name}: {len(rows):,} cells, {len(grid.impossible):,} impossible: {state_line(states(planned))}{ran}")
    return 0


def watch(asked: Asked, sweep: Sweep) -> int:
    """Show a grid as it goes."""
    from vlmbench.grid.watch import Watcher
    from vlmbench.grid.watch import watch as show

    _no_search(sweep, "The search itself says how far it is, and so does python -m vlmbench.grid status.")
    grid = grid_of(sweep, absent=True)
    show(Watcher(grid.name, planned_cells(grid, device=_device(asked))), once=asked.once)
    return 0


def retry(asked: Asked, sweep: Sweep) -> int:
    """Launch the failed cells again; the record of each is replaced when the cell ends anew."""
    from vlmbench.grid.sweep import run_sweep

    _no_search(sweep, "python -m vlmbench.train -m with the same words runs its failed cells again.")
    grid = grid_of(sweep, absent=True)
    failed = [one.cell for one in look_up(grid) if one.state.status == "failed"]
    print(f"{len(failed):,} of {len(grid.cells):,} cells failed before" + ("" if failed else ": nothing to run again"))
    if not failed:
        return 0
    sys.stdout.flush()
    return run_sweep(Sweep([one.config for one in failed], [one.overrides for one in failed], sweep.launcher))


def clean(asked: Asked, sweep: Sweep) -> int:
    """Remove what is of no use, or tell what that is."""
    from vlmbench.grid.clean import Kept, Removal, abandoned, inspect, others, remove
    from vlmbench.weights.progress import amount

    grid = grid_of(sweep, absent=True)
    if sweep.search is not None:  # what is still to be found is no cell of this sweep yet
        from vlmbench.grid.sought import seek

        sought = seek(grid, sweep.search)
        cells = [one for place, one in enumerate(sought.grid.cells) if place not in sought.unknown]
        grid = replace(grid, cells=cells)
    looked = list(look_up(grid))
    folders = [(one.name or nameless(one.cell.config)).folder for one in looked]
    parents = {Path(one.cell.config.output) / one.cell.config.task.name for one in looked}
    if asked.others:
        for output in sorted({Path(one.cell.config.output) for one in looked}):
            folders += others(output, folders)
    found = [one for folder in folders if (one := inspect(folder)) is not None]
    kept = [one for one in found if isinstance(one, Kept)]
    removals = [*(one for one in found if isinstance(one, Removal)), *abandoned(sorted(parents))]
    for one in kept:
        print(f"left alone  {one.path}: {one.why}")
    freed, count, status = 0, 0, 0
    for removal in removals:
        told = f"{amount(removal.size)}  {removal.why}  {' '.join(map(str, removal.paths))}"
        if not asked.yes:
            print(f"would remove  {told}")
            freed, count = freed + removal.size, count + 1
            continue
        try:
            gone = remove(removal)
        except OSError as error:
            print(f"vlmbench: {removal.cell} cannot be removed: {error}", file=sys.stderr)
            status = 1
            continue
        print(f"removed  {told}" if gone else f"left alone  {removal.cell}: somebody is at work there now, or was")
        freed, count = freed + removal.size * gone, count + gone
    print(
        f"{count:,} removed, {amount(freed)}" if asked.yes else f"{count:,} to remove, {amount(freed)}; --yes removes"
    )
    return status


def _looked(
    sweep: Sweep, device: Device | None = None
) -> tuple[Grid, list[PlannedCell], list[PlannedCell], dict[str, int] | None]:
    """Return a grid, its cells, and of a search the trials that are left and its numbers."""
    grid = grid_of(sweep, absent=True)
    if sweep.search is None:
        return grid, planned_cells(grid, device=device), [], None
    from vlmbench.grid.sought import planned, seek  # imports Optuna

    sought = seek(grid, sweep.search)
    return sought.grid, *planned(sought, device), sought.told()


def _no_search(sweep: Sweep, instead: str) -> None:
    if sweep.search is not None:
        raise ConfigError(f"the cells of a search are not known before it has ended. {instead}")


def _device(asked: Asked) -> Device | None:
    if asked.device is None and asked.tflops is None:
        return None
    return named(asked.device or "a100", asked.tflops)
