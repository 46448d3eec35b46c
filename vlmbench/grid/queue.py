"""What SLURM says: whether it is there, its partitions, and what has become of jobs. Works without accounting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vlmbench.config.faults import unknown
from vlmbench.errors import UserError

PROGRAMS = ("sbatch", "srun", "squeue", "sinfo", "scontrol")
#: States of squeue(1) after which a job does not run again by itself.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
}
_SECONDS = 60.0  # a controller under load takes its time


class SlurmError(UserError):
    """SLURM is not there, does not answer, or does not take a job; the message says which and what to do."""


@dataclass(frozen=True)
class Job:
    """What the queue says of a job, or of one of an array.

    Attributes:
        name: Its name.
        state: SLURM's word, for example PENDING.
        reason: Why it waits or has ended, SLURM's word.
    """

    name: str
    state: str
    reason: str

    @property
    def ended(self) -> bool:
        """Whether it will not run again by itself."""
        return self.state in ENDED


def check(partition: str | None) -> None:
    """Make sure that jobs can be submitted, before anything is.

    Raises:
        SlurmError: Commands are missing, SLURM does not answer, or has no such partition.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise SlurmError(
            f"launcher=slurm needs SLURM's commands, and there is no {', '.join(missing)} on the PATH. Run it on a "
            "login node of the cluster (module load slurm), or take launcher=local."
        )
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():  # for which the commands wait a minute
        raise SlurmError(f"SLURM_CONF={conf} is no file. Unset it, or name the cluster's slurm.conf.")
    known = set(ask("sinfo", "--all", "--noheader", "--format=%R").split())
    for name in (partition or "").split(","):
        if name and name not in known:
            raise SlurmError(unknown("hydra.launcher.partition", name, known))


def ask(*words: str) -> str:
    """Run one of SLURM's commands and return what it prints.

    Raises:
        SlurmError: It fails, with its own words.
    """
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{words[0]} does not answer within {_SECONDS:.0f} s; is slurmctld up?") from error
    if ended.returncode:
        told = " ".join(ended.stderr.split()) or f"exit status {ended.returncode}"
        raise SlurmError(f"{words[0]} fails: {told}. Is SLURM's controller up (scontrol ping)?")
    return ended.stdout


def my_jobs() -> dict[str, Job]:
    """Return this user's jobs by their number, 12 or 12_3 in an array; those that ended some minutes ago are gone.

    Raises:
        SlurmError: The controller does not answer.
    """
    told = ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%j")
    rows = (line.split("|", 3) for line in told.splitlines())
    return {number: Job(name, state, reason) for number, state, reason, name in rows}


def longest_array() -> int:
    """Return how many jobs the cluster takes in one array; 1001 is SLURM's own default for the bound of the index."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    except SlurmError:
        found = None
    return max(1, int(found[1]) if found else 1001)
