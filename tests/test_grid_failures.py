"""What can go wrong in a grid, by the real command: the grid ends, says so, and the good cells are done."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from vlmbench.records.lease import find_lease
from vlmbench.records.state import state_of
from vlmbench.weights.source import ASSETS

SMALL = ["domain.patients=20", "trainer.batch_size=8", "task.resamples=100"]


@dataclass
class Ended:
    """How a grid ended."""

    status: int
    out: str
    err: str
    output: Path

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.output.rglob("record.json"))]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(record["status"] for record in self.records)

    @property
    def errors(self) -> list[str]:
        return [f"{r['error']['type']}: {r['error']['message']}" for r in self.records if r["status"] == "failed"]


def grid(output: Path, *arguments: str, settings: list[str] = SMALL, **more: Any) -> Ended:
    """Run a grid as a user does."""
    command = [sys.executable, "-m", "vlmbench.train", "-m", *settings, *arguments, f"output={output}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400, **more)
    return Ended(ran.returncode, ran.stdout, ran.stderr, output)


@contextlib.contextmanager
def meanwhile(look: Callable[[], bool]) -> Iterator[None]:
    """Look again and again while the block runs, until `look` returns that it has done its work, which it must."""
    over, did = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if look():
                did.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert did.is_set()


def in_training(output: Path) -> Iterator[tuple[Path, int]]:
    """Yield the cells that have a checkpoint and no record, with their processes."""
    for checkpoint in output.glob("*/*/checkpoints/*.ckpt"):
        cell = checkpoint.parent.parent
        found = find_lease(cell / "cell.lock")
        if not (cell / "record.json").exists() and found is not None and found.lease is not None:
            yield cell, found.lease.pid


def report(output: Path) -> str:
    """Return the page of a directory of records."""
    target = output.parent / "report"
    command = [sys.executable, "-m", "vlmbench.report", f"records={output}", f"output={target}"]
    subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return "".join(path.read_text() for path in target.rglob("*.html"))


def without_numbers(folder: Path) -> Path:
    """Copy a checkpoint, one of its tensors full of what is not a number: so is the loss from the first step on."""
    shutil.copytree(ASSETS / "tiny_clip", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_one_without_memory_and_one_that_does_not_converge_leave_the_others_alone(tmp_path):
    output, limited = tmp_path / "runs", []

    def take_its_memory() -> bool:
        for cell, pid in in_training(output):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, (1, 1))  # not a byte more than it has
                limited.append(cell)
                return True
        return False

    sources = f"model.source=package:tiny_clip,{without_numbers(tmp_path / 'nan')}"
    arguments = ["finetune=lora", sources, "seed=0,1", "trainer.max_epochs=20", "trainer.patience=50"]
    with meanwhile(take_its_memory):
        ended = grid(output, *arguments)
    assert ended.status == 1, ended.err
    assert ended.statuses == {"done": 1, "failed": 3}
    assert "1 of 4 cells done, 3 not:" in ended.out
    assert state_of(limited[0]).status == "failed"
    memory = json.loads((limited[0] / "record.json").read_text())["error"]
    # Nearly always an exception; where C++ finds no room to throw one, it aborts.
    assert "out of memory" in memory["message"] or memory["type"] == "ProcessDied"
    assert sum("not finite" in text for text in ended.errors) == 2
    page = report(output)
    assert memory["type"] in page
    assert "not finite" in page


def folder(root: Path, *, broken: bool) -> Path:
    """Write a small set of bright and dark images, the last of them perhaps no image."""
    rng, rows = np.random.default_rng(0), ["image,label,split,patient_id"]
    root.mkdir(parents=True)
    for number in range(40):
        name, bright = f"{number}.png", number % 2
        pixels = rng.integers(0, 100, (32, 32, 3)) + 120 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(root / name)
        split = "train" if number < 20 else "val" if number < 30 else "test"
        rows.append(f"{name},{'bright' if bright else 'dark'},{split},p{number}")
    if broken:
        (root / "39.png").write_bytes((root / "39.png").read_bytes()[:60])
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def test_one_that_is_killed_and_one_with_a_broken_image_leave_the_others_alone(tmp_path):
    output, killed = tmp_path / "runs", []
    good, bad = folder(tmp_path / "good", broken=False), folder(tmp_path / "bad", broken=True)

    def kill() -> bool:
        for cell, pid in in_training(output):
            os.kill(pid, signal.SIGKILL)
            killed.append(cell)
            return True
        return False

    settings = ["domain=folder", "domain.modality=radiograph", "domain.check_images=exists", "trainer.batch_size=8"]
    settings += [f"domain.root={good},{bad}", "task.resamples=100", "trainer.max_epochs=20", "trainer.patience=50"]
    with meanwhile(kill):
        ended = grid(output, "finetune=lora", "seed=0,1", settings=settings)
    assert ended.status == 1, ended.err
    assert ended.statuses == {"done": 1, "failed": 3}
    died = json.loads((killed[0] / "record.json").read_text())
    assert died["error"]["message"].startswith("the process was killed by SIGKILL: out of memory?")
    assert (state_of(killed[0]).status, state_of(killed[0]).resumable) == ("failed", True)
    assert sum("39.png" in text for text in ended.errors) == 2
    page = report(output)
    assert "killed by SIGKILL" in page
    assert "39.png" in page
    again = grid(output, "finetune=lora", "seed=0,1", settings=settings)
    assert again.status == 1
    assert again.statuses == {"done": 2, "failed": 2}
    assert json.loads((killed[0] / "record.json").read_text())["training"]["resumed"] is True


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here, which only root may: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def leftovers(output: Path) -> list[Path]:
    """Return half-written files."""
    return [path for path in output.rglob(".*") if path.name.startswith((".record", ".predictions"))]


def fill(place: Path) -> None:
    """Leave no byte on a file system."""
    with contextlib.suppress(OSError), (place / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def test_a_disk_that_is_full_when_the_record_is_written(small_disk):
    output = small_disk / "runs"

    def fill_after_the_predictions() -> bool:
        if not list(output.glob("*/*/predictions.parquet")):
            return False
        fill(small_disk)
        return True

    settings = ["domain.patients=20", "task.resamples=20000"]  # scoring takes seconds
    with meanwhile(fill_after_the_predictions):
        ended = grid(output, "finetune=zero_shot", "domain.world_seed=0,1", settings=settings)
    assert ended.status == 1
    assert "0 of 2 cells done, 2 not:" in ended.out
    assert "No space left on device" in ended.out
    assert not ended.records
    assert not leftovers(output)
    assert shutil.disk_usage(small_disk).free == 0
    (small_disk / "ballast").unlink()
    again = grid(output, "finetune=zero_shot", "domain.world_seed=0,1", settings=settings)
    assert again.status == 0, again.out
    assert again.statuses == {"done": 2}


def test_files_that_may_not_grow(tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    ended = grid(tmp_path / "runs", "finetune=zero_shot,full", "trainer.max_epochs=2", preexec_fn=limit)
    assert ended.status == 1
    assert ended.statuses == {"done": 1, "failed": 1}
    assert "no larger file may be" in ended.errors[0] or "cannot be written" in ended.errors[0]
    assert not leftovers(ended.output)


def test_a_dashboard_that_cannot_be_reached_costs_no_cell_and_no_exit_status(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"  # bound and not listened at: refuses
        environment = {**os.environ, "WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
        environment["WANDB_INIT_TIMEOUT"] = "3"
        begun = time.monotonic()
        ended = grid(tmp_path / "runs", "finetune=zero_shot", "logger=wandb", "logger.mode=online", env=environment)
    assert ended.status == 0, ended.out + ended.err
    assert ended.statuses == {"done": 1}
    (log,) = ended.output.rglob("log.txt")
    assert "W&B could not start" in log.read_text()
    assert time.monotonic() - begun < 300
