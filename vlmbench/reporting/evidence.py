"""Paired bootstrap draws of every cell that is compared: each test set is drawn once, by a seed of its own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.comparison import Contrast, contrast
from vlmbench.metrics.draws import Outcomes, draw, outcomes
from vlmbench.reporting.rows import Row
from vlmbench.reporting.sides import Side
from vlmbench.reporting.study import Study

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One cell's metric under the resamples of its test set.

    Attributes:
        test_set: Name of what was resampled: equal for cells whose draws are paired.
        point: The metric.
        draws: (R,) NaN where undefined.
        n_examples: Of the test set.
        n_groups: Of it.
    """

    test_set: str
    point: float
    draws: Floats
    n_examples: int
    n_groups: int


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
        if len({one.test_set for one in (*lefts, *rights)}) > 1:
            return "the two sides were not tested on the same examples of the same patients"
        return contrast(
            _stacked(lefts), _stacked(rights), n_groups=lefts[0].n_groups, seeded=(left.seeded, right.seeded)
        )

    def level(self, side: Side) -> Contrast | str:
        """The metric of one side, as a difference from 0, or the reason why there is none."""
        drawn = self.of(side)
        if isinstance(drawn, str):
            return drawn
        if len({one.test_set for one in drawn}) > 1:
            return "its seeds were not tested on the same examples"
        points, draws = _stacked(drawn)
        nothing = np.zeros(1), np.zeros((1, draws.shape[1]))
        return contrast((points, draws), nothing, n_groups=drawn[0].n_groups, seeded=(side.seeded, False))

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
    sets: dict[tuple[str, str, str], list[tuple[Row, Outcomes]]] = defaultdict(list)
    for row in {row.path: row for row in rows if row.path not in found.drawn}.values():
        frame = study.predictions(row)
        if frame is None:
            found.lacking[row.path] = study.lacking.get(row.path, "no predictions")
            continue
        multi = row.scalar("data", "multi_label") is True
        try:
            reduced = outcomes(frame, row.task, row.primary_metric, multi_label=multi)
        except (ValueError, KeyError) as error:
            found.lacking[row.path] = f"its predictions cannot be scored: {error}"
            continue
        sets[(row.task, row.primary_metric, _test_set(reduced, frame))].append((row, reduced))
    for (_, _, name), members in sets.items():
        points, draws = draw(
            [reduced for _, reduced in members], n_resamples=study.settings.resamples, seed=int(name[:12], 16)
        )
        n_groups = len(np.unique(members[0][1].groups))
        for (row, reduced), point, one in zip(members, points, draws, strict=True):
            found.drawn[row.path] = Drawn(name, float(point), one, len(reduced.example_ids), n_groups)


def _test_set(reduced: Outcomes, frame: pd.DataFrame) -> str:
    """Name a test set by its examples and what is true of them: hexadecimal, so that it gives a seed as well."""
    if reduced.columns is not None:
        truth = reduced.columns.truth.tobytes()
    else:
        ordered = frame.sort_values("example_id", kind="stable")
        truth = "\x1f".join([*ordered["question"], *ordered["answer"]]).encode(errors="replace")
    digest = hashlib.sha256(truth)
    for names in (reduced.example_ids, reduced.groups):
        digest.update(np.ascontiguousarray(names).tobytes())
    return digest.hexdigest()


def _stacked(side: list[Drawn]) -> tuple[Floats, Floats]:
    return np.array([one.point for one in side]), np.stack([one.draws for one in side])
