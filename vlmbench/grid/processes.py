"""The processes of one cell as the launcher sees them: started, asked to stop, killed, and what they leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vlmbench.cell.naming import label_of
from vlmbench.cell.ranks import KILL_AFTER, environments, this_rank
from vlmbench.config import schema
from vlmbench.grid.children import STOP, Start, run_child
from vlmbench.grid.outcome import GOES_ON, INTERRUPTED, Outcome
from vlmbench.records.died import cause, was_asked


@dataclass
class Running:
    """A cell at work in one process, or in one for each rank.

    Attributes:
        config: The cell.
        receive: Where rank 0 says how it ended.
        processes: By rank.
        since: When it was started, by the monotonic clock.
        codes: Exit statuses of the ranks that have been seen to end.
        first: The exit status of the rank that ended first.
        ended: When that was; 0 before.
        stopped: Whether it was asked to stop.
    """

    config: schema.CellConfig
    receive: Connection
    processes: list[BaseProcess]
    since: float = field(default_factory=time.monotonic)
    codes: dict[int, int] = field(default_factory=dict)
    first: int | None = None
    ended: float = 0.0
    stopped: bool = False

    @property
    def sentinels(self) -> list[Any]:
        """What `multiprocessing.connection.wait` takes: of each process that `over` has not seen to end."""
        # By what was seen, not by what is: one that has ended since must wake who waits.
        return [process.sentinel for rank, process in enumerate(self.processes) if rank not in self.codes]

    def over(self) -> bool:
        """Tell whether every process has ended; those that wait in vain for one that has are killed.

        Rank 0 has the last word, so that another that has ended well says nothing; one that was asked to stop is not
        the only one.
        """
        for rank, process in enumerate(self.processes):
            if rank not in self.codes and (code := process.exitcode) is not None:
                self.codes[rank] = code
                if self.first is None and (code or rank == 0):
                    self.first, self.ended = code, time.monotonic()
        if len(self.codes) == len(self.processes):
            return True
        if self.first not in (None, INTERRUPTED) and time.monotonic() - self.ended > KILL_AFTER:
            self.kill()
        return False

    def ask(self) -> None:
        """Ask every process to save what it has and to end."""
        if self.stopped:
            return
        self.stopped = True
        for process in self.processes:
            _signal(process, STOP, group=False)

    def kill(self) -> None:
        """End every process at once, with those that it has started."""
        for process in self.processes:
            _signal(process, signal.SIGKILL, group=True)

    def outcome(self) -> Outcome:
        """Return how the cell ended, once `over`."""
        for process in self.processes:
            process.join()
        outcome = Outcome(label_of(self.config))
        try:
            while self.receive.poll():
                outcome = self.receive.recv()
        except (EOFError, OSError):  # it has said all it will, or was killed in the middle of a word
            pass
        self.receive.close()
        outcome.seconds = time.monotonic() - self.since
        if outcome.status != "killed":
            return outcome
        if self.first == INTERRUPTED or self.stopped or was_asked(self.code):
            outcome.status, outcome.text = "interrupted", GOES_ON
        else:
            outcome.text = f"KILLED  {cause(self.code)}"
        return outcome

    @property
    def code(self) -> int:
        """The exit status that tells most: of the rank that ended first and not well."""
        return self.first or 0


def start(
    config: schema.CellConfig, environment: Mapping[str, str], threads: int, stop_seconds: float, folder: str
) -> Running:
    """Start the processes of a cell: one for each of its devices.

    Args:
        config: The cell.
        environment: Variables of its processes.
        threads: Threads of arithmetic of each.
        stop_seconds: See `Start`.
        folder: The cell's directory where it is known.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.grid.preload"])
    receive, send = context.Pipe(duplex=False)
    processes: list[BaseProcess] = []
    running = Running(config, receive, processes)
    try:
        for rank, ranked in _ranks(config.trainer):
            told = Start(config, {**environment, **ranked}, rank, threads, stop_seconds, folder)
            processes.append(_started(context, told, send))
    except BaseException:
        running.kill()
        raise
    finally:
        send.close()
    running.since = time.monotonic()  # without the imports of a fork server that has started only now
    return running


def _started(context: Any, told: Start, send: Connection) -> BaseProcess:
    process: BaseProcess = context.Process(target=run_child, args=(told, send))
    try:
        process.start()
    except (OSError, EOFError):  # the fork server was killed a moment ago; the next try starts another
        process = context.Process(target=run_child, args=(told, send))
        process.start()
    return process


def _ranks(trainer: schema.TrainerConfig) -> list[tuple[int, dict[str, str]]]:
    """Return each rank that is to be started here with its variables; a task of SLURM is one rank, and has its own."""
    here = this_rank(trainer.devices, trainer.nodes)
    return list(enumerate(environments(trainer.devices))) if here is None else [(here.rank, {})]


def wait_all(cells: Sequence[Running], seconds: float) -> bool:
    """Wait until every process of some cells has ended; tells whether they have.

    Nothing is read from them, so that a signal's handler may call it in the middle of whatever it interrupts.
    """
    deadline = time.monotonic() + seconds
    left = [process.sentinel for cell in cells for process in cell.processes]
    while left and (remaining := deadline - time.monotonic()) > 0:
        ready = wait(left, remaining)
        left = [sentinel for sentinel in left if sentinel not in ready]
    return not left


def _signal(process: BaseProcess, number: int, *, group: bool) -> None:
    if process.pid is None or wait([process.sentinel], 0):  # its number may be another's by now
        return
    try:
        (os.killpg if group else os.kill)(process.pid, number)
    except ProcessLookupError:
        if group:  # it has not left the launcher's group yet
            _signal(process, number, group=False)
