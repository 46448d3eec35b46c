"""What happens in the process of a cell: it is forked from the fork server, sees its own GPUs, and tells how it ended.

A process must neither outlive the launcher nor the fork server. The launcher's end is seen by a pipe: a thread then
asks its own process to stop, as the launcher would have, and kills it where that does not help. The fork server's end
is seen by the kernel.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

from vlmbench.cell.faults import describe
from vlmbench.cell.naming import label_of
from vlmbench.cell.prepared import Prepared, now, prepare
from vlmbench.cell.recorded import record_unnamed
from vlmbench.cell.run import run_prepared
from vlmbench.cell.told import summary
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.grid.outcome import GOES_ON, INTERRUPTED, Outcome
from vlmbench.grid.server import BLOCKED
from vlmbench.records.claim import ClaimedError, make_folder

#: How a process is asked to stop.
STOP = signal.SIGTERM
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass(frozen=True)
class Start:
    """What a process is told.

    Attributes:
        config: The cell.
        environment: Variables of its own: GPUs, and its rank where a cell has several processes.
        rank: Its number among the processes of the cell; 0 alone reports.
        threads: Threads of arithmetic.
        stop_seconds: How long it may take to stop when the launcher is gone.
        folder: The cell's directory, empty where it is not known yet.
    """

    config: schema.CellConfig
    environment: Mapping[str, str]
    rank: int
    threads: int
    stop_seconds: float
    folder: str


def run_child(start: Start, send: Connection) -> None:
    """Run a cell, or one rank of it; rank 0 sends outcomes through `send`, of which the last one counts."""

    def say(outcome: Outcome) -> None:
        if start.rank == 0:
            send.send(outcome)

    _alone(start.stop_seconds)
    signal.signal(STOP, signal.SIG_DFL)  # in a job of SLURM the fork server is deaf to it
    os.environ.update(start.environment)  # nothing has asked CUDA for its devices yet
    os.environ["OMP_NUM_THREADS"] = str(start.threads)
    import torch  # the fork server has it

    torch.set_num_threads(start.threads)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
    outcome, started = Outcome(label_of(start.config), folder=start.folder), now()
    cell: Prepared | None = None
    try:
        cell = prepare(start.config)
        outcome.folder, outcome.skipped = str(cell.folder), cell.done
        say(outcome)  # should the process be killed, this much is known
        _log_to(cell, start.rank)
        record = run_prepared(cell)
        outcome.status, outcome.text = record["status"], summary(record)
    except ClaimedError as error:
        outcome.status, outcome.text, outcome.skipped = "running", f"left alone: {error}", True
    except SystemExit as stop:
        if stop.code != INTERRUPTED:
            raise
        outcome.status, outcome.text = "interrupted", GOES_ON
        say(outcome)
        raise
    except Exception as error:  # noqa: BLE001 - before a cell has a directory, its fault is told to the grid
        outcome.status, outcome.text = "failed", f"FAILED  {type(error).__name__}: {error}"
        if cell is None and start.rank == 0:
            with suppress(ClaimedError, UserError):  # what is wrong is told to the grid in any case
                outcome.folder = str(record_unnamed(start.config, describe(error), started))
    say(outcome)


def _alone(stop_seconds: float) -> None:
    """Leave the launcher's process group, where Ctrl-C goes, and see to it that the process ends with the launcher."""
    os.setpgid(0, 0)
    launcher = parent_process()
    assert launcher is not None  # noqa: S101 - a process of multiprocessing has one
    server = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # it ended in between
            os._exit(1)

    def watch() -> None:
        wait([launcher.sentinel])
        os.kill(os.getpid(), STOP)
        time.sleep(stop_seconds)
        os.killpg(0, signal.SIGKILL)  # with the processes that decode its images

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def _log_to(cell: Prepared, rank: int) -> None:
    """Send what the process prints to a file of the cell, so that parallel cells do not talk over each other."""
    make_folder(cell.folder)
    name = f"log-{rank}.txt" if rank else "log.txt"
    log = os.open(cell.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
