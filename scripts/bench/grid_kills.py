"""A grid of tiny cells under SIGKILL at random moments, and under two launchers at once: nothing twice, nothing lost.

python scripts/bench/grid_kills.py              # 20 kills; then two launchers at once, one of which is killed at last
python scripts/bench/grid_kills.py --kills 5 --seed 1

Each kill hits the launcher's whole process group, the launcher alone, or one cell. A thread reads every record all the
time. At the end every cell must have been done exactly once, no part of a record ever seen, and predictions and table
must equal those of an undisturbed run byte for byte; only columns that tell of time, memory and git are left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmbench.records.state import state_of
from vlmbench.reporting.html import write_report

GRID = ("model=tiny_clip,tiny_medclip", "finetune=zero_shot,linear_probe,lora")
SMALL = (
    "domain.patients=20",
    "trainer.max_epochs=2",
    "trainer.batch_size=8",
    "task.resamples=100",
    "hydra.launcher.jobs=2",
)
CELLS = 6
KINDS = ("group", "launcher", "cell")  # what is killed
# Differ between any two runs of the same cell.
_PASSING = re.compile(r"seconds_|peak_memory_|.*_per_second|started|finished|git_|record$")


class Reader(threading.Thread):
    """Reads every record below a directory again and again.

    Attributes:
        done: The finished records that were seen of each cell, by inode and time.
        faults: What could not be read.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(daemon=True)
        self.output, self.over = output, threading.Event()
        self.done: dict[Path, set[tuple[str, str]]] = {}
        self.faults: list[str] = []
        self.reads = 0

    def run(self) -> None:
        """Read until `over` is set, and once more."""
        while True:
            last = self.over.wait(0.02)
            for path in self.output.glob("*/*/record.json"):
                self._read(path)
            if last:
                return

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.reads += 1
        try:
            record = json.loads(text)
            if record["status"] == "done":
                record["metrics"][record["primary_metric"]]["value"]
                (path.parent / "predictions.parquet").stat()
                self.done.setdefault(path.parent, set()).add((record["started"], record["finished"]))
        except (ValueError, KeyError, OSError) as error:
            self.faults.append(f"{path}: {error!r}")


def launch(output: Path, log: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a launcher in a process group of its own."""
    asked = [sys.executable, "-m", "vlmbench.train", "-m", *GRID, *SMALL, f"output={output}", *more]
    with log.open("ab") as stream:
        return subprocess.Popen(asked, stdout=stream, stderr=stream, start_new_session=True)


def kill(launcher: subprocess.Popen[bytes], kind: str, output: Path, rng: random.Random) -> str:
    """Kill what is asked for, a cell as soon as one runs; returns what was hit."""
    while kind == "cell" and launcher.poll() is None:
        found = sorted(path.parent for path in output.glob("*/*/cell.lock"))
        running = [state.pid for state in map(state_of, found) if state.status == "running"]
        if running:
            os.kill(rng.choice(running), signal.SIGKILL)
            return kind
        time.sleep(0.1)
    if launcher.poll() is not None:
        return "nothing"
    if kind == "launcher":
        launcher.kill()
        return kind
    os.killpg(launcher.pid, signal.SIGKILL)
    return "group"


def results(output: Path) -> tuple[dict[str, bytes], bytes]:
    """Return the predictions of each cell, and the table of the report without what tells of time and memory."""
    predictions = {path.parent.name: path.read_bytes() for path in sorted(output.glob("*/*/predictions.parquet"))}
    with tempfile.TemporaryDirectory() as folder:
        table = write_report(output, Path(folder)).csv.read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    kept = [name for name in rows[0] if not _PASSING.match(name)]
    written = io.StringIO()
    writer = csv.DictWriter(written, kept, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return predictions, written.getvalue().encode()


def check(reader: Reader, output: Path, undisturbed: tuple[dict[str, bytes], bytes]) -> None:
    """Check a finished grid.

    Raises:
        AssertionError: A cell is missing, was done twice, differs, or a part of a record was seen.
    """
    reader.over.set()
    reader.join()
    assert not reader.faults, reader.faults
    assert len(reader.done) == CELLS, sorted(reader.done)
    assert {len(seen) for seen in reader.done.values()} == {1}, reader.done
    predictions, table = results(output)
    assert len(predictions) == CELLS
    assert predictions == undisturbed[0], "predictions differ"
    pairs = zip(table.splitlines(), undisturbed[1].splitlines(), strict=False)
    assert table == undisturbed[1], next(pair for pair in pairs if pair[0] != pair[1])


def reference(folder: Path) -> tuple[tuple[dict[str, bytes], bytes], float]:
    """Run the grid undisturbed; returns its results and its seconds."""
    start = time.monotonic()
    output = folder / "undisturbed"
    assert launch(output, folder / "undisturbed.txt").wait() == 0, (folder / "undisturbed.txt").read_text()
    return results(output), time.monotonic() - start


def kills(folder: Path, count: int, seed: int, undisturbed: tuple[dict[str, bytes], bytes], span: float) -> list[str]:
    """Kill `count` times at random moments of `span` seconds, in as many grids as that takes, and check each.

    Returns:
        What each kill hit.
    """
    rng, hit, grids = random.Random(seed), list[str](), 0
    while len(hit) < count:
        grids += 1
        output, log = folder / f"grid{grids}", folder / f"grid{grids}.txt"
        output.mkdir()
        reader = Reader(output)
        reader.start()
        while True:
            launcher = launch(output, log)
            if len(hit) == count:
                assert launcher.wait() == 0, log.read_text()
                break
            moment, kind = rng.uniform(0, span), rng.choice(KINDS)
            try:
                status = launcher.wait(moment)
            except subprocess.TimeoutExpired:
                killed = kill(launcher, kind, output, rng)
                status = launcher.wait()  # with one cell dead it goes on to the end
                if killed != "nothing":
                    hit.append(killed)
                    print(f"kill {len(hit)}: {killed} after {moment:.1f} s of grid {grids}", flush=True)
                    continue
            assert status == 0, log.read_text()
            break
        check(reader, output, undisturbed)
        print(f"grid {grids}: each of {CELLS} cells done once, {reader.reads} reads, all equal", flush=True)
    return hit


def computed(log: Path) -> list[str]:
    """Return the cells that a launcher says it has computed itself."""
    lines = re.findall(r"^\[\d+/\d+\] (\S+)  done .*\((.*)\)$", log.read_text(), re.MULTILINE)
    return [label for label, took in lines if "done before" not in took]


def two(folder: Path, undisturbed: tuple[dict[str, bytes], bytes], *, kill_after: float | None = None) -> list[Any]:
    """Run two launchers on one directory, and kill one after a while where asked; returns what each computed."""
    name = "both" if kill_after is None else "one-killed"
    output, logs = folder / name, [folder / f"{name}-{number}.txt" for number in (1, 2)]
    output.mkdir()
    reader = Reader(output)
    reader.start()
    launchers = [launch(output, log) for log in logs]
    if kill_after is not None:
        end = time.monotonic() + kill_after
        # Where the machine was slower when the time was measured, both would be through by then.
        while time.monotonic() < end and len(list(output.glob("*/*/record.json"))) < CELLS // 2:
            time.sleep(0.05)
        os.killpg(launchers[0].pid, signal.SIGKILL)
    statuses = [launcher.wait() for launcher in launchers]
    assert statuses == [0 if kill_after is None else -signal.SIGKILL, 0], [log.read_text() for log in logs]
    check(reader, output, undisturbed)
    did = [computed(log) for log in logs]
    assert len(set(did[0] + did[1])) == len(did[0]) + len(did[1]), did
    assert kill_after is not None or len(did[0]) + len(did[1]) == CELLS, did
    return did


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vlmbench-kills-") as name:
        folder = Path(name)
        undisturbed, span = reference(folder)
        print(f"undisturbed: {CELLS} cells in {span:.0f} s", flush=True)
        hit = kills(folder, asked.kills, asked.seed, undisturbed, span)
        print(f"{len(hit)} kills: " + ", ".join(f"{hit.count(kind)} {kind}" for kind in KINDS))
        did = two(folder, undisturbed)
        print(f"two launchers: {len(did[0])} and {len(did[1])} cells, none twice")
        did = two(folder, undisturbed, kill_after=0.6 * span)
        print(f"two launchers, one killed: {len(did[0])} and {len(did[1])} cells said, none twice, none missed")


if __name__ == "__main__":
    main()
