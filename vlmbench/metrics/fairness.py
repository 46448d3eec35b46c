"""A metric by subgroup of patients, the gap between subgroups, and how large a gap noise alone would make.

The largest of several noisy numbers minus the smallest is above 0 even where all are truly equal, the more so the
smaller the subgroups. Three things keep that honest: subgroups below a least size give no number; the interval of a gap
follows from intervals of all pairs that hold at once (max-t, Westfall & Young 1993, "Resampling-based multiple
testing", chapter 2), so that it reaches 0 where no pair is told apart; and the gap is set beside those that the same
predictions give when patients swap their subgroups (Good 2005, "Permutation, parametric and bootstrap tests").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vlmbench.metrics.bootstrap import resample
from vlmbench.metrics.draws import Outcomes
from vlmbench.metrics.parts import function, ranks, subset, support
from vlmbench.metrics.swapping import permuted_gaps, tail

Floats = NDArray[np.float64]
#: Fewest patients (groups) of a subgroup with a number, and fewest with and without the finding for a ranking.
LEAST_GROUPS, LEAST_EACH = 10, 5


@dataclass(frozen=True, slots=True)
class Subgroups:
    """A metric by subgroup, the mean over the seeds of a cell.

    Attributes:
        names: Of the S subgroups, in their order.
        n_examples: (S,) of each.
        n_groups: (S,) patients among whom the metric can vary.
        by_seed: Of each seed points (K, S), NaN where a subgroup is too small, and draws (K, S, R) on shared resamples
            of patients.
        permuted: (P,) gaps when patients swap subgroups.
    """

    names: tuple[str, ...]
    n_examples: NDArray[np.int64]
    n_groups: NDArray[np.int64]
    by_seed: tuple[Floats, Floats]
    permuted: Floats

    @property
    def points(self) -> Floats:
        """(S,) mean over seeds."""
        return np.asarray(self.by_seed[0].mean(axis=0))

    @property
    def draws(self) -> Floats:
        """(S, R) mean over seeds."""
        return np.asarray(self.by_seed[1].mean(axis=0))

    @property
    def seed_spread(self) -> Floats:
        """(S,) variance that the choice of seeds adds to the mean, without each seed's own noise of examples."""
        points, draws = self.by_seed
        n = len(points)
        if n < 2:
            return np.zeros(points.shape[1])
        own = (draws - draws.mean(axis=0)).var(axis=2, ddof=1).sum(axis=0) / (n - 1)
        return np.asarray(np.maximum(points.var(axis=0, ddof=1) - own, 0) / n)


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference between two subgroups.

    Attributes:
        value: Best minus worst.
        low: Lower end of its interval, at least 0.
        high: Upper end.
        noise: What the gap would be on average, were subgroups swapped between patients.
        p: Of a gap as large, were they.
        worst: Name of the subgroup with the smallest value.
        best: Of the one with the largest.
        worst_share: Share of the resamples in which `worst` is the smallest.
    """

    value: float
    low: float
    high: float
    noise: float
    p: float
    worst: str
    best: str
    worst_share: float


def by_subgroup(
    cells: Sequence[Outcomes],
    labels: NDArray[np.str_],
    names: Sequence[str],
    *,
    n_resamples: int,
    n_permutations: int,
    seed: int,
) -> Subgroups:
    """Compute a metric by subgroup.

    Args:
        cells: The seeds of one cell, on the same examples.
        labels: (N,) subgroup of each example, in the order of the outcomes.
        names: The subgroups to compute, in order; examples of others are left out.
        n_resamples: Bootstrap resamples of patients R.
        n_permutations: Of patients among subgroups P.
        seed: The same for all that is to be paired.
    """
    first = cells[0]
    _, codes = np.unique(first.groups, return_inverse=True)
    masks = [labels == name for name in names]
    supports = np.array([min(support(subset(cell, mask)) for cell in cells) for mask in masks])
    usable = [
        len(np.unique(codes[mask])) >= LEAST_GROUPS and enough >= (LEAST_EACH if ranks(first) else LEAST_GROUPS)
        for mask, enough in zip(masks, supports, strict=True)
    ]
    whole = np.ones((1, len(codes)))
    functions = [
        [function(subset(cell, mask)) if ok else None for mask, ok in zip(masks, usable, strict=True)] for cell in cells
    ]

    def all_of(weights: Floats) -> Floats:
        """(R, N) -> (K, S, R)."""
        rows = [
            [
                np.full(len(weights), np.nan) if f is None else f(weights[:, mask])
                for f, mask in zip(row, masks, strict=True)
            ]
            for row in functions
        ]
        return np.array(rows)

    points = all_of(whole)[:, :, 0]
    parts = [all_of(weights) for weights in resample(codes, n_resamples, seed)]
    draws = np.concatenate([*parts, np.zeros((len(cells), len(names), 0))], axis=2)
    kept = [name for name, ok in zip(names, usable, strict=True) if ok]
    permuted = permuted_gaps(cells, labels, kept, codes, n_permutations, seed) if len(kept) > 1 else np.zeros(0)
    return Subgroups(
        names=tuple(names),
        n_examples=np.array([int(mask.sum()) for mask in masks]),
        n_groups=supports,
        by_seed=(points, draws),
        permuted=permuted,
    )


def gap(found: Subgroups, *, confidence: float = 0.95) -> Gap | None:
    """Return the gap between the best and the worst subgroup; None where fewer than two have a number."""
    usable = np.flatnonzero(~np.isnan(found.points))
    if len(usable) < 2:
        return None
    points, draws = found.points[usable], found.draws[usable]
    draws = draws[:, ~np.isnan(draws).any(axis=0)]
    worst, best = int(points.argmin()), int(points.argmax())
    value = float(points[best] - points[worst])
    low = high = float("nan")
    if draws.shape[1] > 1:
        left, right = np.triu_indices(len(usable), 1)
        differences, drawn = points[left] - points[right], draws[left] - draws[right]
        spread = found.seed_spread[usable]
        # As elsewhere, Student's t: of few patients the draws' own distribution is too narrow. Their variance is not: a
        # resample of all patients varies the size of a subgroup as well.
        degrees = found.n_groups[usable] - 1.0
        few = np.minimum(degrees[left], degrees[right])
        tail_area = (1 - confidence) / 2
        wider = stats.t.isf(tail_area, few) / stats.norm.isf(tail_area)
        se = np.sqrt(drawn.var(axis=1, ddof=1) + spread[left] + spread[right])
        known = se > 0
        if known.any():
            off = np.abs(drawn[known] - differences[known, None]) / se[known, None]
            reach = float(np.quantile(off.max(axis=0), confidence)) * wider * se
            low = float(np.maximum(np.abs(differences) - reach, 0).max())
            high = float((np.abs(differences) + reach).max())
    names = [found.names[place] for place in usable]
    return Gap(
        value=value,
        low=low,
        high=high,
        noise=float(found.permuted.mean()) if found.permuted.size else float("nan"),
        p=tail(value, found.permuted),
        worst=names[worst],
        best=names[best],
        worst_share=float((draws.argmin(axis=0) == worst).mean()) if draws.shape[1] else float("nan"),
    )


def rates(one: Outcomes) -> dict[str, Outcomes]:
    """Return true- and false-positive rate of a binary task at its decision, whose gaps are those of equalised odds.

    Hardt, Price & Srebro 2016, "Equality of opportunity in supervised learning". Empty for other tasks.
    """
    task = one.columns
    if task is None or task.truth.shape[1] != 1:
        return {}
    decided, truth = task.predicted[:, 0].astype(np.float64), task.truth[:, 0]
    return {
        "tpr": replace(one, metric="tpr", values=np.where(truth, decided, np.nan), columns=None),
        "fpr": replace(one, metric="fpr", values=np.where(truth, np.nan, decided), columns=None),
    }
