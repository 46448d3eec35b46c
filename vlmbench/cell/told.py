"""One cell in this process, and how a cell ended in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vlmbench.cell.run import prepare, run_prepared
from vlmbench.config import schema
from vlmbench.records.claim import ClaimedError
from vlmbench.records.state import outcome
from vlmbench.records.store import RECORD


def summary(record: dict[str, Any]) -> str:
    """Return a record's outcome in a few words: the primary metric with its interval, or the error's first line."""
    return f"{'done' if record['status'] == 'done' else 'FAILED'}  {outcome(record)}"


def run_one(config: schema.CellConfig) -> int:
    """Run a cell in this process and say how it ended; returns the exit status."""
    cell = prepare(config)
    if cell.done:
        print(f"{cell.label} is done already: same configuration, data and weights.", file=sys.stderr)
    try:
        record = run_prepared(cell)
    except ClaimedError as error:
        print(f"vlmbench: {error} Left alone.", file=sys.stderr)
        return 3
    return tell(cell.label, cell.folder, record)


def tell(label: str, folder: Path, record: dict[str, Any]) -> int:
    """Print how one cell ended, with the traceback of a fault that its user cannot mend; returns the exit status."""
    print(f"{label}  {summary(record)}\n{folder / RECORD}")
    if record["status"] == "done":
        return 0
    if not record["error"]["mendable"]:
        print(record["error"]["traceback"], file=sys.stderr)
    return 1
