"""The local launcher's own time: what it adds to the cells of the demo grid, and a finished grid of 144 launched again.

python scripts/bench/grid_overhead.py                                           # the demo grid as it is
python scripts/bench/grid_overhead.py domain.patients=20 trainer.max_epochs=2   # a small one

One cell at a time, so that what is not spent in a cell's process is the launcher's: naming, forking, waiting. Beside it
the same cells one after the other in one process, without a launcher. Both import torch once, which is told apart.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmbench.cell.naming import Namer
from vlmbench.cell.prepared import prepare
from vlmbench.cell.recorded import facts_of
from vlmbench.cell.run import run_prepared
from vlmbench.config import schema
from vlmbench.config.entry import compose
from vlmbench.grid.cells import grid_of
from vlmbench.grid.local import run_cells
from vlmbench.records.store import read_record, write_record

FINISHED = (
    "-m",
    "model=tiny_clip,tiny_medclip",
    "domain=phantom_radiograph,phantom_fundus,phantom_dermoscopy,phantom_histology,phantom_ultrasound,phantom_oct",
    "finetune=lora",
    "seed=0,1,2,3,4,5,6,7,8,9,10,11",
)


def cells_of(*overrides: str) -> list[schema.CellConfig]:
    """Return the possible cells of a multirun."""
    found: list[schema.CellConfig] = []
    sys.argv = ["vlmbench.train", *overrides]
    compose("train", "", sweep=lambda sweep: found.extend(cell.config for cell in grid_of(sweep).cells))
    return found


def predictions(output: Path) -> dict[str, bytes]:
    """Return the predictions of each cell."""
    return {path.parent.name: path.read_bytes() for path in output.glob("*/*/predictions.parquet")}


def import_seconds() -> float:
    """Start the fork server that the launcher uses, and return how long its imports take."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmbench.grid.preload"])
    start = time.monotonic()
    process = context.Process(target=int)
    process.start()
    process.join()
    return time.monotonic() - start


def launched(cells: Sequence[schema.CellConfig]) -> tuple[float, float]:
    """Run cells by the launcher, one at a time; returns its wall time and that of the cells' processes."""
    start = time.monotonic()
    outcomes = run_cells(cells, jobs=1)
    wall = time.monotonic() - start
    assert all(outcome.status == "done" and not outcome.skipped for outcome in outcomes), outcomes
    return wall, sum(outcome.seconds for outcome in outcomes)


def in_sequence(overrides: Sequence[str]) -> float:
    """Run cells one after the other in one new process; returns its wall time, from before torch is imported."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from bench.grid_overhead import plain; plain(sys.argv[2:])"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parents[1]), *overrides], check=True)
    return time.monotonic() - start


def plain(overrides: Sequence[str]) -> None:
    """Run cells in this process.

    Raises:
        AssertionError: One is not done.
    """
    for cell in cells_of(*overrides):
        assert run_prepared(prepare(cell))["status"] == "done"


def finish(cells: Sequence[schema.CellConfig], record: dict[str, Any]) -> None:
    """Give each cell the record of a finished one, as if it had been computed."""
    namer = Namer()
    for cell in cells:
        said = facts_of(cell.model, cell.domain) | {"primary_metric": cell.task.primary_metric}
        write_record(namer.name(cell).folder, {**record, **said, "config": dataclasses.asdict(cell)})


def main() -> None:
    """Run the command."""
    asked = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="vlmbench-overhead-") as name:
        folder = Path(name)
        demo = ["-m", "sweep=demo", *asked]
        cells = cells_of(*demo, f"output={folder / 'launched'}")
        imports = import_seconds()
        wall, inside = launched(cells)
        print(f"{len(cells)} cells: {wall:.1f} s, of which {inside:.1f} s in their processes; imports {imports:.1f} s")
        print(f"the launcher's own time: {wall - inside:.1f} s, {(wall - inside) / wall:.1%} of the whole")
        alone = in_sequence([*demo, f"output={folder / 'plain'}"])
        print(
            f"the same cells in one process: {alone:.1f} s; with the launcher {(wall + imports) / alone:.2f} times that"
        )
        assert predictions(folder / "launched") == predictions(folder / "plain"), "predictions differ"
        print(f"predictions of {len(predictions(folder / 'plain'))} cells: equal byte for byte")

        again = [*FINISHED, f"output={folder / 'finished'}"]
        record = read_record(next((folder / "plain" / "diagnosis").glob("*/record.json")).parent)
        finished = cells_of(*again)
        finish(finished, record)
        start, worked = time.monotonic(), time.process_time()
        assert all(outcome.skipped for outcome in run_cells(finished))
        took, worked = time.monotonic() - start, time.process_time() - worked
        print(f"144 finished cells, composed before: {took:.1f} s, {worked:.1f} s of processor time")
        start = time.monotonic()
        told = subprocess.run(
            [sys.executable, "-m", "vlmbench.train", *again], check=True, capture_output=True, text=True
        ).stdout
        print(f"the command again, from its start: {time.monotonic() - start:.1f} s: {told.splitlines()[0]}")
        assert "144 of 144 cells done." in told, told


if __name__ == "__main__":
    main()
