"""One list of cells on its way through the places of this machine."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

from vlmbench.cell.recorded import record_death
from vlmbench.cell.told import summary
from vlmbench.config import schema
from vlmbench.grid.order import Seconds, seconds_left, turns
from vlmbench.grid.outcome import LISTED, Outcome
from vlmbench.grid.processes import Running, start
from vlmbench.grid.slots import Slot, SlotError, Slots, threads_of
from vlmbench.grid.waiting import LOOK, Known, Waiting, holder, look_up, settled
from vlmbench.records.died import DIED


class Launch:
    """One list of cells on its way."""

    def __init__(self, slots: Slots, *, waits: bool, stop_seconds: float, seconds: Seconds | None) -> None:
        self.slots, self.waits, self.stop_seconds, self.seconds = slots, waits, stop_seconds, seconds
        self.threads = threads_of(slots.jobs, os.environ)
        self.total = 0
        self.queue: list[tuple[Known, int | None]] = []  # and the cell that must have ended before
        self.running: list[tuple[Running, Known, Slot]] = []
        self.held: list[Known] = []  # by other processes
        self.outcomes: dict[int, Outcome] = {}
        self.asked = 0  # how often, to stop
        self.deadline = 0.0
        self.next_look = 0.0
        self.waiting = Waiting()
        self.ran: list[tuple[float, float]] = []  # estimate and wall time of cells that ended here
        self.woken, self.wake = os.pipe()

    def run(self, configs: Sequence[schema.CellConfig]) -> list[Outcome]:
        """Run every cell; see `run_cells`."""
        cells, same = look_up(configs)
        self.total = len(cells)
        self._enqueue(cells, len(same))
        while self.running or (not self.asked and (self.queue or self.held)):
            if not self.asked:
                self._fill()
            self._sleep()
            self._collect()
            if self.held and not self.queue and not self.asked:
                self._look_at_held()
        for cell in [*(cell for cell, _ in self.queue), *self.held]:
            self.outcomes[cell.index] = Outcome(cell.label, "interrupted", "not started", cell.folder)
        repeated = {index: dataclasses.replace(self.outcomes[first], repeated=True) for index, first in same.items()}
        return [(self.outcomes | repeated)[index] for index in range(len(configs))]

    def _enqueue(self, cells: Sequence[Known], repetitions: int) -> None:
        """Leave out what is done, and bring the rest into an order."""
        todo, done = [], []
        for cell in cells:
            outcome = settled(cell)
            if outcome is None:
                todo.append(cell)
            else:
                done.append(outcome)
                self.outcomes[cell.index] = outcome
        for turn in turns([cell.config for cell in todo], self.seconds):
            self.queue.append((todo[turn.index], None if turn.after is None else todo[turn.after].index))
        if repetitions:
            print(f"{repetitions} of the cells are listed more than once; each runs once.")
        gpus = f", {len(self.slots.gpus)} GPUs" if self.slots.gpus else ""
        at_once = f", {self.slots.jobs} at a time{gpus}" if todo else ""
        print(f"{len(cells)} cells: {len(done)} done already, {len(todo)} to run{at_once}", flush=True)
        if len(done) <= LISTED:
            for number, outcome in enumerate(done, start=1):
                self._say(number, outcome)

    def _fill(self) -> None:
        """Start cells in their order until one does not fit; one that needs several devices is not passed by others."""
        busy = {cell.index for cell, _ in self.queue} | {cell.index for _, cell, _ in self.running}
        for cell, after in list(self.queue):
            if after in busy:
                continue
            # Another launcher may have been at it since this one began.
            if (outcome := settled(cell)) is not None:
                self._take_out(cell, busy)
                self._end(cell, outcome)
                continue
            if (state := holder(cell)) is not None:
                self._take_out(cell, busy)
                self._left(cell, f"left alone: {state.text} is at work on it")
                continue
            try:
                self.slots.check(cell.config)
            except SlotError as error:
                self._take_out(cell, busy)
                self._end(cell, Outcome(cell.label, "failed", f"FAILED  {error}", cell.folder))
                continue
            slot = self.slots.take(cell.config)
            if slot is None:
                return
            self.queue = [queued for queued in self.queue if queued[0] is not cell]
            environment = self.slots.environment(slot)
            running = start(cell.config, environment, self.threads, self.stop_seconds, cell.folder)
            self.running.append((running, cell, slot))
            if self.asked:  # in between
                running.ask()
                return

    def _take_out(self, cell: Known, busy: set[int]) -> None:
        self.queue = [queued for queued in self.queue if queued[0] is not cell]
        busy.discard(cell.index)

    def _sleep(self) -> None:
        """Wait until a process ends, a signal comes, or something is to be looked at again."""
        patience = None if self.running else 0.0
        if self.asked:
            patience = max(0.0, self.deadline - time.monotonic())
        elif any(running.first is not None for running, _, _ in self.running):
            patience = 1.0
        elif self.held and not self.queue:
            patience = max(0.0, self.next_look - time.monotonic())
        sentinels = [sentinel for running, _, _ in self.running for sentinel in running.sentinels]
        if self.woken in wait([*sentinels, self.woken], patience):
            os.read(self.woken, 4096)
            if sentinels:
                how = f"save what they have, {self.stop_seconds:.0f} s at most; a second signal kills them"
                print(f"stopping: {len(self.running)} cells {how if self.asked == 1 else 'are killed'}", flush=True)
        if self.asked and time.monotonic() >= self.deadline:
            self.kill()
            self.deadline = time.monotonic() + 1.0  # the kernel takes its time with large processes

    def _collect(self) -> None:
        """Take what has ended, with its places."""
        for entry in list(self.running):
            running, cell, slot = entry
            if not running.over():
                continue
            self.running.remove(entry)
            self.slots.give(slot)
            outcome = running.outcome()
            outcome.folder = outcome.folder or cell.folder
            if outcome.status != "running" and not outcome.skipped:
                self.ran.append((self.seconds(cell.config) if self.seconds else 1.0, outcome.seconds))
            if outcome.status == "running":
                self._left(cell, outcome.text)
            else:
                if outcome.status == "killed":
                    self._record(cell, running, outcome)
                self._end(cell, outcome)

    def _record(self, cell: Known, running: Running, outcome: Outcome) -> None:
        """Record how a cell died, and say the same of it as its record: it may have been done before it was killed."""
        record = record_death(cell.config, running.code, time.time() - outcome.seconds)
        if record is not None:
            outcome.text = summary(record)
            if (record["error"] or {}).get("type") != DIED:
                outcome.status = record["status"]

    def _look_at_held(self) -> None:
        """Take up the cells that other processes no longer hold: done, failed or left, which `_fill` finds out."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK
        self.waiting.say(self.held)
        for cell in list(self.held):
            if holder(cell) is None:
                self.held.remove(cell)
                self.queue.append((cell, None))

    def _left(self, cell: Known, text: str) -> None:
        if self.waits:
            self.held.append(cell)
        else:
            self._end(cell, Outcome(cell.label, "running", text, cell.folder, skipped=True))

    def _end(self, cell: Known, outcome: Outcome) -> None:
        self.outcomes[cell.index] = outcome
        self._say(len(self.outcomes), outcome)

    def _say(self, number: int, outcome: Outcome) -> None:
        took = "done before" if outcome.skipped and outcome.status == "done" else f"{outcome.seconds:.0f} s"
        left = self._left_over()
        rest = "" if left is None else f", about {left:.0f} s left"
        print(f"[{number}/{self.total}] {outcome.label}  {outcome.text}  ({took}{rest})", flush=True)

    def _left_over(self) -> float | None:
        def estimate(cell: Known) -> float:
            return self.seconds(cell.config) if self.seconds else 1.0

        now = time.monotonic()
        return seconds_left(
            self.ran,
            [estimate(cell) for cell, _ in self.queue],
            [(estimate(cell), now - running.since) for running, cell, _ in self.running],
            self.slots.jobs,
        )

    def stop(self) -> None:
        """Ask every cell to stop, and start no more; safe inside a signal's handler. Asked twice, kill them."""
        self.asked += 1
        self.deadline = time.monotonic() + (self.stop_seconds if self.asked == 1 else 0.0)
        for running, _, _ in list(self.running):
            running.ask()
            if self.asked > 1:
                running.kill()
        os.write(self.wake, b"x")

    def kill(self) -> None:
        """Kill every cell that still runs."""
        for running, _, _ in list(self.running):
            running.kill()

    def close(self) -> None:
        """Leave no process behind, whatever happened."""
        self.kill()
        for running, _, _ in self.running:
            running.outcome()
        os.close(self.woken)
        os.close(self.wake)
