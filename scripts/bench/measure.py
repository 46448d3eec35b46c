"""What the scripts of this folder share: ours and the baseline in turn, the median ratio, one row of a table."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Row:
    """One row of `docs/benchmarks.md`.

    Attributes:
        number: Of the row; rows of one number stand together.
        ours: What is measured.
        baseline: What it is held against.
        where: The machine's part, sizes.
        equal: What was found equal, with the figure.
        bar: Ratio that is asked for, as text; empty for none.
        ratio: Median of baseline / ours, above 1 where ours is faster; None where not measured.
        spread: Smallest and largest ratio of the repetitions.
        figures: Other figures by name, with units in the name.
        note: What to know of it, such as what limits it, or why it was not measured.
        kind: What `ratio` is: `times`, or a `slope`.
    """

    number: int
    ours: str
    baseline: str
    where: str
    equal: str
    bar: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    figures: dict[str, float | str] = field(default_factory=dict)
    note: str = ""
    kind: str = "times"


@dataclass(frozen=True)
class Timed:
    """Seconds of both sides, repetition by repetition.

    Attributes:
        ours: Of ours.
        baseline: Of the baseline.
    """

    ours: list[float]
    baseline: list[float]

    @property
    def ratios(self) -> list[float]:
        """Baseline / ours of each repetition."""
        return [slow / fast for slow, fast in zip(self.baseline, self.ours, strict=True)]

    def into(self, row: Row) -> Row:
        """Fill in the ratio, its spread and the median seconds, and return the row."""
        row.ratio, row.spread = statistics.median(self.ratios), (min(self.ratios), max(self.ratios))
        row.figures |= {"ours_s": statistics.median(self.ours), "baseline_s": statistics.median(self.baseline)}
        return row


def in_turn(ours: Callable[[], T], baseline: Callable[[], T], repetitions: int, check: Callable[[T, T], None]) -> Timed:
    """Run both sides in turn, each first in every other repetition, and hold the results of each pair together.

    Args:
        ours: Computes.
        baseline: Computes the same.
        repetitions: How often.
        check: Raises where the two results are not the same.
    """
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    for repetition in range(repetitions):
        results: dict[str, T] = {}
        sides = [("ours", ours), ("baseline", baseline)]
        for name, run in sides if repetition % 2 == 0 else reversed(sides):
            start = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - start)
        check(results["ours"], results["baseline"])
        print(
            f"repetition {repetition + 1}/{repetitions}: ours {seconds['ours'][-1]:.2f} s, "
            f"baseline {seconds['baseline'][-1]:.2f} s",
            flush=True,
        )
    return Timed(seconds["ours"], seconds["baseline"])


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every script: `--repetitions` and `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows into this file")
    return parser


def finish(rows: list[Row], path: Path | None) -> None:
    """Print the rows, and write them as JSON where a path is given."""
    for row in rows:
        if row.ratio is None or row.spread is None:
            print(f"row {row.number}: {row.ours}, against {row.baseline}: {row.note or 'not measured'}")
            continue
        low, high = row.spread
        print(
            f"row {row.number}: {row.ours}, against {row.baseline} ({row.where}): "
            f"{row.ratio:.2f} {row.kind} ({low:.2f} to {high:.2f}), bar {row.bar or 'none'}; equal: {row.equal}"
        )
        for name, value in row.figures.items():
            print(f"    {name}: {value:.4g}" if isinstance(value, float) else f"    {name}: {value}")
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
