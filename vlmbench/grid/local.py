"""Many cells, each in a process of its own, forked from a server that has paid for the imports once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vlmbench.cell.naming import label_of
from vlmbench.cell.run import Prepared, prepare, run_prepared
from vlmbench.cell.told import summary
from vlmbench.config import schema
from vlmbench.grid.outcome import Outcome
from vlmbench.records.claim import ClaimedError


@dataclass
class Running:
    """A cell at work."""

    process: BaseProcess
    receive: Connection
    config: schema.CellConfig
    since: float


def run_cells(configs: Sequence[schema.CellConfig], *, jobs: int = 1) -> list[Outcome]:
    """Run cells, `jobs` at a time; one that fails or is killed never takes the others with it.

    Args:
        configs: Each possible, see `check_cell`.
        jobs: Cells that run at the same time on this machine.

    Returns:
        How each cell ended, in the order of `configs`.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Before the server starts: several torch processes that each use every core are many times slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.cell.preload"])
    waiting, running = list(configs), dict[Any, Running]()
    outcomes: list[Outcome] = []
    start, total = time.monotonic(), len(configs)
    print(f"{total} cells, {jobs} at a time", flush=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                started = _start(context, waiting.pop(0))
                running[started.process.sentinel] = started
            for sentinel in wait(list(running)):
                ended = running.pop(sentinel)
                outcomes.append(_outcome(ended))
                ran = sum(not outcome.skipped for outcome in outcomes)
                left = (time.monotonic() - start) / max(1, ran) * (len(waiting) + len(running))
                _tell(outcomes, total, time.monotonic() - ended.since, left)
    finally:
        for started in running.values():
            started.process.terminate()
    return outcomes


def _start(context: Any, config: schema.CellConfig) -> Running:
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(config, send))
    process.start()
    send.close()
    return Running(process, receive, config, time.monotonic())


def _child(config: schema.CellConfig, send: Connection) -> None:
    outcome = Outcome(label_of(config))
    try:
        cell = prepare(config)
        outcome.folder = str(cell.folder)
        outcome.skipped = cell.done
        send.send(outcome)  # should the process be killed, this much is known
        _log_to(cell)
        record = run_prepared(cell)
        outcome.status, outcome.text = record["status"], summary(record)
    except ClaimedError as error:
        outcome.status, outcome.text, outcome.skipped = "running", f"left alone: {error}", True
    except Exception as error:  # noqa: BLE001 - before a cell has a directory, its fault is told to the grid
        outcome.status, outcome.text = "failed", f"FAILED  {type(error).__name__}: {error}"
    send.send(outcome)


def _log_to(cell: Prepared) -> None:
    """Send what the process prints to a file of the cell, so that parallel cells do not talk over each other."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(cell.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)


def _outcome(ended: Running) -> Outcome:
    ended.process.join()
    outcome = Outcome(label_of(ended.config))
    try:
        while ended.receive.poll():
            outcome = ended.receive.recv()
    except EOFError:
        ended.receive.close()  # the child has said all it will
    if outcome.status == "killed":
        outcome.text = f"KILLED  exit status {ended.process.exitcode}; run the grid again to resume it"
    return outcome


def _tell(outcomes: Sequence[Outcome], total: int, seconds: float, left: float) -> None:
    last = outcomes[-1]
    took = "done before" if last.skipped else f"{seconds:.0f} s"
    print(f"[{len(outcomes)}/{total}] {last.label}  {last.text}  ({took}, about {left:.0f} s left)", flush=True)
