"""One cell in this process, and how a cell ended in words."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from vlmbench.cell.ranks import ALONE, this_rank
from vlmbench.cell.run import prepare, run_prepared
from vlmbench.cell.together import run_ranks
from vlmbench.config import schema
from vlmbench.records.claim import ClaimedError
from vlmbench.records.store import RECORD


def summary(record: dict[str, Any]) -> str:
    """Return a record's outcome in a few words: the primary metric with its interval, or the error's first line."""
    if record["status"] != "done":
        error = record["error"]
        return f"FAILED  {error['type']}: {(error['message'].splitlines() or [''])[0]}"
    name = record["primary_metric"]
    row = record["metrics"].get(name, {})
    if row.get("value") is None:
        return f"done  {name} undefined"
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row.get("low") is not None else ""
    return f"done  {name} {row['value']:.3f}{interval}"


def run_one(config: schema.CellConfig) -> int:
    """Run a cell and say how it ended; returns the exit status.

    It runs in this process, or where it has several devices and nobody has started its ranks, in one for each.
    """
    cell, rank = prepare(config), this_rank(config.trainer.devices, config.trainer.nodes)
    if rank is None and not cell.done:
        return run_ranks(config, run_one)
    if rank is None:  # what a finished cell still takes is done by one process
        single = dataclasses.replace(config.trainer, devices=1, strategy="auto")
        cell, rank = dataclasses.replace(cell, config=dataclasses.replace(config, trainer=single)), ALONE
    if cell.done and rank.is_zero:
        print(f"{cell.label} is done already: same configuration, data and weights.", file=sys.stderr)
    try:
        record = run_prepared(cell)
    except ClaimedError as error:
        if rank.is_zero:
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
