"""Is one side better, worse, or equivalent? A contrast tested on one t distribution.

Interval, test and equivalence are read off the same distribution, so that they never contradict each other. Its degrees
of freedom are Satterthwaite's (1946, Biometrics Bulletin 2:110-114) of everything that adds variance: each test set and
each side's seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from vlmbench.metrics.contrasts import Contrast, SeedNoise, average, contrast

__all__ = ["Contrast", "Difference", "SeedNoise", "assess", "average", "contrast", "holm", "within_unit"]

Floats = NDArray[np.float64]

# Test sets are not thought of as growing beyond this many times their size.
_GROWTH = 1e6


@dataclass(frozen=True, slots=True)
class Difference:
    """A tested difference, in the metric's unit.

    Attributes:
        estimate: Left minus right.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
        se: Standard error.
        df: Degrees of freedom.
        p: Two-sided p-value of no difference.
        p_equivalent: p-value of the two one-sided tests (Schuirmann 1987): that it is outside the margin.
        detectable: Smallest true difference that this test finds with the asked power, from the noncentral t.
        groups_needed: Groups with which the test would find a difference as large as the margin with the asked
            power, all test sets growing alike and `n_groups` to this; infinite where seeds alone make too much noise.
        n_groups: Groups that were resampled; of the smallest test set where there are several.
        single_seed: Whether the noise of seeds is left out, for want of a second one.
        reason: Why there is no test; empty where there is one.
        seed_freedom: Degrees of freedom behind the noise of seeds, of all sides together; 0 where there is none.
    """

    estimate: float
    low: float
    high: float
    se: float
    df: float
    p: float
    p_equivalent: float
    detectable: float
    groups_needed: float
    n_groups: int
    single_seed: bool
    reason: str = ""
    seed_freedom: float = 0.0


def assess(one: Contrast, *, margin: float, confidence: float = 0.95, power: float = 0.8) -> Difference:
    """Test a contrast.

    Args:
        one: The contrast.
        margin: Largest difference that does not matter, above 0, in the metric's unit.
        confidence: Of the interval.
        power: Of the smallest detectable difference.
    """
    resampled = [(term.variance, term.freedom) for term in one.terms.values()]
    if math.isnan(one.estimate) or any(math.isnan(variance) for variance, _ in resampled):
        return _untested(one, "fewer than two groups hold what the metric needs")
    variance, df = _variance(resampled, one, 1)
    if variance <= 1e-24:
        return _untested(one, "it is the same in every resample")
    se = math.sqrt(variance)
    reach = float(special.stdtrit(df, (1 + confidence) / 2))

    def excess(log_growth: float) -> float:
        """Log of the detectable difference over the margin, were every test set so much larger."""
        grown, freedom = _variance(resampled, one, math.exp(log_growth))
        return math.log(_noncentrality(freedom, confidence, power) * math.sqrt(grown) / margin)

    ends = (-math.log(_GROWTH), math.log(_GROWTH))
    growth = math.inf
    if excess(ends[1]) < 0:
        growth = math.exp(optimize.brentq(excess, *ends, xtol=1e-3)) if excess(ends[0]) > 0 else 0.0
    return Difference(
        estimate=one.estimate,
        low=one.estimate - reach * se,
        high=one.estimate + reach * se,
        se=se,
        df=df,
        p=2 * float(special.stdtr(df, -abs(one.estimate) / se)),
        p_equivalent=float(special.stdtr(df, (abs(one.estimate) - margin) / se)),
        detectable=_noncentrality(df, confidence, power) * se,
        groups_needed=one.n_groups * growth,
        n_groups=one.n_groups,
        single_seed=one.single_seed,
        seed_freedom=math.fsum(side.freedom for side in one.seed_noise if side.coefficient),
    )


def within_unit(level: Difference) -> Difference:
    """Return a metric that was tested against nothing with an interval inside [0, 1]: on the logit scale, as records'.

    See `bootstrap`: of one cell it is the interval that its record holds, but for the number of resamples.
    """
    if math.isnan(level.low) or not 0 < level.estimate < 1:
        return level
    centre = special.logit(level.estimate)
    reach = (level.high - level.estimate) / (level.estimate * (1 - level.estimate))
    return replace(level, low=float(special.expit(centre - reach)), high=float(special.expit(centre + reach)))


def holm(p_values: Sequence[float]) -> Floats:
    """Return p-values corrected by Holm (1979, Scand J Stat 6:65-70); NaN stays NaN and counts for nothing."""
    values = np.asarray(p_values, dtype=np.float64)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return out


def _variance(resampled: Sequence[tuple[float, float]], one: Contrast, growth: float) -> tuple[float, float]:
    """Variance and Satterthwaite's degrees of freedom, were every test set `growth` times as large."""
    groups = [(variance / growth, max(freedom * growth, min(freedom, 1.0))) for variance, freedom in resampled]
    spreads = [
        (side.coefficient**2 * (side.spread - side.own + side.own / growth), side.freedom)
        for side in one.seed_noise
        if side.coefficient
    ]
    total = math.fsum(variance for variance, _ in groups) + one.seed_variance
    parts = [(variance, freedom) for variance, freedom in (*groups, *spreads) if variance > 0]
    if not parts:
        return total, math.inf
    df = total**2 / math.fsum(variance**2 / freedom for variance, freedom in parts)
    # Less than the least cannot be; it comes of what was taken off the seeds.
    return total, max(df, min(freedom for _, freedom in parts))


def _noncentrality(df: float, confidence: float, power: float) -> float:
    """Difference in standard errors that a two-sided t test finds with this power."""
    critical = float(special.stdtrit(df, (1 + confidence) / 2))
    if critical > 50:
        # Only the estimated error varies then; scipy's inverse takes minutes there, or never ends.
        return critical * math.sqrt(float(special.chdtri(df, 1 - power)) / df)
    return float(special.nctdtrinc(min(df, 1e6), 1 - power, critical))


def _untested(one: Contrast, reason: str) -> Difference:
    nothing = math.nan
    return Difference(
        estimate=one.estimate,
        low=nothing,
        high=nothing,
        se=nothing,
        df=nothing,
        p=nothing,
        p_equivalent=nothing,
        detectable=nothing,
        groups_needed=nothing,
        n_groups=one.n_groups,
        single_seed=one.single_seed,
        reason=reason,
    )
