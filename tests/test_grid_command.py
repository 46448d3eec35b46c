"""`python -m vlmbench.grid`: counted by hand, nothing written by looking, nothing removed that anybody needs."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from synthetic_records import make_record

from vlmbench.grid import clean
from vlmbench.records.claim import ClaimedError, claim
from vlmbench.records.store import RECORD, read_record, write_record

ROOT = Path(__file__).parents[1]
SMALL = ["domain.patients=20", "trainer.max_epochs=2", "trainer.batch_size=8", "task.resamples=100"]
#: 18 points: 4 impossible, 9 of which data or weights are missing, 5 that can be named.
MIXED = [
    "model=tiny_clip,tiny_llava,clip",
    "finetune=zero_shot,linear_probe,lora",
    "domain=phantom_radiograph,pneumoniamnist",
]
HOLD = """
import sys, time
from pathlib import Path
from vlmbench.records.claim import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def grid(command, monkeypatch, tmp_path):
    """Run the command with `output` in a fresh directory and without any data."""
    monkeypatch.setenv("VLMBENCH_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)

    def run_grid(*words: str) -> tuple[int, str, str]:
        return command("grid.__main__", *words, *([f"output={tmp_path / 'runs'}"] if len(words) > 1 else []))

    return run_grid


def cells(grid, *words: str) -> dict[str, dict]:
    status, out, err = grid("plan", *words, "--json", "--cells")
    assert status == 0, err
    return {row["label"]: row for row in json.loads(out)["cells"]}


def folders(grid, *words: str) -> dict[str, Path]:
    return {label: Path(row["folder"]) for label, row in cells(grid, *words).items() if row["folder"]}


def leave(folder: Path, status: str, **changes) -> None:
    """Leave in a cell's directory what a cell of that state leaves."""
    with claim(folder):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"x" * 10_000)
        if status != "interrupted":
            failed = "CUDA out of memory" if status == "failed" else ""
            identity = folder.name[-10:] + "0" * 54
            write_record(folder, make_record(failed=failed, identity=identity, **changes))


@contextmanager
def held(folder: Path):
    """Let a real process work in a directory while the block runs."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """What lies below a directory; without the times of directories, which looking at the clock of a file system
    changes, and of leases, whose holder touches them.
    """
    found = {path: path.lstat() for path in sorted(root.rglob("*"))}
    timeless = {path for path in found if path.name == "cell.lock" or (path.is_dir() and not path.is_symlink())}
    return {str(p): (0, 0) if p in timeless else (s.st_size, s.st_mtime_ns) for p, s in found.items()}


@pytest.fixture
def mixed(grid):
    """The grid with a cell in every state; returns their directories by state."""
    found = list(folders(grid, *MIXED).values())
    assert len(found) == 5
    states = dict(zip(("done", "failed", "interrupted", "running", "not started"), found, strict=True))
    for status in ("done", "failed", "interrupted"):
        leave(states[status], status)
    (states["running"] / "log.txt").parent.mkdir(parents=True)
    (states["running"] / "log.txt").write_text("loading\nepoch 3/20  val/auroc [0.8]\r\x1b[K\n\n")
    with held(states["running"]):
        yield states


def test_a_plan_counts_what_there_is_and_writes_nothing(grid, mixed, tmp_path):
    before = tree(tmp_path)
    status, out, err = grid("plan", *MIXED)
    assert status == 0, err
    assert tree(tmp_path) == before
    assert "18 points, 14 possible, 4 impossible" in out
    assert "1 done, 1 running, 1 failed, 1 interrupted, 10 not started" in out
    assert "to do 12: " in out
    assert "tiny_llava x linear_probe (2): finetune=linear_probe does not apply" in out
    assert "pneumoniamnist x vqa (2): " in out
    assert f"process {lock(mixed['running'])['pid']}" in out
    assert "CUDA out of memory" in out
    assert "(6 cells): python -m vlmbench.fetch model=clip" in out
    assert "(6 cells): python -m vlmbench.fetch domain=pneumoniamnist" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("phantom_radiograph "))
    assert row[1:7] == ["8", "1", "1", "1", "1", "4"]


def lock(folder: Path) -> dict:
    return json.loads((folder / "cell.lock").read_text())


def test_a_plan_as_json_has_the_names_that_scripts_read(grid, mixed):
    status, out, err = grid("plan", *MIXED, "--json", "--cells")
    assert status == 0, err
    told = json.loads(out)
    kinds = {
        "schema": int, "sweep": str, "points": int, "possible": int, "impossible": list, "states": dict, "to_do": int,
        "running": list, "failed": list, "missing": list, "estimate": dict, "disk": dict, "downloads": dict,
        "tables": dict, "cells": list,
    }  # fmt: skip
    assert {name: type(value) for name, value in told.items()} == kinds
    assert told["schema"] == 1
    assert told["states"] == {"done": 1, "running": 1, "failed": 1, "interrupted": 1, "not started": 10}
    assert {(row["what"], row["cells"]) for row in told["impossible"]} == {
        ("tiny_llava x linear_probe", 2),
        ("pneumoniamnist x vqa", 2),
    }
    assert {row["kind"] for row in told["missing"]} == {"data", "weights"}
    assert told["downloads"]["gib"] >= 0.6  # CLIP
    # What is done tells what such a cell takes; of the others operations are counted.
    estimate = told["estimate"]
    assert estimate["measured"] + estimate["counted"] + estimate["unknown"] == told["to_do"] == 12
    assert estimate["gpu_hours"] > 0  # CLIP
    assert estimate["cpu_hours"] > 0  # tiny_clip, which is made to run without
    assert set(told["tables"]) == {"model", "finetune", "domain"}
    assert all(sum(row["cells"] for row in rows) == 14 for rows in told["tables"].values())
    keys = {
        "state", "label", "model", "finetune", "domain", "task", "seed", "seconds", "basis", "host", "pid", "beat",
        "text", "folder", "missing", "command",
    }  # fmt: skip
    assert all(set(row) == keys for row in told["cells"])


def test_a_cells_own_command_is_of_the_same_directory(command, grid, tmp_path, monkeypatch):
    words = ["sweep=demo", "domain.patients=20", "trainer.max_epochs=1", "task.resamples=100"]
    row = cells(grid, *words)["tiny_clip-zero_shot-phantom_ultrasound-s0"]
    typed = row["command"].removeprefix("python -m vlmbench.train ").split()
    assert command("train", *typed)[0] == 0
    assert [path.parent for path in tmp_path.rglob(RECORD)] == [Path(row["folder"])]


def test_what_finished_cells_took_tells_what_the_next_ones_take(command, grid, tmp_path):
    words = ["model=tiny_clip", "finetune=linear_probe,lora", "trainer.batch_size=8", "task.resamples=100"]
    output = f"output={tmp_path / 'runs'}"
    assert command("train", "-m", *words, "domain.patients=24", "trainer.max_epochs=2", output)[0] == 0
    longer = [*words, "domain.patients=60", "trainer.max_epochs=4", "seed=1"]
    asked = cells(grid, *longer)
    assert {row["basis"] for row in asked.values()} == {"measured"}
    assert command("train", "-m", *longer, output)[0] == 0
    for row in asked.values():
        took = read_record(Path(row["folder"]))["cost"]["seconds"]["total"]
        assert took / 3 < row["seconds"] < took * 3 + 3, row["label"]
    # Looked at again each is a fact.
    assert {row["basis"] for row in cells(grid, *longer).values()} == {"record"}


def test_more_rows_and_epochs_take_longer_and_a_probe_less(grid):
    few = cells(grid, "model=clip", "finetune=lora,linear_probe,zero_shot", "trainer.max_epochs=2")
    many = cells(grid, "model=clip", "finetune=lora,linear_probe,zero_shot", "domain.patients=3000")
    assert {row["basis"] for row in few.values()} == {"counted"}
    lora, probe, shot = (next(r["seconds"] for r in few.values() if r["finetune"].startswith(m)) for m in _METHODS)
    assert lora > probe >= shot > 0
    longer = next(row["seconds"] for row in many.values() if row["finetune"].startswith("lora"))
    assert longer > 10 * lora
    _, out, _ = grid("plan", "model=clip", "--tflops", "1", "--json")
    slow = json.loads(out)["estimate"]["gpu_hours"]
    _, out, _ = grid("plan", "model=clip", "--device", "h100", "--json")
    assert slow > 3 * json.loads(out)["estimate"]["gpu_hours"] > 0


_METHODS = ("lora", "linear_probe", "zero_shot")


def test_status_tells_every_state(grid, mixed):
    status, out, _ = grid("status", *MIXED)
    assert status == 0
    assert "14 cells, 4 impossible: 1 done, 1 running, 1 failed, 1 interrupted, 10 not started" in out
    assert next(line.split() for line in out.splitlines() if line.startswith("tiny_llava  zero_shot"))[2:] == [
        "running",
        "-",
    ]
    status, out, _ = grid("status", *MIXED, "--cells")
    lines = out.splitlines()[:-1]
    assert len(lines) == 14
    assert sum(line.startswith("not-started") for line in lines) == 10
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert "CUDA out of memory" in failed
    assert str(mixed["failed"]) in failed


def test_watch_shows_who_works_and_what_it_said_last(grid, mixed):
    status, out, _ = grid("watch", *MIXED, "--once")
    assert status == 0
    first, second = out.splitlines()
    assert "1 done, 1 running" in first
    assert mixed["running"].name.rsplit("-", 1)[0] in second
    assert f":{lock(mixed['running'])['pid']} " in second
    assert second.endswith("epoch 3/20  val/auroc [0.8]")


def test_watch_in_a_terminal_ends_with_q(mixed, tmp_path):
    master, slave = pty.openpty()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'vlmbench/plugins'}", "TERM": "xterm", "COLUMNS": "160"}
    words = [*MIXED, f"output={tmp_path / 'runs'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmbench.grid", "watch", *words],
        stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=tmp_path,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + 120
    while b"epoch 3/20" not in seen and time.monotonic() < deadline:
        seen += os.read(master, 65536)
    assert b"q ends" in seen
    os.write(master, b"q")
    drain = threading.Thread(target=_drain, args=(master,), daemon=True)
    drain.start()
    assert process.wait(180) == 0


def _drain(handle: int) -> None:
    try:
        while os.read(handle, 65536):
            pass
    except OSError:  # the other end is closed
        return


def test_clean_tells_first_and_then_removes_what_nobody_needs(grid, mixed, tmp_path):
    runs = tmp_path / "runs"
    (mixed["done"] / ".record.json.abc").write_text("half a record")
    link = mixed["not started"]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    link.symlink_to(outside)
    (mixed["failed"] / "link").symlink_to(outside)
    stranger = runs / "diagnosis" / "mine-s0-0123456789"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("x")
    other = runs / "diagnosis" / "clip-lora-x-s0-abcdef0123"
    leave(other, "interrupted")
    finished = runs / "diagnosis" / "clip-lora-x-s1-abcdef0123"
    leave(finished, "done")

    before = tree(runs)
    status, out, _ = grid("clean", *MIXED)
    assert status == 0
    assert tree(runs) == before
    assert "3 to remove" in out
    assert "interrupted with a checkpoint to go on from" in out
    assert "a symbolic link" in out

    running = tree(mixed["running"])
    status, out, _ = grid("clean", *MIXED, "--yes")
    assert status == 0, out
    assert "3 removed" in out
    assert not mixed["failed"].exists()
    assert not mixed["interrupted"].exists()
    assert sorted(path.name for path in mixed["done"].iterdir()) == ["cell.lock", RECORD]
    assert tree(mixed["running"]) == running
    assert link.is_symlink()
    assert (outside / "precious").read_text() == "x"
    assert other.exists()
    assert not list(runs.rglob(".removed-*"))

    status, out, _ = grid("clean", *MIXED, "--yes", "--others")
    assert status == 0
    assert not other.exists()
    assert (stranger / "notes.txt").exists()
    assert "mine-s0-0123456789: neither cell.lock nor record.json is in it" in out
    assert read_record(finished)["status"] == "done"
    assert tree(mixed["running"]) == running


def test_clean_leaves_what_it_does_not_understand(tmp_path):
    newer = tmp_path / "clip-lora-x-s0-abcdef0123"
    newer.mkdir()
    (newer / RECORD).write_text(json.dumps({"schema": 99, "status": "done"}))
    assert isinstance(clean.inspect(newer), clean.Kept)
    other = tmp_path / "clip-lora-x-s1-abcdef0123"
    leave(other, "failed")
    write_record(other, make_record(failed="x", identity="f" * 64))
    found = clean.inspect(other)
    assert isinstance(found, clean.Kept)
    assert "of another cell" in found.why


def test_clean_removes_nothing_that_was_finished_since_it_looked(tmp_path):
    folder = tmp_path / "clip-lora-x-s0-abcdef0123"
    leave(folder, "interrupted")
    removal = clean.inspect(folder)
    assert isinstance(removal, clean.Removal)
    write_record(folder, make_record(identity="abcdef0123" + "0" * 54))
    assert not clean.remove(removal)
    assert read_record(folder)["status"] == "done"
    with held(folder):
        (folder / RECORD).unlink()
        assert not clean.remove(removal)
        assert folder.exists()


def test_clean_and_a_launcher_at_once_lose_no_result(tmp_path, monkeypatch):
    sizes = clean.size_of

    def slow(path: Path) -> int:
        time.sleep(0.002)  # between the look and the removal the launcher shall come
        return sizes(path)

    monkeypatch.setattr(clean, "size_of", slow)
    names = [f"clip-lora-x-s{seed}-abcdef0123" for seed in range(60)]
    for name in names:
        leave(tmp_path / name, "interrupted")
    # The two meet at every directory, and who comes first there is drawn.
    meeting, launched = threading.Barrier(2, timeout=180), {name: threading.Event() for name in names}

    def launch() -> None:
        try:
            for name in names:
                meeting.wait()
                time.sleep(Random(f"launcher {name}").uniform(0, 0.04))
                _take(tmp_path / name)
                launched[name].set()
        except BaseException:
            meeting.abort()  # nobody shall wait for one that has failed
            raise

    removed = set()
    with ThreadPoolExecutor(1) as pool:
        launcher = pool.submit(launch)
        try:
            for name in names:
                meeting.wait()
                time.sleep(Random(f"clean {name}").uniform(0, 0.02))
                while not launched[name].is_set() and not launcher.done():
                    found = clean.inspect(tmp_path / name)
                    if isinstance(found, clean.Removal) and found.paths == (found.cell,) and clean.remove(found):
                        removed.add(name)
        except threading.BrokenBarrierError:
            pass  # the fault is the launcher's, and is told below
        finally:
            meeting.abort()
        launcher.result()
    assert [read_record(tmp_path / name)["status"] for name in names] == ["done"] * len(names)
    assert not list(tmp_path.glob(".removed-*"))
    assert 0 < len(removed) < len(names)


def _take(folder: Path) -> None:
    """Run a cell as a launcher does that waits while another process holds the directory."""
    while True:
        try:
            with claim(folder):
                time.sleep(0.002)
                write_record(folder, make_record(identity="abcdef0123" + "0" * 54))
            return
        except ClaimedError:
            time.sleep(0.001)


def test_retry_runs_the_failed_cells_alone(grid, tmp_path):
    words = ["model=tiny_clip", "finetune=lora", "seed=0,1,2", *SMALL, "trainer.max_epochs=1"]
    failed, untouched, done = folders(grid, *words).values()
    leave(failed, "failed")
    leave(done, "done")
    before = tree(done)
    status, out, err = grid("retry", *words)
    assert status == 0, err
    assert "1 of 3 cells failed before" in out
    assert read_record(failed)["status"] == "done"
    assert not untouched.exists()
    assert tree(done) == before
    status, out, _ = grid("retry", *words)
    assert status == 0
    assert "nothing to run again" in out


@pytest.mark.parametrize("words", [[], ["--help"], ["plan", "--help"], ["clean", "-h"]])
def test_help_comes_without_torch(words):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'vlmbench/plugins'}"}
    code = (
        "import sys; sys.argv[1:] = sys.argv[2:]; from vlmbench.grid.__main__ import main; assert main() == 0; "
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "x", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "python -m vlmbench.grid" in ran.stdout
    if words[:1] == ["clean"]:
        assert "--yes" in ran.stdout
        assert "--tflops" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plna", "sweep=demo"], "Did you mean 'plan'?"),
        (["plan", "--yes"], "--yes is an option of clean, not of plan"),
        (["plan", "--jsno"], "Did you mean '--json'?"),
        (["plan", "--tflops", "fast"], "invalid float value"),
        (["plan", "--device", "h10"], "Did you mean 'h100'?"),
        (["plan", "--tflops=-3"], "is no speed"),
        (["plan", "--cfg", "job"], "--cfg shows one cell: python -m vlmbench.train --cfg"),
        (["plan", "sweep=demo,hpo"], "sweep=demo,hpo: one at a time"),
        (["plan", "launcher=local,slurm"], "launcher=local,slurm: one at a time"),
        (["plan", "sweep=hpo", "hydra.sweeper.search.n_trials=0"], "n_trials=0 must be"),
        (["watch", "sweep=hpo"], "the cells of a search are not known"),
        (["retry", "sweep=hpo"], "python -m vlmbench.train -m with the same words"),
        (["plan", "modle=clip"], "Did you mean 'model'?"),
        (["plan", "sweep=nothing"], "nothing"),
        (["plan", "model=clip", "finetune.rank=0"], "finetune.rank=0 is out of range"),
    ],
)
def test_what_is_wrong_is_one_line(grid, words, told):
    status, out, err = grid(*words)
    assert status == 2
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1
