"""The demo grid by launcher=local and as a job array on a real SLURM of this machine: the same records, byte for byte?

python scripts/bench/slurm_demo.py --work /tmp/slurm-demo            # the whole grid, about 8 minutes on two cores
python scripts/bench/slurm_demo.py trainer.max_epochs=2 domain.patients=20
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slurm.cluster import ClusterError, running


def sweep(output: Path, launcher: str, words: list[str], environment: dict[str, str]) -> float:
    """Run the grid and return the seconds it took."""
    command = [sys.executable, "-m", "vlmbench.train", "-m", "sweep=demo", f"output={output}", f"launcher={launcher}"]
    start = time.monotonic()
    status = subprocess.run([*command, *words], env=environment, check=False).returncode
    if status not in (0, 1):  # 1: cells that fail, which must do so on both sides alike
        sys.exit(f"slurm_demo: launcher={launcher} ends with exit status {status}, see above")
    return time.monotonic() - start


def left_by(output: Path) -> dict[str, tuple[str, bytes]]:
    """Return of every cell what determines the report: metrics and selection, and the bytes of its predictions."""
    found = {}
    for path in sorted(output.rglob("record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: record[key] for key in ("identity", "status", "metrics", "selection", "n")}
        found[path.parent.name] = (json.dumps(kept, sort_keys=True), (path.parent / "predictions.parquet").read_bytes())
    return found


def main() -> int:
    """Run the command; returns the exit status: 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="directory for both runs; a temporary one unless given")
    parser.add_argument("--cells-per-job", type=int, default=5)
    options, words = parser.parse_known_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="vlmbench-slurm-demo-"))
    # The same threads on both sides: another number adds up floats in another order.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    local = sweep(work / "local", "local", ["hydra.launcher.jobs=2", *words], environment)
    try:
        with running(work / "cluster", cpus=2) as cluster:
            packed = [f"hydra.launcher.cells_per_job={options.cells_per_job}", "hydra.launcher.cpus_per_task=1"]
            environment = {**environment, "SLURM_CONF": str(cluster.conf)}
            slurm = sweep(work / "slurm", "slurm", [*packed, *words], environment)
    except ClusterError as error:
        print(f"slurm_demo: {error}", file=sys.stderr)
        return 2
    one, two = left_by(work / "local"), left_by(work / "slurm")
    differ = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    print(f"{len(one)} cells by local in {local:.0f} s, {len(two)} by slurm in {slurm:.0f} s, {len(differ)} differ")
    for name in differ:
        print(f"  {name}")
    return 1 if differ or not one else 0


if __name__ == "__main__":
    sys.exit(main())
