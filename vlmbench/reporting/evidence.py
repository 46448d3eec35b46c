"""Paired bootstrap draws of every cell that is compared: each test set is drawn once, by a seed of its own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.comparison import Contrast, contrast
from vlmbench.metrics.draws import Outcomes, draw, outcomes
from vlmbench.reporting.questions import Match
from vlmbench.reporting.rows import Row
from vlmbench.reporting.sides import Side
from vlmbench.reporting.study import Study

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

    def contrast(self, match: Match) -> Contrast | str:
        """The difference of a match before it is tested, or the reason why there is none."""
        sides = [self._of(side) for side in (match.left, match.right)]
        for side in sides:
            if isinstance(side, str):
                return side
        left, right = (side for side in sides if not isinstance(side, str))
        sets = {one.test_set for one in (*left, *right)}
        if len(sets) > 1:
            return "the two sides were not tested on the same examples of the same patients"
        return contrast(
            _stacked(left),
            _stacked(right),
            n_groups=left[0].n_groups,
            seeded=(match.left.seeded, match.right.seeded),
        )

    def _of(self, side: Side) -> list[Drawn] | str:
        for row in side.rows:
            if row.path in self.lacking:
                return f"{row.model}, {side.method.label}, seed {row.seed}: {self.lacking[row.path]}"
        return [self.drawn[row.path] for row in side.rows]


def gather(study: Study, rows: Iterable[Row]) -> Evidence:
    """Draw the primary metric of cells; those on the same examples under the same resamples."""
    found = Evidence()
    sets: dict[tuple[str, str, str], list[tuple[Row, Outcomes]]] = defaultdict(list)
    for row in {row.path: row for row in rows}.values():
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
        sets[(row.task, row.primary_metric, _test_set(row, reduced))].append((row, reduced))
    for (_, _, name), members in sets.items():
        points, draws = draw(
            [reduced for _, reduced in members], n_resamples=study.settings.resamples, seed=int(name[:12], 16)
        )
        n_groups = len(np.unique(members[0][1].groups))
        for (row, reduced), point, one in zip(members, points, draws, strict=True):
            found.drawn[row.path] = Drawn(name, float(point), one, len(reduced.example_ids), n_groups)
    return found


def _test_set(row: Row, reduced: Outcomes) -> str:
    """Name a test set by the data's fingerprint and the examples in it: hexadecimal, so that it is a seed as well."""
    parts = [row.text("data", "fingerprint"), *reduced.example_ids.tolist(), *reduced.groups.tolist()]
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()


def _stacked(side: list[Drawn]) -> tuple[Floats, Floats]:
    return np.array([one.point for one in side]), np.stack([one.draws for one in side])
