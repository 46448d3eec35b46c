"""Cells in fresh processes of the real command, which get a signal at a place of their work that is counted out."""

import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = ["domain.patients=20", "trainer.max_epochs=2", "trainer.batch_size=4", "task.resamples=100"]
SMALL += ["domain.audit_hashes=false", "trainer.patience=50"]
# What is called for each batch, by module, class and method.
ANY = "vlmbench.modules."
STEPS = [f"{ANY}{name}.{{}}" for name in ("contrastive:ContrastiveModule", "generative:GenerativeModule")]
STEPS += [f"{ANY}pretrain:CaptionModule.{{}}"]


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: Exit status, or the number of the signal that ended it, below zero.
        said: What it wrote to stdout and stderr.
    """

    code: int
    said: str


@dataclass(frozen=True)
class At:
    """A signal to a process by itself, when it calls something for the `count`-th time.

    Attributes:
        call: `training_step`, `validation_step` or `predict_step` of any module, or `module:Class.method`.
        count: From 1 on.
        number: The signal.
    """

    call: str
    count: int
    number: int = signal.SIGUSR2


def run(arguments: list[str], log: Path, at: At | None = None, command: str = "train") -> Ended:
    """Run a command in a process of its own, forked from a server that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.cell.preload"])
    process = context.Process(target=_child, args=(command, arguments, log, at))
    process.start()
    process.join()
    return Ended(process.exitcode or 0, log.read_text(encoding="utf-8"))


def result(output: Path) -> dict:
    """Return what must not depend on interruptions of the one cell in a directory."""
    (path,) = output.rglob("record.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == "done", record["error"]
    training = {key: record["training"].get(key) for key in ("curve", "epochs", "optimiser_steps")}
    predictions = (path.parent / "predictions.parquet").read_bytes()
    return {"metrics": record["metrics"], "selection": record["selection"], **training, "predictions": predictions}


def _child(command: str, arguments: list[str], log: Path, at: At | None) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a fork server that a cell's ranks came from before is deaf
    if at:
        signal_at(at)
    from vlmbench.config.entry import run

    sys.argv = [f"vlmbench {command}", *arguments]
    run(importlib.import_module(f"vlmbench.{command}").main)


def signal_at(at: At, pid: int | None = None) -> None:
    """Send the signal when it is time, to this process or another."""
    calls = [0]
    for call in [at.call] if ":" in at.call else [step.format(at.call) for step in STEPS]:
        module, _, path = call.partition(":")
        owner = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)

        setattr(owner, name, _counted(getattr(owner, name), calls, at, pid or os.getpid()))


def _counted(call: Callable, calls: list[int], at: At, pid: int) -> Callable:
    def counted(*args, **more):
        calls[0] += 1
        if calls[0] == at.count:
            os.kill(pid, at.number)
        return call(*args, **more)

    return counted
