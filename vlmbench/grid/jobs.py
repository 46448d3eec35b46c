"""Cells as Hydra's jobs, for sweepers and launchers that are not vlmbench's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from vlmbench.config.added import reject_added_keys
from vlmbench.config.checks import check_cell
from vlmbench.config.faults import ImpossibleCellError
from vlmbench.grid.outcome import Outcome


class CellFailedError(RuntimeError):
    """A cell is not done; why has been told, and its record says it."""


def run_job(config: DictConfig) -> float | None:
    """Run one cell in the process that a launcher made for it.

    Returns:
        What validation chose by, for sweepers that search; None where nothing is chosen, or the cell is impossible.

    Raises:
        CellFailedError: The cell failed.
    """
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
    reject_added_keys(config)
    cell = OmegaConf.to_object(config)
    try:
        check_cell(cell)  # type: ignore[arg-type]
    except ImpossibleCellError as error:
        print(f"left out: {error}")
        return None
    from vlmbench.cell.prepared import prepare
    from vlmbench.cell.told import run_one
    from vlmbench.records.store import read_record

    if run_one(cell):  # type: ignore[arg-type]
        raise CellFailedError("the cell is not done; see above")
    selection = read_record(prepare(cell).folder).get("selection")  # type: ignore[arg-type]
    return selection["value"] if selection else None


def launch_jobs(
    launch_cells: Callable[[Sequence[Any]], Sequence[Outcome]], cells: Sequence[Any], overrides: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Launch the points of another sweeper by a launcher of vlmbench; the impossible ones are left out.

    Returns:
        What a sweeper of Hydra expects of a launcher; the value of a point that is left out is None.
    """
    possible = [index for index, cell in enumerate(cells) if _is_possible(cell, overrides[index])]
    outcomes = dict(zip(possible, launch_cells([cells[index] for index in possible]), strict=True)) if possible else {}
    return [_job(outcomes.get(index), words) for index, words in enumerate(overrides)]


def _is_possible(cell: Any, overrides: Sequence[str]) -> bool:
    try:
        check_cell(cell)
    except ImpossibleCellError as error:
        print(f"left out: {' '.join(overrides)}: {error}", file=sys.stderr)
        return False
    return True


def _job(outcome: Outcome | None, overrides: Sequence[str]) -> JobReturn:
    done = outcome is None or outcome.status == "done"
    job = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED if done else JobStatus.FAILED)
    job.return_value = outcome if done or outcome is None else CellFailedError(f"{outcome.label} {outcome.text}")
    return job
