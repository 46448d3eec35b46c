"""A sweep that tunes: trials on validation until the budget is spent, then the best of each study as full cells."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError
from vlmbench.config.space import Search, read_search
from vlmbench.config.sweeping import Sweep
from vlmbench.errors import UserError
from vlmbench.grid.cells import grid_of
from vlmbench.grid.outcome import INTERRUPTED, Outcome, told
from vlmbench.grid.study import Tried
from vlmbench.grid.sweep import launchable
from vlmbench.grid.tuned import Tuned, check_partners, study_of
from vlmbench.records.claim import ClaimedError
from vlmbench.records.identity import NOT_IDENTITY


def run_search(sweep: Sweep) -> int:
    """Tune every combination of a sweep but the seed, and run the best of each for every seed.

    Returns:
        The exit status: 0 if every full cell is done; 75 if it was asked to stop, and goes on when launched again.

    Raises:
        ConfigError: Budget or space cannot be, or the launcher cannot run cells that it is not told of beforehand.
    """
    grid = grid_of(sweep, absent=True)
    for left_out in grid.impossible:
        print(f"left out: {' '.join(left_out.overrides)}: {left_out.reason}", file=sys.stderr)
    configs = [cell.config for cell in grid.cells]
    if not configs:
        return 2
    search = checked(sweep.search or {}, configs)
    if not hasattr(sweep.launcher, "launch_cells"):
        raise ConfigError("this hydra/launcher cannot be used for a search: take launcher=local or launcher=slurm.")
    cells, absent = launchable(grid)
    if not cells:
        return 2
    tuned, faults = _studies([cell.config for cell in cells], search)
    check_partners(tuned)
    with _held(tuned) as (ours, left):
        stopped = _try_all(ours, sweep.launcher)
        if stopped:
            print(f"stopped after {_count(ours)} trials; the same command goes on.")
            return INTERRUPTED
        outcomes = _run_best(ours, sweep.launcher)
        _table(ours)
    return told([*outcomes, *faults, *left, *absent])


def checked(options: Mapping[str, Any], configs: Sequence[schema.CellConfig]) -> Search:
    """Return the budget and space of a search.

    Raises:
        ConfigError: See `read_search`; or a key changes no result, so that every trial would be the same.
    """
    search = read_search(options, configs)
    for one in search.space:
        if one.key in NOT_IDENTITY:
            raise ConfigError(f"hydra.sweeper.search.space.{one.key}: {one.key} changes no result. Leave it out.")
    return search


def _studies(configs: Sequence[schema.CellConfig], search: Search) -> tuple[list[Tuned], list[Outcome]]:
    groups: dict[str, list[schema.CellConfig]] = {}
    for config in configs:
        groups.setdefault(study_of(config), []).append(config)
    tuned, faults = [], []
    for cells in groups.values():
        try:
            tuned.append(Tuned(cells, search))
        except ConfigError:
            raise
        except UserError as error:  # one domain that cannot be built must not cost the others
            print(f"vlmbench: {cells[0].model.name} on {cells[0].domain.name}: {error}", file=sys.stderr)
            faults.append(Outcome(f"search of {cells[0].model.name}", "failed", f"FAILED  {error}"))
    return tuned, faults


@contextmanager
def _held(tuned: Sequence[Tuned]) -> Iterator[tuple[list[Tuned], list[Outcome]]]:
    """Open the studies that no other process is at work on."""
    ours, left = [], []
    with ExitStack() as stack:
        for one in tuned:
            try:
                stack.enter_context(one.claimed())
                one.open()
                ours.append(one)
            except ClaimedError as error:
                left.append(Outcome(one.label, "running", f"left alone: {error}", skipped=True))
        yield ours, left


def _try_all(tuned: Sequence[Tuned], launcher: Any) -> bool:
    """Run trials until every budget is spent; returns whether it was asked to stop before."""
    total = sum(one.search.n_trials for one in tuned)
    begun, before = time.monotonic(), _count(tuned)
    space = ", ".join(one.key for one in tuned[0].search.space) if tuned else ""
    print(f"search: {len(tuned)} studies of {space}: {before} of {total} trials done before", flush=True)
    while batch := [(one, tried) for one in tuned for tried in one.opened.pending()]:
        outcomes = _launch_trials(batch, launcher)
        for (one, tried), outcome in zip(batch, outcomes, strict=True):
            if outcome.status in ("done", "failed", "killed"):
                one.tell(tried, outcome)
        for one in tuned:
            one.write()
        if any(outcome.status not in ("done", "failed", "killed") for outcome in outcomes):
            return True
        done = _count(tuned)
        rest = (time.monotonic() - begun) / max(1, done - before) * (total - done)
        best = "; ".join(f"{one.label} {_best(one)}" for one in tuned[:4])
        print(f"search: {done} of {total} trials, about {rest:.0f} s left; best so far: {best}", flush=True)
    return False


def _launch_trials(batch: Sequence[tuple[Tuned, Tried]], launcher: Any) -> list[Outcome]:
    """Run the cells of some trials. One that was killed is tried once more: a lost node is no fault of its settings."""
    configs = [one.trial(tried) for one, tried in batch]
    outcomes = list(launcher.launch_cells(configs))
    again = [index for index, outcome in enumerate(outcomes) if outcome.status == "killed"]
    if again:
        print(f"search: {len(again)} trials were killed and are tried once more", flush=True)
        repeated = launcher.launch_cells([configs[index] for index in again])
        for index, outcome in zip(again, repeated, strict=True):
            outcomes[index] = outcome
    return outcomes


def _run_best(tuned: Sequence[Tuned], launcher: Any) -> list[Outcome]:
    """Run the best of each study as full cells, where the test split is touched for the first time."""
    finals = [(one, config) for one in tuned for config in one.finals()]
    outcomes = list(launcher.launch_cells([config for _, config in finals])) if finals else []
    barren = []
    for one in tuned:
        own = [outcome for (owner, _), outcome in zip(finals, outcomes, strict=True) if owner is one]
        for outcome in own:
            one.stamp(outcome)
        one.write(own)
        if not own:
            barren.append(Outcome(one.label, "failed", f"FAILED  all {one.search.n_trials} trials failed"))
    return [*outcomes, *barren]


def _count(tuned: Sequence[Tuned]) -> int:
    return sum(trial.status != "running" for one in tuned for trial in one.opened.trials())


def _best(one: Tuned) -> str:
    best = one.opened.best()
    return "none" if best is None or best.value is None else f"{best.value:.4f}"


def _table(tuned: Sequence[Tuned]) -> None:
    """Print what each search found."""
    rows = [("study", "trials", "failed", tuned[0].monitor if tuned else "", "values")]
    for one in tuned:
        trials, best = one.opened.trials(), one.opened.best()
        failed = sum(trial.status == "failed" for trial in trials)
        values = " ".join(f"{key}={_short(value)}" for key, value in best.values.items()) if best else ""
        rows.append((one.label, str(len(trials)), str(failed), _best(one), values))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for one in tuned:
        print(one.folder / f"{one.name}.json")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
