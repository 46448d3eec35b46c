"""Cells as Hydra's jobs, for sweepers and launchers that are not vlmbench's own."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from vlmbench.config.added import reject_added_keys
from vlmbench.config.checks import check_cell
from vlmbench.config.faults import ImpossibleCellError
from vlmbench.grid.outcome import Outcome


def run_job(config: DictConfig) -> float | None:
    """Run one cell in the process that a launcher made for it.

    Returns:
        What validation chose by, for sweepers that search; None where nothing is chosen, or the cell is impossible.

    Raises:
        RuntimeError: The cell failed; its record says why.
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
        raise RuntimeError("the cell is not done; see above")
    selection = read_record(prepare(cell).folder).get("selection")  # type: ignore[arg-type]
    return selection["value"] if selection else None


def returns(outcomes: Sequence[Outcome], overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Return outcomes as what a sweeper of Hydra expects of a launcher."""
    made = []
    for outcome, words in zip(outcomes, overrides, strict=True):
        done = outcome.status == "done"
        job = JobReturn(overrides=list(words), status=JobStatus.COMPLETED if done else JobStatus.FAILED)
        job.return_value = outcome if done else RuntimeError(f"{outcome.label} {outcome.text}")
        made.append(job)
    return made
