"""What one job of SLURM does: a few cells, run as on any machine, stopped and requeued when SLURM wants it back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from submitit.helpers import Checkpointable, DelayedSubmission

from vlmbench.cell.naming import label_of
from vlmbench.cell.recorded import record_death
from vlmbench.config import schema
from vlmbench.grid.local import STOP_SECONDS, run_cells, stop_all
from vlmbench.grid.order import Seconds, turns
from vlmbench.grid.outcome import GOES_ON, Outcome, write_told
from vlmbench.grid.processes import Running, start, wait_all
from vlmbench.grid.slots import threads_of
from vlmbench.grid.waiting import LOOK, holder, look_up
from vlmbench.records.lease import LAPSE_S

#: What submitit takes for "save and requeue"; the cluster sends it to every process of a job.
REQUEUE = signal.SIGUSR2


def ranks_of(config: schema.CellConfig) -> int:
    """Return how many tasks of SLURM a cell is: one for each of its devices."""
    return config.trainer.devices * config.trainer.nodes


def packs_of(
    configs: Sequence[schema.CellConfig],
    *,
    cells_per_job: int | None,
    pack_minutes: float | None,
    jobs: int,
    seconds: Seconds | None,
) -> list[list[int]]:
    """Divide cells into jobs, those that share features one behind the other.

    Args:
        configs: The cells. One on several devices always has a job to itself.
        cells_per_job: Cells of one job; None for as many as `pack_minutes` hold.
        pack_minutes: Longest that the cells of one job take together by their estimates; None packs nothing. A longer
            one has a job to itself.
        jobs: Cells that run at the same time within a job.
        seconds: The estimate; without one nothing is packed unless `cells_per_job` says so.

    Returns:
        The positions of the cells of each job.
    """
    packs: list[list[int]] = []
    pack, total = list[int](), 0.0
    most = float("inf") if cells_per_job is not None else 60 * (pack_minutes or 0) * jobs
    for turn in turns(configs, seconds):
        config = configs[turn.index]
        took = seconds(config) if seconds else float("inf")
        if ranks_of(config) > 1 or took > most:
            packs.append([turn.index])
            continue
        if pack and (total + took > most or len(pack) == cells_per_job):
            packs.append(pack)
            pack, total = [], 0.0
        pack.append(turn.index)
        total += took
    return [*packs, pack] if pack else packs


@dataclass
class Pack(Checkpointable):
    """The work of one job, as submitit pickles it.

    Attributes:
        cells: What to run.
        told: File that says in the end how each cell ended: the launcher cannot name those whose data are not with it.
        jobs: Cells at a time; None: as the machine's GPUs and cores allow.
        stop_seconds: How long cells may take to save what they have; less than SLURM leaves them.
    """

    cells: list[schema.CellConfig]
    told: str
    jobs: int | None = None
    stop_seconds: float = STOP_SECONDS
    _ranks: list[Running] = field(default_factory=list, repr=False)
    _asked: bool = False

    def __call__(self) -> None:
        """Run the cells; what is done already, or in the hands of another process, is left alone."""
        self._ranks, self._asked = [], False
        leads = os.environ.get("SLURM_PROCID", "0") == "0"
        _start_server()
        # The cluster sends it before it takes the machine, and at times nothing else; submitit would only note it down.
        signal.signal(signal.SIGTERM, self._stop)
        if leads:
            Path(self.told).unlink(missing_ok=True)  # of the same job before it was requeued
            if "SLURM_RESTART_COUNT" in os.environ:
                self._outlive()
        outcomes = self._run()
        if not leads:
            return
        if (self._asked or any(one.status == "interrupted" for one in outcomes)) and wanted():
            os.kill(os.getpid(), REQUEUE)  # submitit's own handler calls `checkpoint` and requeues
        write_told(Path(self.told), outcomes)

    def checkpoint(self) -> DelayedSubmission:
        """Let the running cells save what they have, and return what the requeued job does: the same again."""
        self._halt()
        return DelayedSubmission(Pack(self.cells, self.told, self.jobs, self.stop_seconds))

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        self._halt()

    def _halt(self) -> None:
        for running in self._ranks:
            running.ask()
        if not wait_all(self._ranks, self.stop_seconds if self._ranks else 0.0):
            for running in self._ranks:
                running.kill()
        stop_all(self.stop_seconds)

    def _outlive(self) -> None:
        """Wait until the cells are free, at most as long as the lease of a node counts that was lost with this job."""
        cells, end = look_up(self.cells)[0], time.monotonic() + LAPSE_S + LOOK
        while not self._asked and time.monotonic() < end and any(holder(cell) for cell in cells):
            time.sleep(LOOK)

    def _run(self) -> list[Outcome]:
        if self._asked:  # before anything was begun
            return [Outcome(label_of(config), "interrupted", GOES_ON) for config in self.cells]
        if len(self.cells) == 1 and ranks_of(self.cells[0]) > 1:
            return [self._rank()]
        return run_cells(self.cells, jobs=self.jobs, wait=False, stop_seconds=self.stop_seconds, signals=False)

    def _rank(self) -> Outcome:
        """Run this task's rank of a cell on several devices, as a process that can be stopped."""
        (config,) = self.cells
        running = start(config, {}, threads_of(1, os.environ), self.stop_seconds, "")
        self._ranks.append(running)
        while not running.over():
            wait(running.sentinels, 1.0)
        outcome = running.outcome()
        if outcome.status == "killed" and os.environ.get("SLURM_PROCID", "0") == "0":
            record_death(config, running.code, time.time() - outcome.seconds)
        return outcome


def _start_server() -> None:
    """Start what processes are forked from, and what counts their resources, deaf to the signals that SLURM sends.

    It sends them to every process of a job: the cells save what they have and end; the fork server would only die, and
    with it the cells in the middle of that.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["vlmbench.grid.preload"])
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, REQUEUE)}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wanted() -> bool:
    """Tell whether SLURM still wants this job: one that was cancelled must not put itself back into the queue."""
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own words
    return found.stdout.strip() in {"RUNNING", "STOPPED", "SUSPENDED", "PREEMPTED"}
