"""Run every comparison of this folder on this machine and write docs/benchmarks.md: what `make bench` does.

    python scripts/bench/benchmarks.py [--rows 1 2 4] [--repetitions 3] [--out docs/benchmarks.md]

The scripts run one after the other, each in a process of its own. One that fails leaves the others running, stands in
the table as failed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Script of each row.
SCRIPTS: dict[int, str] = {
    1: "probe_study.py",
    2: "probe_search.py",
    3: "trainer_hf.py",
    4: "generation.py",
    5: "shell_loop.py",
    6: "plain_loop.py",
    7: "vision_cache.py",
    8: "machine_gpu.py",
    9: "growth.py",
    10: "resampling.py",
}
LIBRARIES = ("torch", "lightning", "transformers", "open_clip_torch", "peft", "scikit-learn", "numpy")
HEAD = """# Benchmarks

What vlmbench takes beside what people use instead, for equal results: each script runs both sides in turn, several
times, and stops before it prints where they did not compute the same. The ratio is the baseline's time divided by ours,
the median of the repetitions with the smallest and the largest beside it; growth has slopes in its place. `make bench`
writes this page anew.
"""


def run(number: int, repetitions: int | None, folder: Path) -> dict[str, Any]:
    """Run the script of a row and return its rows, the seconds that it took and, where it failed, its last words."""
    path = folder / f"{number}.json"
    words = ["--repetitions", str(repetitions)] if repetitions else []
    command = [sys.executable, str(HERE / SCRIPTS[number]), *words, "--json", str(path)]
    start = time.monotonic()
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    rows = json.loads(path.read_text(encoding="utf-8")) if done.returncode == 0 and path.exists() else []
    failed = "" if rows else (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    told = " ".join(["python", f"scripts/bench/{SCRIPTS[number]}", *words])
    return {"number": number, "rows": rows, "command": told, "seconds": time.monotonic() - start, "failed": failed}


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of what `run` returned for each row."""
    lines = [
        HEAD,
        machine(),
        "",
        "| # | ours | against | where | equal | ratio | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        if result["failed"]:
            lines.append(f"| {result['number']} | `{SCRIPTS[result['number']]}` | | | | failed | |")
        for row in result["rows"]:
            cells = (row["number"], row["ours"], row["baseline"], row["where"], row["equal"], ratio(row), row["bar"])
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    for result in results:
        lines += ["", f"## Row {result['number']}", "", f"`{result['command']}` ({result['seconds']:.0f} s)"]
        if result["failed"]:
            lines += ["", f"Failed: {result['failed']}"]
        for row in result["rows"]:
            lines += ["", f"**{row['ours']}, against {row['baseline']}**"]
            lines += ["", *(f"- {name}: {figure(value)}" for name, value in row["figures"].items())]
            lines += ["", row["note"]] if row["note"] else []
    return "\n".join(lines) + "\n"


def ratio(row: Mapping[str, Any]) -> str:
    """Return a row's ratio with its spread, or that there is none."""
    if row["ratio"] is None:
        return "not measured"
    low, high = row["spread"]
    return f"{row['ratio']:.2f}{' slope' * (row['kind'] == 'slope')} ({low:.2f} to {high:.2f})"


def figure(value: Any) -> str:
    """Return a figure with four digits, text as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine() -> str:
    """Return what the figures were made on: processor, memory, devices, versions, date."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"Measured on {today}: {cores} cores ({processor()}), {memory:.0f} GiB of memory, {device}; "
        f"Python {platform.python_version()}, {versions}."
    )


def processor() -> str:
    """Return the processor's name, its architecture where the system does not say it."""
    about = Path("/proc/cpuinfo")
    names = [line for line in about.read_text().splitlines() if line.startswith("model name")] if about.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> int:
    """Run the rows that are asked for and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--repetitions", type=int, help="of each script; left out, what each script takes by itself")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
    asked = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="vlmbench-bench-") as folder:
        for number in asked.rows:
            print(f"row {number}: {SCRIPTS[number]}", file=sys.stderr, flush=True)
            results.append(run(number, asked.repetitions, Path(folder)))
            # After each: what is measured is not lost with what comes later.
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(page(sorted(results, key=lambda row: row["number"])), encoding="utf-8")
    print(f"{asked.out}: {len(results)} rows")
    failed = [SCRIPTS[result["number"]] for result in results if result["failed"]]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
