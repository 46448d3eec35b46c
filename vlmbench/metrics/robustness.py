"""Effective robustness: how far a model holds elsewhere beyond what its score at home foretells.

Taori et al. 2020, "Measuring robustness to natural distribution shifts in image classification", NeurIPS, arXiv
2007.00644: over many models the metric under a shift is close to a straight line in the metric without it, both as
logits. What a model has above that line, in the metric's own unit, is its effective robustness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
#: Points that a line needs, beside the one that is read against it.
LEAST_POINTS = 4
#: Least range of the logits at home: a line through points at one place has no slope.
LEAST_RANGE = 0.2


@dataclass(frozen=True, slots=True)
class Trend:
    """The line, and what each model has above it.

    Attributes:
        slope: Of logits on logits; NaN where there is no line.
        intercept: The same.
        above: (P,) in the metric's unit; NaN for a point without enough others.
        draws: (P, R) the same under each resample, with the line fitted anew.
        reason: Why there is no line; empty where there is one.
    """

    slope: float
    intercept: float
    above: Floats
    draws: Floats
    reason: str = ""


def effective(home: tuple[Floats, Floats], away: tuple[Floats, Floats], baseline: NDArray[np.bool_], n: int) -> Trend:
    """Fit the line over the baseline and read every model against it, one of the baseline against the others.

    Args:
        home: Metric in distribution, points (P,) and draws (P, R), within 0 and 1.
        away: The same under the shift.
        baseline: (P,) the models that make the line.
        n: Test examples; scores of 0 and 1 count as half an example away from them.
    """
    edge = 0.5 / max(n, 1)
    x, x_draws, y, y_draws = (logit(np.clip(values, edge, 1 - edge)) for values in (*home, *away))
    usable = baseline & np.isfinite(x) & np.isfinite(y)
    nothing = np.full(x_draws.shape, np.nan)
    reason = ""
    if usable.sum() < LEAST_POINTS:
        reason = f"{int(usable.sum())} of the at least {LEAST_POINTS} models that a line needs"
    elif np.ptp(x[usable]) < LEAST_RANGE:
        reason = "the models that make the line are too alike at home for it to have a slope"
    if reason:
        return Trend(
            float("nan"), float("nan"), nothing[:, 0] if nothing.size else np.full(len(x), np.nan), nothing, reason
        )
    slope, intercept = (float(value[0]) for value in _fit(x[:, None], y[:, None], usable))
    above, draws = np.full(len(x), np.nan), nothing
    for place in range(len(x)):
        others = usable & (np.arange(len(x)) != place)
        if others.sum() < LEAST_POINTS or np.ptp(x[others]) < LEAST_RANGE:
            continue
        for scores, told, out in ((x[:, None], y[:, None], above[:, None]), (x_draws, y_draws, draws)):
            b, a = _fit(scores, told, others)
            out[place] = expit(told[place]) - expit(a + b * scores[place])
    return Trend(slope, intercept, above, draws)


def _fit(x: Floats, y: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Least squares over the chosen of (P, R), for each column: slope (R,) and intercept (R,)."""
    x, y = x[chosen], y[chosen]
    centred = x - x.mean(axis=0)
    spread = (centred**2).sum(axis=0)
    slope = np.divide((centred * y).sum(axis=0), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    return slope, y.mean(axis=0) - slope * x.mean(axis=0)
