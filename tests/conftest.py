"""Shared by all tests: the real entry points, called in this process on small phantom worlds."""

import os
import signal

# Two workers on two cores: more threads than cores make torch many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ignored where a shell has put the tests into the background; commands would inherit that, and Ctrl-C do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

# Remembered hashes stay out of the user's own cache.
os.environ["VLMBENCH_CACHE"] = tempfile.mkdtemp(prefix="vlmbench-tests-")

SMALL = ["domain.patients=24", "trainer.max_epochs=2", "trainer.batch_size=8", "task.resamples=100"]


@dataclass
class Ran:
    """What a command left."""

    status: int
    out: str
    err: str
    output: Path

    @property
    def cells(self) -> list[Path]:
        return sorted(path.parent for path in self.output.rglob("record.json") if "transfer" not in path.parts)

    @property
    def record(self) -> dict:
        (cell,) = self.cells
        return json.loads((cell / "record.json").read_text())

    @property
    def predictions(self) -> pd.DataFrame:
        (cell,) = self.cells
        return pd.read_parquet(cell / "predictions.parquet")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run an entry point in this process, as the shell would; returns status, stdout, stderr."""

    def run_command(name: str, *arguments: str) -> tuple[int, str, str]:
        from vlmbench.config.entry import run

        monkeypatch.setattr(sys, "argv", [f"vlmbench {name}", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run(importlib.import_module(f"vlmbench.{name}").main)
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run_command


@pytest.fixture
def train(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., Ran]:
    """Train a cell on a small world; `output` is a fresh directory unless given."""

    def run_train(*arguments: str, output: Path | None = None, small: bool = True) -> Ran:
        target = output or tmp_path / "runs"
        settings = SMALL if small else []
        return Ran(*command("train", *settings, *arguments, f"output={target}"), target)

    return run_train
