"""Which cells are in SLURM's queue already: written before they are submitted, so that nobody submits them again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
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
        name: Its name, which no other submission has: numbers begin anew when a cluster is set up again.
        place: Its place in its array, 0 where it is alone.
        keys: Its cells, see `key_of`.
        told: Where it says how they ended.
        errors: Where it writes what went wrong, with `%j` for its number.
        job: Its number, 12 or 12_3 in an array; empty while nobody knows it.
    """

    name: str
    place: int
    keys: tuple[str, ...]
    told: str
    errors: str
    job: str = ""

    @property
    def stderr(self) -> str:
        """Where it writes what went wrong."""
        return self.errors.replace("%j", self.job)


class Queued:
    """The jobs of a directory that are in the queue, while nobody else may submit.

    Args:
        path: Where they are written down.
        entries: The jobs.
    """

    def __init__(self, path: Path, entries: Sequence[Submitted]) -> None:
        self._path = path
        self._entries = {(one.name, one.place): one for one in entries}

    @property
    def entries(self) -> list[Submitted]:
        """The jobs."""
        return list(self._entries.values())

    def add(self, entries: Iterable[Submitted]) -> None:
        """Write jobs down: before SLURM has them, in case that this process is killed, and with their numbers after."""
        self._entries |= {(one.name, one.place): one for one in entries}
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps([dataclasses.asdict(one) for one in self.entries], indent=1), encoding="utf-8")
        temporary.replace(self._path)


def key_of(cell: Known) -> str:
    """Return what a cell is known by here: its directory; its configuration where its data are not on this machine."""
    if cell.name is not None:
        return str(cell.name.folder.resolve())
    return f"config-{hashlib.sha256(repr(cell.config).encode()).hexdigest()}"


@contextmanager
def queued(folder: Path) -> Iterator[Queued]:
    """Lend the jobs that are still in the queue, to be added to; others that submit wait meanwhile.

    Args:
        folder: Where the list is kept; made if need be.

    Raises:
        UserError: The list cannot be read.
        SlurmError: The controller does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with FileLock(folder / f"{FILE}.lock"):
        jobs = {(job.name, _place(number)): number for number, job in my_jobs().items() if not job.ended}
        entries = [(one, jobs.get((one.name, one.place))) for one in _read(path)]
        yield Queued(path, [dataclasses.replace(one, job=number) for one, number in entries if number])


def _place(number: str) -> int:
    """Return a job's place in its array from its number, 12_3; 0 where it is alone."""
    return int(number.partition("_")[2] or 0)


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
