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

from vlmbench.cell.ranks import environments
from vlmbench.config import schema
from vlmbench.errors import UserError

GRACE = 60.0  # seconds that the others have to end by themselves, once one has ended badly
FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # by which schedulers ask a job to stop


def run_ranks(config: schema.CellConfig, run: Callable[[schema.CellConfig], int]) -> int:
    """Run a cell in one process for each of its devices; returns rank 0's exit status, or that of one that was killed.

    Args:
        config: The cell, whose devices are all on this machine.
        run: What each rank does, a function of a module; returns its exit status.
    """
    devices = config.trainer.devices
    # Before the server starts: several torch processes that each use every core are many times slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.cell.preload"])
    told = environments(devices)
    processes: list[BaseProcess] = [context.Process(target=_rank, args=(config, run, each)) for each in told]
    try:
        for process in processes:
            process.start()
        with _forwarding(processes):
            _wait(processes)
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
    return max(codes[0], 0) or (1 if any(codes) else 0)


def _rank(config: schema.CellConfig, run: Callable[[schema.CellConfig], int], variables: Mapping[str, str]) -> None:
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


def _wait(processes: Sequence[BaseProcess]) -> None:
    deadline = float("inf")
    while left := [process.sentinel for process in processes if process.exitcode is None]:
        wait(left, None if deadline == float("inf") else max(0.0, deadline - time.monotonic()))
        if deadline == float("inf") and any(process.exitcode for process in processes):
            deadline = time.monotonic() + GRACE
        if time.monotonic() >= deadline:
            return


@contextmanager
def _forwarding(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Pass on signals that ask this process to stop: the ranks know how to stop so that they can go on later."""

    def forward(number: int, _: object) -> None:
        for process in processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
