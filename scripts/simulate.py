"""Prove by simulation that verdicts and intervals keep their promises, and write docs/statistics.md.

    python scripts/simulate.py [--grids 1000] [--repetitions 600] [--quick] [--seed 1] [--out docs/statistics.md]

Worlds are drawn in which the truth is known, and go through the functions that the report calls. `--quick` is a tenth
of the size, to see whether something broke.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

# One thread a process: there is a process a core. Before numpy is imported, or it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from simulation.studies import (
    DOMAINS,
    MARGIN,
    NOISE,
    PAIRS,
    SEEDS,
    Scenario,
    covered,
    covered_single,
    grid,
    with_groups,
)

Figures = dict[str, float]
METHOD = Path(__file__).parent / "simulation" / "method.md"

SINGLE = [
    Scenario(metric, level, groups=groups, sizes=sizes)
    for metric, level in (("auroc", 0.9), ("accuracy", 0.9), ("auroc", 0.75))
    for groups in (20, 40, 100)
    for sizes in ("two", "unequal")
] + [Scenario("auroc", 0.9, groups=groups, prevalence=0.12) for groups in (40, 100)]
PAIRED = [
    *(
        Scenario(metric, 0.9, 0.05, groups, "unequal", seeds=seeds, noise=noise, same=same)
        for metric in ("auroc", "accuracy")
        for groups, seeds, noise, same in (
            (20, 1, 0.0, False),
            (20, 3, 0.0, True),
            (20, 3, 0.0, False),
            (20, 3, 0.03, False),
            (60, 1, 0.0, False),
            (60, 2, 0.0, False),
            (60, 2, 0.03, False),
            (60, 3, 0.03, False),
            (60, 5, 0.03, False),
        )
    ),
    Scenario("auroc", 0.85, 0.0, 100, seeds=3, noise=0.03, right_noise=0.0),
    Scenario("auroc", 0.85, 0.05, 60, prevalence=0.12, seeds=3, noise=0.02),
    # The study's question: a tuned side against an untuned one.
    *(
        Scenario("auroc", 0.85, 0.0, 200, seeds=seeds, noise=0.05, right_noise=0.0, right_seeds=1)
        for seeds in (2, 3, 5)
    ),
]
POWER = [
    Scenario("auroc", 0.8, groups=100),
    Scenario("accuracy", 0.85, groups=100),
    Scenario("auroc", 0.8, groups=100, seeds=3, noise=0.02),
    Scenario("auroc", 0.8, groups=40, seeds=5, noise=0.02),
]
EQUAL = [
    Scenario("auroc", 0.85, MARGIN, groups, seeds=seeds, noise=noise)
    for groups, seeds, noise in ((100, 1, 0.0), (600, 1, 0.0), (600, 3, 0.01), (1500, 3, 0.005))
] + [Scenario("accuracy", 0.85, MARGIN, 1500)]


class Runner:
    """Repeats studies in all processes, and says how far it is.

    Args:
        seed: Of the first repetition of the first study; every repetition has its own.
        resamples: Of each bootstrap.
        total: Repetitions in all, for the time left.
    """

    def __init__(self, seed: int, resamples: int, total: int) -> None:
        self._seeds = np.random.SeedSequence(seed)
        self._resamples, self._total, self._done = resamples, total, 0
        self._started = self._told = time.monotonic()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = get_context("spawn").Pool(cores)

    def repeat(self, study: Callable[[int, int], Figures], times: int) -> dict[str, np.ndarray]:
        """Return each figure of a study's repetitions; those that have none are left out of it."""
        seeds = [int(child.generate_state(2, np.uint64)[0] >> 1) for child in self._seeds.spawn(times)]
        call = partial(_call, study, self._resamples)
        out: dict[str, list[float]] = {}
        for figures in self._pool.imap_unordered(call, seeds, chunksize=10):
            for name, value in figures.items():
                out.setdefault(name, []).append(value)
            self._done += 1
            self._tell()
        return {name: np.array(values) for name, values in out.items()}

    def close(self) -> None:
        """End the processes."""
        self._pool.close()
        self._pool.join()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told > 5:
            self._told = now
            left = (now - self._started) / self._done * max(0, self._total - self._done)
            print(f"{self._done}/{self._total} repetitions, {left:.0f} s left", file=sys.stderr, flush=True)


def _call(study: Callable[[int, int], Figures], resamples: int, seed: int) -> Figures:
    return study(seed, resamples)


def percent(hits: np.ndarray) -> str:
    """Return a share in percent with its Monte Carlo standard error."""
    share = float(hits.mean())
    return f"{100 * share:.1f} ± {100 * math.sqrt(max(share * (1 - share), 1e-9) / len(hits)):.1f}"


def table(head: Sequence[str], rows: Iterator[str]) -> list[str]:
    """Return the lines of a table, printing each as it comes."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines), flush=True)
    for row in rows:
        lines.append(f"| {row} |")
        print(lines[-1], flush=True)
    return lines


def grids_rows(runner: Runner, times: int) -> Iterator[str]:
    """No difference anywhere; then a planted one."""
    for planted in (0.0, 0.05):
        got = runner.repeat(partial(grid, planted), times if not planted else max(1, times // 10))
        shown = percent(got["any"]) if not planted else "(true ones)"
        yield (
            f"{planted:g} | {len(got['any'])} | {got['tests'][0]:.0f} | {shown} | {percent(got['any uncorrected'])} | "
            f"{100 * got['share uncorrected'].mean():.2f} | {percent(got['overall found'])}"
        )


def coverage_rows(runner: Runner, times: int, scenarios: Sequence[Scenario], *, single: bool) -> Iterator[str]:
    """Where the truth lies, scenario by scenario."""
    for scenario in scenarios:
        got = runner.repeat(partial(covered_single if single else covered, scenario), times)
        hits = got["covered"]
        beside = f" | {percent(got['percentile'])}" if single else ""
        untested = f" ({len(got['untested'])} without interval)" if "untested" in got else ""
        yield (
            f"{scenario.told()} | {percent(hits)}{untested} | {100 * got['below'].mean():.1f} | "
            f"{100 * got['above'].mean():.1f} | {np.median(got['width']):.3f}{beside}"
        )


def power_rows(runner: Runner, times: int) -> Iterator[str]:
    """Plant what is called detectable and look for it; then the margin, with the patients it is said to need."""
    for scenario in POWER:
        pilot = runner.repeat(partial(covered, scenario), times // 3)
        gap = float(np.mean(pilot["detectable"]))
        # Once more where it is planted: a weaker side is noisier.
        there = runner.repeat(partial(covered, with_groups(scenario, scenario.groups, gap)), times // 3)
        gap = float(np.mean(there["detectable"]))
        got = runner.repeat(partial(covered, with_groups(scenario, scenario.groups, gap)), times)
        yield f"{scenario.told()} | {gap:.3f} | {scenario.groups} | {percent(got['found'])}"
        needed = float(np.median(pilot["needed"]))
        if needed < 3000:
            got = runner.repeat(partial(covered, with_groups(scenario, needed, MARGIN)), times // 3)
            yield f"{scenario.told()} | {MARGIN:g} | {needed:.0f} | {percent(got['found'])}"


def equivalence_rows(runner: Runner, times: int) -> Iterator[str]:
    """A true difference as large as the margin, and none."""
    for scenario in EQUAL:
        at_margin = runner.repeat(partial(covered, scenario), times)
        none = runner.repeat(partial(covered, with_groups(scenario, scenario.groups, 0.0)), times // 3)
        yield f"{scenario.told()} | {percent(at_margin['equivalent'])} | {percent(none['equivalent'])}"


def main() -> None:
    """Run everything, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=600)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/statistics.md"))
    asked = parser.parse_args()
    grids, times = (asked.grids // 10, asked.repetitions // 10) if asked.quick else (asked.grids, asked.repetitions)
    total = grids * 11 // 10 + times * (len(SINGLE) + len(PAIRED) + 2 * len(POWER) + 4 * len(EQUAL) // 3)
    runner = Runner(asked.seed, asked.resamples, total)
    start = time.monotonic()
    sides = ("metric", "level", "gap", "patients", "examples each", "prevalence", "seeds", "sd over seeds")
    lines = ["## What the simulation shows", ""]
    told = f"--grids {grids} --repetitions {times} --resamples {asked.resamples} --seed {asked.seed}"
    lines += [f"`python scripts/simulate.py {told}`. Shares in percent, ± one standard error of the simulation.", ""]
    patients = ", ".join(map(str, DOMAINS))
    parts = {
        f"False verdicts in whole grids: {PAIRS} pairs, {len(DOMAINS)} domains of {patients} patients, three "
        f"questions, {SEEDS} seeds of tuned cells (sd {NOISE:g}), two examples a patient, AUROC 0.8": (
            ("planted", "grids", "tests a grid", "any better or worse", "without correction", "tests below 0.05",
             "tuned generalist better over all"),
            grids_rows(runner, grids),
        ),
        "Intervals of metrics, nominal 95": (
            (*sides, "covered", "truth below", "truth above", "median width", "percentiles would cover"),
            coverage_rows(runner, times, SINGLE, single=True),
        ),
        "Intervals of differences, nominal 95": (
            (*sides, "covered", "truth below", "truth above", "median width"),
            coverage_rows(runner, times, PAIRED, single=False),
        ),
        "Power, promised 80": ((*sides, "planted", "patients", "found"), power_rows(runner, times)),
        f"Equivalence within {MARGIN:g}": (
            (*sides, "equivalent at the margin", "equivalent at no difference"),
            equivalence_rows(runner, times),
        ),
    }  # fmt: skip
    for title, (head, rows) in parts.items():
        print(f"\n{title}")
        lines += [f"### {title}", "", *table(head, rows), ""]
        # After each: what is measured is not lost with what comes later.
        took = f"{time.monotonic() - start:.0f} s on {os.cpu_count()} cores."
        asked.out.write_text("\n".join([METHOD.read_text(encoding="utf-8"), *lines, took]) + "\n", encoding="utf-8")
    runner.close()
    print(f"{asked.out}: written after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
