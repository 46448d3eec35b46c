"""Waiting for jobs of SLURM: what they left in the cells' directories counts, the queue says who is still to come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from vlmbench.grid.outcome import Outcome, read_told
from vlmbench.grid.queue import Job, SlurmError, my_jobs
from vlmbench.grid.submitted import Submitted
from vlmbench.grid.waiting import Known, holder, settled

#: Seconds between two looks at the queue, at first and at most; between two lines that say how it stands; and that a
#: record may take from another machine to this one.
FIRST, MOST, SAY, LATE = 1.0, 20.0, 60.0, 5.0


class Watch:
    """The cells of a launch that are on their way.

    Args:
        cells: All cells by position.
        waiting: The job of each cell that is not settled; None where another process is at work on it.
        outcomes: How cells ended; the others are added.
        total: Of all cells, for people.
    """

    def __init__(
        self,
        cells: Mapping[int, Known],
        waiting: Mapping[int, Submitted | None],
        outcomes: MutableMapping[int, Outcome],
        *,
        total: int,
    ) -> None:
        self.cells, self.waiting, self.outcomes, self.total = cells, dict(waiting), outcomes, total
        self._gone: dict[str, float] = {}  # when a job was first seen to have ended
        self._reasons: dict[str, str] = {}  # why it ended; SLURM forgets a job after some minutes
        self._lost = False
        self._left: list[Known] = []

    def run(self) -> list[Known]:
        """Return when every cell is settled, one way or another, but those that other processes left: these."""
        pause, said = FIRST, time.monotonic()
        while self.waiting:
            jobs = self._jobs()
            before = len(self.waiting)
            for index in list(self.waiting):
                self._look(index, jobs)
            if self.waiting and time.monotonic() - said > SAY:
                said = time.monotonic()
                self._say(jobs)
            pause = FIRST if len(self.waiting) < before or self._gone else min(MOST, pause * 1.3)
            if self.waiting:
                time.sleep(pause)
        return self._left

    def leave(self) -> list[Known]:
        """Settle nothing more: what was submitted goes on by itself, and nothing is left."""
        for index, entry in self.waiting.items():
            cell = self.cells[index]
            text = f"job {entry.job}" if entry else "at work elsewhere"
            self.outcomes[index] = Outcome(cell.label, "submitted" if entry else "running", text, cell.folder)
        print(self.farewell())
        return []

    def farewell(self) -> str:
        """Return how to look at the jobs that go on, and how to end them."""
        numbers = sorted({entry.job.partition("_")[0] for entry in self.waiting.values() if entry}, key=int)
        if not numbers:
            return f"{len(self.waiting)} cells are at work elsewhere; the same command waits for them."
        listed = ",".join(numbers)
        return (
            f"{len(self.waiting)} cells go on in SLURM. squeue --jobs={listed} and python -m vlmbench.grid status say "
            f"how far they are, the same command waits for them, scancel {' '.join(numbers)} ends them."
        )

    def _jobs(self) -> dict[str, Job] | None:
        """Return the queue; None where the controller does not answer, which jobs survive."""
        try:
            jobs = my_jobs()
        except SlurmError as error:
            if not self._lost:
                print(f"{error} Asking again.", flush=True)
            self._lost = True
            return None
        self._lost = False
        return jobs

    def _look(self, index: int, jobs: Mapping[str, Job] | None) -> None:
        cell, entry = self.cells[index], self.waiting[index]
        if (outcome := settled(cell)) is not None:
            self._settle(index, Outcome(cell.label, outcome.status, outcome.text, cell.folder))
        elif entry is None:
            if holder(cell) is None:
                self._leave_over(index)
        elif jobs is not None:
            job = jobs.get(entry.job)
            if job is not None and job.name == entry.name and not job.ended:
                self._gone.pop(entry.job, None)
            elif time.monotonic() - self._gone.setdefault(entry.job, time.monotonic()) > LATE:
                self._end(index, entry, job)

    def _end(self, index: int, entry: Submitted, job: Job | None) -> None:
        """Settle a cell whose job has ended and that has no record to show for it."""
        cell = self.cells[index]
        if job and job.name == entry.name:
            self._reasons[entry.job] = f"{job.state} ({job.reason})"
        if holder(cell) is not None:  # another process has it, or the claim of the dead one has yet to run out
            return
        outcome = next((one for one in read_told(Path(entry.told)) if one.label == cell.label), None)
        if outcome is None or outcome.status == "killed":
            # An array's job that is cancelled before it begins leaves no trace.
            reason = self._reasons.get(entry.job, "no longer known to SLURM, as after scancel")
            see = f"; see {entry.stderr}" if Path(entry.stderr).exists() else ""  # no log of what has not begun
            text = f"KILLED  job {entry.job}: {reason}{see}. Run the grid again to resume it"
            outcome = Outcome(cell.label, "killed", text, cell.folder)
        elif outcome.status == "running" and cell.name is not None:
            self._leave_over(index)
            return
        elif outcome.status == "running":  # whoever has it may have it still, which cannot be seen from here
            outcome = Outcome(cell.label, "interrupted", outcome.text, cell.folder)
        self._settle(index, outcome)

    def _leave_over(self, index: int) -> None:
        del self.waiting[index]
        self._left.append(self.cells[index])

    def _settle(self, index: int, outcome: Outcome) -> None:
        del self.waiting[index]
        self.outcomes[index] = outcome
        print(f"[{len(self.outcomes)}/{self.total}] {outcome.label}  {outcome.text}", flush=True)

    def _say(self, jobs: Mapping[str, Job] | None) -> None:
        states: Counter[str] = Counter()
        for entry in self.waiting.values():
            job = jobs.get(entry.job) if jobs and entry else None
            if entry is None:
                states["at work elsewhere"] += 1
            elif job is not None:
                states[job.state.lower() + (f" ({job.reason})" if job.reason != "None" else "")] += 1
        told = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "asking SLURM"
        print(f"waiting for {len(self.waiting)} cells: {told}", flush=True)
