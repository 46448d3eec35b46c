"""Is one side better, worse, or equivalent? Differences from paired draws, with seeds and resampling in one interval.

The estimate is the mean over the seeds of one side minus that of the other. Its variance has two parts: that of the
resampled groups, from paired draws, and that of the seeds, from their spread. They add; the degrees of freedom are
Satterthwaite's (1946, Biometrics Bulletin 2:110-114). Interval, test and equivalence are read off one t distribution,
so that they never contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference before it is tested; contrasts average to contrasts.

    Attributes:
        estimate: Left minus right.
        draws: (R,) the same under each resample of groups; NaN where undefined.
        n_groups: Groups that were resampled.
        seed_parts: Of each source of seed noise (variance of the estimate that it adds, degrees of freedom).
        single_seed: Whether some trained side ran one seed alone, so that its seed noise is not known.
    """

    estimate: float
    draws: Floats
    n_groups: int
    seed_parts: tuple[tuple[float, float], ...] = ()
    single_seed: bool = False


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
        detectable: Smallest true difference that this test finds with the asked power.
        groups_needed: Groups that the test would need to find a difference as large as the margin; infinite where
            seeds alone make more noise than that.
        n_groups: Groups that were resampled.
        single_seed: Whether the noise of seeds is left out, for want of a second one.
        reason: Why there is no test; empty where there is one.
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


def contrast(
    left: tuple[Floats, Floats], right: tuple[Floats, Floats], *, n_groups: int, seeded: tuple[bool, bool]
) -> Contrast:
    """Contrast two sides of the same examples.

    Args:
        left: Points (K,) and draws (K, R) of the seeds of one side, as `draws.draw` gives them.
        right: The same of the other, on the same resamples.
        n_groups: Groups that were resampled.
        seeded: Of each side, whether another seed could give another result.
    """
    parts = []
    for points, _ in (left, right):
        if len(points) > 1:
            parts.append((float(np.var(points, ddof=1)) / len(points), float(len(points) - 1)))
    single = any(varies and len(points) == 1 for (points, _), varies in zip((left, right), seeded, strict=True))
    return Contrast(
        estimate=float(left[0].mean() - right[0].mean()),
        draws=left[1].mean(axis=0) - right[1].mean(axis=0),
        n_groups=n_groups,
        seed_parts=tuple(part for part in parts if part[0] > 0),
        single_seed=single,
    )


def average(contrasts: Sequence[Contrast]) -> Contrast:
    """Average contrasts with equal weight; draws of the same data set must be of the same resamples.

    The seeds of different contrasts are taken as independent.
    """
    n = len(contrasts)
    return Contrast(
        estimate=math.fsum(one.estimate for one in contrasts) / n,
        draws=np.mean([one.draws for one in contrasts], axis=0),
        n_groups=min(one.n_groups for one in contrasts),
        seed_parts=tuple((variance / n**2, df) for one in contrasts for variance, df in one.seed_parts),
        single_seed=any(one.single_seed for one in contrasts),
    )


def assess(one: Contrast, *, margin: float, confidence: float = 0.95, power: float = 0.8) -> Difference:
    """Test a contrast.

    Args:
        one: The contrast.
        margin: Largest difference that does not matter, above 0, in the metric's unit.
        confidence: Of the interval.
        power: Of the smallest detectable difference.
    """
    draws = one.draws[~np.isnan(one.draws)]
    if one.n_groups < 2 or len(draws) < 2 or math.isnan(one.estimate):
        return _untested(one, "fewer than two groups hold what the metric needs")
    of_groups = float(np.var(draws, ddof=1))
    parts = [(of_groups, float(one.n_groups - 1)), *one.seed_parts]
    variance = math.fsum(part for part, _ in parts)
    if variance <= 1e-24:
        return _untested(one, "the difference is the same in every resample")
    df = variance**2 / math.fsum(part**2 / freedom for part, freedom in parts)
    se = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + confidence) / 2, df))
    needs = reach + float(stats.t.ppf(power, df))
    of_seeds = math.fsum(part for part, _ in one.seed_parts)
    room = (margin / needs) ** 2 - of_seeds
    return Difference(
        estimate=one.estimate,
        low=one.estimate - reach * se,
        high=one.estimate + reach * se,
        se=se,
        df=df,
        p=2 * float(stats.t.sf(abs(one.estimate) / se, df)),
        p_equivalent=float(stats.t.sf((margin - abs(one.estimate)) / se, df)),
        detectable=needs * se,
        groups_needed=one.n_groups * of_groups / room if room > 0 else math.inf,
        n_groups=one.n_groups,
        single_seed=one.single_seed,
    )


def holm(p_values: Sequence[float]) -> Floats:
    """Return p-values corrected by Holm (1979, Scand J Stat 6:65-70); NaN stays NaN and counts for nothing."""
    values = np.asarray(p_values, dtype=np.float64)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return out


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
