"""Paired bootstrap draws of every cell that is compared: each test set is drawn once, by a seed of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.comparison import Contrast, contrast
from vlmbench.reporting.lines import Drawn, drawn
from vlmbench.reporting.rows import Row
from vlmbench.reporting.sides import Side
from vlmbench.reporting.study import Study

Floats = NDArray[np.float64]

#: Examples times resamples: 10,000 resamples of 200 cells of 5,000 examples, or of 2,000 cells of 500.
BUDGET = 10_000_000_000
#: A standard error from so many resamples is right within 1.6 % (its own is 1 / sqrt(2 R) of it), and p-values are
#: taken from it, not counted.
ENOUGH = 2000


@dataclass
class Evidence:
    """Draws of cells by the path of their record, and why others have none."""

    drawn: dict[str, Drawn] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)

    def contrast(self, left: Side, right: Side) -> Contrast | str:
        """The difference of two sides before it is tested, or the reason why there is none."""
        lefts, rights = self.of(left), self.of(right)
        if isinstance(lefts, str) or isinstance(rights, str):
            return lefts if isinstance(lefts, str) else str(rights)
        if len({one.examples for one in (*lefts, *rights)}) > 1:
            return "the two sides were not tested on the same examples of the same patients"
        return _contrast(lefts, _stacked(rights), (left.seeded, right.seeded))

    def level(self, side: Side) -> Contrast | str:
        """The metric of one side, as a difference from 0, or the reason why there is none."""
        drawn = self.of(side)
        if isinstance(drawn, str):
            return drawn
        if len({one.examples for one in drawn}) > 1:
            return "its seeds were not tested on the same examples"
        return _contrast(drawn, (np.zeros(1), np.zeros((1, len(drawn[0].draws)))), (side.seeded, False))

    def of(self, side: Side) -> list[Drawn] | str:
        """The draws of a side's seeds, or why one of them has none."""
        for row in side.rows:
            if row.path in self.lacking:
                return f"{row.model}, {side.method.label}, seed {row.seed}: {self.lacking[row.path]}"
        return [self.drawn[row.path] for row in side.rows]


def gather(study: Study, rows: Iterable[Row], found: Evidence) -> None:
    """Draw the primary metric of cells; those on the same examples under the same resamples.

    Args:
        study: Gives the predictions and the number of resamples.
        rows: Done records; those that are drawn already are left out.
        found: What is drawn is added to it.
    """
    wanted = [row for row in rows if row.path not in found.drawn]
    found.drawn |= drawn(study, wanted, resamples(study))
    for row in wanted:
        if row.path not in found.drawn:
            found.lacking[row.path] = study.lacking.get(row.path, "no predictions")


def resamples(study: Study) -> int:
    """Return how many resamples verdicts rest on: those asked for, or fewer where they would take gigabytes."""
    examples = sum(row.number("n", "examples") or 0 for row in study.rows)
    return int(min(study.settings.resamples, max(ENOUGH, BUDGET // max(examples, 1))))


def _contrast(left: list[Drawn], right: tuple[Floats, Floats], seeded: tuple[bool, bool]) -> Contrast:
    one = left[0]
    return contrast(
        _stacked(left), right, n_groups=one.patients, seeded=seeded, test_set=one.examples, freedom=one.freedom
    )


def _stacked(side: list[Drawn]) -> tuple[Floats, Floats]:
    return np.array([one.point for one in side]), np.stack([one.draws for one in side])
