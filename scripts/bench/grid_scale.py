"""How long large grids take to plan.

python scripts/bench/grid_scale.py [--cells 144 10000] [--done 0.5]

Makes a sweep of about so many cells over the phantom domains and the shipped models, leaves synthetic records of a
share of them on disk, and times `grid plan` and `grid status` as the shell sees them, apart from what composing takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from synthetic_records import make_record

POINTS = ["model=tiny_clip,tiny_medclip", "domain=phantom_radiograph,phantom_fundus,phantom_oct"]
METHODS = "finetune=zero_shot,linear_probe,lora"
EACH = 18


def sweep(cells: int) -> list[str]:
    """Return the words of a sweep of at least so many cells."""
    seeds = -(-cells // EACH)
    return [*POINTS, METHODS, f"seed={','.join(map(str, range(seeds)))}"]


def timed(*words: str) -> tuple[float, float, str]:
    """Run the command; returns seconds of wall time, seconds of its processor time, and what it printed."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-m", "vlmbench.grid", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used, ran.stdout


def finish(cells: list[dict], share: float) -> int:
    """Leave the records of a share of the cells; returns how many."""
    done = cells[: round(share * len(cells))]
    for row in done:
        folder = Path(row["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        method, _, scope = row["finetune"].partition("-")
        record = make_record(row["model"], row["domain"], finetune=method, scope=scope, seed=row["seed"])
        record["identity"] = folder.name[-10:] + "0" * 54
        (folder / "record.json").write_text(json.dumps(record, indent=1))
    return len(done)


def main() -> None:
    """Print one line for each command and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[144, 10_000])
    parser.add_argument("--done", type=float, default=0.5, help="share of the cells that have a record")
    asked = parser.parse_args()
    for cells in asked.cells:
        with tempfile.TemporaryDirectory(prefix="vlmbench-grid-") as folder:
            words = [*sweep(cells), f"output={folder}"]
            *_, listed = timed("plan", *words, "--json", "--cells")
            made = json.loads(listed)["cells"]
            done = finish(made, asked.done)
            for command in (["plan"], ["plan", "--cells"], ["status"]):
                wall, used, out = timed(*command, *words)
                assert command != ["plan"] or f"{done:,} done" in out, out
                name = " ".join(command)
                print(f"{len(made):,} cells, {done:,} done: {name:<12} {wall:.1f} s, {used:.1f} s of processor time")


if __name__ == "__main__":
    main()
