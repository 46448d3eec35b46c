"""One cell in this process, and how a cell ended in words."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from vlmbench.cell.prepared import prepare
from vlmbench.cell.ranks import ALONE, this_rank
from vlmbench.cell.run import run_prepared
from vlmbench.cell.stopping import EXIT_STATUS, Interrupted, stoppable
from vlmbench.cell.together import run_ranks
from vlmbench.config import schema
from vlmbench.records.claim import ClaimedError
from vlmbench.records.state import outcome
from vlmbench.records.store import RECORD


def summary(record: dict[str, Any]) -> str:
    """Return a record's outcome in a few words: the primary metric with its interval, or the error's first line."""
    return f"{'done' if record['status'] == 'done' else 'FAILED'}  {outcome(record)}"


def run_one(config: schema.CellConfig) -> int:
    """Run a cell and say how it ended; returns the exit status.

    It runs in this process, or where it has several devices and nobody has started its ranks, in one for each.
    """
    rank = this_rank(config.trainer.devices, config.trainer.nodes)
    try:
        with stoppable():
            cell = prepare(config)
            if rank is None and not cell.done:
                return run_ranks(config, run_one)
            if rank is None:  # what a finished cell still takes is done by one process
                single = dataclasses.replace(config.trainer, devices=1, strategy="auto")
                cell, rank = dataclasses.replace(cell, config=dataclasses.replace(config, trainer=single)), ALONE
            if cell.done and rank.is_zero:
                print(f"{cell.label} is done already: same configuration, data and weights.", file=sys.stderr)
            record = run_prepared(cell)
    except Interrupted as stop:
        if rank is None or rank.is_zero:
            print(f"vlmbench: {stop}.", file=sys.stderr)
        return EXIT_STATUS
    except ClaimedError as error:
        if rank is None or rank.is_zero:
            print(f"vlmbench: {error} Left alone.", file=sys.stderr)
        return 3
    if not rank.is_zero:
        return int(record["status"] != "done")
    return tell(cell.label, cell.folder, record)


def tell(label: str, folder: Path, record: dict[str, Any]) -> int:
    """Print how one cell ended, with the traceback of a fault that its user cannot mend; returns the exit status."""
    print(f"{label}  {summary(record)}\n{folder / RECORD}")
    if record["status"] == "done":
        return 0
    if not record["error"]["mendable"]:
        print(record["error"]["traceback"], file=sys.stderr)
    return 1
