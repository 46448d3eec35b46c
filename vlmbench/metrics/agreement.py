"""How far two ratings of the same answers agree: share of equal ones and Cohen's kappa, with clustered intervals.

Kappa has quadratic weights (Cohen 1968, Psychological Bulletin 70:213-220). In terms of the ratings x and y it is
1 - E[(x-y)^2] / (E[x^2] + E[y^2] - 2 E[x] E[y]), so that a resample of groups takes six sums and no table. Of two
values it is Cohen's kappa itself (1960). `sklearn.metrics.cohen_kappa_score(weights="quadratic")` gives the same for
equally spaced ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmbench.metrics.bootstrap import intervals

Floats = NDArray[np.float64]


def agreement(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[Any] | NDArray,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two ratings of N answers; those that lack one of the two are left out.

    Args:
        first: (N,) ratings, NaN where there is none.
        second: (N,) the same, by another rater or asked in another way.
        groups: (N,) the unit that is resampled.
        n_resamples: Number of resamples.
        confidence: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        `n`: number of answers with both; `equal`, `kappa` and `shift` (mean of second minus first): each as
        `bootstrap.intervals` gives a metric. Kappa is NaN where both ratings are one and the same constant. Only `n`
        where it is 0.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    both = ~np.isnan(x) & ~np.isnan(y)
    if not both.any():
        return {"n": 0}
    x, y = x[both], y[both]
    names, codes = np.unique(np.asarray(groups, dtype=str)[both], return_inverse=True)
    columns = np.stack([np.ones_like(x), x == y, x, y, x * x, y * y, x * y], axis=1)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, codes, columns)

    def statistics(weights: Floats) -> dict[str, Floats]:
        n, equal, *moments = (weights @ sums).T
        mean_x, mean_y, square_x, square_y, product = (moment / n for moment in moments)
        apart = square_x + square_y - 2 * product
        by_chance = square_x + square_y - 2 * mean_x * mean_y
        # Below: what rounding leaves of nothing.
        defined = by_chance > 1e-12
        kappa = 1 - np.divide(apart, by_chance, out=np.full(n.shape, np.nan), where=defined)
        return {"equal": equal / n, "kappa": (1 + kappa) / 2, "shift": (1 + mean_y - mean_x) / 2}

    found = intervals(statistics, names, n_resamples=n_resamples, confidence=confidence, seed=seed)["metrics"]
    return {"n": int(both.sum()), **found, **{name: _signed(found[name]) for name in ("kappa", "shift")}}


def _signed(share: dict[str, Any]) -> dict[str, Any]:
    """Return what lies in [-1, 1] from its place in [0, 1], in which intervals are made."""
    value, low, high = (2 * share[name] - 1 for name in ("value", "low", "high"))
    if high - low > 1e-12 or "reason" in share:
        return share | {"value": value, "low": low, "high": high}
    nothing = float("nan")
    return share | {"value": value, "low": nothing, "high": nothing, "reason": "it is the same in every resample"}
