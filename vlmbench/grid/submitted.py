"""Which cells are in SLURM's queue already: written when they are submitted, so that nobody submits them again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vlmbench.errors import UserError
from vlmbench.grid.queue import my_jobs
from vlmbench.grid.waiting import Known

FILE = "submitted.json"


@dataclass(frozen=True)
class Submitted:
    """A job with its cells.

    Attributes:
        job: Its number, 12 or 12_3 in an array.
        name: Its name, which no other submission has: numbers begin anew when a cluster is set up again.
        keys: Its cells, see `key_of`.
        told: Where it says how they ended.
        stderr: Where it writes what went wrong.
    """

    job: str
    name: str
    keys: tuple[str, ...]
    told: str
    stderr: str


def key_of(cell: Known) -> str:
    """Return what a cell is known by here: its directory; its configuration where its data are not on this machine."""
    if cell.name is not None:
        return str(cell.name.folder.resolve())
    return f"config-{hashlib.sha256(repr(cell.config).encode()).hexdigest()}"


@contextmanager
def queued(folder: Path) -> Iterator[list[Submitted]]:
    """Lend the list of jobs that are still in the queue, to be added to; others that submit wait meanwhile.

    Args:
        folder: Where the list is kept; made if need be.

    Raises:
        UserError: The list cannot be read.
        SlurmError: The controller does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with FileLock(folder / f"{FILE}.lock"):
        jobs = my_jobs()
        entries = [one for one in _read(path) if one.job in jobs and jobs[one.job].name == one.name]
        entries = [one for one in entries if not jobs[one.job].ended]
        try:
            yield entries
        finally:  # what has been submitted is written down, whatever happens to the rest
            _write(path, entries)


def _read(path: Path) -> list[Submitted]:
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Submitted(**{**row, "keys": tuple(row["keys"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read: {error}. It says which cells are in SLURM's queue: look there (squeue --me), "
            "cancel what belongs to this grid, and delete the file."
        ) from error


def _write(path: Path, entries: Sequence[Submitted]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([dataclasses.asdict(one) for one in entries], indent=1), encoding="utf-8")
    temporary.replace(path)
