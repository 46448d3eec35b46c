"""A search for who only looks: how many trials are left, and which cells the best became where that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmbench.cell.naming import Namer
from vlmbench.config.space import with_values
from vlmbench.errors import UserError
from vlmbench.grid.cells import Grid, GridCell
from vlmbench.grid.devices import Device
from vlmbench.grid.estimate import estimate
from vlmbench.grid.plan import NOT_STARTED, Folders, PlannedCell, finished, plan
from vlmbench.grid.search import checked
from vlmbench.grid.tuned import FOLDER, study_name, study_of


@dataclass(frozen=True)
class Sought:
    """A search as it stands.

    Attributes:
        grid: Its cells: with the settings that were found, or as they were asked for where the search goes on.
        unknown: Places of those whose settings are still to be found.
        trials: Those that are left, each as a cell in the middle of the space, with its place in the grid.
        studies: How many there are.
        n_trials: Of each.
    """

    grid: Grid
    unknown: frozenset[int]
    trials: tuple[tuple[GridCell, int], ...]
    studies: int
    n_trials: int

    def told(self) -> dict[str, int]:
        """Return its numbers as plain values."""
        total = self.studies * self.n_trials
        return {
            "studies": self.studies,
            "n_trials": self.n_trials,
            "trials": total,
            "ended": total - len(self.trials),
            "left": len(self.trials),
        }


def seek(grid: Grid, options: Mapping[str, Any]) -> Sought:
    """Look up a search; nothing is run, downloaded or written.

    Args:
        grid: What is to be tuned.
        options: As in `vlmbench.config.space.read_search`.

    Raises:
        ConfigError: Budget or space cannot be.
    """
    if not grid.cells:
        return Sought(grid, frozenset(), (), 0, 0)
    search = checked(options, [cell.config for cell in grid.cells])
    middle = {one.key: one.middle for one in search.space}
    studies: dict[str, list[int]] = {}
    for place, cell in enumerate(grid.cells):
        studies.setdefault(study_of(cell.config), []).append(place)
    cells, trials, unknown, namer = list(grid.cells), list[tuple[GridCell, int]](), set[int](), Namer()
    for places in studies.values():
        first = grid.cells[places[0]]
        try:
            name = study_name(first.config, namer.name(first.config).identity, search)
        except UserError:  # without its data or weights it has not begun, and if so nobody can tell
            found = {}
        else:
            found = _found(Path(first.config.output) / FOLDER / f"{name}.json")
        left = search.n_trials - min(search.n_trials, found.get("ended", 0))
        task = replace(first.config.task, evaluate_on="val")
        trial = replace(first, config=replace(with_values(first.config, middle), task=task))
        trials += [(trial, places[0])] * left
        for place in places:
            if left or not found["best"]:
                unknown.add(place)
            else:
                cells[place] = replace(cells[place], config=with_values(cells[place].config, found["best"]))
    return Sought(replace(grid, cells=cells), frozenset(unknown), tuple(trials), len(studies), search.n_trials)


def planned(sought: Sought, device: Device | None = None) -> tuple[list[PlannedCell], list[PlannedCell]]:
    """Look up the cells of a search and estimate them and the trials that are left.

    Returns:
        The cells, and the trials; a trial is predicted on the validation split.
    """
    cells = [
        replace(one, name=None, state=NOT_STARTED) if place in sought.unknown else one
        for place, one in enumerate(plan(sought.grid, device=device))
    ]
    measured, trials = finished(sought.grid, Folders()), dict[int, PlannedCell]()
    for trial, place in sought.trials:
        if place not in trials:
            rows = cells[place].rows
            rows = replace(rows, test=rows.val) if rows else None
            takes = estimate(trial.config, rows=rows, measured=measured, device=device)
            trials[place] = PlannedCell(trial, None, NOT_STARTED, takes, rows)
    return cells, [trials[place] for _, place in sought.trials]


def _found(path: Path) -> dict[str, Any]:
    """Return what a study wrote: how many of its trials ended, and the best settings; nothing where it wrote none.

    Raises:
        UserError: It is no result of a search.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        told = json.loads(text)
        best = told["best"]
        return {"ended": told["counts"]["done"] + told["counts"]["failed"], "best": best["values"] if best else {}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of a search: {error!r}. Move it away.") from error
