"""The processes of one cell as the launcher sees them: started, asked to stop, killed, and what they leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vlmbench.cell.naming import label_of
from vlmbench.cell.ranks import this_rank
from vlmbench.config import schema
from vlmbench.grid.children import STOP, Start, run_child
from vlmbench.grid.outcome import INTERRUPTED, Outcome

#: Seconds that other ranks get to end when one of them has.
_GRACE = 10.0


@dataclass
class Running:
    """A cell at work in one process, or in one for each rank.

    Attributes:
        config: The cell.
        receive: Where rank 0 says how it ended.
        processes: By rank.
        since: When it was started, by the monotonic clock.
        first: The exit status of the rank that ended first.
        ended: When that was; 0 before.
        stopped: Whether it was asked to stop.
    """

    config: schema.CellConfig
    receive: Connection
    processes: list[BaseProcess]
    since: float = field(default_factory=time.monotonic)
    first: int | None = None
    ended: float = 0.0
    stopped: bool = False

    @property
    def sentinels(self) -> list[Any]:
        """What `multiprocessing.connection.wait` takes: of each process that has not been seen to end."""
        return [process.sentinel for process in self.processes if process.exitcode is None]

    def over(self) -> bool:
        """Tell whether every process has ended; those that wait in vain for one that has are killed.

        Rank 0 has the last word, so that another that has ended well says nothing; one that was asked to stop is not
        the only one.
        """
        codes = [process.exitcode for process in self.processes]
        if self.first is None:
            ended = [code for rank, code in enumerate(codes) if code or (code == 0 and rank == 0)]
            self.first, self.ended = (ended[0], time.monotonic()) if ended else (None, 0.0)
        if None not in codes:
            return True
        if self.first not in (None, INTERRUPTED) and time.monotonic() - self.ended > _GRACE:
            self.kill()
        return False

    def ask(self) -> None:
        """Ask every process to save what it has and to end."""
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
        if self.first == INTERRUPTED or self.stopped:
            outcome.status, outcome.text = "interrupted", "interrupted; it goes on when it is launched again"
        else:
            outcome.text = f"KILLED  {died(self.first)}; run the grid again to resume it"
        return outcome


def died(code: int | None) -> str:
    """Say in words what an exit status means that a process did not choose to tell more about.

    Args:
        code: As multiprocessing has it: the negative number of a signal, else what the process returned.
    """
    if code == -signal.SIGKILL:
        return "by SIGKILL, as the kernel does where memory runs out"
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"exit status {code}"


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
    context.set_forkserver_preload(["vlmbench.cell.preload"])
    receive, send = context.Pipe(duplex=False)
    processes: list[BaseProcess] = []
    running = Running(config, receive, processes)
    try:
        for rank, ranked in _ranks(config.trainer):
            told = Start(config, {**environment, **ranked}, rank, threads, stop_seconds, folder)
            process = context.Process(target=run_child, args=(told, send))
            process.start()
            processes.append(process)
    except BaseException:
        running.kill()
        raise
    finally:
        send.close()
    return running


def _ranks(trainer: schema.TrainerConfig) -> list[tuple[int, dict[str, str]]]:
    """Return each rank that is to be started here with its environment, as torchrun sets it.

    Lightning then starts no processes itself. A task of SLURM is one rank, and its environment says which.
    """
    if (here := this_rank(trainer.devices, trainer.nodes)) is not None:
        return [(here.rank, {})]
    devices = trainer.devices
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "GROUP_RANK": "0",
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # By this Lightning knows the variables for torchrun's, inside a job of SLURM too.
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
    }
    return [(rank, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(devices)]


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
