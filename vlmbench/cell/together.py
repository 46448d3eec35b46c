"""The ranks of one cell started on this machine, for a cell that is run by itself.

Lightning would run the command line again for each rank, which in a multirun is the whole grid again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from vlmbench.cell.ranks import KILL_AFTER, environments
from vlmbench.cell.recorded import record_death
from vlmbench.cell.stopping import EXIT_STATUS
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.records.died import was_asked

FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # by which schedulers ask a job to stop


def run_ranks(config: schema.CellConfig, run: Callable[[schema.CellConfig], int]) -> int:
    """Run a cell in one process for each of its devices; returns rank 0's exit status.

    Where rank 0 was killed, the cell's record says by what, unless that was a request to stop.

    Args:
        config: The cell, whose devices are all on this machine.
        run: What each rank does, a function of a module; returns its exit status.
    """
    devices, began = config.trainer.devices, time.time()
    # Before the server starts: several torch processes that each use every core are many times slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.cell.preload"])
    told = environments(devices)
    processes: list[BaseProcess] = [context.Process(target=_rank, args=(config, run, each)) for each in told]
    try:
        with _forwarding(processes):
            for process in processes:
                process.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            first = _wait(processes)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            if process.pid is not None:
                process.join()
    codes = [process.exitcode or 0 for process in processes]
    killed = {rank: signal.Signals(-code).name for rank, code in enumerate(codes) if code < 0}
    for rank, name in killed.items():
        print(f"vlmbench: rank {rank} of {devices} was ended by {name}.", file=sys.stderr)
    if codes[0] >= 0:
        return codes[0]
    if first == EXIT_STATUS or was_asked(first):
        return EXIT_STATUS
    record_death(config, first, began)
    return 1


def _rank(config: schema.CellConfig, run: Callable[[schema.CellConfig], int], variables: Mapping[str, str]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    os.environ.update(variables)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        sys.exit(run(config))
    except UserError as error:
        sys.exit(f"vlmbench: {error}")


def _end_with(parent: Any) -> None:
    """End when the process is gone that waits for this one: a killed cell must not go on without its launcher."""
    parent.join()
    os._exit(1)


def _wait(processes: Sequence[BaseProcess]) -> int:
    """Wait until all have ended, or some time after one has ended badly; returns the first bad exit status, or 0."""
    deadline, first = float("inf"), 0
    while left := [process.sentinel for process in processes if process.exitcode is None]:
        wait(left, None if deadline == float("inf") else max(0.0, deadline - time.monotonic()))
        if not first and (first := next((process.exitcode for process in processes if process.exitcode), 0)):
            deadline = time.monotonic() + KILL_AFTER
        if time.monotonic() >= deadline:
            break
    return first


@contextmanager
def _forwarding(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Pass on signals that ask this process to stop: the ranks know how to stop so that they can go on later.

    They are blocked until the ranks have started. What these are forked from stays deaf to them: a signal to the whole
    process group would end it, and with it all that is known of how the ranks end.
    """

    def forward(number: int, _: object) -> None:
        for process in processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)
