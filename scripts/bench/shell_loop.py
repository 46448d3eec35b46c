"""Row 5: the demo grid by its launcher against a shell loop of one `python -m vlmbench.train` a cell.

    python scripts/bench/shell_loop.py                                              # small: some minutes on two cores
    python scripts/bench/shell_loop.py domain.patients=300 trainer.max_epochs=10    # what `make demo` computes
    python scripts/bench/shell_loop.py --threads 1                                  # equal to the last bit

The loop runs one cell after the other, each on all cores; the launcher decides for itself how many run at a time. Each
side begins with an empty cache. Both must leave the same records: identities, counts, labels, answers and what was
chosen are equal, scores and metrics within 0.01, because another number of threads adds up floats in another order.
With `--threads` both take as many, and nothing may differ.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from measure import Row, arguments_of, finish, in_turn

from vlmbench.config.entry import compose
from vlmbench.grid.cells import grid_of
from vlmbench.grid.slots import cores, make_slots, threads_of

SMALL = ("domain.patients=40", "trainer.max_epochs=2")
SWEEP, EPOCHS = "sweep=demo", "trainer.max_epochs=10"  # what the sweep sets beside its product
TOLERANCE = 0.01
COMPARED = ("identity", "status", "n", "metrics", "selection")  # the rest is of time and place
Records = dict[str, tuple[dict[str, Any], pd.DataFrame]]


def grid_cells(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of every possible cell of the demo grid."""
    found: list[tuple[str, ...]] = []
    sys.argv = ["vlmbench.train", "-m", SWEEP, *words]
    compose("train", "", sweep=lambda sweep: found.extend(cell.overrides for cell in grid_of(sweep).cells))
    return found


def command(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `python -m vlmbench.train`.

    Raises:
        SystemExit: It fails; its last words are shown.
    """
    line = [sys.executable, "-m", "vlmbench.train", *words]
    done = subprocess.run(line, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: exit status {done.returncode}\n{done.stderr[-2000:]}")


def records(output: Path) -> Records:
    """Return what each cell left, by the name of its directory, which ends in its identity."""
    found = {}
    for path in sorted(output.rglob("record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: record[key] for key in COMPARED}
        if kept["selection"]:  # another rounding may cost the solver a step more
            kept["selection"] = {key: value for key, value in kept["selection"].items() if key != "iterations"}
        found[path.parent.name] = (kept, pd.read_parquet(path.parent / "predictions.parquet"))
    return found


def distance(one: Any, other: Any, where: str) -> float:
    """Return the largest difference of two numbers at the same place of two nested values.

    Raises:
        SystemExit: They differ in anything but numbers.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((distance(one[key], other[key], f"{where}.{key}") for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((distance(a, b, where) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if one == other or (math.isnan(one) and math.isnan(other)) else abs(one - other)
    if one != other:
        raise SystemExit(f"{where}: {one!r} is not {other!r}")
    return 0.0


def compared(ours: Records, loop: Records) -> float:
    """Return the largest difference of any score or metric.

    Raises:
        SystemExit: Something else differs.
    """
    if not ours or ours.keys() != loop.keys():
        raise SystemExit(f"{len(ours)} cells and {len(loop)}: {sorted(ours.keys() ^ loop.keys())}")
    found = 0.0
    for name, (record, frame) in ours.items():
        other, other_frame = loop[name]
        found = max(found, distance(record, other, name))
        if list(frame) != list(other_frame) or len(frame) != len(other_frame):
            raise SystemExit(f"{name}: predictions of another form")
        rows = (frame[column].tolist() for column in frame)
        other_rows = (other_frame[column].tolist() for column in frame)
        for column, one, two in zip(frame, rows, other_rows, strict=True):
            found = max(found, distance(plain(one), plain(two), f"{name}: {column}"))
    return found


def plain(value: Any) -> Any:
    """Return arrays within a list as lists."""
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value.tolist() if hasattr(value, "tolist") else value


def main() -> None:
    """Run both, compare, print."""
    parser = arguments_of(__doc__)
    parser.set_defaults(repetitions=1)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of both sides")
    asked, given = parser.parse_known_args()
    words = given or list(SMALL)
    cells = grid_cells(words)
    with tempfile.TemporaryDirectory(prefix="vlmbench-shell-") as name:
        work = Path(name)
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        if asked.threads:
            environment["OMP_NUM_THREADS"] = str(asked.threads)

        def side(which: str) -> tuple[str, dict[str, str]]:
            shutil.rmtree(work / which, ignore_errors=True)
            return f"output={work / which / 'runs'}", {**environment, "VLMBENCH_CACHE": str(work / which / "cache")}

        def launched() -> Records:
            output, cold = side("launched")
            command(["-m", SWEEP, *words, output], cold)
            return records(work / "launched" / "runs")

        def looped() -> Records:
            output, cold = side("looped")
            for cell in cells:
                command([EPOCHS, *(word for word in cell if word != SWEEP), output], cold)
            return records(work / "looped" / "runs")

        differences: list[float] = []

        def check(ours: Records, loop: Records) -> None:
            differences.append(compared(ours, loop))
            if differences[-1] > (0.0 if asked.threads else TOLERANCE):
                raise SystemExit(f"scores or metrics differ by {differences[-1]:g}")

        timed = in_turn(launched, looped, asked.repetitions, check)
    jobs = make_slots(None, None, 1, cores_of_cell=1).jobs
    row = Row(
        5,
        f"the demo grid by its launcher, {jobs} at a time with {threads_of(jobs, environment)} threads each",
        "a shell loop of one process a cell, each on all cores",
        f"{cores()} cores, {len(cells)} cells, {' '.join(words)}",
        f"records of {len(cells)} cells; scores and metrics differ by {max(differences):.1g} at most",
        bar="3x",
    )
    finish([timed.into(row)], asked.json)


if __name__ == "__main__":
    main()
