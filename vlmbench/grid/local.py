"""Many cells on this machine, each in a process of its own, forked from a server that has paid for the imports once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType

from vlmbench.config import schema
from vlmbench.grid.launch import Launch
from vlmbench.grid.order import Seconds
from vlmbench.grid.outcome import Outcome
from vlmbench.grid.processes import wait_all
from vlmbench.grid.slots import cores_each, make_slots

STOP_SECONDS = 60.0
_launches: list[Launch] = []


def run_cells(
    configs: Sequence[schema.CellConfig],
    *,
    jobs: int | None = None,
    gpus: int | None = None,
    cells_per_gpu: int = 1,
    wait: bool = True,
    stop_seconds: float = STOP_SECONDS,
    seconds: Seconds | None = None,
    signals: bool = True,
) -> list[Outcome]:
    """Run cells, several at a time; one that fails or is killed never takes the others with it.

    Cells that are done are counted and start no process. SIGINT and SIGTERM ask the others to save what they have and
    to stop; a second one kills them.

    Args:
        configs: Each possible, see `check_cell`.
        jobs: Cells that run at the same time, one with several devices counted as so many. None: as many as the GPUs
            take, or where there are none one for every four cores, for every core where all models are shipped ones.
        gpus: GPUs to hand out; None counts them.
        cells_per_gpu: Cells of one device that share a GPU.
        wait: Whether to wait for cells that other processes are at work on, and to run those that they leave.
        stop_seconds: How long a cell may take to stop before it is killed.
        seconds: An estimate for each cell, by which long ones start first.
        signals: Whether to take SIGINT and SIGTERM; else `stop_all` stops the cells.

    Returns:
        How each cell ended, in the order of `configs`.

    Raises:
        SlotError: A number of places that makes no sense.
    """
    slots = make_slots(jobs, gpus, cells_per_gpu, cores_each(configs))
    launch = Launch(slots, waits=wait, stop_seconds=stop_seconds, seconds=seconds)
    _launches.append(launch)
    try:
        with _signals_to(launch) if signals else nullcontext():
            return launch.run(configs)
    finally:
        _launches.remove(launch)
        launch.close()


@contextmanager
def _signals_to(launch: Launch) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop a launch while the block runs, where this thread may decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        launch.stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and shells set it for what runs in the background
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_all(seconds: float = STOP_SECONDS) -> None:
    """Ask every cell that this process runs to save what it has and to stop, and return when all have.

    `run_cells` starts no more cells then, and returns when it has the word again. A signal's handler may call this.

    Args:
        seconds: How long to wait; what is left then is killed.
    """
    launches = list(_launches)
    for launch in launches:
        if not launch.asked:  # to ask twice is to kill
            launch.stop()
    cells = [running for launch in launches for running, _, _ in list(launch.running)]
    if not wait_all(cells, seconds):
        for running in cells:
            running.kill()
        wait_all(cells, seconds)
